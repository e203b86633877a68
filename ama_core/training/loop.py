"""The training loop of every detector: order of images, learning rate, autocast, clock, validation, checkpoints, events.

`train` is a generator of events: whoever iterates shows them, stores them, or stops early by no longer iterating. What a
step does is the detector's: a `Trainer`, which also holds everything that training changes and is stored whole by a checkpoint:
on the CPU an interrupted and resumed run equals an uninterrupted one bit for bit.
"""

import math
import time
import zlib
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
from ama_core.training import distributed
from ama_core.training.graphs import Step
from ama_core.training.schedule import autocast
from ama_core.training.trainer import Trainer

LOSS_LIMIT = 1e6  # |loss| beyond this is a training that explodes
N_SAMPLES = 8  # fixed images whose reconstructions are followed
N_WATCHED = 4  # of each kind, likewise
EARLY_STEPS = (1, 2, 5, 10)  # with events of their own, so that a short or slow run shows something soon
EARLY_LOOKS = (*EARLY_STEPS, 25, 50)  # with a `watch` event, of long runs too
WATCH_LEAST = 10  # steps between two `watch` events, so that looking does not cost more than training
WATCHES = 60  # of a run, about
WATCH_TRAIN = 256  # training images behind the statistics of watched scores
VALIDATION_TRAIN = 1000  # training images behind the statistics of the periodic AUROC


@dataclass(frozen=True)
class Event:
    """Something that happened at `step` of `total_steps`.

    kind: `progress` (values: the trainer's curves, epoch, lr, images_per_s, seconds, eta_s), `samples` (images: two rows of
    uint8 (2, N, H, W, C), inputs and reconstructions), `validation` (values: auroc_NAME of scores), `watch` (values:
    watched_NAME, the AUROC of scores on watched images; scores: NAME -> anomaly scores of the normal ones (n,) and of the
    others (m,); images: as of `samples`, of some of each, where the detector reconstructs), `checkpoint`, or `done`.
    warning: of a `progress` event, see `Trainer.warning`.
    closes_step: no other event of this step follows; whoever stops and saves here will, resumed, miss none and see none twice.
    """

    kind: str
    step: int
    total_steps: int
    values: dict[str, float] = field(default_factory=dict)
    images: np.ndarray | None = None
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    warning: str = ""
    closes_step: bool = False


@dataclass(frozen=True)
class Validation:
    """Images for a periodic AUROC: held-out normals and a few anomalies (50 in the paper), uint8 (N, H, W, C)."""

    normals: np.ndarray
    anomalies: np.ndarray


def train(
    trainer: Trainer,
    images: np.ndarray,
    *,
    anomalies: np.ndarray | None = None,
    validation: Validation | None = None,
    watch: Validation | None = None,
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
            run), and the weights with the best one, of a training in stages those of the last stage, are kept in
            `trainer.best`.
        watch: where given, images whose scores are looked at from the first step on, about WATCHES times a run. Nothing is
            chosen by them, and the training is the same bit for bit without.
        checkpoint: where given, the state is saved there every `checkpoint_seconds` and at the end.
        log_every: steps between `progress` events, of which there are a few more in the beginning (`EARLY_STEPS`); the only
            place where the loop waits for the device.
        sample_every: steps between `samples` events; default 40 times a run, and at EARLY_STEPS.

    Raises:
        DataError: the images do not fit the settings or do not fill one batch.
        ConfigError: this training cannot be divided among the processes that `torchrun` launched, its steps do not fit into the
            device's memory, or cannot be captured (see `graphs`).
        TrainingDiverged: a loss is NaN or beyond `LOSS_LIMIT`, or weights or scores are not finite; the last checkpoint
            remains.
    """
    config, device = trainer.config, trainer.device
    distributed.check(trainer.splits, type(trainer).__name__.removesuffix("Trainer"), config.batch_size)
    batches = _Batches(trainer, images)
    trainer.total = total = config.total_steps(len(images))
    schedule = _Schedule(total, log_every, sample_every, validate_every)
    _take_anomalies(trainer, anomalies)
    trainer.prepare(images)
    if distributed.size() > 1:
        distributed.check_same(f"{trainer.step} {zlib.crc32(np.ascontiguousarray(images))}")
    update = Step(trainer, autocast(config, device))
    watched = _Watched(trainer, images, validation, watch)
    rate, last_save = _Rate(trainer), time.perf_counter()

    while trainer.step < total:
        began = time.perf_counter()
        trainer.networks.train()
        update.set_learning_rate(trainer.learning_rate())
        epoch, x = batches.at(trainer.step)
        found = _fitting(update, x, device)
        trainer.step += 1
        trainer.update_average()
        if trainer.step == total:
            _check_weights(trainer)  # losses tell of the weights before this step, and no further ones will tell of these
        events = _events(trainer, found, epoch, schedule, watched)
        trainer.seconds += time.perf_counter() - began
        rate.complete(events)

        overdue = trainer.step == total or time.perf_counter() - last_save > checkpoint_seconds
        save = checkpoint is not None and _due(overdue, events)
        for event in events:
            yield replace(event, closes_step=event is events[-1] and not save)
        if save:  # after the events, which a resumed run would not repeat
            _checked(trainer, found)
            _check_weights(trainer)
            if distributed.is_first():
                trainer.save(checkpoint)
            last_save = time.perf_counter()
            yield Event("checkpoint", trainer.step, total, closes_step=True)
    yield Event("done", trainer.step, total, {"seconds": trainer.seconds})


def _fitting(update: Step, x: Tensor, device: torch.device) -> dict[str, Tensor]:
    """A step. Raises ConfigError where it does not fit into the device's memory."""
    try:
        return update(x)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"A step on {len(x)} images does not fit into the memory of {device}: lower batch_size, or choose a smaller preset."
        ) from error


