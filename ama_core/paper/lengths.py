"""How long to train: AUROCs of whole runs of several lengths, of `benchmarks/length.py` and of the stored tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from ama_core.detectors.ama.config import PRESETS, Config
from ama_core.errors import BundleError
from ama_core.evaluation.metrics import mean_and_sd
from ama_core.paper import published as paper
from ama_core.paper.records import Record
from ama_core.paper.rows import SMOKE_STEPS
from ama_core.runs.spec import config_for
from ama_core.storage.files import ROOT, read_json

STORED = ROOT / "results" / "length"
NORMAL, PRESET = "fashionmnist", "tiny"  # what is trained first, and how
NORMALS = (NORMAL, "cifar10")
LOSSES = {paper.AMA: "mirrored", paper.WITHOUT_MIRRORED: "plain"}  # rows of the tables: the loss they are trained with
LAMBDA_DRIFT = PRESETS[PRESET]["lambda_drift"]  # runs with another are left out
LR_FALL = 0.5  # the fraction of the run in which the rate falls, of the presets: runs with another are a study of that
CONDITION = f"preset {PRESET}"


@dataclass(frozen=True)
class LengthRun:
    """One training of preset tiny.

    Attributes:
        normal: one of NORMALS.
        reconstruction: `mirrored` or `plain`.
        aurocs: OOD set -> score -> AUROC, by the last step's weights.
    """

    normal: str
    reconstruction: str
    steps: int
    seed: int
    aurocs: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Length:
    """The runs of one loss and length: `auroc` is their mean over seeds, `sd` its standard deviation, None of one seed."""

    steps: int
    auroc: float
    sd: float | None
    seeds: int


def read_lengths(folder: Path | str = STORED) -> list[LengthRun]:
    """Every run of the study that is stored, by set, loss, length and seed, but for those of another LR_FALL or LAMBDA_DRIFT.

    Raises BundleError with the damaged file.
    """
    found = []
    for file in Path(folder).glob("*.json"):
        try:
            stored = read_json(file)
            run = stored["run"]
            aurocs = {ood: {by: float(v) for by, v in scores.items()} for ood, scores in stored["auroc"]["last"].items()}
            if not all(isfinite(value) for scores in aurocs.values() for value in scores.values()):
                raise ValueError("an AUROC is not a number")
            if float(run["lr_fall"]) == LR_FALL and float(run["lambda_drift"]) == LAMBDA_DRIFT:
                normal = str(run.get("normal", NORMAL))
                found.append(LengthRun(normal, str(run["reconstruction"]), int(run["steps"]), int(run["seed"]), aurocs))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{file} is damaged ({error}): delete it and measure it again.") from error
    return sorted(found, key=_key)


def with_records(runs: Sequence[LengthRun], records: Sequence[Record]) -> list[LengthRun]:
    """The runs, and those trainings of the tables that differ from them in length and seed alone.

    A length and seed counts once, with the figures of the tables where both have one: a training is not repeated bit by bit by
    later software. Trainings of fewer than SMOKE_STEPS steps only show that the command runs, and are left out.
    """
    found = {_key(run): run for run in runs}
    for record in records:
        if record.normal not in NORMALS or record.label is not None or record.row not in LOSSES or record.steps < SMOKE_STEPS:
            continue
        loss = LOSSES[record.row]
        settings = {"reconstruction": loss, "max_steps": record.steps, "seed": record.seed, "lambda_drift": LAMBDA_DRIFT}
        usual = config_for(record.normal, PRESET, **settings)
        if Config.from_dict(record.config).replace(max_steps=record.steps) == usual:
            aurocs = {one.ood: {by: values["auroc"] for by, values in one.scores.items()} for one in record.results}
            run = LengthRun(record.normal, loss, record.steps, record.seed, aurocs)
            known = found.get(_key(run))
            found[_key(run)] = replace(run, aurocs=known.aurocs | aurocs) if known else run
    return sorted(found.values(), key=_key)


def _key(run: LengthRun) -> tuple[str, str, int, int]:
    return run.normal, run.reconstruction, run.steps, run.seed


def of_several_lengths(runs: Sequence[LengthRun]) -> dict[str, list[LengthRun]]:
    """The runs of each normal set on which a loss was trained for more than one length, in the order of NORMALS."""
    by_set = {normal: [run for run in runs if run.normal == normal] for normal in NORMALS}
    lengths = {normal: {(run.reconstruction, run.steps) for run in own} for normal, own in by_set.items()}
    return {normal: by_set[normal] for normal, found in lengths.items() if len(found) > len({loss for loss, _ in found})}


def curve(runs: Sequence[LengthRun], reconstruction: str, ood: str, score: str, normal: str = NORMAL) -> list[Length]:
    """The AUROC of a score against a set at every length, the shortest first, by the last step's weights."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if (run.normal, run.reconstruction) == (normal, reconstruction) and score in run.aurocs.get(ood, {}):
            values.setdefault(run.steps, []).append(run.aurocs[ood][score])
    return [Length(steps, *mean_and_sd(found), len(found)) for steps, found in sorted(values.items())]
