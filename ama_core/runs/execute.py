"""Carrying out a run: trained, calibrated, measured and written as a bundle, with its status kept for whoever watches.

In this process by `execute`, or in one of its own by `start`.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from ama_core.data import ImageSet, absolute_source, available, catalog, draw, load_any, one_class
from ama_core.detectors.base import WATCHED, AnomalyDetector, NormalData
from ama_core.detectors.registry import detector_class
from ama_core.errors import AMAError, BundleError, ConfigError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.runs import measuring
from ama_core.runs.folder import LOG, Run
from ama_core.runs.processes import start_command
from ama_core.runs.spec import RunSpec, check, check_anomalies, command_line
from ama_core.runs.status import State, Status
from ama_core.stopping import StopRequested, stop_signals
from ama_core.training import distributed
from ama_core.training.loop import Event
from ama_core.training.trainer import Trainer

HEARTBEAT_SECONDS = 10.0  # between two signs of life while a large data set is measured

OnEvent = Callable[[Event], None]


class RunStopped(AMAError):
    """The run was asked to stop; its state is saved and it can be resumed."""


def execute(
    folder: Path | str,
    spec: RunSpec,
    *,
    resume: bool = False,
    claimed: bool = False,
    download: bool = False,
    device: torch.device | str | None = None,
    on_event: OnEvent | None = None,
    on_progress: evaluation.Progress | None = None,
) -> AnomalyDetector:
    """Carry out a run in this process: train, calibrate, measure, write the bundle.

    Launched by `torchrun`, all processes train; the first alone writes, calibrates and measures, the others then return with a
    detector that is not fitted.

    Args:
        resume: go on from the checkpoint, with the spec of the folder; from the start where there is no checkpoint yet.
        claimed: the queue's worker holds this run for us: a stop asked for since then counts.

    Raises:
        ConfigError, DataError: the spec cannot be carried out, or the folder is in use.
        RunStopped: SIGTERM, Ctrl-C or a `stop` file asked for it; the state is saved.
        TrainingDiverged: see `training.loop.train`.
        ProcessLost: another process of this training ended.
    """
    run = Run(Path(folder))
    with distributed.processes(device) as own_device:
        if distributed.is_first():
            return _lead(run, spec, resume, claimed, download, own_device, on_event, on_progress)
        return _follow(run, own_device)


def _lead(
    run: Run,
    spec: RunSpec,
    resume: bool,
    claimed: bool,
    download: bool,
    device: torch.device | str | None,
    on_event: OnEvent | None,
    on_progress: evaluation.Progress | None,
) -> AnomalyDetector:
    """`execute` by the first process, or the only one."""
    spec = _resumed(run, spec) if resume else _begun(run, spec, download)
    detector_kind = detector_class(spec.detector)
    splits = detector_kind.trains() and detector_kind.trainer_class.splits
    distributed.check(splits, detector_kind.title, getattr(spec.config, "batch_size", 0))
    with run.held(claimed):
        run.write_spec(spec)
        work = _Work(run, spec, resume)
        with _stop_requests(run) as stop_requested:
            try:
                detector = work.train(device, download, stop_requested, on_event)
                if spec.measure:
                    work.measure(detector, stop_requested, on_progress)
                measuring.write_card(detector, run.path)
            except BaseException as error:
                with suppress(OSError):  # a full disk must not hide the reason; without this the run counts as interrupted
                    work.end_badly(error)
                raise
        work.tell(state=State.FINISHED)
        run.log("finished")
        return detector


def _follow(run: Run, device: torch.device | str | None) -> AnomalyDetector:
    """`execute` by any other process: trains as the first one says, and writes nothing."""
    order = json.loads(distributed.from_first())
    spec = RunSpec.from_json(order["spec"])
    with _stop_requests(run) as stop_requested:
        images, anomalies, validation, watched = _data(spec, False)
        detector = detector_class(spec.detector)(spec.config, device=device)

        def follow(event: Event) -> None:
            if event.closes_step and distributed.any_of(stop_requested()):
                distributed.wait()  # for the first one to save
                raise RunStopped(f"Stopped at step {event.step}.")

        return detector.fit(
            images,
            anomalies=anomalies,
            validation_anomalies=validation,
            watched=watched,
            checkpoint=run.checkpoint,
            trainer=_trainer(run, spec, detector, order["resume"]),
            select=spec.select,
            on_event=follow,
        )


def start(folder: Path | str, spec: RunSpec, *, resume: bool = False, claimed: bool = False) -> subprocess.Popen:
    """Start a run in a process of its own, which outlives this one; `claimed` as in `execute`. Raises OSError."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--resume"] if resume else ["--spec", spec.to_json()]
    options += ["--claimed"] if claimed else []
    return start_command(["train", spec.dataset, "--out", str(folder), "--quiet", *options], folder / LOG)


