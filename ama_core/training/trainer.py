"""What a detector writes to be trained by gradient steps: its step, and everything that training changes."""

import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from ama_core.errors import AMAError, BundleError, ConfigError
from ama_core.settings import TrainingSettings
from ama_core.storage.files import open_regular, write_atomically
from ama_core.tensors import default_device
from ama_core.training import distributed
from ama_core.training.schedule import learning_rate, precision


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
    splits: ClassVar[bool] = False  # whether `update` divides its batch among processes (see `distributed`)
    captures: ClassVar[bool] = False  # whether the steps of a `phase` may be replayed (see `graphs`)
    remedy: ClassVar[str] = "Lower lr."  # what to do about a training that diverged, in sentences
    scores_slowly: ClassVar[bool] = False  # whether those take a search for every image: then none are watched

    def __init__(self, config: TrainingSettings, device: torch.device | None = None):
        self.config = config
        self.device = device or default_device()
        # Initialisation must not disturb, nor depend on, the caller's randomness: it draws on the CPU alone, and
        # `torch.manual_seed` would seed all other devices too, which are not put back.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(config.seed)
            self.networks = self.build()
        distributed.synchronise(self.networks)
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

        Random numbers come from `rng` alone. Where it `splits`, x and what is drawn are of the whole batch, `distributed.mine`
        takes this process's rows, and means over rows are `distributed.mean` or `weighted`.
        """

    @abstractmethod
    def bare_state(self) -> dict[str, Tensor]:
        """Weights and buffers as they score images (see `AnomalyDetector.use_weights`), copied, on `device`.

        By the names under which a bundle stores them; fp32, counters of batches int64.
        """

    def prepare(self, images: np.ndarray) -> None:  # noqa: B027 (most have nothing to do)
        """Called before the first step, of a resumed run as well, with all training images, uint8 (N, S, S, C)."""

    def learning_rate(self) -> float:
        """The rate of the step to come, a function of settings, `step` and `total` alone."""
        return learning_rate(self.config, self.step, self.total)

    def stages(self) -> tuple[int, ...]:
        """The first step, of `total`, of every stage whose steps cost something else."""
        return (0,)

    def phase(self) -> int:
        """Another number wherever `update` begins to do something else. Where it `captures`, all steps of a phase have the same
        operations, and none waits for the device.
        """
        return 0

    def selectable(self) -> bool:
        """Whether the weights after `step` steps may be kept as the best ones: False before the last of several stages."""
        return True

    def warning(self, images: np.ndarray) -> str:
        """What whoever trains should know, in sentences; empty if nothing. `images`: some normals, uint8 (N, S, S, C)."""
        return ""

    def sample(self, images: np.ndarray) -> np.ndarray | None:
        """Reconstructions of uint8 images (N, S, S, C), in the same form; None where there are none."""
        return None

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """Anomaly scores (N,) of images by `weights`, by name of the score, with statistics from some training images.

        Raises ConfigError where they cannot be had while the detector trains.
        """
        raise ConfigError("This detector's AUROC cannot be followed while it trains: leave the validation anomalies out.")

    # What all have

    @classmethod
    def can_be_watched(cls) -> bool:
        """Whether scores can be looked at while it trains, at little cost."""
        return bool(cls.validated_by) and not cls.scores_slowly

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
        """Move the average towards the weights after a step; a young one forgets faster, so that it does not keep the start."""
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
        """Read what `save` wrote, on whichever device. Raises BundleError on a missing, damaged or foreign file.

        Random draws go on where they were, but between CPU and GPU, whose generators differ: there with a seed of the step.
        """
        try:
            open_regular(path).close()  # a pipe of this name would be waited for
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["ama_checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            state = cls(cls.Settings.from_dict(header["config"]), device)
            state.networks.load_state_dict(_under(tensors, "networks."))
            state.best = _under(tensors, "best.")
            state.average = {name: t.to(state.device) for name, t in _under(tensors, "average.").items()}
            if tensors["rng"].numel() == state.rng.get_state().numel():
                state.rng.set_state(tensors["rng"])
            else:  # of a GPU's generator on the CPU, or the other way round
                state.rng.manual_seed(state.config.seed + (header["step"] << 32))
            for key, optimiser in state.optimisers.items():
                slots: dict[int, dict[str, Tensor]] = {}
                for name, tensor in _under(tensors, f"optimiser.{key}.").items():
                    index, slot = name.split(".")
                    # In the weights' layout: fused Adam on the CPU pairs elements as they lie in memory, whatever the strides.
                    dense = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                    slots.setdefault(int(index), {})[slot] = dense
                optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
            state.step, state.seconds = int(header["step"]), float(header["seconds"])
            state.best_auroc = float(header["best_auroc"])
        except (OSError, SafetensorError, AMAError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"The checkpoint {path} cannot be read ({error}). Train again without --resume.") from error
        return state


def fused(device: torch.device) -> bool:
    """Whether Adam may update all weights in one kernel there."""
    return device.type in ("cuda", "cpu")


def descend(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    """One step of the optimisers down the gradient of the loss."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.average_gradients(p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"])
    for optimiser in optimisers:
        optimiser.step()
    torch.clear_autocast_cache()  # bf16 copies of the weights as they were


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
