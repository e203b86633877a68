"""What the tables say: two figures of every cell compared, which is ahead where, and what each ablation comes to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats

from ama_core.evaluation.metrics import auroc_interval
from ama_core.paper import published as paper
from ama_core.paper.rows import ROWS
from ama_core.paper.tables import Line

ALIKE = 0.01  # AUROCs that differ by less are called alike
LEVEL = 0.95  # of the interval of an ablation
CONFIRMS, CONTRADICTS, CANNOT_TELL = "confirms the paper", "contradicts the paper", "cannot tell"


@dataclass(frozen=True)
class Pair:
    """Two AUROCs of one cell; `of`: what the first one is called where that differs from cell to cell."""

    line: Line
    first: float
    second: float
    of: str = ""

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
    """What a part of AMA adds to the AUROC by A, here and in the paper: AMA minus AMA without it.

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
        """Student's t interval of the mean difference at LEVEL, seeds paired; None of one seed."""
        n = len(self.added)
        if n < 2:
            return None
        half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * stdev(self.added) / n**0.5
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        """CONFIRMS where the interval lies on the paper's side of 0, CONTRADICTS where it lies on the other, else CANNOT_TELL.

        Where the paper's figures are alike (see ALIKE) it confirms them by lying within ALIKE of 0, and contradicts them by
        lying outside. Empty where the paper has no figures.
        """
        if self.paper is None:
            return ""
        if self.interval is None:
            return CANNOT_TELL
        low, high = self.interval
        if abs(self.paper) < ALIKE:
            within, outside = low > -ALIKE and high < ALIKE, low > ALIKE or high < -ALIKE
        else:
            within, outside = (low > 0, high < 0) if self.paper > 0 else (high < 0, low > 0)
        return CONFIRMS if within else CONTRADICTS if outside else CANNOT_TELL

    def __str__(self) -> str:
        """The mean difference, and its interval or that there is one seed."""
        said = f"{self.mean:.3f}" + (" (one seed)" if self.interval is None else " ({:.3f} to {:.3f})".format(*self.interval))
        return said.replace("-", "−")  # with an ASCII minus in front, a spreadsheet would take it for a formula


def ablation(line: Line, whole: Sequence[Line]) -> Ablation | None:
    """What the part adds that `line` is without; None where no line of AMA in `whole` was trained alike, seed for seed.

    Trained alike are stored trainings of one condition, and models whose settings differ in nothing but the part.

    Raises ValueError where the line is none of the paper's ablations.
    """
    if line.row not in paper.ABLATIONS:
        raise ValueError(f"{line.row} is no ablation of the paper's.")
    twin = next((other for other in whole if other.ours and line.ours and _twins(line, other)), None)
    if twin is None:
        return None
    without = _by_seed(line, "R" if line.row == paper.WITHOUT_A else "A")
    with_it = _by_seed(twin, "A")
    seeds = sorted(without.keys() & with_it.keys())
    if not seeds:
        return None
    known = paper.table1(line.normal, paper.paper_name(line.ood))
    theirs = None if known is None or line.paper is None else known - line.paper
    return Ablation(line, tuple(with_it[seed] - without[seed] for seed in seeds), theirs)


def ablations(lines: Sequence[Line], whole: Sequence[Line]) -> list[Ablation]:
    """Of every cell the first line, as the tables order them, of which there is something to say."""
    found: dict[tuple, Ablation] = {}
    for line in lines:
        if told := ablation(line, whole):
            found.setdefault(_cell(line), told)
    return list(found.values())


def _by_seed(line: Line, score: str) -> dict[int, float]:
    return {member.seed: member.found.scores[score]["auroc"] for member in line.members}


def first_of_each(lines: Sequence[Line]) -> list[Line]:
    """Of every cell the first line that was measured, as the tables order them: never chosen by its figure."""
    found: dict[tuple, Line] = {}
    for line in lines:
        if line.ours:
            found.setdefault((line.normal, line.label, line.classes, line.ood), line)
    return list(found.values())


def interval(line: Line, score: str) -> tuple[float, float]:
    """Of one training its 95 % interval over the drawing of the images, of several the mean -+ the standard deviation."""
    value, sd = line.auroc(score)
    if sd is not None:
        return value - sd, value + sd
    return auroc_interval(value, line.n_normal, line.n_ood) if line.n_normal and line.n_ood else (value, value)


def a_against_r(lines: Sequence[Line]) -> Comparison:
    """A and R of the same models."""
    return _over(lines, lambda line: (line.auroc("A")[0], line.auroc("R")[0]))


def ours_against_paper(lines: Sequence[Line]) -> Comparison:
    """Our A and the paper's figure, where it has one."""
    return _over([line for line in lines if line.paper is not None], lambda line: (line.auroc("A")[0], line.paper))


def simple_against_ama(lines: Sequence[Line]) -> Comparison:
    """The best of the trivial baselines that were stored beside a training, and the better of its A and T."""
    pairs = []
    for line in lines:
        if line.simple:
            name = max(line.simple, key=lambda key: line.simple[key][0])
            pairs.append(Pair(line, line.simple[name][0], max(line.auroc(by)[0] for by in ("A", "T")), name))
    return Comparison(tuple(pairs))


def _twins(without: Line, whole: Line) -> bool:
    """Whether a line of AMA without a part and one of AMA were trained alike but for that part."""
    if _cell(without) != _cell(whole) or bool(without.records) != bool(whole.records):
        return False
    if without.records:
        return without.condition == whole.condition
    one, other = without.members[0], whole.members[0]
    changed = ROWS[without.row].changes if without.row in ROWS else {}
    settings = other.spec.config.replace(**changed)
    alike = paper.seedless(one.spec.config) == paper.seedless(settings)
    return alike and one.training.get("steps") == other.training.get("steps")


def _cell(line: Line) -> tuple:
    return line.normal, line.label, line.classes, line.ood


def _over(lines: Sequence[Line], figures: Callable[[Line], tuple[float, float]]) -> Comparison:
    return Comparison(tuple(Pair(line, *figures(line)) for line in first_of_each(lines)))
