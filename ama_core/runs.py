"""Run folders: one training, from what was asked to the finished model, in files that anyone may watch.

    run.json               what was asked: data, hyper-parameters, protocol
    status.json            state, process, step, time left; rewritten at every event
    metrics.jsonl          one line an event
    samples/step-N.png     inputs above their reconstructions
    checkpoint.safetensors everything needed to go on exactly
    log.txt                what the process printed, when it was launched from here
    stop                   its presence asks the run to save and end
    config.json, ...       the bundle (see `bundle`), once finished
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ama_core import evaluation
from ama_core.bundle import write_results, write_scores
from ama_core.config import Config, preset
from ama_core.data import catalog, load_any, one_class
from ama_core.detector import AMADetector
from ama_core.errors import AMAError, BundleError, ConfigError
from ama_core.files import write_atomically
from ama_core.model_card import model_card
from ama_core.training import Event, TrainingState

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.txt"


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
        select: `last` or `validated` (see `AMADetector.fit`).
        measure: whether to store scores of every data set at hand once trained.
    """

    dataset: str
    config: Config
    one_class: int | None = None
    anomalies: str | None = None
    validate_ood: str | None = None
    select: str = "last"
    measure: bool = True

    def to_json(self) -> str:
        return json.dumps({**vars(self), "config": self.config.to_dict()}, indent=2)

    @classmethod
    def read(cls, folder: Path) -> "RunSpec":
        """The spec of a run folder. Raises BundleError where there is none."""
        try:
            values = json.loads((folder / "run.json").read_text())
            return cls(**{**values, "config": Config.from_dict(values["config"])})
        except (OSError, ValueError, TypeError, KeyError, AMAError) as error:
            raise BundleError(f"{folder} is not a run folder that can be resumed: {error}.") from error


def config_for(dataset: str, preset_name: str, **changes: Any) -> Config:
    """A preset with the channels and the fit that suit the data set, and `changes` over both."""
    info = catalog().get(dataset)
    suited = {"channels": info.channels, "fit": info.fit} if info else {}
    return preset(preset_name, **{**suited, **changes})


