"""The training loop of every detector: order of images, learning rate, autocast, clock, validation, checkpoints, events.

`train` is a generator of events: whoever iterates shows them, stores them, or stops early by no longer iterating. What a
step does is the detector's: a `Trainer`, which also holds everything that training changes and is stored whole by a checkpoint:
on the CPU an interrupted and resumed run equals an uninterrupted one bit for bit.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ama_core.data import draw
from ama_core.errors import ConfigError, DataError, TrainingDiverged
from ama_core.settings import TrainingSettings
from ama_core.tensors import scale
from ama_core.training.schedule import autocast, learning_rate
from ama_core.training.trainer import Trainer

LOSS_LIMIT = 1e6  # |loss| beyond this is a training that explodes
N_SAMPLES = 8  # fixed images whose reconstructions are followed
EARLY_STEPS = (1, 2, 5, 10)  # with a `progress` event of their own, so that a short or slow run shows something soon
VALIDATION_TRAIN = 1000  # training images behind the statistics of the periodic AUROC


@dataclass(frozen=True)
class Event:
    """Something that happened at `step` of `total_steps`.

    kind: `progress` (values: the trainer's curves, epoch, lr, images_per_s, seconds, eta_s), `samples` (images: two rows of
    uint8 (2, N, H, W, C), inputs and reconstructions), `validation` (values: auroc_NAME of scores), `checkpoint`, or `done`.
    closes_step: no other event of this step follows; whoever stops and saves here will, resumed, miss none and see none twice.
    """

    kind: str
    step: int
    total_steps: int
    values: dict[str, float] = field(default_factory=dict)
    images: np.ndarray | None = None
    closes_step: bool = False


@dataclass(frozen=True)
class Validation:
    """Images for the periodic AUROC: held-out normals and a few anomalies (50 in the paper), uint8 (N, H, W, C)."""

    normals: np.ndarray
    anomalies: np.ndarray


def train(
    trainer: Trainer,
    images: np.ndarray,
    *,
    anomalies: np.ndarray | None = None,
    validation: Validation | None = None,
    checkpoint: Path | None = None,
    log_every: int = 25,
    sample_every: int | None = None,
    validate_every: int | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Event]:
    """Train on normal images until the last step.

    Args:
        images: normal training images, uint8 (N, S, S, c) as the settings say.
        anomalies: a few real anomalies, for trainers that use them.
        validation: where given, the AUROC of the trainer's scores is measured every `validate_every` steps (default: 20 times a
            run), and the weights with the best one are kept in `trainer.best`.
        checkpoint: where given, the state is saved there every `checkpoint_seconds` and at the end.
        log_every: steps between `progress` events, of which there are a few more in the beginning (`EARLY_STEPS`); the only
            place where the loop waits for the device.
        sample_every: steps between `samples` events; default 40 times a run.

    Raises:
        DataError: the images do not fit the settings or do not fill one batch.
        TrainingDiverged: a loss is NaN or beyond `LOSS_LIMIT`; the last checkpoint remains.
    """
    config, device = trainer.config, trainer.device
    batches = _Batches(trainer, images)
    trainer.total = total = config.total_steps(len(images))
    sample_every = sample_every or max(1, total // 40)
    validate_every = validate_every or max(1, total // 20)
    _take_anomalies(trainer, anomalies)
    trainer.prepare(images)
    arithmetic = autocast(config, device)
    watched = _Watched(trainer, images, validation)
    reported_step, reported_seconds, last_save = trainer.step, trainer.seconds, time.perf_counter()

    while trainer.step < total:
        began = time.perf_counter()
        trainer.networks.train()
        for optimiser in trainer.optimisers.values():
            optimiser.param_groups[0]["lr"] = learning_rate(config, trainer.step, total)
        epoch, x = batches.at(trainer.step)
        with arithmetic():
            found = trainer.update(x)
        trainer.step += 1
        trainer.update_average()

        last = trainer.step == total
        events = []
        if validation is not None and (trainer.step % validate_every == 0 or last):
            _checked(found, trainer.step)
            events.append(Event("validation", trainer.step, total, watched.validate()))
        values = None
        if trainer.step % log_every == 0 or trainer.step in EARLY_STEPS or last:
            lr = next(iter(trainer.optimisers.values())).param_groups[0]["lr"]
            values = _checked(found, trainer.step) | {"epoch": epoch + 1, "lr": lr}
            events.append(Event("progress", trainer.step, total, values))
        if (trainer.step % sample_every == 0 or last) and (pictures := watched.sample()) is not None:
            events.append(Event("samples", trainer.step, total, images=pictures))
        trainer.seconds += time.perf_counter() - began
        if values is not None:
            rate = (trainer.step - reported_step) / max(trainer.seconds - reported_seconds, 1e-9)
            reported_step, reported_seconds = trainer.step, trainer.seconds
            left = (total - trainer.step) / rate
            values.update(images_per_s=rate * config.batch_size, seconds=trainer.seconds, eta_s=left)
        save = checkpoint is not None and (last or time.perf_counter() - last_save > checkpoint_seconds)
        for event in events:
            yield replace(event, closes_step=event is events[-1] and not save)
        if save:  # after the events, which a resumed run would not repeat
            _checked(found, trainer.step)
            trainer.save(checkpoint)
            last_save = time.perf_counter()
            yield Event("checkpoint", trainer.step, total, closes_step=True)
    yield Event("done", trainer.step, total, {"seconds": trainer.seconds})


def _take_anomalies(trainer: Trainer, anomalies: np.ndarray | None) -> None:
    """Hand real anomalies to a trainer. Raises DataError where they do not fit, ConfigError where it has no use for them."""
    if anomalies is None:
        return
    _check_images(trainer.config, anomalies, "anomalies")
    if not trainer.uses_anomalies:
        raise ConfigError("This detector trains on normal images alone: leave the anomalies out.")
    trainer.anomalies = _on_device(anomalies, trainer.device)


class _Batches:
    """Batches of a training set that is wholly on the device, in an order that depends on seed and epoch alone."""

    def __init__(self, trainer: Trainer, images: np.ndarray):
        config = trainer.config
        _check_images(config, images, "training images")
        self.size, self.seed = config.batch_size, config.seed
        self.per_epoch = len(images) // self.size
        if self.per_epoch == 0:
            raise DataError(f"{len(images)} training images do not fill one batch of {self.size}: lower batch_size.")
        self.data, self.epoch, self.order = _on_device(images, trainer.device), -1, None

    def at(self, step: int) -> tuple[int, Tensor]:
        """The epoch of a step, and its batch, float (batch_size, C, S, S) in [-1, 1]."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.data))
            self.epoch, self.order = epoch, torch.from_numpy(order).to(self.data.device)
        return epoch, scale(self.data[self.order[place * self.size : (place + 1) * self.size]])


