"""The trainings that the paper's tables need: a job is one training of one row with one seed."""

import dataclasses
import fnmatch
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ama_core.data import available
from ama_core.detectors.ama.config import PRESETS, Config
from ama_core.detectors.registry import detector_class
from ama_core.errors import ConfigError
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.paper.records import read_record
from ama_core.paper.rows import INWARD, OUTWARD, RIVAL_TABLES, ROWS, SEMI, SIPPLE, TABLES, name_of, tasks, title_of
from ama_core.runs.spec import RunSpec, config_for
from ama_core.settings import Settings
from ama_core.storage.bundle import FIRST

LARGER = ("cifar10", "svhn")  # sets whose bundled models have the preset `small`
BY_ROW = ("mode", "reconstruction", "seed")  # what rows and --seeds decide: no setting of the user's
LATER = {"lambda_drift": 0.0}  # settings newer than some stored results, with the value that these were trained with


@dataclass(frozen=True)
class Job:
    """One training of one row, with one seed.

    Attributes:
        table: where its row belongs: AMA trained for Table 1 serves the ablations as well.
        ood: OOD sets of the task, available locally or not.
        settings: what was changed of the preset, by name, for all rows alike.
        few_from: OOD set whose training split gives the real anomalies of the semi-supervised row.
        validate: whether the AUROC on 50 validation anomalies is followed, for the "validated" figure beside the headline.
    """

    table: str
    row: str
    normal: str
    label: int | None
    ood: tuple[str, ...]
    preset: str
    settings: dict[str, str]
    seed: int
    few_from: str | None = None
    validate: bool = False

    @property
    def detector(self) -> str:
        """The name of what it trains; of simple methods, which see the same images, AMA's settings count."""
        return self.row if self.table in RIVAL_TABLES else FIRST

    @cached_property
    def config(self) -> Settings:
        if self.detector != FIRST:
            return config_for(self.normal, self.preset, self.detector, **self.settings, seed=self.seed)
        return config_for(self.normal, self.preset, **{**self.settings, **ROWS[self.row].changes, "seed": self.seed})

    @cached_property
    def condition(self) -> str:
        """Six hex digits of the settings that all rows and sets share: figures under one condition may be compared.

        A new setting must be in LATER, or nothing that is stored would be found again.
        """
        settings = detector_class(self.detector).Settings.preset(self.preset, **self.settings).to_dict()
        shared = {name: value for name, value in settings.items() if name not in LATER or value != LATER[name]}
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:6]

    @property
    def title(self) -> str:
        """What `--only` looks at: row, sets and class, such as `ama-mnist-3`."""
        return title_of(self.row, self.normal, self.label, self.few_from)

    @property
    def name(self) -> str:
        return name_of(self.table, self.title, self.preset, self.condition, self.seed)

    @property
    def command(self) -> str:
        """What to type for this job alone, where it is the first of its seeds."""
        words = ["python", "-m", "ama_core", "benchmark", self.table, "--preset", self.preset]
        words += [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        words += ["--seeds", str(self.seed + 1), "--only", self.title]
        return shlex.join(words)

    def measurable(self) -> tuple[str, ...]:
        """The OOD sets of the task that can be measured here."""
        return tuple(name for name in self.ood if name == REST or "test" in available(name))

    def missing(self) -> str | None:
        """Why the job cannot be carried out here; None where it can."""
        needed = [(self.normal, "train"), (self.normal, "test")] + ([(self.few_from, "train")] if self.few_from else [])
        absent = [f"{name} ({split})" for name, split in needed if split not in available(name)]
        if not absent and not self.measurable():
            absent = [f"{name} (test)" for name in self.ood]
        return f"{', '.join(absent)} not available locally" if absent else None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        return cls(**{**values, "ood": tuple(values["ood"])})


def plan(
    tables: Sequence[str],
    preset: str = "tiny",
    settings: Mapping[str, str] | None = None,
    seeds: int = 1,
    only: Sequence[str] = (),
    validate: bool = True,
) -> list[Job]:
    """The jobs of tables, every task with its first seed before any with its second.

    Args:
        settings: changes of the preset, for all rows alike.
        only: parts of titles, with the wildcards of file names, such as `ama-mnist-[0-4]`; empty: all.

    Raises ConfigError: an unknown table, a setting that would make a row another one, no job that `only` names.
    """
    if seeds < 1:
        raise ConfigError(f"{seeds} seeds train nothing: give 1 or more.")
    settings = dict(settings or {})
    if unknown := [table for table in tables if table not in TABLES]:
        raise ConfigError(f"There is no table {', '.join(unknown)}. Known: {', '.join(TABLES)}.")
    if fixed := [name for name in settings if name in BY_ROW]:
        raise ConfigError(f"{', '.join(fixed)} cannot be set here: the rows of the tables and --seeds decide it.")
    found: dict[str, Job] = {}
    for seed in range(seeds):
        for table in tables:
            for normal, label, ood in tasks(table):
                if table in RIVAL_TABLES:
                    jobs = [Job(table, row, normal, label, ood, preset, settings, seed) for row in TABLES[table]]
                    found |= {job.name: job for job in jobs if _chosen(job, only)}
                    continue
                changes = _changes(preset, settings)
                ama = Job(
                    "table1" if table == "ablations" else table,
                    paper.AMA,
                    normal,
                    label,
                    ood,
                    preset,
                    changes,
                    seed,
                    validate=validate and label is None,
                )
                if paper.variant(ama.config) != paper.AMA:
                    raise ConfigError(f"These settings make the row {paper.AMA} another row: leave every part of it on.")
                for row in TABLES[table]:
                    job = ama if row == paper.AMA else dataclasses.replace(ama, table=table, row=row, validate=False)
                    if row in paper.ABLATIONS:
                        job = dataclasses.replace(job, validate=ama.validate)
                    elif row in (INWARD, OUTWARD, SIPPLE) and job.config == ama.config:
                        continue  # the AMA row has this direction already
                    jobs = [job]
                    if row == SEMI:
                        jobs = [dataclasses.replace(job, ood=(name,), few_from=name) for name in ood]
                    found |= {each.name: each for each in jobs}
    chosen = [job for job in found.values() if _chosen(job, only)]
    if not chosen:
        raise ConfigError(f"--only {' '.join(only)} names no training of {', '.join(tables)}; --list shows them.")
    return chosen


def _changes(preset: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Settings of AMA without those that the preset has anyway: a training is stored in one way, however it was asked for."""
    config, usual = Config.preset(preset, **settings), PRESETS[preset]
    return {name: value for name, value in settings.items() if name not in usual or getattr(config, name) != usual[name]}


def _chosen(job: Job, only: Sequence[str]) -> bool:
    return not only or any(fnmatch.fnmatch(job.title, f"*{part}*") for part in only)


def is_stored(job: Job, results: Path) -> bool:
    """Whether everything that can be measured of the job here is stored."""
    file = results / f"{job.name}.json"
    return file.exists() and {row.ood for row in read_record(file).results} >= set(job.measurable())


def small_training(row: str, normal: str, label: int | None = None) -> tuple[str, RunSpec]:
    """A name and a run that fill a cell of the tables, of the size of the bundled models."""
    preset = "small" if normal in LARGER else "tiny"
    own = () if row in (paper.AMA, paper.WITHOUT_A) else (ROWS[row].slug,)
    changes = {} if row == paper.WITHOUT_A else ROWS[row].changes
    name = "-".join(str(word) for word in (normal, label, *own) if word is not None)
    return name, RunSpec(normal, config_for(normal, preset, **changes), label)
