"""Run folders: one training, from what was asked to the finished model, in files that anyone may watch.

    run.json               what was asked: data, hyper-parameters, protocol
    status.json            state, process, step, time left; rewritten at every event
    metrics.jsonl          one line an event
    samples/step-N.png     inputs above their reconstructions
    checkpoint.safetensors everything needed to go on exactly
    log.txt                the run's diary, and what its process printed when it was launched from here
    .lock                  locked by the process that works on the run
    stop                   its presence asks the run to save and end; the word `pause` in it, to be called paused
    config.json, ...       the bundle (see `bundle`), once finished

States: queued (see `queue`), running, measuring, paused, stopped, interrupted (its process is gone), failed, finished.
"""

import dataclasses
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from ama_core.evaluation import protocol as evaluation
from ama_core.storage.bundle import FIRST, write_results, write_scores
from ama_core.data import available, catalog, decode_image, iter_images, load_any, one_class, overlapping
from ama_core.detectors.ama.detector import AMADetector
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.detectors.registry import detector_class
from ama_core.errors import AMAError, BundleError, ConfigError, DataError
from ama_core.storage.files import ROOT, lock, parse_json, read_json, remove_partials, write_atomically
from ama_core.analysis.latent_map import measure_latents, write_latents
from ama_core.analysis.model_card import model_card
from ama_core.analysis.neighbours import measure_neighbours, write_neighbours
from ama_core.analysis.response import measure_response, write_response
from ama_core.settings import Settings
from ama_core.training.loop import Event

VERSION = 1  # of run.json
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.txt"
LOCK = ".lock"
METRICS = "metrics.jsonl"
RUNS_VARIABLE = "AMA_RUNS_DIR"
WORDS = ("state", "mark", "device", "fingerprint", "error", "measuring")  # of status.json; all else in it are numbers
ACTIVE = ("running", "measuring")  # states in which a process works on the run
HEARTBEAT_SECONDS = 10.0  # between two signs of life while a large data set is measured
CURVE_POINTS = 500  # of a curve that is shown while it grows


class RunStopped(AMAError):
    """The run was asked to stop; its state is saved and it can be resumed."""


