"""Which OOD set shows a point best, by its measured AUROCs: the cases that the lesson and other pages begin with.

Every choice is made by a rule over all measured sets, so that it can be said what was chosen and how. AUROCs are in [0, 1] and
never empty: the functions that choose raise ValueError without any set or score, and KeyError where R, A, M or T is missing.
"""

from collections.abc import Mapping, Sequence

HOLDS = 0.95  # an AUROC of R from here on: the hope behind it holds
CLEAR = 0.03  # a difference of two AUROCs from here on is called clear
NEAR_CHANCE = 0.03  # an AUROC this near to 0.5 is called chance
WORKS = 0.7  # the best score's AUROC below which nothing is said to work

Aurocs = Mapping[str, Mapping[str, float]]  # set -> score -> AUROC


def best_of(aurocs: Mapping[str, float]) -> str:
    """The score with the highest AUROC of one set. Raises ValueError where there is none."""
    return max(aurocs, key=aurocs.get)


def gain(aurocs: Mapping[str, float]) -> float:
    """By how much the better of M and T exceeds the better of R and A, from the AUROC of each. Raises KeyError without one."""
    return max(aurocs["M"], aurocs["T"]) - max(aurocs["R"], aurocs["A"])


def shows_both(aurocs: Mapping[str, float]) -> bool:
    """Whether R fails on a set, lying below chance, where M or T clearly does better than R and A."""
    return aurocs["R"] < 0.5 and gain(aurocs) > CLEAR


def hope_set(aurocs: Aurocs, first: Sequence[str] = ()) -> str:
    """Where R works: the first of `first` on which it clearly does (HOLDS), else the set with its highest AUROC."""
    for name in first:
        if name in aurocs and aurocs[name]["R"] >= HOLDS:
            return name
    return max(aurocs, key=lambda name: aurocs[name]["R"])


def failure_set(aurocs: Aurocs, first: Sequence[str] = ()) -> str:
    """Where R fails: the first of `first` on which it lies clearly below chance, else the set with its lowest AUROC."""
    for name in first:
        if name in aurocs and aurocs[name]["R"] < 0.5 - NEAR_CHANCE:
            return name
    return min(aurocs, key=lambda name: aurocs[name]["R"])


def band_set(aurocs: Aurocs) -> str:
    """Where two sides help most: the set on which the AUROC of A exceeds that of R by most."""
    return max(aurocs, key=lambda name: aurocs[name]["A"] - aurocs[name]["R"])


def overlap_set(aurocs: Aurocs) -> str:
    """Where R is near chance and M or T sees more: the largest gain of these over R and A, less the distance of R from 0.5."""
    return max(aurocs, key=lambda name: gain(aurocs[name]) - abs(aurocs[name]["R"] - 0.5))


def limit_set(aurocs: Aurocs) -> str:
    """Where nothing works: the set on which the best of all scores is lowest."""
    return min(aurocs, key=lambda name: max(aurocs[name].values()))


def telling_sets(aurocs: Aurocs, failing: Sequence[str] = (), hopeful: Sequence[str] = ()) -> list[str]:
    """Few sets that show most together: where R fails, where M or T sees more (if clearly so), and where R works.

    Args:
        failing, hopeful: which to prefer, as of `failure_set` and `hope_set`.
    """
    chosen = [failure_set(aurocs, failing)]
    if gain(aurocs[overlap_set(aurocs)]) > CLEAR:
        chosen.append(overlap_set(aurocs))
    return list(dict.fromkeys([*chosen, hope_set(aurocs, hopeful)]))


def telling_set(aurocs: Aurocs, first: Sequence[str] = ()) -> str:
    """The OOD set, by its AUROCs, that shows best why raw scores fail and what helps (`shows_both`).

    The first of `first` that does; else, of the others that do, the one with the lowest AUROC of R; where none does, the one
    with the lowest of all.
    """
    for name in first:
        if name in aurocs and shows_both(aurocs[name]):
            return name
    telling = [name for name in aurocs if shows_both(aurocs[name])]
    return min(telling or aurocs, key=lambda name: aurocs[name]["R"])
