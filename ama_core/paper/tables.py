"""The paper's tables beside ours: the lines that RESULTS.md and the Benchmark page show.

A line is a cell of a table under one condition: the figures of models that differ by their seed alone. Nothing is averaged
over conditions or chosen among them. Behind it are stored results, or models that are available locally. The paper's numbers
come from `published` and stand in a column of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from ama_core.detectors.ama.config import Config
from ama_core.detectors.ama.scores import SCORES
from ama_core.detectors.base import NormalData
from ama_core.evaluation.metrics import auroc_interval, mean_and_sd
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.paper.records import Measured, Record
from ama_core.paper.rows import (
    INWARD,
    OUTWARD,
    RIVAL_TABLES,
    SIMPLE,
    SIMPLE_ROW,
    SIPPLE,
    STATUSES,
    TABLES,
    simple_settings,
    status_of,
    tasks,
)
from ama_core.runs.spec import RunSpec
from ama_core.storage.bundle import FIRST

DIRECTIONS = {INWARD: "inward", OUTWARD: "outward", SIPPLE: "sipple"}
MISSING = "not measured"
N_CLASSES = 10

Figure = tuple[float, float | None]
"""Mean AUROC over seeds, and its standard deviation with n - 1; None for one seed."""
Figures = dict[str, Figure]
"""By score."""


@dataclass(frozen=True)
class Member:
    """What one training was measured to do against one set.

    Attributes:
        name: what it is called.
        row: of `rows.ROWS`; None for what belongs to none of the paper's tables.
        config: AMA's settings by name, as they are stored.
        training: `steps`, `n_train`, and what else a bundle says of it.
        condition: trainings of one row and set that agree in it differ by chance alone.
        asked: fields of the RunSpec that would train it again, beside settings, set and class.
        record: where its figures are stored and its weights are not; None for a model that is available locally.
    """

    name: str
    row: str | None
    normal: str
    label: int | None
    found: Measured
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    condition: str
    asked: Mapping[str, Any]
    record: Record | None = None

    @property
    def seed(self) -> int:
        return self.record.seed if self.record else self.config["seed"]

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows in which it counts: AMA is also the row without A-score, and that of its direction."""
        if self.row != paper.AMA:
            return (self.row,) if self.row else ()
        direction = self.config["atypical"]
        return (paper.AMA, paper.WITHOUT_A, *(row for row, value in DIRECTIONS.items() if value == direction))

    @cached_property
    def spec(self) -> RunSpec:
        """The run that would train it again. Raises ConfigError where its settings are not known here."""
        values = {"dataset": self.normal, "one_class": self.label, **self.asked}
        return RunSpec(config=Config.from_dict(self.config), **values)

    @cached_property
    def reductions(self) -> str:
        """In which ways it is below the paper's size, in words. Raises ConfigError."""
        return "; ".join(paper.reductions(self.spec.config, dict(self.training)))

    @property
    def status(self) -> str:
        """One of STATUSES."""
        if self.record:
            return self.record.status
        return status_of(self.training.get("steps") or 0, whole=not self.reductions)