@dataclass(frozen=True)
class RunSpec:
    """What a run was asked to do; stored as `run.json`, so that a resumed run cannot disagree with itself.

    Attributes:
        dataset: normal data: a name of the catalog, a folder, or an .npz file.
        one_class: train on this class alone (Table 2).
        anomalies: source of real anomalies used as negatives (semi-supervised).
        validate_ood: source of the 50 anomalies behind the periodic AUROC.
        select: `last` or `validated` (see `AnomalyDetector.fit`).
        measure: whether to store scores of every data set at hand once trained.
        detector: its name in the registry.
    """

    dataset: str
    config: Settings
    one_class: int | None = None
    anomalies: str | None = None
    validate_ood: str | None = None
    select: str = "last"
    measure: bool = True
    detector: str = FIRST

    def to_json(self) -> str:
        values = {"version": VERSION, **vars(self), "config": self.config.to_dict()}
        if self.detector == FIRST:  # as before there was another, so that older software reads it
            del values["detector"]
        return json.dumps(values, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """What `to_json` wrote, in this version or an older one. Raises BundleError."""
        try:
            values = parse_json(text)
            version = values.pop("version", 1)  # the first runs did not say
            if version > VERSION:
                raise BundleError(f"it has version {version}, this software reads up to {VERSION}: update AMA Explorer")
            settings = detector_class(values.get("detector", FIRST)).Settings
            return cls(**{**values, "config": settings.from_dict(values["config"])})
        except (ValueError, TypeError, KeyError, AttributeError, AMAError) as error:
            raise BundleError(f"This is not what a run was asked to do: {error}.") from error

    @classmethod
    def read(cls, folder: Path) -> "RunSpec":
        """The spec of a run folder. Raises BundleError where there is none."""
        try:
            return cls.from_json((folder / "run.json").read_text())
        except (OSError, ValueError, BundleError) as error:
            raise BundleError(f"{folder} is not a run folder that can be resumed: {error}.") from error


def runs_dir() -> Path:
    """Where the app keeps its runs: the environment's AMA_RUNS_DIR, else `runs/` beside this package."""
    return Path(os.environ.get(RUNS_VARIABLE) or ROOT / "runs").expanduser()


def config_for(dataset: str, preset_name: str, detector: str = FIRST, **changes: Any) -> Settings:
    """A detector's preset with the channels and the fit that suit the data set, and `changes` over both. Raises ConfigError."""
    info = catalog().get(dataset)
    suited = {"channels": info.channels, "fit": info.fit} if info else {}
    return detector_class(detector).Settings.preset(preset_name, **{**suited, **changes})


def command_line(spec: RunSpec, preset_name: str, out: Path | str) -> str:
    """What to type in a terminal for the same run."""
    words = ["python", "-m", "ama_core", "train", spec.dataset, "--preset", preset_name, "--out", str(out)]
    words += ["--detector", spec.detector] if spec.detector != FIRST else []
    suited = config_for(spec.dataset, preset_name, spec.detector).to_dict()
    for name, value in spec.config.to_dict().items():
        if value != suited[name]:
            words += ["--set", f"{name}={value}"]
    options = {"--one-class": spec.one_class, "--anomalies": spec.anomalies, "--validate-ood": spec.validate_ood}
    for option, value in options.items():
        if value is not None:
            words += [option, str(value)]
    words += ["--select", spec.select] if spec.select != "last" else []
    words += [] if spec.measure else ["--no-measure"]
    return shlex.join(words)


def check(spec: RunSpec) -> None:
    """Tell early what a run would stumble over, as far as can be told without reading all its data.

    Raises:
        DataError: a source is not at hand or holds no readable image.
        ConfigError: the class is unknown, the anomalies are the normal images, or `validated` is asked for without validation
            anomalies.
    """
    if spec.select not in ("last", "validated"):
        raise ConfigError(f"select = {spec.select!r} must be last or validated.")
    if spec.select == "validated" and not spec.validate_ood:
        raise ConfigError("Choosing the weights by validation needs a set of validation anomalies.")
    check_anomalies(spec)
    for source, split in ((spec.dataset, "train"), (spec.anomalies, "train"), (spec.validate_ood, "test")):
        if source and source in catalog():
            if split not in available(source):
                load_any(source, split)  # says how to get it
        elif source:
            _check_own(source)
    classes = catalog()[spec.dataset].classes if spec.dataset in catalog() else ()
    if spec.one_class is not None and classes and not 0 <= spec.one_class < len(classes):
        raise ConfigError(f"{spec.dataset} has the classes 0 to {len(classes) - 1}; there is no {spec.one_class}.")


def check_anomalies(spec: RunSpec) -> None:
    """Raises ConfigError where the anomalies are the normal images, by whatever name."""
    for option, source in (("--anomalies", spec.anomalies), ("--validate-ood", spec.validate_ood)):
        if source and overlapping(spec.dataset, source):
            raise ConfigError(
                f"The anomalies ({option} {source}) are, or lie among, the normal images ({spec.dataset}): "
                "name others, that the model shall tell from these."
            )


def execute(
    folder: Path | str,
    spec: RunSpec,
    *,
    resume: bool = False,
    claimed: bool = False,
    download: bool = False,
    device: torch.device | str | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: evaluation.Progress | None = None,
) -> AnomalyDetector:
    """Carry out a run in this process: train, calibrate, measure, write the bundle.

    Args:
        resume: go on from the checkpoint, with the spec of the folder; from the start where there is no checkpoint yet.
        claimed: the queue's worker holds this run for us: a stop asked for since then counts.

    Raises:
        ConfigError, DataError: the spec cannot be carried out, or the folder is in use.
        RunStopped: SIGTERM, Ctrl-C or a `stop` file asked for it; the state is saved.
        TrainingDiverged: see `training.train`.
    """
    folder = Path(folder)
    if resume:
        asked, spec = spec, RunSpec.read(folder)
        if asked.dataset != spec.dataset:
            raise ConfigError(f"{folder} was started on {spec.dataset!r}, not {asked.dataset!r}.")
    elif folder.is_dir() and any(file.name not in (LOG, LOCK) for file in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose another --out, or continue the run in it with --resume.")
    elif download:
        check_anomalies(spec)
    else:
        check(spec)  # a run that cannot begin leaves no folder behind
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as held:  # the lock ends with this process, however that ends
        if not lock(held) or (not claimed and is_running(folder)):
            raise ConfigError(f"A process is already training in {folder}.")
        if not claimed:
            (folder / "stop").unlink(missing_ok=True)
        for place in (folder, folder / "samples"):
            remove_partials(place)
        write_atomically(folder / "run.json", spec.to_json())
        (folder / "samples").mkdir(exist_ok=True)
        before = _status_before(folder)
        status = {"state": "running", **this_process(), "started": time.time()}
        status |= {"submitted": before.get("submitted") or time.time()}  # its place in the queue should it be paused
        if resume and "fingerprint" in before:
            status["fingerprint"] = before["fingerprint"]
        write_status(folder, status)
        try:
            with _stop_requests(folder) as stop_requested:
                detector = _train(folder, spec, status, stop_requested, resume, download, device, on_event)
                if spec.measure:
                    status |= {"state": "measuring", "measured_sets": 0, "sets_to_measure": measuring_steps(detector)}
                    write_status(folder, status)
                    _log(folder, "trained; measuring against the data sets at hand")
                    at, written = ("", 0), time.monotonic()

                    def measured(done: int, total: int, name: str) -> None:
                        nonlocal at, written
                        if on_progress:
                            on_progress(done, total, name)
                        another, at = name != at[0] or done <= at[1], (name, done)
                        if another:
                            status["measured_sets"] = min(status["measured_sets"] + 1, status["sets_to_measure"])
                            status["measuring"] = name
                        if another or time.monotonic() - written > HEARTBEAT_SECONDS:
                            write_status(folder, status)
                            written = time.monotonic()
                        if stop_requested():
                            raise RunStopped("Stopped while measuring; the model is trained. Continue with --resume.")

                    measure_run(detector, folder, measured)
                _write_card(detector, folder)
        except BaseException as error:
            with suppress(OSError):  # a full disk must not hide the reason; without this the run counts as interrupted
                _end_badly(folder, status, error)
            raise
        write_status(folder, status | {"state": "finished"})
        _log(folder, "finished")
        return detector


def _train(
    folder: Path,
    spec: RunSpec,
    status: dict[str, Any],
    stop_requested: Callable[[], bool],
    resume: bool,
    download: bool,
    device: torch.device | str | None,
    on_event: Callable[[Event], None] | None,
) -> AnomalyDetector:
    """The part of `execute` from the data to the saved model; keeps `status` up to date."""
    checkpoint = folder / CHECKPOINT
    as_input = vars(spec.config.input)
    images = load_any(spec.dataset, "train", download=download, **as_input)
    if spec.one_class is not None:
        images = one_class(images, spec.one_class)
    anomalies = load_any(spec.anomalies, "train", **as_input).images if spec.anomalies else None
    validation = None
    if spec.validate_ood:
        seed = spec.config.seed
        validation = evaluation.choose_validation_anomalies(spec.validate_ood, seed, **as_input)[0].images

    detector = detector_class(spec.detector)(spec.config, device=device)
    trainer = detector.trainer()
    if trainer and resume and checkpoint.exists():
        trainer = trainer.load(checkpoint, detector.torch_device)
        if trainer.config != spec.config:
            raise BundleError(f"{checkpoint} belongs to other hyper-parameters than run.json.")
        if status.get("fingerprint", images.fingerprint) != images.fingerprint:
            raise DataError(f"The images of {spec.dataset} are not those that the run in {folder} began with: start a new run.")
    _forget_after(folder, trainer.step if trainer else 0)
    status |= {"device": device_name(detector.torch_device), "fingerprint": images.fingerprint}
    write_status(folder, status)
    begins = f"goes on at step {trainer.step}" if trainer and trainer.step else "starts"
    _log(folder, f"{spec.dataset} {begins} on {status['device']}, {len(images):,} images")

    with open(folder / METRICS, "a") as metrics:

        def record(event: Event) -> None:
            _record(folder, metrics, event)
            status.update(step=event.step, total_steps=event.total_steps, **event.values)
            write_status(folder, status)
            if on_event:
                on_event(event)
            if event.closes_step and stop_requested():
                trainer.save(checkpoint)
                raise RunStopped(f"Stopped at step {event.step}; continue with --resume.")

        detector.fit(
            images,
            anomalies=anomalies,
            validation_anomalies=validation,
            checkpoint=checkpoint,
            trainer=trainer,
            select=spec.select,
            on_event=record,
        )
    detector.info_["normal"] = vars(
        NormalData(
            images.name, spec.dataset, spec.one_class, len(images), images.fingerprint, spec.validate_ood, spec.anomalies
        )
    )
    detector.save(folder)
    return detector


def _end_badly(folder: Path, status: dict[str, Any], error: BaseException) -> None:
    if isinstance(error, RunStopped):
        state = "paused" if stop_asked(folder) == "pause" else "stopped"
        write_status(folder, status | {"state": state})
        _log(folder, f"{state} at step {status['step']}; the state is saved")
        return
    message = str(error) if isinstance(error, (AMAError, OSError)) else f"{type(error).__name__}: {error}"
    write_status(folder, status | {"state": "failed", "error": message})
    _log(folder, f"failed: {message}")


def measure_run(detector: AnomalyDetector, folder: Path, progress: evaluation.Progress | None = None, *, seed: int = 0) -> None:
    """Score and map every data set at hand, and store the nearest training images: all that the bundle `folder` shows, anew."""
    stored = evaluation.measure_available(detector, seed=seed, progress=progress)
    write_scores(folder, stored)
    if isinstance(detector, AMADetector):
        write_latents(folder, measure_latents(detector, seed=seed, progress=progress))
        if response := measure_response(detector, stored, progress=progress):
            write_response(folder, response)
    others = evaluation.available_others(detector)
    write_results(folder, evaluation.evaluate(detector, others, model=folder.name, seed=seed, progress=progress))
    _write_card(detector, folder)
    if "features" in detector.can():
        write_neighbours(folder, measure_neighbours(detector, seed=seed))


def measuring_steps(detector: AnomalyDetector) -> int:
    """How often `measure_run` goes on to something else: sets scored for densities and for figures; codes, map, response."""
    others = evaluation.available_others(detector)
    scored = (2 + len(others)) + (1 + len([name for name in others if name != evaluation.REST]))
    return scored + (3 if isinstance(detector, AMADetector) else 0)


def start(folder: Path | str, spec: RunSpec, *, resume: bool = False, claimed: bool = False) -> subprocess.Popen:
    """Start a run in a process of its own, which outlives this one; `claimed` as in `execute`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--resume"] if resume else ["--spec", spec.to_json()]
    options += ["--claimed"] if claimed else []
    command = [sys.executable, "-m", "ama_core", "train", spec.dataset, "--out", str(folder), "--quiet", *options]
    with open(folder / LOG, "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def request_stop(folder: Path | str, *, pause: bool = False) -> None:
    """Ask a run to save its state and end, at its next event; `pause`: it will be called paused, not stopped."""
    write_atomically(Path(folder) / "stop", "pause" if pause else "")


def stop_asked(folder: Path | str) -> str | None:
    """`pause` or `stop` where that was asked of the run, else None."""
    try:
        return "pause" if (Path(folder) / "stop").read_text() == "pause" else "stop"
    except OSError:
        return None


def read_status(folder: Path | str) -> dict[str, Any]:
    """`status.json`, with `state` corrected to `interrupted` where the process is gone. Raises BundleError."""
    try:
        status = read_json(Path(folder) / "status.json")
        if not isinstance(status, dict) or not isinstance(status["state"], str):
            raise ValueError("status.json does not say its state")
        if wrong := [name for name, value in status.items() if name not in WORDS and not _is_number(value)]:
            raise ValueError(f"{wrong[0]} in status.json is no number")
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{folder} is not a run folder: {error}.") from error
    if status["state"] in ACTIVE and not is_running(folder):
        status["state"] = "interrupted"
    return status


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace `status.json`, with the time of this writing as `heartbeat`."""
    write_atomically(Path(folder) / "status.json", json.dumps({**status, "heartbeat": time.time()}))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63  # false for NaN


def is_running(folder: Path | str) -> bool:
    """Whether the process that `status.json` names still lives and works on this run; never the asking process itself."""
    try:
        status = read_json(Path(folder) / "status.json")
        if status["state"] not in ACTIVE or status["pid"] == os.getpid():
            return False
        mark = process_mark(status["pid"])
        return mark is not None and mark == status.get("mark", mark)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def process_mark(pid: int) -> str | None:
    """When the living process `pid` began: tells it from another that gets its number later. None: no such, or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():  # in ticks since boot, which setting the clock does not move
            return stat.read_text().rpartition(")")[2].split()[19]
        return f"{process.create_time():.2f}"
    except (psutil.Error, OSError, ValueError, TypeError, OverflowError):
        return None


def this_process() -> dict[str, Any]:
    """`pid` and `mark` of a status that this process writes."""
    return {"pid": os.getpid(), "mark": process_mark(os.getpid())}


def read_metrics(folder: Path | str) -> list[dict[str, Any]]:
    """Events so far, oldest first; a half-written last line, and any other that is damaged, is left out."""
    try:
        lines = (Path(folder) / METRICS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("kind"), str) and _is_number(event.get("step")):
            events.append({name: value for name, value in event.items() if name == "kind" or _is_number(value)})
    return events


def read_curves(folder: Path | str, most: int = CURVE_POINTS) -> dict[str, tuple[list[int], list[float]]]:
    """Name of each measured value -> (steps, values), evenly thinned to `most` points, the newest always among them."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for event in read_metrics(folder):
        if event["kind"] in ("progress", "validation"):
            for name, value in event.items():
                if name not in ("kind", "step", "total_steps"):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(event["step"])
                    values.append(value)
    for name, (steps, values) in found.items():
        if len(steps) > most:
            keep = np.linspace(0, len(steps) - 1, most).round().astype(int)
            found[name] = ([steps[i] for i in keep], [values[i] for i in keep])
    return found


def list_samples(folder: Path | str) -> dict[int, Path]:
    """Step -> picture of inputs above their reconstructions, in order of steps."""
    files = sorted((Path(folder) / "samples").glob("step-*.png"))
    numbers = {file: file.stem.removeprefix("step-") for file in files}
    return {int(number): file for file, number in numbers.items() if number.isdecimal()}


def read_sample(file: Path) -> np.ndarray:
    """A picture of `list_samples` as uint8 (H, W, C). Raises DataError."""
    return decode_image(file)[0]


def read_log(folder: Path | str, lines: int = 60) -> str:
    """The last lines of the run's diary."""
    try:
        with open(Path(folder) / LOG, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def device_name(device: torch.device) -> str:
    """A device in words, such as `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type.upper()


def list_runs(folder: Path | str) -> dict[str, Path]:
    """Names and folders of the runs in `folder`, newest first."""
    found = sorted(Path(folder).glob("*/run.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    return {file.parent.name: file.parent for file in found}


@contextmanager
def _stop_requests(folder: Path):
    """Yields a function that tells whether a stop was asked for: by file, SIGTERM, or Ctrl-C (twice: at once)."""
    asked = threading.Event()

    def on_signal(number, frame):
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    previous = {}
    if threading.current_thread() is threading.main_thread():  # Python delivers signals nowhere else
        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked.is_set() or (folder / "stop").exists()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _record(folder: Path, metrics, event: Event) -> None:
    if event.images is not None:
        rows = np.concatenate([np.concatenate(list(row), axis=1) for row in event.images])
        picture = io.BytesIO()
        Image.fromarray(rows.squeeze()).save(picture, "PNG")
        write_atomically(folder / "samples" / f"step-{event.step:07d}.png", picture.getvalue())  # pages may be looking
    line = {key: value for key, value in dataclasses.asdict(event).items() if key in ("kind", "step", "total_steps")}
    metrics.write(json.dumps({**line, **event.values}) + "\n")
    metrics.flush()
    if event.kind == "checkpoint":
        _log(folder, f"step {event.step} of {event.total_steps} saved")


def _forget_after(folder: Path, step: int) -> None:
    """Drop the events that a resumed run is about to repeat."""
    kept = [event for event in read_metrics(folder) if event["step"] <= step and event["kind"] != "done"]
    write_atomically(folder / METRICS, "".join(json.dumps(event) + "\n" for event in kept))


def _log(folder: Path, words: str) -> None:
    with open(folder / LOG, "a", errors="backslashreplace") as file:  # a file's name need not be text
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {words}\n")


def _status_before(folder: Path) -> dict[str, Any]:
    """What `status.json` says of an earlier process on this run; empty where there was none."""
    try:
        found = read_json(folder / "status.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_own(source: str) -> None:
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"'{source}' is neither a data set known here nor an existing path. Check the path.")
    first_error = None
    for file in iter_images([path]):
        if file.image is not None:
            return
        first_error = first_error or f"{file.path}: {file.error}"
    raise DataError(f"'{source}' holds no readable image. {first_error or ''}".strip())


def _write_card(detector: AnomalyDetector, folder: Path) -> None:
    write_atomically(folder / "README.md", model_card(folder, detector))
