"""The paper's tables by command: which trainings they need, carrying those out, and the stored results.

    results/<job>.json    one finished training: its settings and every figure measured of it; what RESULTS.md is made from
    results/scores/<job>  a sample of the scores behind these figures, as bundles store them
    runs/benchmark/<job>  its run folder (see `runs`), from which an interrupted training goes on

A job is one training with one seed, in a process of its own. Jobs are declared by `ROWS` and `tasks`: nothing is chosen by its
result. What is not at hand is left out and stays "not measured".
"""

import dataclasses
import fnmatch
import hashlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ama_core.data import ImageSet, available, load_any, one_class
from ama_core.detectors.ama.config import Config
from ama_core.detectors.ama.config import preset as preset_config
from ama_core.detectors.ama.detector import AMADetector
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.detectors.autoencoder import AutoencoderSettings
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.lossless_length import LosslessLengthSettings
from ama_core.detectors.pixel_mean import PixelMeanSettings
from ama_core.detectors.registry import load_detector
from ama_core.errors import BundleError, ConfigError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.runs.execute import RunStopped, execute
from ama_core.runs.folder import LOG, Run
from ama_core.runs.processes import Scheduler, start_command
from ama_core.runs.spec import RunSpec, config_for
from ama_core.runs.status import State
from ama_core.settings import Settings
from ama_core.storage.bundle import StoredScores, write_scores
from ama_core.storage.files import ROOT, read_json, write_atomically

SCHEMA = 1
RESULTS = ROOT / "results"
DRAW_SEED = 0  # of the test anomalies: the same in every job, so that rows differ by their training alone
SMOKE_STEPS = 200  # fewer show that a command runs, not what it learns
FEW = 50  # real anomalies of the semi-supervised row; the paper says "a few"

RELEASED, SANITY = "AMA, mode released", "sanity"
INWARD, OUTWARD, SIPPLE = "AMA, inward", "AMA, outward", "AMA, Sipple"
SEMI = f"AMA, {FEW} real anomalies"
# The trivial baselines of the row SANITY: their names in stored results -> in the registry. They know nothing of AMA: where one
# of them does as well, a figure of AMA's proves little.
SIMPLE = {"pixel mean": "pixel_mean", "lossless length": "lossless_length", "L2 autoencoder": "autoencoder"}


@dataclass(frozen=True)
class Row:
    """A row of a table: the name it has in files, and what it changes in the settings of the AMA row."""

    slug: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# The row w/o A-score needs no training: it is the AMA row, ranked by R.
ROWS = {
    paper.AMA: Row("ama"),
    RELEASED: Row("released", {"mode": "released"}),
    paper.WITHOUT_MIRRORED: Row("without-mirrored", {"reconstruction": "plain"}),
    paper.WITHOUT_SIMPLEX: Row("without-simplex", {"lambda_inter": 0.0}),
    paper.WITHOUT_ATYPICAL: Row("without-atypical", {"atypical": "none"}),
    INWARD: Row("inward", {"atypical": "inward"}),
    OUTWARD: Row("outward", {"atypical": "outward"}),
    SIPPLE: Row("sipple", {"atypical": "sipple"}),
    SEMI: Row("few-anomalies"),
    SANITY: Row("sanity"),
}
TABLES: dict[str, tuple[str, ...]] = {
    "table1": (paper.AMA, SANITY, RELEASED),
    "table2": (paper.AMA, SANITY),
    "ablations": (
        paper.AMA, paper.WITHOUT_MIRRORED, paper.WITHOUT_SIMPLEX, paper.WITHOUT_ATYPICAL, INWARD, OUTWARD, SIPPLE, SEMI,
    ),
}  # fmt: skip
BESIDE = {"cifar10": ("gtsrb", "house_numbers")}  # sets of ours beside the paper's, under their own names
BY_ROW = ("mode", "reconstruction", "seed")  # what rows and --seeds decide: no setting of the user's