class _Watched:
    """What is looked at while a training goes on: reconstructions of the first images, and AUROC on validation images."""

    def __init__(self, trainer: Trainer, images: np.ndarray, validation: Validation | None):
        self.trainer, self.validation = trainer, validation
        self.samples = images[:N_SAMPLES]
        self.train = images[draw(len(images), VALIDATION_TRAIN, trainer.config.seed)]

    def sample(self) -> np.ndarray | None:
        """Inputs and reconstructions, uint8 (2, N, S, S, C)."""
        pictures = self.trainer.sample(self.samples)
        return None if pictures is None else np.stack([self.samples, pictures])

    def validate(self) -> dict[str, float]:
        """AUROC of every score that the trainer gives; keeps the weights where they are the best so far."""
        trainer, both = self.trainer, self.validation
        weights = trainer.weights()
        images = np.concatenate([both.normals, both.anomalies])
        truth = np.repeat([0, 1], [len(both.normals), len(both.anomalies)])
        scores = trainer.anomaly_scores(weights, self.train, images)
        aurocs = {f"auroc_{name}": float(roc_auc_score(truth, values)) for name, values in scores.items()}
        if aurocs[f"auroc_{trainer.validated_by}"] > trainer.best_auroc:
            trainer.best_auroc, trainer.best = aurocs[f"auroc_{trainer.validated_by}"], weights
        return aurocs


def _checked(found: dict[str, Tensor], step: int) -> dict[str, float]:
    """The values of a step as numbers. Raises TrainingDiverged where one is not finite or beyond LOSS_LIMIT."""
    values = {name: float(value.detach()) for name, value in found.items()}
    for name, value in values.items():
        if not math.isfinite(value) or abs(value) > LOSS_LIMIT:
            raise TrainingDiverged(
                f"Training diverged at step {step}: {name} = {value:.3g}. The last good checkpoint is kept. "
                "Lower lr, or raise lambda_gp."
            )
    return values


def _check_images(config: TrainingSettings, images: np.ndarray, what: str) -> None:
    expected = (config.image_size, config.image_size, config.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise DataError(
            f"The {what} must be uint8 of shape (N, {', '.join(map(str, expected))}), but are {images.dtype} of shape "
            f"{images.shape}: prepare them with ama_core.data.prepare."
        )


def _on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """The whole set as uint8 (N, C, H, W): a quarter of the bytes of floats, and no loader in the loop."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
