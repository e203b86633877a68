"""What the tables say in sentences: two figures of every cell compared, and which of them is ahead where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ama_core.evaluation.metrics import auroc_interval
from ama_core.paper import published as paper
from ama_core.paper.tables import Line

ALIKE = 0.01  # AUROCs that differ by less are called alike


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


def plain_against_mirrored(plain: Sequence[Line], mirrored: Sequence[Line]) -> Comparison:
    """A of models that were trained alike but for the mirrored loss: lines of the row without it, and of AMA.

    Trained alike are stored trainings of one condition, and models whose settings differ in nothing else.
    """
    pairs = []
    for line in plain:
        twin = next((other for other in mirrored if other.ours and line.ours and _twins(line, other)), None)
        if twin and not any(_cell(pair.line) == _cell(line) for pair in pairs):
            pairs.append(Pair(line, line.auroc("A")[0], twin.auroc("A")[0]))
    return Comparison(tuple(pairs))


def _twins(plain: Line, mirrored: Line) -> bool:
    if _cell(plain) != _cell(mirrored) or bool(plain.records) != bool(mirrored.records):
        return False
    if plain.records:
        return plain.condition == mirrored.condition
    one, other = plain.members[0], mirrored.members[0]
    settings = paper.seedless(one.spec.config.replace(reconstruction="mirrored")), paper.seedless(other.spec.config)
    return settings[0] == settings[1] and one.training.get("steps") == other.training.get("steps")


def _cell(line: Line) -> tuple:
    return line.normal, line.label, line.classes, line.ood


def _over(lines: Sequence[Line], figures: Callable[[Line], tuple[float, float]]) -> Comparison:
    return Comparison(tuple(Pair(line, *figures(line)) for line in first_of_each(lines)))
