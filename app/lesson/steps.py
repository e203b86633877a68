"""The steps of the lesson in their order, and by which rule each chooses the set that shows its point."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import controls
import plotly.graph_objects as go

from ama_core.evaluation import cases
from lesson import band, cause, hope, limits, others, overlap, parts, quiz, surprise, threshold
from lesson.case import Case


@dataclass(frozen=True)
class Step:
    """One step of the lesson.

    Attributes:
        title: its heading. show: draws it. take_away: its last sentence, computed. figure: its chart, None where it has none.
        choose: AUROCs of every measured set -> the set that shows the point. why: by which rule, in words after the set's name.
        hidden: whether the take-away would give something away yet. of_set: whether the set that is chosen above it matters.
    """

    title: str
    show: Callable[[Case], None]
    take_away: Callable[[Case], str]
    figure: Callable[[Case], go.Figure] | None
    choose: Callable[[Mapping], str]
    why: Callable[[Case], str]
    hidden: Callable[[Case], bool] = lambda case: False
    of_set: bool = True


def hopeful(aurocs: Mapping) -> str:
    return cases.hope_set(aurocs, controls.HOPEFUL)


def failing(aurocs: Mapping) -> str:
    return cases.failure_set(aurocs, controls.FAILING)


def why_hope(case: Case) -> str:
    best = max(values["R"] for values in case.aurocs.values())
    r, n = case.auroc["R"], len(case.aurocs)
    if r == best:
        return f"the set with the highest AUROC of R, {r:.3f}, of the {n} measured ones"
    return f"an example on which R works: its AUROC is {r:.3f} (the highest of the {n} measured sets is {best:.3f})"


def why_failure(case: Case) -> str:
    r, pair = case.auroc["R"], (case.own.name, case.other.name)
    absent = "" if "svhn" in (*pair, *case.aurocs) else "; the paper's own example, SVHN, was not measured with this model"
    if pair[1] in controls.FAILING and r < 0.5 - cases.NEAR_CHANCE:
        if pair == parts.PAPERS_FAILURE:
            return f"the paper's own example of a raw score that fails: the AUROC of R is {r:.3f}"
        return f"the set of the paper's own example, on which R fails with this model as well: its AUROC is {r:.3f}"
    worst = f"the set with the lowest AUROC of R, {r:.3f}, of the {len(case.aurocs)} measured ones"
    return worst + ("" if r < 0.5 else ", although even that is not below chance (0.5)") + absent


def why_band(case: Case) -> str:
    more = case.auroc["A"] - case.auroc["R"]
    if more <= 0:
        return f"the set on which A loses least against R ({abs(more):.3f} of AUROC); it gains on none"
    return f"the set on which the AUROC of A exceeds that of R by most, {more:.3f}"


def why_overlap(case: Case) -> str:
    r = case.auroc["R"]
    near = "near" if abs(r - 0.5) <= cases.NEAR_CHANCE else "though not near"
    return (
        "the set with the largest gain of M or T over R and A, less the distance of R's AUROC from chance (0.5): gain "
        f"{cases.gain(case.auroc):.3f}, R {r:.3f}, {near} chance"
    )


def why_limit(case: Case) -> str:
    return f"the set on which the best of all scores is lowest, {max(case.auroc.values()):.3f}"


STEPS = {
    "Hope": Step("What reconstruction error hopes for", hope.show, hope.take_away, hope.figure, hopeful, why_hope),
    "Surprise": Step(
        "The surprise",
        surprise.show,
        surprise.take_away,
        surprise.figure,
        failing,
        why_failure,
        hidden=lambda case: not surprise.guessed(case),
    ),
    "Cause": Step("Make it fail yourself", cause.show, cause.take_away, cause.figure, failing, why_failure, of_set=False),
    "Threshold": Step("A line on R", threshold.show, threshold.take_away, threshold.figure, failing, why_failure),
    "Band": Step("Two sides: the A-score", band.show, band.take_away, band.figure, cases.band_set, why_band),
    "Overlap": Step("When even that fails", overlap.show, overlap.take_away, overlap.figure, cases.overlap_set, why_overlap),
    "Limits": Step("Where nothing works", limits.show, limits.take_away, limits.figure, cases.limit_set, why_limit),
    "Others": Step(
        "Nine other ways to be fooled",
        others.show,
        others.take_away,
        others.figure,
        failing,
        why_failure,
        of_set=False,
    ),
    "Quiz": Step("What have we learned?", quiz.show, quiz.take_away, None, failing, why_failure),
}


def label(case: Case, step: str) -> str:
    """That the set was chosen, and by which rule."""
    return f"Chosen for this step: {case.title}, {STEPS[step].why(case)}."
