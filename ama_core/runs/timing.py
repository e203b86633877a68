"""How long a training takes on this machine: timed here, never guessed."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from ama_core.data import catalog, count_any, hold_out, load_any
from ama_core.detectors.conformal import smallest_alpha
from ama_core.detectors.registry import detector_for
from ama_core.errors import AMAError, DataError
from ama_core.runs.execute import device_name
from ama_core.runs.folder import Run, list_runs
from ama_core.runs.spec import RunSpec
from ama_core.runs.status import State
from ama_core.settings import Settings
from ama_core.storage.bundle import read_info
from ama_core.storage.files import read_json, write_atomically
from ama_core.tensors import default_device
from ama_core.training.graphs import steps_to_full_speed
from ama_core.training.loop import train
from ama_core.training.trainer import Trainer

FILE = ".timing.json"  # in the folder of runs: what was timed on this machine
TIMED_STEPS = 3
PATIENCE = 8.0  # seconds that timing may take before a fraction of a batch has to do
PROBE = 8  # images of that
STAGED = 1000  # steps of a training of which a few of each stage are timed
# Fields that do not change what a step costs.
FREE = {
    "fit",
    "lambda_reg",
    "reg",
    "delta",
    "lambda_neg",
    "warmup",
    "epochs",
    "max_steps",
    "lr",
    "lr_schedule",
    "lr_fall",
    "seed",
    "calibration_fraction",
    "false_alarm_rate",
}


@dataclass(frozen=True)
class StepTime:
    """What one E/G step, with its critic steps, costs.

    Attributes:
        seconds: per step.
        device: where that was.
        how: in words, such as `3 steps timed`.
    """

    seconds: float
    device: str
    how: str

    def whole_run(self, config: Settings, n_images: int) -> float:
        """Seconds of training on a set of n_images, of which a fraction is held out; calibrating and measuring come on top."""
        return self.seconds * run_steps(config, n_images)


def measure(config: Settings, folder: Path | str | None = None, *, device: torch.device | None = None) -> StepTime:
    """Time a few steps on random images after those that are slower, and remember it in `folder` for `known`.

    Where whole batches would take longer than PATIENCE, steps on PROBE images are timed and scaled to the batch. An untrained
    network runs at the speed of a trained one.
    """
    device = device or default_device()
    if not detector_for(config).trains():
        return StepTime(0.0, device_name(device), "fitted without gradient steps, in seconds")
    few = min(PROBE, config.batch_size)
    seconds = _seconds_per_step(config.replace(batch_size=few), device, 1) * config.batch_size / few
    how = f"steps on {few} images timed, scaled to {config.batch_size}"
    if seconds * (1 + TIMED_STEPS) < PATIENCE:
        seconds, how = _seconds_per_step(config, device, TIMED_STEPS), f"{TIMED_STEPS} steps timed"
    if psutil.getloadavg()[0] > 0.75 * (psutil.cpu_count() or 1):
        how += ", while the machine was busy with other things"
    step = StepTime(seconds, device_name(device), how)
    if folder is not None:
        timed = _timed(folder) | {_key(config, step.device): vars(step)}
        with suppress(OSError):  # where it cannot be kept it is still true
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_atomically(Path(folder) / FILE, json.dumps(timed, indent=1))
    return step


def known(config: Settings, folder: Path | str, *, device: torch.device | None = None) -> StepTime | None:
    """What such a step costs here: from a finished run of `folder`, else as `measure` remembered it; None where unknown."""
    name = device_name(device or default_device())
    if not detector_for(config).trains():
        return measure(config, device=device)
    key = _key(config, name)
    for run in map(Run, list_runs(folder).values()):
        try:
            status = run.status()
            if status.state != State.FINISHED or _key(run.spec().config, status.device or "") != key:
                continue
            training = read_info(run.path)["training"]
            return StepTime(training["seconds"] / training["steps"], name, f"as the run {run.name} took")
        except (AMAError, KeyError, TypeError, ZeroDivisionError):
            continue
    try:
        return StepTime(**_timed(folder)[key])
    except (KeyError, TypeError):  # not timed yet, or damaged: it is timed again
        return None


def run_steps(config: Settings, n_images: int) -> int:
    """Steps of a training on a set of n_images, of which a fraction is held out; 0 of a detector without gradient steps.

    Raises DataError where too few are left to hold any out, or to fill one batch.
    """
    left = len(hold_out(n_images, config.calibration_fraction).train)
    if not detector_for(config).trains():
        return 0
    if left < config.batch_size:
        raise DataError(f"{left} training images do not fill one batch of {config.batch_size}: lower batch_size.")
    return config.total_steps(left)


def reachable_rate(config: Settings, n_images: int) -> tuple[float, int]:
    """The smallest false-alarm rate at which a model of n_images can flag anything, and how many images give its p-values.

    Raises DataError where too few are left to hold any out.
    """
    n = len(hold_out(n_images, config.calibration_fraction).calibration)
    return smallest_alpha(n), n


def n_images(spec: RunSpec) -> int:
    """How many normal images a run has before any is held out; one's own are counted by the names of files, and not read.

    Raises DataError where the data are not available locally, or are too few to be divided into train and test.
    """
    if spec.dataset not in catalog() and spec.one_class is None:
        return count_any(spec.dataset, "train")
    images = load_any(spec.dataset, "train", fit=spec.config.fit)
    return len(images) if spec.one_class is None else int((images.labels == spec.one_class).sum())


def _seconds_per_step(config: Settings, device: torch.device, steps: int) -> float:
    """Mean over the stages of a training, each as long as its part of it.

    Negatives, where they are used, are drawn in every step.
    """
    at_once = {"warmup": 0.0, "k": min(getattr(config, "k", 2), config.batch_size)}
    at_once = {name: value for name, value in at_once.items() if hasattr(config, name)}
    config = config.replace(epochs=STAGED, max_steps=0, **at_once)
    shape = (config.batch_size, config.image_size, config.image_size, config.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    trainer = detector_for(config)(config, device=device).trainer()
    trainer.total = config.total_steps(len(images))
    first = trainer.stages()
    parts = np.diff([*first, trainer.total]) / trainer.total
    return float(sum(part * _of_stage(trainer, images, start, steps) for start, part in zip(first, parts) if part))


def _of_stage(trainer: Trainer, images: np.ndarray, start: int, steps: int) -> float:
    """Mean over `steps` steps from `start` on, after those that are slower; the first of these must do where it takes longer
    than PATIENCE.
    """
    trainer.step, slower = start, steps_to_full_speed(trainer)
    moments = [time.perf_counter()]
    for event in train(trainer, images, log_every=1, sample_every=2**31):
        if event.kind == "progress":
            moments.append(time.perf_counter())
            if moments[1] - moments[0] > PATIENCE:
                return moments[1] - moments[0]
            if len(moments) == 1 + slower + steps:
                break
    return (moments[-1] - moments[slower]) / steps


def _key(config: Settings, device: str) -> str:
    values = {name: value for name, value in config.to_dict().items() if name not in FREE}
    values |= {
        name: values[name] > 0 for name in ("lambda_gp", "lambda_inter", "lambda_drift", "negative_fraction") if name in values
    }
    if "atypical" in values:
        values["atypical"] = config.uses_negatives
    return json.dumps([device, detector_for(config).name, values], sort_keys=True)


def _timed(folder: Path | str) -> dict[str, dict]:
    try:
        found = read_json(Path(folder) / FILE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
