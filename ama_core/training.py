"""The training loop of every detector: order of images, learning rate, autocast, clock, validation, checkpoints, events.

`train` is a generator of events: whoever iterates shows them, stores them, or stops early by no longer iterating. What a
step does is the detector's: a `Trainer`, which also holds everything that training changes and is stored whole by a checkpoint:
on the CPU an interrupted and resumed run equals an uninterrupted one bit for bit.
"""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ama_core import inference
from ama_core.data import draw
from ama_core.errors import AMAError, BundleError, ConfigError, DataError, TrainingDiverged
from ama_core.files import write_atomically
from ama_core.settings import TrainingSettings

LR_MILESTONES = (0.3, 0.6, 0.9)  # lr x0.1 at these fractions of the run [C]
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


@dataclass(frozen=True)
class Curve:
    """A value that a trainer reports: its name in events, how charts call it, what it means, and which share a chart."""

    name: str
    label: str
    meaning: str
    chart: str = "loss"


class Trainer(ABC):
    """Everything that a training changes, and its step: networks, optimisers, random state, counters, best weights.

    A detector writes `Settings`, `curves`, `build`, `build_optimisers`, `update` and `bare_state`; `sample` where it
    reconstructs, `anomaly_scores` where its AUROC can be followed while it trains.
    """

    Settings: ClassVar[type[TrainingSettings]]
    curves: ClassVar[tuple[Curve, ...]] = ()
    uses_anomalies: ClassVar[bool] = False  # whether real anomalies can take part
    validated_by: ClassVar[str] = ""  # the score of `anomaly_scores` that chooses the best weights

    def __init__(self, config: TrainingSettings, device: torch.device | None = None):
        self.config = config
        self.device = device or inference.default_device()
        with torch.random.fork_rng(devices=[]):  # initialisation must not disturb, nor depend on, the caller's randomness
            torch.manual_seed(config.seed)
            self.networks = self.build()
        self.networks.to(self.device, memory_format=torch.channels_last)
        self.optimisers = self.build_optimisers()
        self.rng = torch.Generator(self.device).manual_seed(config.seed)
        self.step = 0
        self.total = 0  # steps of the whole run, known once it trains
        self.seconds = 0.0  # of work in the loop so far, over all interruptions, without those of whoever consumes its events
        self.best_auroc = -math.inf
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}  # moving average of `bare_state`, where the settings ask for one
        self.anomalies: Tensor | None = None  # real ones, uint8 (N, C, H, W) on the device

    # What a detector writes

    @abstractmethod
    def build(self) -> nn.Module:
        """The networks, initialised from PyTorch's random state."""

    @abstractmethod
    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """By name; the loop sets their learning rates."""

    @abstractmethod
    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on a batch x, float (batch_size, C, S, S) in [-1, 1], under autocast; returns its losses and curves.

        Random numbers come from `rng` alone.
        """

    @abstractmethod
    def bare_state(self) -> dict[str, Tensor]:
        """Weights as they score images (see `AnomalyDetector.use_weights`), copied."""

    def prepare(self, images: np.ndarray) -> None:  # noqa: B027 (most have nothing to do)
        """Called once before step 0, on all training images, uint8 (N, S, S, C)."""

    def sample(self, images: np.ndarray) -> np.ndarray | None:
        """Reconstructions of uint8 images (N, S, S, C), in the same form; None where there are none."""
        return None

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """Anomaly scores (N,) of images by `weights`, by name of the score, with statistics from some training images.

        Raises ConfigError where they cannot be had while the detector trains.
        """
        raise ConfigError("This detector's AUROC cannot be followed while it trains: leave the validation anomalies out.")

    # What all have

    def weights(self) -> dict[str, Tensor]:
        """What scores images now: the average, or the last step's weights."""
        return self.average if self.config.average > 0 and self.average else self.bare_state()

    def facts(self) -> dict[str, Any]:
        """What a bundle says of the training."""
        return {
            "steps": self.step,
            "seconds": self.seconds,
            "batch_size": self.config.batch_size,
            "validated": self.best_auroc if self.best else None,
            "precision": precision(self.config, self.device),
        }

    def update_average(self) -> None:
        """Move the average towards the weights after a step; a young average forgets faster, lest it remember the start."""
        if self.config.average == 0:
            return
        state = self.bare_state()
        decay = min(self.config.average, self.step / (self.step + 9))
        for name, tensor in self.average.items():
            state[name] = tensor.lerp(state[name], 1 - decay) if tensor.is_floating_point() else state[name]
        self.average = state

    def save(self, path: Path) -> None:
        """Write everything to `path` atomically, as safetensors."""
        tensors = {f"networks.{name}": t for name, t in self.networks.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        tensors |= {f"average.{name}": t for name, t in self.average.items()}
        tensors["rng"] = self.rng.get_state()
        for key, optimiser in self.optimisers.items():
            for index, slots in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{key}.{index}.{slot}": t for slot, t in slots.items()}
        header = {"step": self.step, "seconds": self.seconds, "best_auroc": self.best_auroc, "config": self.config.to_dict()}
        contents = safetensors_bytes(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {"ama_checkpoint": json.dumps(header)}
        )
        write_atomically(path, contents)

    @classmethod
    def load(cls, path: Path, device: torch.device | None = None) -> Self:
        """Read what `save` wrote. Raises BundleError on a missing, damaged or foreign file."""
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["ama_checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            state = cls(cls.Settings.from_dict(header["config"]), device)
            state.networks.load_state_dict(_under(tensors, "networks."))
            state.best = _under(tensors, "best.")
            state.average = {name: t.to(state.device) for name, t in _under(tensors, "average.").items()}
            state.rng.set_state(tensors["rng"])
            for key, optimiser in state.optimisers.items():
                slots: dict[int, dict[str, Tensor]] = {}
                for name, tensor in _under(tensors, f"optimiser.{key}.").items():
                    index, slot = name.split(".")
                    # In the weights' layout: fused Adam on the CPU pairs elements as they lie in memory, whatever the strides.
                    dense = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                    slots.setdefault(int(index), {})[slot] = dense
                optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
            state.step, state.seconds, state.best_auroc = header["step"], header["seconds"], header["best_auroc"]
        except (OSError, SafetensorError, AMAError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"The checkpoint {path} cannot be read ({error}). Train again without --resume.") from error
        return state


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
    if anomalies is not None:
        _check_images(config, anomalies, "anomalies")
        if not trainer.uses_anomalies:
            raise ConfigError("This detector trains on normal images alone: leave the anomalies out.")
        trainer.anomalies = _on_device(anomalies, device)
    if trainer.step == 0:
        trainer.prepare(images)
    autocast = _autocast(config, device)
    watched = _Watched(trainer, images, validation)
    reported_step, reported_seconds, last_save = trainer.step, trainer.seconds, time.perf_counter()

    while trainer.step < total:
        began = time.perf_counter()
        trainer.networks.train()
        for optimiser in trainer.optimisers.values():
            optimiser.param_groups[0]["lr"] = learning_rate(config, trainer.step, total)
        epoch, x = batches.at(trainer.step)
        with autocast():
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
            values["images_per_s"] = rate * config.batch_size
            values["seconds"] = trainer.seconds
            values["eta_s"] = (total - trainer.step) / rate
        save = checkpoint is not None and (last or time.perf_counter() - last_save > checkpoint_seconds)
        for event in events:
            yield replace(event, closes_step=event is events[-1] and not save)
        if save:  # after the events, which a resumed run would not repeat
            _checked(found, trainer.step)
            trainer.save(checkpoint)
            last_save = time.perf_counter()
            yield Event("checkpoint", trainer.step, total, closes_step=True)
    yield Event("done", trainer.step, total, {"seconds": trainer.seconds})


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
        return epoch, inference.scale(self.data[self.order[place * self.size : (place + 1) * self.size]])


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


def learning_rate(config: TrainingSettings, step: int, total: int) -> float:
    """`config.lr_schedule` at `step`: a function of the step alone, so that resuming needs no scheduler state."""
    if config.lr_schedule == "steps":
        return config.lr * 0.1 ** sum(step >= milestone * total for milestone in LR_MILESTONES)
    if config.lr_schedule == "linear":
        return config.lr * min(1.0, (1 - step / total) / config.lr_fall)
    return config.lr


def fused(device: torch.device) -> bool:
    """Whether Adam may update all weights in one kernel there."""
    return device.type in ("cuda", "cpu")


def precision(config: TrainingSettings, device: torch.device) -> str:
    """What `precision="auto"` means on this device: `bf16` where the hardware multiplies it natively, else `fp32`."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


def descend(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    """One step of the optimisers down the gradient of the loss."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def _autocast(config: TrainingSettings, device: torch.device):
    if precision(config, device) == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


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


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