def execute(
    folder: Path | str,
    spec: RunSpec,
    *,
    resume: bool = False,
    download: bool = False,
    device: torch.device | str | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: evaluation.Progress | None = None,
) -> AMADetector:
    """Carry out a run in this process: train, calibrate, measure, write the bundle.

    Raises:
        ConfigError, DataError: the spec cannot be carried out, or the folder is in use.
        RunStopped: SIGTERM, Ctrl-C or a `stop` file asked for it; the state is saved.
        TrainingDiverged: see `training.train`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    if resume:
        asked, spec = spec, RunSpec.read(folder)
        if asked.dataset != spec.dataset:
            raise ConfigError(f"{folder} was started on {spec.dataset!r}, not {asked.dataset!r}.")
    elif any(file.name != LOG for file in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose another --out, or continue the run in it with --resume.")
    if is_running(folder):
        raise ConfigError(f"A process is already training in {folder}.")
    write_atomically(folder / "run.json", spec.to_json())
    (folder / "stop").unlink(missing_ok=True)
    (folder / "samples").mkdir(exist_ok=True)

    status = {"state": "running", "pid": os.getpid(), "started": time.time()}
    _write_status(folder, status)
    try:
        with _stop_requests(folder) as stop_requested, open(folder / "metrics.jsonl", "a") as metrics:
            as_input = {"size": spec.config.image_size, "channels": spec.config.channels, "fit": spec.config.fit}
            images = load_any(spec.dataset, "train", download=download, **as_input)
            if spec.one_class is not None:
                images = one_class(images, spec.one_class)
            anomalies = load_any(spec.anomalies, "train", **as_input).images if spec.anomalies else None
            validation = None
            if spec.validate_ood:
                seed = spec.config.seed
                validation = evaluation.choose_validation_anomalies(spec.validate_ood, seed, **as_input)[0].images

            detector = AMADetector(spec.config, device=device)
            state = None
            if resume and checkpoint.exists():
                state = TrainingState.load(checkpoint, detector.device)
                if state.config != spec.config:
                    raise BundleError(f"{checkpoint} belongs to other hyper-parameters than run.json.")
            state = state or TrainingState(spec.config, detector.device)
            _forget_after(metrics.name, state.step)

            def record(event: Event) -> None:
                _record(folder, metrics, event)
                status.update(step=event.step, total_steps=event.total_steps, **event.values)
                _write_status(folder, status)
                if on_event:
                    on_event(event)
                if event.kind != "done" and stop_requested():
                    state.save(checkpoint)
                    raise RunStopped(f"Stopped at step {event.step}; continue with --resume.")

            detector.fit(
                images.images,
                anomalies=anomalies,
                validation_anomalies=validation,
                checkpoint=checkpoint,
                state=state,
                select=spec.select,
                on_event=record,
            )
            detector.info_["normal"] = {
                "name": images.name,
                "source": spec.dataset,
                "label": spec.one_class,
                "n": len(images),
                "fingerprint": images.fingerprint,
                "validation_ood": spec.validate_ood,
                "anomalies": spec.anomalies,
            }
            detector.save(folder)
            if spec.measure:
                _write_status(folder, status | {"state": "measuring"})
                measure_run(detector, folder, on_progress)
            _write_card(detector, folder)
    except RunStopped:
        _write_status(folder, status | {"state": "stopped"})
        raise
    except BaseException as error:
        message = str(error) if isinstance(error, AMAError) else f"{type(error).__name__}: {error}"
        _write_status(folder, status | {"state": "failed", "error": message})
        raise
    _write_status(folder, status | {"state": "finished"})
    return detector


def measure_run(detector: AMADetector, folder: Path, progress: evaluation.Progress | None = None, *, seed: int = 0) -> None:
    """Score every data set at hand and write `scores.npz` and `results.json` into the bundle `folder`, anew."""
    write_scores(folder, evaluation.measure_at_hand(detector, seed=seed, progress=progress))
    others = [name for name in evaluation.sets_at_hand() if name != detector.info_["normal"]["name"]]
    if detector.info_["normal"].get("label") is not None:
        others.insert(0, evaluation.REST)
    write_results(folder, evaluation.evaluate(detector, others, model=folder.name, seed=seed, progress=progress))
    _write_card(detector, folder)


def launch(folder: Path | str, spec: RunSpec, *, resume: bool = False) -> int:
    """Start a run in a process of its own, which outlives this one; returns its process id."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--resume"] if resume else ["--spec", spec.to_json()]
    command = [sys.executable, "-m", "ama_core", "train", spec.dataset, "--out", str(folder), "--quiet", *options]
    with open(folder / LOG, "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=process.wait, daemon=True).start()  # reap it: a zombie would look alive
    return process.pid


def request_stop(folder: Path | str) -> None:
    """Ask a run to save its state and end, at its next event."""
    (Path(folder) / "stop").touch()


def read_status(folder: Path | str) -> dict[str, Any]:
    """`status.json`, with `state` corrected to `interrupted` where the process is gone. Raises BundleError."""
    try:
        status = json.loads((Path(folder) / "status.json").read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder} is not a run folder: {error}.") from error
    if status.get("state") in ("running", "measuring") and not is_running(folder):
        status["state"] = "interrupted"
    return status


def is_running(folder: Path | str) -> bool:
    """Whether the process that `status.json` names still lives and works on this run."""
    try:
        status = json.loads((Path(folder) / "status.json").read_text())
        if status["state"] not in ("running", "measuring") or status["pid"] == os.getpid():
            return False
        os.kill(status["pid"], 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return True


def read_metrics(folder: Path | str) -> list[dict[str, Any]]:
    """Events so far, oldest first; a half-written last line is left out."""
    try:
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


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
        Image.fromarray(rows.squeeze()).save(folder / "samples" / f"step-{event.step:07d}.png")
    line = {key: value for key, value in dataclasses.asdict(event).items() if key not in ("images", "values")}
    metrics.write(json.dumps({**line, **event.values}) + "\n")
    metrics.flush()


def _forget_after(path: str, step: int) -> None:
    """Drop the events that a resumed run is about to repeat."""
    kept = [event for event in read_metrics(Path(path).parent) if event["step"] <= step]
    with open(path, "r+") as file:  # the same file stays open for appending
        file.truncate(0)
        file.writelines(json.dumps(event) + "\n" for event in kept)


def _write_status(folder: Path, status: dict[str, Any]) -> None:
    write_atomically(folder / "status.json", json.dumps({**status, "heartbeat": time.time()}))


def _write_card(detector: AMADetector, folder: Path) -> None:
    write_atomically(folder / "README.md", model_card(folder, detector.config, detector.info_))