def tasks(table: str) -> list[tuple[str, int | None, tuple[str, ...]]]:
    """(normal set, label of a one-class task, OOD sets as they are measured here) of a table, in the paper's order."""
    if table == "table2":
        return [(normal, label, (REST,)) for normal in paper.TABLE_2_SETS for label in range(10)]
    found: dict[str, tuple[str, ...]] = {}
    for normal, ood in paper.TASKS:
        found[normal] = (*found.get(normal, ()), paper.STAND_INS.get(ood, ood))
    return [(normal, None, ood + BESIDE.get(normal, ())) for normal, ood in found.items()]


@dataclass(frozen=True)
class Job:
    """One training of one row, with one seed.

    Attributes:
        table: where its row belongs: AMA trained for Table 1 serves the ablations as well.
        ood: OOD sets of the task, at hand or not.
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

    @cached_property
    def config(self) -> Config:
        return config_for(self.normal, self.preset, **{**self.settings, **ROWS[self.row].changes, "seed": self.seed})

    @cached_property
    def condition(self) -> str:
        """Six hex digits of the settings that all rows and sets share: figures under one condition may be compared."""
        shared = preset_config(self.preset, **self.settings).to_dict()
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:6]

    @property
    def title(self) -> str:
        """What `--only` looks at: row, sets and class, such as `ama-mnist-3`."""
        return _title(self.row, self.normal, self.label, self.few_from)

    @property
    def name(self) -> str:
        return _name(self.table, self.title, self.preset, self.condition, self.seed)

    @property
    def command(self) -> str:
        """What to type for this job alone, where it is the first of its seeds."""
        words = ["python", "-m", "ama_core", "benchmark", self.table, "--preset", self.preset]
        words += [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
        words += ["--seeds", str(self.seed + 1), "--only", self.title]
        return shlex.join(words)

    def at_hand(self) -> tuple[str, ...]:
        """The OOD sets of the task that can be measured here."""
        return tuple(name for name in self.ood if name == REST or "test" in available(name))

    def missing(self) -> str | None:
        """Why the job cannot be carried out here; None where it can."""
        needed = [(self.normal, "train"), (self.normal, "test")] + ([(self.few_from, "train")] if self.few_from else [])
        absent = [f"{name} ({split})" for name, split in needed if split not in available(name)]
        if not absent and not self.at_hand():
            absent = [f"{name} (test)" for name in self.ood]
        return f"{', '.join(absent)} not at hand" if absent else None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        return cls(**{**values, "ood": tuple(values["ood"])})


def _title(row: str, normal: str, label: int | None, few_from: str | None) -> str:
    return "-".join(str(part) for part in (ROWS[row].slug, normal, label, few_from) if part is not None)


def _name(table: str, title: str, preset: str, condition: str, seed: int) -> str:
    return f"{table}-{title}-{preset}-{condition}-s{seed}"


@dataclass(frozen=True)
class Measured:
    """Figures against one OOD set.

    Attributes:
        scores: score -> {"auroc", "auprc", "fpr95"}; R, A, M, T of the last step, or the names of SIMPLE.
        notes: what a reader of these figures should know of the images, in sentences.
        validated: the same of the weights with the best A on 50 validation anomalies of this set; None where not measured.
    """

    ood: str
    n_normal: int
    n_ood: int
    scores: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()
    validated: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Record:
    """One finished job, as stored in `results/`.

    Attributes:
        status: `full`: the paper's preset and sizes and at least 100 epochs; `smoke`: fewer than SMOKE_STEPS steps; else
            `reduced`.
        condition: see `Job.condition`.
        width: channels of encoder, generator and critic.
        epochs: passes over the n_images training images.
        seconds: of training alone.
        few_anomalies: real anomalies it was trained with: {"source", "n"}.
        validation_ood: the set behind `Measured.validated`.
        codec: behind the lossless length of a sanity row.
    """

    table: str
    row: str
    normal: str
    label: int | None
    seed: int
    preset: str
    settings: dict[str, str]
    condition: str
    status: str
    config: dict[str, Any]
    mode: str
    width: dict[str, int]
    steps: int
    epochs: float
    n_images: int
    precision: str
    hardware: str
    seconds: float
    versions: dict[str, str]
    commit: str | None
    command: str
    draw_seed: int
    results: tuple[Measured, ...]
    few_anomalies: dict[str, Any] | None = None
    validation_ood: str | None = None
    codec: str | None = None
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """Of its job, and so of its files."""
        title = _title(self.row, self.normal, self.label, (self.few_anomalies or {}).get("source"))
        return _name(self.table, title, self.preset, self.condition, self.seed)

    def against(self, ood: str) -> Measured | None:
        return next((found for found in self.results if found.ood == ood), None)


def read_results(folder: Path | str = RESULTS) -> list[Record]:
    """Every stored result, in order of table, row, set, class, settings and seed. Raises BundleError with the damaged file."""
    found = [read_record(file) for file in Path(folder).glob("*.json")]
    rows = list(ROWS)
    return sorted(
        found, key=lambda r: (list(TABLES).index(r.table), rows.index(r.row), r.normal, r.label or 0, r.preset, r.condition,
                              str(r.few_anomalies), r.seed)
    )  # fmt: skip


def read_record(file: Path) -> Record:
    """One stored result. Raises BundleError where it is damaged or of another schema."""
    try:
        values = read_json(file)
        if values["schema"] != SCHEMA:
            raise BundleError(f"{file} has schema {values['schema']}, this software reads {SCHEMA}: measure it again.")
        results = tuple(Measured(**{**row, "notes": tuple(row["notes"])}) for row in values.pop("results"))
        record = Record(**values, results=results)
        if record.table not in TABLES or record.row not in ROWS:
            raise BundleError(f"{file} belongs to no row of the tables: {record.table}, {record.row}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is not a stored result ({type(error).__name__}: {error}). Remove or restore it.") from error
    return record


def scores_folder(record: Record, results: Path = RESULTS) -> Path:
    """Where a sample of the scores behind a record is stored, if it is (see `bundle.read_scores`): sets by name, all `test`."""
    return results / "scores" / record.name


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
                ama = Job("table1" if table == "ablations" else table, paper.AMA, normal, label, ood, preset, settings, seed,
                          validate=validate and label is None)  # fmt: skip
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
    chosen = [job for job in found.values() if not only or any(fnmatch.fnmatch(job.title, f"*{part}*") for part in only)]
    if not chosen:
        raise ConfigError(f"--only {' '.join(only)} names no training of {', '.join(tables)}; --list shows them.")
    return chosen


def is_stored(job: Job, results: Path) -> bool:
    """Whether everything that can be measured of the job here is stored."""
    file = results / f"{job.name}.json"
    return file.exists() and {row.ood for row in read_record(file).results} >= set(job.at_hand())


def carry_out(job: Job, out: Path, results: Path, device: str | None = None) -> Record:
    """Train (or go on), measure, and store the result, in this process. Raises as `execute`."""
    record, scores = (_simple(job, out, device), []) if job.row == SANITY else _ama(job, out, device)
    results.mkdir(parents=True, exist_ok=True)
    if scores:
        folder = scores_folder(record, results)
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder, scores)
    write_atomically(results / f"{job.name}.json", json.dumps(dataclasses.asdict(record), indent=1) + "\n")
    return record


def status_of(config: Config, preset: str, steps: int, n_train: int) -> str:
    """`full`, `reduced` or `smoke`; see `Record`."""
    if steps < SMOKE_STEPS:
        return "smoke"
    full = preset == "paper" and not paper.reductions(config, {"steps": steps, "n_train": n_train})
    return "full" if full else "reduced"


def _ama(job: Job, out: Path, device: str | None) -> tuple[Record, list[StoredScores]]:
    folder = out / job.name
    spec = RunSpec(job.normal, job.config, one_class=job.label, measure=False)
    if job.few_from:
        few = _few_anomalies(job, out)
        spec = dataclasses.replace(spec, anomalies=str(few))
    elif job.validate:
        spec = dataclasses.replace(spec, validate_ood=job.at_hand()[0])
    detector = _trained(folder, spec, device)
    ood = job.at_hand()
    scores: list[StoredScores] = []
    found = {row["ood"]: row for row in evaluation.evaluate(detector, ood, seed=DRAW_SEED, keep=scores)["results"]}
    validated = {}
    chosen_by = detector.normal.validation_ood
    if chosen_by in ood and Run(folder).checkpoint.exists():
        best = _validated(detector, job, folder)
        validated[chosen_by] = evaluation.evaluate(best, [chosen_by], seed=DRAW_SEED)["results"][0]["scores"]
    measured = tuple(Measured(**found[name], notes=_notes(name), validated=validated.get(name)) for name in ood)
    few_anomalies = {"source": job.few_from, "n": FEW} if job.few_from else None
    record = _record(job, detector.info_["training"], measured, few_anomalies=few_anomalies, validation_ood=chosen_by)
    return record, scores


def _validated(detector: AMADetector, job: Job, folder: Path) -> AMADetector:
    """The same training with the weights of its best validation: nothing is trained, they are only calibrated."""
    state = AMATrainer.load(Run(folder).checkpoint, detector.torch_device)
    best = AMADetector(job.config, device=detector.torch_device)
    best.fit(_normals(job).images, trainer=state, select="validated")
    best.info_["normal"] = detector.info_["normal"]
    return best


def _few_anomalies(job: Job, out: Path) -> Path:
    """A folder with FEW images of the OOD set's training split, drawn by the job's seed."""
    folder = out / "anomalies" / f"{job.few_from}-{FEW}-s{job.seed}"
    images = load_any(job.few_from, "train").images
    chosen = np.random.default_rng([job.seed, FEW]).choice(len(images), min(FEW, len(images)), replace=False)
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(images[np.sort(chosen)]):
        Image.fromarray(image.squeeze()).save(folder / "train" / f"{place:03d}.png")
    return folder


def _simple(job: Job, out: Path, device: str | None) -> Record:
    """The trivial baselines on the images of the job's task, each a detector of the registry under the same protocol."""
    figures: dict[str, list[dict[str, Any]]] = {}
    settings = _simple_settings(job.config)
    for title, name in SIMPLE.items():
        spec = RunSpec(job.normal, settings[name], one_class=job.label, measure=False, detector=name)
        detector = _trained(out / job.name / name, spec, device)
        figures[title] = evaluation.evaluate(detector, job.at_hand(), seed=DRAW_SEED)["results"]
    training = detector.info_["training"]  # of the autoencoder, the only one that is trained by steps
    measured = []
    for rows in zip(*figures.values()):
        scores = {title: next(iter(row["scores"].values())) for title, row in zip(figures, rows)}
        measured.append(Measured(**{**rows[0], "scores": scores}, notes=_notes(rows[0]["ood"])))
    return _record(job, training, tuple(measured), codec=f"{settings['lossless_length'].codec} lossless")


