"""The paper's other methods beside ours: every published figure of a rival, and what its detector was measured to do here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ama_core.detectors.base import NormalData
from ama_core.detectors.registry import detector_class, known
from ama_core.evaluation.metrics import mean_and_sd
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.paper.records import Measured, Record
from ama_core.paper.rows import BESIDE, RIVAL_TABLES, STATUSES, status_of
from ama_core.paper.tables import MISSING, N_CLASSES, Figure, figure_interval
from ama_core.storage.bundle import FIRST, PRETRAINED, list_bundles, read_info, read_results


@dataclass(frozen=True)
class Entry:
    """What one training of a detector other than AMA was measured to do against one set.

    Attributes:
        source: what the model is called, or the preset of a stored training. by: the score that decides.
        condition: entries of one detector and task that agree in it differ by their seed alone.
        model: whether its scores can be opened, for it is a model on this computer.
    """

    source: str
    detector: str
    normal: str
    label: int | None
    found: Measured
    by: str
    steps: int
    status: str
    condition: str
    seed: int
    model: bool = False


FAR = 0.03  # from the paper's figure: a difference that wants an explanation


@dataclass(frozen=True)
class RivalLine:
    """A cell of the paper's tables for one method, under one condition; without entries, of what was not measured.

    Attributes:
        method: what the paper calls it; a detector's title where the paper does not have it.
        ood: as it is measured here; `rest` for the mean over the classes of a one-class task.
        paper: as printed; None where there is no such cell. ours: AUROC of the score that decides.
    """

    method: str
    detector: str
    normal: str
    ood: str
    paper: float | None
    ours: Figure | None = None
    entries: tuple[Entry, ...] = ()

    @property
    def status(self) -> str:
        """The smallest of STATUSES among its trainings."""
        return min((entry.status for entry in self.entries), key=STATUSES.index) if self.entries else MISSING

    @property
    def is_far(self) -> bool:
        """Whether what was measured is more than FAR from what the paper prints."""
        return self.ours is not None and self.paper is not None and abs(self.ours[0] - self.paper) > FAR

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of `ours`, see `figure_interval`; None where nothing was measured."""
        if not self.ours:
            return None
        found = self.entries[0].found if len(self.entries) == 1 else None  # several of one seed: a mean over classes
        return figure_interval(self.ours, found and found.n_normal, found and found.n_ood)


def stored_entries(records: Sequence[Record]) -> list[Entry]:
    """What `python -m ama_core benchmark rivals` has stored."""
    return [
        Entry(
            f"stored, {record.preset}" + (f", {record.steps:,} steps" if record.steps else ""),
            record.row,
            record.normal,
            record.label,
            found,
            record.decides,
            record.steps,
            record.status,
            record.condition,
            record.seed,
        )
        for record in records
        if record.table in RIVAL_TABLES
        for found in record.results
        if record.decides in found.scores
    ]


def model_entries(name: str, info: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """What a model on this computer was measured to do; empty for AMA, whose models are in the tables, and for models of one's
    own images or trained with real anomalies.

    Args:
        info: its `config.json`. results: rows of its `results.json`.
    """
    normal, training = NormalData.of(info), info.get("training", {})
    if info["detector"] == FIRST or normal is None or normal.is_own or normal.anomalies or info["detector"] not in known():
        return []
    kind = detector_class(info["detector"])
    steps, seed = training.get("steps") or 0, info["config"].get("seed", 0)
    status = status_of(steps, whole=False, trained=kind.trainer_class is not None)
    condition = repr((name, sorted((key, str(value)) for key, value in info["config"].items())))
    return [
        Entry(
            name,
            kind.name,
            normal.name,
            normal.label,
            Measured(row["ood"], row["n_normal"], row["n_ood"], row["scores"]),
            kind.decides,
            steps,
            status,
            condition,
            seed,
            model=True,
        )
        for row in results
        if kind.decides in row["scores"]
    ]


def bundled_entries() -> list[Entry]:
    """What the models of `pretrained/` were measured to do. Raises BundleError where one is damaged."""
    found = []
    for name in list_bundles(PRETRAINED):
        folder = PRETRAINED / name
        found += model_entries(name, read_info(folder), (read_results(folder) or {}).get("results", ()))
    return found


def rival_lines(entries: Sequence[Entry]) -> list[RivalLine]:
    """Table 1 and our sets beside it, pair by pair: the paper's methods in its order, then others that were measured."""
    found = []
    pairs = [*paper.TASKS, *((normal, ood) for normal, sets in BESIDE.items() for ood in sets)]
    for normal, theirs in pairs:
        ood = paper.STAND_INS.get(theirs, theirs)
        for method, detector in _methods(entries):
            value = paper.table1(normal, theirs, method) if method in paper.methods(1) else None
            mine = [e for e in entries if (e.detector, e.normal, e.label, e.found.ood) == (detector, normal, None, ood)]
            found += _lines(RivalLine(method, detector, normal, ood, value), mine)
    return found


def rival_means(entries: Sequence[Entry]) -> list[RivalLine]:
    """Table 2: the mean over the ten classes, where all ten were measured under one condition and seed; methods as above."""
    found = []
    for normal in paper.TABLE_2_SETS:
        for method, detector in _methods(entries):
            value = paper.table2_mean(normal, method) if method in paper.methods(2) else None
            bare = RivalLine(method, detector, normal, REST, value)
            mine = [e for e in entries if (e.detector, e.normal, e.found.ood) == (detector, normal, REST) and not e.model]
            means = [_mean(bare, group) for group in _groups(mine)]
            measured = [line for line in means if line]
            found += measured or ([bare] if value is not None else [])
    return found


def _methods(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Titles and names of the paper's methods, in its order, and of the other detectors that were measured."""
    others = [name for name in dict.fromkeys(entry.detector for entry in entries) if name not in paper.DETECTORS.values()]
    return [*paper.DETECTORS.items(), *((detector_class(name).title, name) for name in others)]


def _lines(bare: RivalLine, mine: Sequence[Entry]) -> list[RivalLine]:
    lines = []
    for group in _groups(mine):
        ours = mean_and_sd([entry.found.scores[entry.by]["auroc"] for entry in group])
        lines.append(RivalLine(bare.method, bare.detector, bare.normal, bare.ood, bare.paper, ours, tuple(group)))
    return lines or ([bare] if bare.paper is not None else [])


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    found: dict[tuple, list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.model, entry.condition), []).append(entry)
    return list(found.values())


def _mean(bare: RivalLine, group: Sequence[Entry]) -> RivalLine | None:
    by_seed: dict[int, dict[int, float]] = {}
    for entry in group:
        by_seed.setdefault(entry.seed, {})[entry.label] = entry.found.scores[entry.by]["auroc"]
    means = {seed: fmean(classes.values()) for seed, classes in by_seed.items() if len(classes) == N_CLASSES}
    if not means:
        return None
    members = tuple(entry for entry in group if entry.seed in means)
    ours = mean_and_sd(list(means.values()))
    return RivalLine(bare.method, bare.detector, bare.normal, bare.ood, bare.paper, ours, members)
