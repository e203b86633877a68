"""Carrying out jobs of the paper's tables: train, measure and store one, or many, each in a process of its own.

A job trains in the run folder OUT/<job> (see `runs.folder`), from which an interrupted training goes on.
"""

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ama_core.cluster import Task, slots
from ama_core.data import ImageSet, load_any, one_class
from ama_core.data.pictures import png
from ama_core.detectors.ama.detector import AMADetector
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.registry import detector_class, load_detector
from ama_core.errors import BundleError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.paper.jobs import Job, is_stored
from ama_core.paper.records import Measured, Record, read_record, scores_folder
from ama_core.paper.rows import FEW, RIVAL_TABLES, SIMPLE, SIMPLE_ROW, simple_settings, status_of
from ama_core.runs.execute import RunStopped, execute
from ama_core.runs.folder import LOG, Run
from ama_core.runs.processes import Scheduler, start_command
from ama_core.runs.spec import RunSpec
from ama_core.runs.status import State
from ama_core.settings import Settings
from ama_core.stopping import StopRequested, stop_signals
from ama_core.storage.bundle import StoredScores, write_scores
from ama_core.storage.files import lock, write_atomically

CLAIMS = ".claims"  # folder of the locks of jobs under way
DENSITY_SAMPLE = 1_000  # images of each set whose scores are stored behind a figure: the app draws densities of them
DRAW_SEED = 0  # of the test anomalies: the same in every job, so that rows differ by their training alone


def carry_out(job: Job, out: Path, results: Path, device: str | None = None) -> Record:
    """Train (or go on), measure, and store the result, in this process. Raises as `execute`."""
    if job.table in RIVAL_TABLES:
        record, scores = _rival(job, out, device)
    else:
        record, scores = (_simple(job, out, device), []) if job.row == SIMPLE_ROW else _ama(job, out, device)
    results.mkdir(parents=True, exist_ok=True)
    if scores:
        folder = scores_folder(record, results)
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder, [found.thinned(DENSITY_SAMPLE) for found in scores])
    write_atomically(results / f"{job.name}.json", json.dumps(dataclasses.asdict(record), indent=1) + "\n")
    return record


def _ama(job: Job, out: Path, device: str | None) -> tuple[Record, list[StoredScores]]:
    folder = out / job.name
    spec = RunSpec(job.normal, job.config, one_class=job.label, measure=False)
    if job.few_from:
        few, n_few = _few_anomalies(job, out)
        spec = dataclasses.replace(spec, anomalies=str(few))
    elif job.validate:
        spec = dataclasses.replace(spec, validate_ood=job.measurable()[0])
    detector = _trained(folder, spec, device)
    ood = job.measurable()
    scores: list[StoredScores] = []
    found = {row["ood"]: row for row in evaluation.evaluate(detector, ood, seed=DRAW_SEED, keep=scores.append)["results"]}
    validated = {}
    chosen_by = detector.normal.validation_ood
    if chosen_by in ood and Run(folder).checkpoint.exists():
        best = _validated(detector, job, folder)
        validated[chosen_by] = evaluation.evaluate(best, [chosen_by], seed=DRAW_SEED)["results"][0]["scores"]
    measured = tuple(Measured(**found[name], notes=_notes(name), validated=validated.get(name)) for name in ood)
    few_anomalies = {"source": job.few_from, "n": n_few} if job.few_from else None
    record = _record(job, detector.info_["training"], measured, few_anomalies=few_anomalies, validation_ood=chosen_by)
    return record, scores


def _rival(job: Job, out: Path, device: str | None) -> tuple[Record, list[StoredScores]]:
    """Any other detector on the images of the job's task, under the same protocol."""
    spec = RunSpec(job.normal, job.config, one_class=job.label, measure=False, detector=job.detector)
    detector = _trained(out / job.name, spec, device)
    scores: list[StoredScores] = []
    found = evaluation.evaluate(detector, job.measurable(), seed=DRAW_SEED, keep=scores.append)["results"]
    measured = tuple(Measured(**row, notes=_notes(row["ood"])) for row in found)
    return _record(job, detector.info_["training"], measured, decides=detector.decides), scores


def job_status(job: Job, training: Mapping[str, Any]) -> str:
    """See `Record`. Another detector has sizes of its own, and is only whole where it also is the published method."""
    if job.table not in RIVAL_TABLES:
        return status_of(training["steps"], whole=job.preset == "paper" and not paper.reductions(job.config, dict(training)))
    whole = job.preset == "paper" and not job.settings and job.detector not in paper.DEPARTING
    return status_of(training["steps"], whole=whole, trained=detector_class(job.detector).trainer_class is not None)


def _validated(detector: AMADetector, job: Job, folder: Path) -> AMADetector:
    """The same training with the weights of its best validation: nothing is trained, they are only calibrated."""
    state = AMATrainer.load(Run(folder).checkpoint, detector.torch_device)
    best = AMADetector(job.config, device=detector.torch_device)
    best.fit(_normals(job).images, trainer=state, select="validated")
    best.info_["normal"] = detector.info_["normal"]
    return best