def _simple_settings(config: Config) -> dict[str, Settings]:
    """Settings of the trivial baselines that see the images of an AMA training and hold the same ones out, by detector."""
    common = {field.name: getattr(config, field.name) for field in dataclasses.fields(Settings)}
    return {
        "pixel_mean": PixelMeanSettings(**common),
        "lossless_length": LosslessLengthSettings(**common),
        "autoencoder": AutoencoderSettings.like(config),
    }


def _trained(folder: Path, spec: RunSpec, device: str | None) -> AnomalyDetector:
    """The model of a run folder, trained first (or further) where it is not finished."""
    run = Run(folder)
    if (folder / "config.json").exists() and run.status().state == State.FINISHED:
        return load_detector(folder, device=device)
    return execute(folder, spec, resume=run.exists(), device=device)


def _record(job: Job, training: dict[str, Any], measured: tuple[Measured, ...], **more) -> Record:
    config = job.config
    return Record(
        table=job.table, row=job.row, normal=job.normal, label=job.label, seed=job.seed, preset=job.preset,
        settings=job.settings, condition=job.condition, config=config.to_dict(), mode=config.mode,
        status=status_of(config, job.preset, training["steps"], training["n_train"]),
        width={name: getattr(config, f"width_{name}") for name in ("encoder", "generator", "critic")},
        steps=training["steps"], epochs=round(paper.epochs(config, training), 3), n_images=training["n_train"],
        precision=training["precision"], hardware=training["device"], seconds=training["seconds"],
        versions=training["versions"], commit=training["commit"], command=job.command, draw_seed=DRAW_SEED, results=measured,
        **more,
    )  # fmt: skip


