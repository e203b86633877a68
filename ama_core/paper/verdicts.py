"""What the tables say: two figures of every cell compared, which is ahead where, and what each ablation comes to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean, stdev

from scipy import stats

from ama_core.paper import published as paper
from ama_core.paper.rows import ROWS, SIMPLE
from ama_core.paper.tables import Line, Member

ALIKE = 0.01  # AUROCs that differ by less are called alike
LEVEL = 0.95  # of the interval of an ablation
FEWEST = 3  # seeds from which an interval is taken
CONFIRMS, CONTRADICTS, CANNOT_TELL = "confirms the paper", "contradicts the paper", "cannot tell"


@dataclass(frozen=True)
class Pair:
    """Two AUROCs of one cell."""

    line: Line
    first: float
    second: float

    @property
    def ahead(self) -> int:
        """1 where the first figure is ahead, -1 where the second is, 0 where they differ by less than ALIKE."""
        difference = self.first - self.second
        return 0 if abs(difference) < ALIKE else 1 if difference > 0 else -1


@dataclass(frozen=True)
class Comparison:
    """Two figures compared over cells, in the order of the table."""

    pairs: tuple[Pair, ...]

    def where(self, ahead: int) -> list[Pair]:
        """The cells in which the first (1) or the second (-1) figure is ahead, or neither (0)."""
        return [pair for pair in self.pairs if pair.ahead == ahead]


@dataclass(frozen=True)
class Ablation:
    """What a part of AMA adds to the AUROC by one score, here and, by A, in the paper: AMA minus AMA without it.

    Attributes:
        line: AMA without the part (without the A-score: its figures by R).
        added: the difference of every seed that was trained both ways, in order of the seeds.
        paper: the paper's difference; None where it has no such figures.
    """

    line: Line
    added: tuple[float, ...]
    paper: float | None

    @property
    def mean(self) -> float:
        return fmean(self.added)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's t interval of the mean difference at LEVEL, seeds paired; None of fewer than FEWEST seeds."""
        n = len(self.added)
        if n < FEWEST:
            return None
        half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * stdev(self.added) / n**0.5
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        """CONFIRMS, CONTRADICTS or CANNOT_TELL; empty where the paper has no figures.

        A difference is a gain above ALIKE, a loss below -ALIKE, and none between. An interval that lies within what the paper
        has confirms it, one that lies outside contradicts it.
        """
        if self.paper is None:
            return ""
        if self.interval is None:
            return CANNOT_TELL
        regions = ((-inf, -ALIKE), (-ALIKE, ALIKE), (ALIKE, inf))
        below, above = next((low, high) for low, high in regions if low <= self.paper <= high)
        low, high = self.interval
        if below <= low and high <= above:
            return CONFIRMS
        return CONTRADICTS if high < below or low > above else CANNOT_TELL

    def __str__(self) -> str:
        """The mean difference with its interval, or of how few seeds it is."""
        if self.interval:
            return "{} ({} to {})".format(*map(signed, (self.mean, *self.interval)))
        n = len(self.added)
        return f"{signed(self.mean)} ({n} seed{'s' * (n > 1)})"


def signed(value: float) -> str:
    """A difference of AUROCs, with the typographic minus: text that no spreadsheet takes for a formula."""
    said = f"{value:.3f}"
    return said.replace("-", "−") if float(said) else said.lstrip("-")


def ablation(line: Line, whole: Sequence[Line], by: str = "A") -> Ablation | None:
    """What the part adds that `line` is without; None where no line of AMA in `whole` was trained alike, seed for seed.

    Trained alike are stored trainings of one condition, and models that differ in nothing but the part. Of several such lines
    of AMA the one with the most seeds in common counts. Without the A-score the models are the same, so only A has something to
    add. The paper's figures are by A.

    Raises ValueError where the line is none of the paper's ablations.
    """
    if line.row not in paper.ABLATIONS:
        raise ValueError(f"{line.row} is no ablation of the paper's.")
    if line.row == paper.WITHOUT_A:
        added = [_auroc(member, "A") - _auroc(member, "R") for member in _in_order(line)] if by == "A" else []
    else:
        added = max((_differences(line, other, by) for other in whole if other.row == paper.AMA), key=len, default=[])
    if not added:
        return None
    known = paper.table1(line.normal, paper.paper_name(line.ood)) if by == "A" else None
    theirs = None if known is None or line.paper is None else round(known - line.paper, 3)
    return Ablation(line, tuple(added), theirs)


def ablations(lines: Sequence[Line], whole: Sequence[Line]) -> list[Ablation]:
    """Of every cell the line with the most seeds; of several such the first, as the tables order them: never by its figure."""
    found: dict[tuple, Ablation] = {}
    for line in lines:
        told = ablation(line, whole)
        if told and (line.cell not in found or len(told.added) > len(found[line.cell].added)):
            found[line.cell] = told
    return list(found.values())


def _differences(without: Line, whole: Line, by: str) -> list[float]:
    """AUROC of AMA minus that without a part, of every seed that was trained alike both ways."""
    if without.cell != whole.cell or bool(without.records) != bool(whole.records):
        return []
    with_part = {member.seed: member for member in whole.members}
    pairs = [(with_part[member.seed], member) for member in _in_order(without) if member.seed in with_part]
    return [_auroc(one, by) - _auroc(other, by) for one, other in pairs if _alike_but_for(without.row, one, other)]


def _alike_but_for(row: str, whole: Member, without: Member) -> bool:
    """Whether AMA and AMA without the part of a row were trained alike but for that part."""
    if without.record and whole.record:
        return without.condition == whole.condition
    settings = whole.spec.config.replace(**ROWS[row].changes)
    return (settings, whole.asked, whole.training.get("steps")) == (
        without.spec.config,
        without.asked,
        without.training.get("steps"),
    )


def _in_order(line: Line) -> list[Member]:
    return sorted(line.members, key=lambda member: member.seed)


def _auroc(member: Member, score: str) -> float:
    return member.found.scores[score]["auroc"]


def with_most_seeds(lines: Sequence[Line]) -> list[Line]:
    """Of every cell the measured line with the most seeds; of several such the first of the table: never by its figure."""
    found: dict[tuple, Line] = {}
    for line in lines:
        if line.ours and (line.cell not in found or len(line.members) > len(found[line.cell].members)):
            found[line.cell] = line
    return list(found.values())


def a_against_r(lines: Sequence[Line]) -> Comparison:
    """A and R of the same models."""
    return _over(lines, lambda line: (line.auroc("A")[0], line.auroc("R")[0]))


def ours_against_paper(lines: Sequence[Line]) -> Comparison:
    """Our A and the paper's figure, where it has one."""
    return _over([line for line in lines if line.paper is not None], lambda line: (line.auroc("A")[0], line.paper))


def t_against_simple(lines: Sequence[Line]) -> dict[str, Comparison]:
    """T, which was named beforehand, and each of the trivial baselines stored beside the same trainings, by its name."""
    found = [line for line in with_most_seeds(lines) if line.simple]
    return {
        name: Comparison(tuple(Pair(line, line.auroc("T")[0], line.simple[name][0]) for line in found if name in line.simple))
        for name in SIMPLE
    }


def reaches_paper(line: Line, by: str) -> bool:
    """Whether our figure by a score, as it is printed, is at least the paper's."""
    return round(line.ours[by][0], 3) >= line.paper


def _over(lines: Sequence[Line], figures: Callable[[Line], tuple[float, float]]) -> Comparison:
    return Comparison(tuple(Pair(line, *figures(line)) for line in with_most_seeds(lines)))