def device_name(device: torch.device) -> str:
    """A device in words, such as `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type.upper()


def _begun(run: Run, spec: RunSpec, download: bool) -> RunSpec:
    """What a new run is to do; one that cannot begin leaves no folder behind. Raises ConfigError, DataError."""
    if not run.is_unused():
        raise ConfigError(f"{run.path} is not empty: choose another --out, or continue the run in it with --resume.")
    if download:
        check_anomalies(spec)
    else:
        check(spec)
    return spec


def _resumed(run: Run, asked: RunSpec) -> RunSpec:
    """What a run was asked to do first. Raises ConfigError where it is asked for another set now, BundleError."""
    spec = run.spec()
    if asked.dataset != spec.dataset:
        raise ConfigError(
            f"{run.path} was started on {spec.dataset!r}, not {asked.dataset!r}: name that, or another --out for a new run."
        )
    return spec


class _Work:
    """The work of this process on a run that it holds; keeps the run's status up to date."""

    def __init__(self, run: Run, spec: RunSpec, resume: bool):
        self.run, self.spec, self.resume = run, spec, resume
        try:
            before = run.written_status()
        except BundleError:
            before = None
        self.status = Status(
            State.RUNNING,
            started=time.time(),
            submitted=(before and before.submitted) or time.time(),  # its place in the queue should it be paused
            fingerprint=before.fingerprint if before and resume else None,
        ).by_this_process()
        run.write(self.status)

    def tell(self, **changes) -> None:
        """Change the status."""
        self.status = self.status.replace(**changes)
        self.run.write(self.status)

    def train(
        self,
        device: torch.device | str | None,
        download: bool,
        stop_requested: StopRequested,
        on_event: OnEvent | None,
    ) -> AnomalyDetector:
        """From the data to the saved model. Raises as `execute`."""
        run, spec = self.run, self.spec
        images, anomalies, validation, watched = _data(spec, download)
        distributed.from_first(json.dumps({"spec": spec.to_json(), "resume": self.resume}))  # now that the data are here
        detector = detector_class(spec.detector)(spec.config, device=device)
        trainer = _trainer(run, spec, detector, self.resume)
        if trainer and trainer.step and self.status.fingerprint not in (None, images.fingerprint):
            raise DataError(
                f"The images of {spec.dataset} are not those that the run in {run.path} began with: start a new run."
            )
        run.forget_after(trainer.step if trainer else 0)
        together = f"{distributed.size()} processes, each on " if distributed.size() > 1 else ""
        self.tell(device=together + device_name(detector.torch_device), fingerprint=images.fingerprint)
        begins = f"continues at step {trainer.step}" if trainer and trainer.step else "starts"
        run.log(f"{spec.dataset} {begins} on {self.status.device}, {len(images):,} images")
        for note in images.notes:
            run.log(note)

        with run.recording() as record:

            def follow(event: Event) -> None:
                record(event)
                if event.warning and not self.status.warning:
                    run.log(f"step {event.step}: {event.warning}")
                self.status = self.status.after(event)
                run.write(self.status)
                if on_event:
                    on_event(event)
                if event.closes_step and distributed.any_of(stop_requested()):
                    trainer.save(run.checkpoint)
                    distributed.wait()
                    raise RunStopped(f"Stopped at step {event.step}; continue with --resume.")

            detector.fit(
                images,
                anomalies=anomalies,
                validation_anomalies=validation,
                watched=watched,
                checkpoint=run.checkpoint,
                trainer=trainer,
                select=spec.select,
                on_event=follow,
            )
        # That of this process may only resume the run, or be the worker's.
        detector.info_["training"]["command"] = command_line(spec, run.path)
        others = (spec.validate_ood, spec.anomalies, spec.watch)
        normal = NormalData(
            images.name,
            absolute_source(spec.dataset),
            spec.one_class,
            len(images),
            images.fingerprint,
            *(source and absolute_source(source) for source in others),
        )
        # As before there was one, where none was named.
        detector.info_["normal"] = {name: value for name, value in vars(normal).items() if name != "watch" or value}
        detector.save(run.path)
        return detector

    def measure(
        self, detector: AnomalyDetector, stop_requested: StopRequested, on_progress: evaluation.Progress | None
    ) -> None:
        """Measure the trained model, and say how far that is. Raises RunStopped."""
        total = measuring.measuring_steps(detector)
        sets = [detector.normal.name, *evaluation.available_others(detector)]
        self.tell(state=State.MEASURING, measured_sets=0, sets_to_measure=total)
        self.run.log("trained; measuring against the data sets that are available locally")
        last, written = ("", 0), time.monotonic()  # what was reported, and when it was written

        def measured(done: int, n: int, name: str) -> None:
            nonlocal last, written
            if on_progress:
                on_progress(done, n, name)
            another, last = name != last[0] or done <= last[1], (name, done)
            if another:
                place = {"set_number": sets.index(name) + 1, "sets": len(sets)} if name in sets else {}
                self.status = self.status.replace(
                    measured_sets=min(self.status.measured_sets + 1, total),
                    measuring=name,
                    **({"set_number": None, "sets": None} | place),
                )
            if another or time.monotonic() - written > HEARTBEAT_SECONDS:
                self.tell()
                written = time.monotonic()
            if self.run.skip_asked():
                raise measuring.MeasuringSkipped("What is not measured yet is left out, as asked.")
            if stop_requested():
                raise RunStopped("Stopped while measuring; the model is trained. Continue with --resume.")

        try:
            measuring.measure_run(detector, self.run.path, measured)
        except measuring.MeasuringSkipped:
            self.run.forget_skip()
            self.run.log("what was not measured yet is left out, as asked; `python -m ama_core measure` measures it")

    def end_badly(self, error: BaseException) -> None:
        """Say that the run was stopped, or why it failed. Raises OSError."""
        if isinstance(error, RunStopped):
            state = self.run.stop_state() or State.STOPPED
            self.tell(state=state)
            self.run.log(f"{state} at step {self.status.step}; the state is saved")
            return
        message = str(error) if isinstance(error, (AMAError, OSError)) else f"{type(error).__name__}: {error}"
        self.tell(state=State.FAILED, error=message)
        self.run.log(f"failed: {message}")