def _few_anomalies(job: Job, out: Path) -> tuple[Path, int]:
    """A folder with FEW images of the OOD set's training split, of a smaller one all, drawn by the job's seed; and how many.

    Jobs with other normal images share it: its images depend on the set and the seed alone. Several may fill it at once.
    """
    folder = out / "anomalies" / f"{job.few_from}-{FEW}-s{job.seed}"
    images = load_any(job.few_from, "train").images
    chosen = np.random.default_rng([job.seed, FEW]).choice(len(images), min(FEW, len(images)), replace=False)
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(images[np.sort(chosen)]):
        file = folder / "train" / f"{place:03d}.png"
        if not file.exists():
            write_atomically(file, png(image))
    return folder, len(chosen)


def _simple(job: Job, out: Path, device: str | None) -> Record:
    """The trivial baselines on the images of the job's task, each a detector of the registry under the same protocol."""
    figures: dict[str, list[dict[str, Any]]] = {}
    settings = simple_settings(job.config)
    for title, name in SIMPLE.items():
        spec = RunSpec(job.normal, settings[name], one_class=job.label, measure=False, detector=name)
        detector = _trained(out / job.name / name, spec, device)
        figures[title] = evaluation.evaluate(detector, job.measurable(), seed=DRAW_SEED)["results"]
    training = detector.info_["training"]  # of the autoencoder, the only one that is trained by steps
    measured = []
    for rows in zip(*figures.values()):
        scores = {title: next(iter(row["scores"].values())) for title, row in zip(figures, rows)}
        measured.append(Measured(**{**rows[0], "scores": scores}, notes=_notes(rows[0]["ood"])))
    return _record(job, training, tuple(measured), codec=f"{settings['lossless_length'].codec} lossless")


def _trained(folder: Path, spec: RunSpec, device: str | None) -> AnomalyDetector:
    """The model of a run folder, trained first (or further) where it is not finished."""
    run = Run(folder)
    if (folder / "config.json").exists() and run.status().state == State.FINISHED:
        return load_detector(folder, device=device)
    return execute(folder, spec, resume=run.exists(), device=device)


def _record(job: Job, training: dict[str, Any], measured: tuple[Measured, ...], **more) -> Record:
    config, rival = job.config, job.table in RIVAL_TABLES
    return Record(
        table=job.table,
        row=job.row,
        normal=job.normal,
        label=job.label,
        seed=job.seed,
        preset=job.preset,
        settings=job.settings,
        condition=job.condition,
        config=config.to_dict(),
        mode="" if rival else config.mode,
        status=job_status(job, training),
        width={} if rival else {name: getattr(config, f"width_{name}") for name in ("encoder", "generator", "critic")},
        steps=training["steps"],
        epochs=round(_epochs(config, training), 3),
        n_images=training["n_train"],
        precision=training["precision"],
        hardware=training["device"],
        seconds=training["seconds"],
        versions=training["versions"],
        commit=training["commit"],
        command=job.command,
        draw_seed=DRAW_SEED,
        results=measured,
        **more,
    )


def _epochs(config: Settings, training: dict[str, Any]) -> float:
    """Passes over the training images; 0 of a detector that is not trained by steps."""
    return paper.epochs(config, training) or 0.0 if hasattr(config, "batch_size") else 0.0


def _normals(job: Job) -> ImageSet:
    images = load_any(job.normal, "train", **vars(job.config.input))
    return images if job.label is None else one_class(images, job.label)


def _notes(ood: str) -> tuple[str, ...]:
    return () if ood == REST else load_any(ood, "ood").notes


@dataclass(frozen=True)
class Progress:
    """What `train_all` tells its caller: `job` was `started`, `stored`, left to `another` call that is at it, or `failed` (with
    `words`), or just time passed (None).

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

    Measured on two cores with preset tiny: two processes of one thread train 1.48 times as fast together as one of two.
    """
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def train_all(
    jobs: Sequence[Job],
    out: Path,
    results: Path,
    *,
    parallel: int | None = None,
    device: str | None = None,
    devices: Sequence[str] | None = None,
    ray: Any = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Job]:
    """Carry out jobs, `parallel` at once, each in a process of its own; returns those that failed.

    Several calls may share `out` and `results`, on several machines too: a job is carried out by the one that is first to lock
    it, and left alone by the others.

    Args:
        devices: one for each job at once, in place of `parallel` and `device`.
        ray: of `cluster.cluster`: jobs are its tasks, as many at once as it has GPUs (or cores) for; a job whose worker dies
            goes on on another.

    Ctrl-C and SIGTERM stop it: every job saves its state, and the next call goes on (twice: at once, with what was saved last).

    Raises RunStopped.
    """
    places = _Places(devices or [device] * (slots(ray) if ray else parallel or parallel_jobs()), out)
    sweep = _Sweep(jobs, out, results, places, ray, on_progress)
    with stop_signals() as stop_requested:
        try:
            sweep.run(stop_requested)
        except KeyboardInterrupt:
            left = sweep.stop()
            raise RunStopped(f"Stopped with {left} of {len(jobs)} trainings left; the same command continues.") from None
        except BaseException:
            sweep.stop()  # trainings outlive this process otherwise, and their locks would be free
            raise
        finally:
            places.close()
    return sweep.failed


