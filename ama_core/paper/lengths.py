"""How long to train: AUROCs of whole runs of several lengths, of `benchmarks/length.py` and of the stored tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ama_core.errors import BundleError
from ama_core.evaluation.metrics import mean_and_sd
from ama_core.paper import published as paper
from ama_core.paper.records import Record
from ama_core.storage.files import ROOT, read_json

STORED = ROOT / "results" / "length"
NORMAL, PRESET = "fashionmnist", "tiny"  # what is trained, and how
LOSSES = {paper.AMA: "mirrored", paper.WITHOUT_MIRRORED: "plain"}  # rows of the tables: the loss they are trained with
LR_FALL = 0.5  # the fraction of the run in which the rate falls, of the presets: runs with another are a study of that


@dataclass(frozen=True)
class LengthRun:
    """One training of preset tiny on FashionMNIST.

    Attributes:
        reconstruction: `mirrored` or `plain`. lr_fall: fraction of the run in which the learning rate falls.
        aurocs: OOD set -> score -> AUROC, by the last step's weights.
        averaged: the same by the moving average of the weights; empty where it was not measured.
    """

    reconstruction: str
    steps: int
    seed: int
    lr_fall: float
    aurocs: dict[str, dict[str, float]]
    averaged: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Length:
    """The runs of one loss and length: `auroc` is their mean over seeds, `sd` its standard deviation, None of one seed."""

    steps: int
    auroc: float
    sd: float | None
    seeds: int


def read_lengths(folder: Path | str = STORED) -> list[LengthRun]:
    """Every run of the study that is stored, by loss, length and seed. Raises BundleError with the damaged file."""
    found = []
    for file in Path(folder).glob("*.json"):
        try:
            stored = read_json(file)
            auroc = stored["auroc"]
            found.append(LengthRun(**stored["run"], aurocs=auroc["last"], averaged=auroc.get("average", {})))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{file} is damaged ({error}): delete it and measure it again.") from error
    return sorted(found, key=_order)


def with_records(runs: Sequence[LengthRun], records: Sequence[Record]) -> list[LengthRun]:
    """The runs, and those trainings of the tables that differ from them in their length and seed alone; each counts once."""
    found = {(run.reconstruction, run.steps, run.seed, run.lr_fall): run for run in runs}
    for record in records:
        usual = record.preset == PRESET and set(record.settings) <= {"max_steps"} and record.label is None
        if usual and record.normal == NORMAL and record.row in LOSSES:
            aurocs = {one.ood: {by: values["auroc"] for by, values in one.scores.items()} for one in record.results}
            run = LengthRun(LOSSES[record.row], record.steps, record.seed, LR_FALL, aurocs, {})
            found.setdefault((run.reconstruction, run.steps, run.seed, run.lr_fall), run)
    return sorted(found.values(), key=_order)


def _order(run: LengthRun) -> tuple:
    return run.reconstruction, run.steps, run.lr_fall, run.seed


def curve(runs: Sequence[LengthRun], reconstruction: str, ood: str, score: str) -> list[Length]:
    """The AUROC of a score against a set at every length, the shortest first, by the last step's weights."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if run.reconstruction == reconstruction and run.lr_fall == LR_FALL and score in run.aurocs.get(ood, {}):
            values.setdefault(run.steps, []).append(run.aurocs[ood][score])
    return [Length(steps, *mean_and_sd(found), len(found)) for steps, found in sorted(values.items())]