def _trainer(run: Run, spec: RunSpec, detector: AnomalyDetector, resume: bool) -> Trainer | None:
    """The training from its first step, or as its checkpoint left it. Raises BundleError."""
    checkpoint = run.checkpoint
    if not detector.trains() or not resume or not checkpoint.exists():
        return detector.trainer()
    trainer = detector.trainer_class.load(checkpoint, detector.torch_device)
    if trainer.config != spec.config:
        raise BundleError(f"{checkpoint} belongs to other hyper-parameters than run.json.")
    return trainer


def _data(spec: RunSpec, download: bool) -> tuple[ImageSet, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Normal images, real anomalies to train with, those for the periodic AUROC, and those to look at. Raises DataError."""
    as_input = vars(spec.config.input)
    images = load_any(spec.dataset, "train", download=download, **as_input)
    if spec.one_class is not None:
        images = one_class(images, spec.one_class)
    anomalies = load_any(spec.anomalies, "train", **as_input).images if spec.anomalies else None
    validation = None
    if spec.validate_ood:
        chosen, _ = evaluation.choose_validation_anomalies(spec.validate_ood, spec.config.seed, spec.anomalies, **as_input)
        validation = chosen.images
    watched = None
    if spec.watch:
        # Where there is a training split: what is looked at need not be what is tested.
        split = "train" if spec.watch in catalog() and "train" in available(spec.watch) else "ood"
        others = load_any(spec.watch, split, **as_input).images
        watched = others[draw(len(others), WATCHED, spec.config.seed)]
    return images, anomalies, validation, watched


@contextmanager
def _stop_requests(run: Run) -> Iterator[StopRequested]:
    """Yields a function that tells whether a stop was asked for: by file, SIGTERM, or Ctrl-C (twice: at once)."""
    # torchrun sends SIGTERM once one process has ended: this one still has to say why it ends.
    with stop_signals(restore=lambda: distributed.size() == 1) as asked:
        yield lambda: asked() or run.stop_asked() is not None