class _Sweep:
    """The jobs of one call of `train_all`: which wait, which failed, and how far all of them are."""

    def __init__(
        self,
        jobs: Sequence[Job],
        out: Path,
        results: Path,
        places: "_Places",
        ray: Any,
        on_progress: Callable[[Progress], None],
    ):
        self.out, self.results, self.places, self.ray, self.on_progress = out, results, places, ray, on_progress
        self.waiting, self.failed = list(jobs), []
        self.total, self.passed_over, self.began = len(jobs), 0, time.monotonic()
        parallel = max(1, min(len(places.free), len(jobs)))
        self.threads = max(1, (os.cpu_count() or 1) // parallel) if torch.cuda.is_available() else 1
        self.scheduler = Scheduler(
            take=self._take,
            start=self._start,
            started=lambda job: self._tell(job, "started"),
            ended=self._ended,
            finished=lambda: not self.waiting,
            parallel=parallel,
        )

    def run(self, stop_requested: StopRequested) -> None:
        """Until no job is left. Raises KeyboardInterrupt where a stop was asked for."""

        def look() -> None:
            self._tell()
            if stop_requested():
                raise KeyboardInterrupt

        self.scheduler.run(look)

    def stop(self) -> int:
        """End what runs, each with its state saved; returns how many jobs are left."""
        left = len(self.waiting) + len(self.scheduler.active)
        self.scheduler.stop()
        return left

    def _tell(self, job: Job | None = None, what: str = "", words: str = "") -> None:
        active = self.scheduler.active
        under_way = sum(_fraction(Run(self.out / job.name), process.pid) for job, process in active)
        done = self.total - len(self.waiting) - len(active) + under_way
        trained = done - self.passed_over
        left = (time.monotonic() - self.began) * (self.total - done) / trained if trained > 0 else None
        self.on_progress(Progress(done, self.total, left, job, what, words))

    def _take(self) -> Job | None:
        """The next job that no other call carries out or has stored."""
        while self.waiting:
            job = self.waiting.pop(0)
            claimed = self.places.take(job)
            if claimed and not is_stored(job, self.results):
                return job
            self.places.leave(job)
            self.passed_over += 1
            self._tell(job, "stored" if claimed else "another", "by another call")
        return None

    def _start(self, job: Job) -> subprocess.Popen | Task:
        if self.ray:
            return Task(self.ray, _carry_out, job.to_json(), str(self.out), str(self.results), fresh=True)
        return _start(job, self.out, self.results, self.places.device(job), self.threads)

    def _ended(self, job: Job, code: int) -> None:
        self.places.leave(job)
        if code == 0 and is_stored(job, self.results):
            self._tell(job, "stored", figures(read_record(self.results / f"{job.name}.json")))
        else:
            self.failed.append(job)
            self._tell(job, "failed", _last_words(Run(self.out / job.name), code))


def figures(record: Record) -> str:
    """The AUROCs of a record in one line."""
    shown = []
    for row in record.results:
        named = ("A", "T") if "A" in row.scores else row.scores
        shown.append(f"{row.ood} " + " ".join(f"{name} {row.scores[name]['auroc']:.3f}" for name in named))
    return "; ".join(shown)


class _Places:
    """Devices for jobs, and the locks of those that this call carries out."""

    def __init__(self, devices: Sequence[str | None], out: Path):
        self.free, self.out = list(devices), out
        self.held: dict[str, tuple[str | None, IO[str]]] = {}

    def take(self, job: Job) -> bool:
        """Lock a job and give it a device; False where another call has it."""
        claim = _claim(job, self.out)
        if claim:
            self.held[job.name] = (self.free.pop(0), claim)
        return claim is not None

    def device(self, job: Job) -> str | None:
        return self.held[job.name][0]

    def leave(self, job: Job) -> None:
        """Take both back, if it has them."""
        if job.name in self.held:
            device, claim = self.held.pop(job.name)
            self.free.append(device)
            claim.close()

    def close(self) -> None:
        """Give all locks back."""
        for _, claim in self.held.values():
            claim.close()
        self.held.clear()


def _claim(job: Job, out: Path) -> IO[str] | None:
    """The lock of a job, open for as long as it is held; None where another call has it. It ends with this process."""
    folder = out / CLAIMS
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / job.name, "a")  # noqa: SIM115 (closed when the job has ended)
    if lock(file):
        return file
    file.close()
    return None


def _carry_out(job: str, out: str, results: str) -> None:
    """A job by a worker of a cluster."""
    carry_out(Job.from_json(job), Path(out), Path(results))


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