def _events(trainer: Trainer, found: dict[str, Tensor], epoch: int, schedule: "_Schedule", watched: "_Watched") -> list[Event]:
    """What is to be said about the step that has just been made, in this order; mostly nothing."""
    step, total, events = trainer.step, trainer.total, []
    if watched.validation is not None and schedule.validates(step):
        _checked(trainer, found)
        events.append(Event("validation", step, total, watched.validate()))
    if schedule.reports(step):
        lr = next(iter(trainer.optimisers.values())).param_groups[0]["lr"]
        values = _checked(trainer, found) | {"epoch": epoch + 1, "lr": float(lr)}
        events.append(Event("progress", step, total, values, warning=watched.warning()))
    if schedule.samples(step) and (pictures := watched.sample()) is not None:
        events.append(Event("samples", step, total, images=pictures))
    if watched.watch is not None and schedule.looks(step):
        _checked(trainer, found)
        events.append(watched.look())
    return events


class _Schedule:
    """The steps of a training that have events; the last one has all of them."""

    def __init__(self, total: int, log_every: int, sample_every: int | None, validate_every: int | None):
        self.total, self.log_every = total, log_every
        self.early_samples = EARLY_STEPS if sample_every is None else ()
        self.sample_every = sample_every or max(1, total // 40)
        self.validate_every = validate_every or max(1, total // 20)
        self.look_every = max(WATCH_LEAST, total // WATCHES)

    def reports(self, step: int) -> bool:
        return self._falls(step, self.log_every, EARLY_STEPS)

    def samples(self, step: int) -> bool:
        return self._falls(step, self.sample_every, self.early_samples)

    def validates(self, step: int) -> bool:
        return self._falls(step, self.validate_every)

    def looks(self, step: int) -> bool:
        return self._falls(step, self.look_every, EARLY_LOOKS)

    def _falls(self, step: int, every: int, early: tuple[int, ...] = ()) -> bool:
        return step % every == 0 or step in early or step == self.total


class _Rate:
    """Adds to `progress` events how fast training has been since the last one, and how long the rest will take."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.step, self.seconds = trainer, trainer.step, trainer.seconds

    def complete(self, events: list[Event]) -> None:
        trainer = self.trainer
        for event in events:
            if event.kind == "progress":
                rate = (trainer.step - self.step) / max(trainer.seconds - self.seconds, 1e-9)
                self.step, self.seconds = trainer.step, trainer.seconds
                event.values.update(
                    images_per_s=rate * trainer.config.batch_size,
                    seconds=trainer.seconds,
                    eta_s=(trainer.total - trainer.step) / rate,
                )


def _due(due: bool, events: list[Event]) -> bool:
    """Whether to save now. Clocks differ: several processes agree on it, at steps with events, which all of them have."""
    if distributed.size() == 1:
        return due
    return bool(events) and distributed.any_of(due)


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
            raise DataError(
                f"{len(images):,} training images do not fill one batch of {self.size}: lower batch_size to {len(images)} or "
                f"less (in a terminal, for example, --set batch_size={max(2, len(images) // 2)}), or add images."
            )
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

    def __init__(self, trainer: Trainer, images: np.ndarray, validation: Validation | None, watch: Validation | None):
        self.trainer, self.validation, self.watch = trainer, validation, watch
        self.samples = images[:N_SAMPLES]
        self.train = images[draw(len(images), VALIDATION_TRAIN, trainer.config.seed)]
        if watch is not None:
            _check_images(trainer.config, watch.anomalies, "watched images")
            self.few = images[draw(len(images), WATCH_TRAIN, trainer.config.seed)]
            self.shown = np.concatenate([watch.normals[:N_WATCHED], watch.anomalies[:N_WATCHED]])

    def sample(self) -> np.ndarray | None:
        """Inputs and reconstructions, uint8 (2, N, S, S, C)."""
        return self._reconstructed(self.samples)

    def warning(self) -> str:
        return self.trainer.warning(self.samples)

    def look(self) -> Event:
        """Scores of the watched images, their AUROC, and some of them with their reconstructions."""
        scores = self._scores(self.watch, self.few, self.trainer.weights())
        values = {f"watched_{name}": _auroc(*both) for name, both in scores.items()}
        return Event(
            "watch", self.trainer.step, self.trainer.total, values, images=self._reconstructed(self.shown), scores=scores
        )

    def validate(self) -> dict[str, float]:
        """AUROC of every score that the trainer gives; keeps the weights where they are the best so far of its last stage."""
        trainer, weights = self.trainer, self.trainer.weights()
        scores = self._scores(self.validation, self.train, weights)
        aurocs = {f"auroc_{name}": _auroc(*both) for name, both in scores.items()}
        may_be_kept = trainer.selectable() or trainer.step == trainer.total  # so that there are some in the end
        if may_be_kept and aurocs[f"auroc_{trainer.validated_by}"] > trainer.best_auroc:
            trainer.best_auroc = aurocs[f"auroc_{trainer.validated_by}"]
            trainer.best = {name: tensor.clone() for name, tensor in weights.items()}  # no file stores the average twice
        return aurocs

    def _scores(
        self, both: Validation, train: np.ndarray, weights: dict[str, Tensor]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Anomaly scores of the normal images (n,) and of the others (m,), by name of the score."""
        found = self.trainer.anomaly_scores(weights, train, np.concatenate([both.normals, both.anomalies]))
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise _diverged(self.trainer, f"values of {name} are not finite")
        return {name: (values[: len(both.normals)], values[len(both.normals) :]) for name, values in found.items()}

    def _reconstructed(self, images: np.ndarray) -> np.ndarray | None:
        pictures = self.trainer.sample(images)
        return None if pictures is None else np.stack([images, pictures])


def _auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(truth, np.concatenate([normal, anomalous])))


def _checked(trainer: Trainer, found: dict[str, Tensor]) -> dict[str, float]:
    """The values of a step as numbers. Raises TrainingDiverged where one is not finite or beyond LOSS_LIMIT."""
    values = distributed.averages(found)
    for name, value in values.items():
        if not math.isfinite(value) or abs(value) > LOSS_LIMIT:
            raise _diverged(trainer, f"{name} = {value:.3g}")
    return values


def _check_weights(trainer: Trainer) -> None:
    """Raises TrainingDiverged where a weight or its average is not finite."""
    for state in (trainer.networks.state_dict(), trainer.average):
        finite = [tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point()]
        if finite and not torch.stack(finite).all():
            raise _diverged(trainer, "weights are not finite")


def _diverged(trainer: Trainer, what: str) -> TrainingDiverged:
    return TrainingDiverged(
        f"Training diverged at step {trainer.step}: {what}. The last good checkpoint is kept. {trainer.remedy}"
    )


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