def _normals(job: Job) -> ImageSet:
    images = load_any(job.normal, "train", **vars(job.config.input))
    return images if job.label is None else one_class(images, job.label)


def _notes(ood: str) -> tuple[str, ...]:
    return () if ood == REST else load_any(ood, "ood").notes


@dataclass(frozen=True)
class Progress:
    """What `run` tells its caller: `job` was `started`, `stored` or `failed` (with `words`), or just time passed (None).

    done: jobs that ended, with the fractions of those under way; seconds_left: None before it can be told.
    """

    done: float
    total: int
    seconds_left: float | None
    job: Job | None = None
    what: str = ""
    words: str = ""


def parallel_jobs() -> int:
    """How many jobs at once suit this machine: one on a GPU, else one a core, each on one thread.

    Measured on two cores with preset tiny: two processes of one thread train more than twice as fast as one of two.
    """
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def run(
    jobs: Sequence[Job],
    out: Path,
    results: Path,
    *,
    parallel: int | None = None,
    device: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Job]:
    """Carry out jobs, `parallel` at once, each in a process of its own; returns those that failed.

    Ctrl-C and SIGTERM stop it: every job saves its state, and the next call goes on (twice: at once, with what was saved last).

    Raises RunStopped.
    """
    parallel = max(1, min(parallel or parallel_jobs(), len(jobs)))
    threads = max(1, (os.cpu_count() or 1) // parallel) if torch.cuda.is_available() else 1
    waiting, failed = list(jobs), []
    began, total = time.monotonic(), len(jobs)

    def tell(job: Job | None = None, what: str = "", words: str = "") -> None:
        active = scheduler.active
        done = total - len(waiting) - len(active) + sum(_fraction(Run(out / j.name), p.pid) for j, p in active)
        left = (time.monotonic() - began) * (total - done) / done if done > 0 else None
        on_progress(Progress(done, total, left, job, what, words))

    def start(job: Job) -> subprocess.Popen:
        return _start(job, out, results, device, threads)

    def ended(job: Job, code: int) -> None:
        if code == 0 and is_stored(job, results):
            tell(job, "stored", figures(read_record(results / f"{job.name}.json")))
        else:
            failed.append(job)
            tell(job, "failed", _last_words(Run(out / job.name), code))

    scheduler = Scheduler(
        take=lambda: waiting.pop(0) if waiting else None,
        start=start,
        started=lambda job: tell(job, "started"),
        ended=ended,
        finished=lambda: not waiting,
        parallel=parallel,
    )

    def on_signal(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        scheduler.run(tell)
    except KeyboardInterrupt:
        left = len(waiting) + len(scheduler.active)
        scheduler.stop()
        raise RunStopped(f"Stopped with {left} of {total} trainings left; the same command goes on.") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    return failed


def figures(record: Record) -> str:
    """The AUROCs of a record in one line."""
    shown = []
    for row in record.results:
        named = ("A", "T") if "A" in row.scores else row.scores
        shown.append(f"{row.ood} " + " ".join(f"{name} {row.scores[name]['auroc']:.3f}" for name in named))
    return "; ".join(shown)


def _start(job: Job, out: Path, results: Path, device: str | None, threads: int) -> subprocess.Popen:
    run = Run(out / job.name)
    run.path.mkdir(parents=True, exist_ok=True)
    words = ["benchmark", "--job", job.to_json(), "--out", str(out), "--results", str(results)]
    words += ["--device", device] if device else []
    return start_command(words, run.path / LOG, {"OMP_NUM_THREADS": str(threads)})


def _fraction(run: Run, pid: int) -> float:
    """How much of its training a job of ours has done, 0..1."""
    try:
        status = run.status()
    except BundleError:
        return 0.0
    return status.step / status.total_steps if status.pid == pid and status.step and status.total_steps else 0.0


def _last_words(run: Run, code: int) -> str:
    lines = run.read_log(3).splitlines()
    return f"exit code {code}: {lines[-1] if lines else 'it said nothing'} (see {run.path / LOG})"