@dataclass(frozen=True)
class Line:
    """A cell of a table under one condition; without members, of what was not measured.

    Attributes:
        row: `published.AMA`, an ablation, ... (see `rows.ROWS`), or `published.WITHOUT_A`.
        label: the one class; None for a whole set, and for a mean over classes.
        classes: of a mean, how many classes it is of; else 0.
        ood: OOD set as it is measured here; `rest` for one-class tasks.
        paper: the paper's AUROC; None where it prints none. Of fewer classes than ten: the mean of its own cells for these.
        members: the trainings behind it.
        ours: R, A, M, T of the last step, and C where it was measured; for `published.WITHOUT_A` R alone; empty where not
            measured.
        validated: A of the weights chosen by 50 validation anomalies.
        simple: the same figures of the trivial baselines, trained on the same images with those of the settings that they take.
        seeds: the training seeds, in order.
    """

    table: str
    row: str
    normal: str
    label: int | None
    ood: str
    paper: float | None
    classes: int = 0
    members: tuple[Member, ...] = ()
    ours: Figures | None = None
    validated: Figure | None = None
    simple: Figures | None = None
    n_normal: int = 0
    n_ood: int = 0
    seeds: tuple[int, ...] = ()
    status: str = MISSING
    condition: str = ""

    @property
    def cell(self) -> tuple:
        """What it is about, whatever the row and the condition."""
        return self.normal, self.label, self.classes, self.ood

    @property
    def records(self) -> tuple[Record, ...]:
        """The stored results that it was made from."""
        return tuple(member.record for member in self.members if member.record)

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores that were measured of all its members, also those that its row does not rank by."""
        return tuple(by for by in SCORES if all(by in member.found.scores for member in self.members))

    def auroc(self, score: str) -> Figure:
        """Of any of `scores`."""
        if self.classes:
            return self.ours[score]
        return mean_and_sd([member.found.scores[score]["auroc"] for member in self.members])

    def interval(self, score: str) -> tuple[float, float]:
        """Of one of `scores`, see `figure_interval`."""
        return figure_interval(self.auroc(score), self.n_normal, self.n_ood)


def stored_members(records: Sequence[Record]) -> list[Member]:
    """Everything that was measured of AMA and stored, but for the trivial baselines."""
    return [
        Member(
            name=f"stored, {record.preset}, {record.steps:,} steps",
            row=record.row,
            normal=record.normal,
            label=record.label,
            found=found,
            config=record.config,
            training={
                "steps": record.steps,
                "n_train": record.n_images,
                "precision": record.precision,
                "device": record.hardware,
            },
            condition=record.condition,
            asked={"validate_ood": record.validation_ood},
            record=record,
        )
        for record in records
        if record.row != SIMPLE_ROW and record.table not in RIVAL_TABLES
        for found in record.results
    ]


def model_members(name: str, info: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> list[Member]:
    """What a model that is available locally was measured to do; empty for other detectors than AMA, and for models of one's
    own images, whatever these are called.

    Args:
        info: its `config.json` (see `storage.bundle.read_info`). results: rows of `evaluate`, as in its `results.json`.

    Raises ConfigError where its settings are not known here.
    """
    normal = NormalData.of(info)
    if info["detector"] != FIRST or normal is None or normal.is_own:
        return []
    config, training = Config.from_dict(info["config"]), info.get("training", {})
    asked = {
        "dataset": normal.source,
        "anomalies": normal.anomalies,
        "validate_ood": normal.validation_ood,
        "select": training.get("select", "last"),
    }
    # Real anomalies in training are another task than the paper's tables.
    row = None if asked["anomalies"] else paper.variant(config)
    condition = repr((paper.seedless(config), sorted(asked.items(), key=str)))
    members = []
    for found in results:
        figures = Measured(found["ood"], found["n_normal"], found["n_ood"], found["scores"])
        own = (name, row, normal.name, normal.label, figures, config.to_dict(), training, condition, asked)
        members.append(Member(*own))
    return members


def lines(table: str, records: Sequence[Record], models: Sequence[Member] = ()) -> list[Line]:
    """The lines of a table, in the paper's order; what was not measured is there where the paper has a number.

    Args:
        models: see `model_members`; their lines go before the stored ones of the same cell.
    """
    members = [*models, *stored_members(records)]
    found = []
    rows = [row for row in TABLES[table] if row != SIMPLE_ROW]
    if table == "ablations":
        rows.insert(rows.index(INWARD), paper.WITHOUT_A)
    for normal, label, oods in tasks(table):
        for ood in oods:
            for row in rows:
                measured = _cell(table, row, normal, label, ood, members, records)
                if not measured and published(table, row, normal, label, ood) is not None:
                    measured = [Line(table, row, normal, label, ood, published(table, row, normal, label, ood))]
                found += measured
    if table != "table2":
        return found
    return [line for normal in paper.TABLE_2_SETS for line in _with_means([line for line in found if line.normal == normal])]


def other_pairs(records: Sequence[Record], models: Sequence[Member] = ()) -> list[Line]:
    """Lines of AMA on pairs of sets that the paper does not have."""
    members = [*models, *stored_members(records)]
    pairs = dict.fromkeys((m.normal, m.found.ood) for m in members if m.label is None and m.row == paper.AMA)
    return [
        line
        for normal, ood in pairs
        if published("table1", paper.AMA, normal, None, ood) is None
        for line in _cell("table1", paper.AMA, normal, None, ood, members, records)
    ]


def published(table: str, row: str, normal: str, label: int | None, ood: str) -> float | None:
    """The paper's AUROC of a cell; None where it prints none."""
    if table == "table2":
        return paper.table2(normal, label) if row == paper.AMA else None
    theirs = paper.paper_name(ood)
    if row == paper.AMA:
        return paper.table1(normal, theirs)
    return paper.ablation(row, normal, theirs) if row in paper.ABLATIONS else None


def _cell(
    table: str, row: str, normal: str, label: int | None, ood: str, members: Sequence[Member], records: Sequence[Record]
) -> list[Line]:
    """A line for every condition under which the cell was measured: models in their order, then the longest training first, and
    of equally long ones the one with fewer settings changed.
    """
    mine = [m for m in members if row in m.rows and (m.normal, m.label, m.found.ood) == (normal, label, ood)]
    bare = Line(table, row, normal, label, ood, published(table, row, normal, label, ood))
    simple = [r for r in records if r.row == SIMPLE_ROW and (r.normal, r.label) == (normal, label) and r.against(ood)]
    found = [_line(bare, group, simple) for group in _alike(mine)]
    stored = [line for line in found if line.records]
    stored.sort(key=lambda line: (-STATUSES.index(line.status), *_length(line.records[0]), line.condition))
    return [line for line in found if not line.records] + stored


def _length(record: Record) -> tuple[int, int]:
    return -record.steps, len(record.settings)


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """Members of one cell that differ by their seed alone, in their order; a seed counts once in each group."""
    groups: list[list[Member]] = []
    for member in members:
        key = member.record is None, member.condition
        for group in groups:
            if key == (group[0].record is None, group[0].condition) and member.seed not in [other.seed for other in group]:
                group.append(member)
                break
        else:
            groups.append([member])
    return groups


def _line(bare: Line, group: Sequence[Member], simple: Sequence[Record]) -> Line:
    """The line of members that differ by their seed alone; `simple`: stored trivial baselines of the same task."""
    rows = [member.found for member in group]
    chosen = [found.validated["A"]["auroc"] for found in rows if found.validated]
    ranks_by = ("R",) if bare.row == paper.WITHOUT_A else SCORES
    beside = _beside(group[0], simple)
    return replace(
        bare,
        members=tuple(group),
        ours=_over_seeds([found.scores for found in rows], ranks_by),
        validated=mean_and_sd(chosen) if len(chosen) == len(rows) and bare.row != paper.WITHOUT_A else None,
        simple=_over_seeds([record.against(bare.ood).scores for record in beside], SIMPLE),
        n_normal=rows[0].n_normal,
        n_ood=rows[0].n_ood,
        seeds=tuple(sorted(member.seed for member in group)),
        status=min((member.status for member in group), key=STATUSES.index),
        condition=group[0].condition,
    )


def _beside(member: Member, simple: Sequence[Record]) -> list[Record]:
    """Of the trivial baselines of one task, those that saw and learned the same images, as long, as the training of a member.

    They take few of AMA's settings: those of one condition stand beside every other that differs from it elsewhere alone.
    """
    if member.record is None:
        return []
    mine = simple_settings(Config.from_dict(member.config).replace(seed=0))
    by_seed = {r.seed: r for r in simple if simple_settings(Config.from_dict(r.config).replace(seed=0)) == mine}
    return list((by_seed | {r.seed: r for r in simple if r.condition == member.condition}).values())


def figure_interval(figure: Figure, n_normal: int | None, n_ood: int | None) -> tuple[float, float]:
    """Of several trainings the mean -+ the standard deviation; of one its 95 % interval over the sampling of so many images.

    Without numbers of images, as of a mean over classes, the figure itself.
    """
    value, sd = figure
    if sd is not None:
        return value - sd, value + sd
    return auroc_interval(value, n_normal, n_ood) if n_normal and n_ood else (value, value)


def _over_seeds(rows: Sequence[Mapping[str, Mapping[str, float]]], names: Iterable[str]) -> Figures | None:
    """The mean and standard deviation of every score of these names that all rows have; None without rows."""
    found = {name: [row[name]["auroc"] for row in rows if name in row] for name in names}
    return {name: mean_and_sd(values) for name, values in found.items() if len(values) == len(rows)} if rows else None


def _with_means(classes: list[Line]) -> list[Line]:
    """The lines of one set of Table 2, and under them the mean over classes for every condition."""
    measured = [line for line in classes if line.ours]
    means = []
    for condition in dict.fromkeys(line.condition for line in measured):
        by_class: dict[int | None, Line] = {}  # a class counts once
        for line in measured:
            if line.condition == condition:
                by_class.setdefault(line.label, line)
        mean = _mean(list(by_class.values()))
        means += [mean] if mean else []
    return classes + means


def _mean(group: Sequence[Line]) -> Line | None:
    """The mean over the classes of one set and condition, taken seed by seed; None where no seed has two."""
    seeds = sorted(set.intersection(*(set(line.seeds) for line in group)))
    if not seeds or len(group) < 2:
        return None
    members = tuple(member for line in group for member in line.members if member.seed in seeds)
    of_seed = {seed: [member.found.scores for member in members if member.seed == seed] for seed in seeds}
    measured = [by for by in SCORES if all(by in member.found.scores for member in members)]
    over_classes = {by: [fmean(row[by]["auroc"] for row in of_seed[seed]) for seed in seeds] for by in measured}
    simple = [line.simple for line in group]
    first = group[0]
    return Line(
        first.table,
        first.row,
        first.normal,
        None,
        REST,
        paper.table2_mean(first.normal) if len(group) == N_CLASSES else fmean(line.paper for line in group),
        classes=len(group),
        members=members,
        ours={by: mean_and_sd(values) for by, values in over_classes.items()},
        simple={by: (fmean(figures[by][0] for figures in simple), None) for by in SIMPLE} if all(simple) else None,
        seeds=tuple(seeds),
        status=min((line.status for line in group), key=STATUSES.index),
        condition=first.condition,
    )
