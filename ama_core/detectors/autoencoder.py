"""L2 autoencoder: AMA's encoder and generator trained on the squared error alone, which is what AMA must do better than."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.ama.config import PRESETS, Config
from ama_core.detectors.ama.networks import Encoder, Generator
from ama_core.detectors.base import AnomalyDetector, Progress, Score
from ama_core.errors import DataError
from ama_core.settings import TrainingSettings, setting
from ama_core.storage.bundle import half_precision
from ama_core.tensors import BATCH, to_images, to_tensor
from ama_core.training import distributed
from ama_core.training.trainer import Curve, Trainer, descend, fused

_SHARED = [
    "image_size",
    "fold",
    "nz",
    "width_encoder",
    "width_generator",
    "batch_size",
    "epochs",
    "max_steps",
    "lr",
    "lr_schedule",
]


@dataclass(frozen=True)
class AutoencoderSettings(TrainingSettings):
    """Settings of the L2 autoencoder: those of AMA's encoder and generator, under the same names."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: {key: value for key, value in values.items() if key in _SHARED} for name, values in PRESETS.items()
    }

    fold: int = setting(
        1, "Side of the squares of pixels that the networks see as channels, as in AMA.", "Networks", choices=(1, 2)
    )
    nz: int = setting(128, "Latent dimension.", "Networks", low=2, high=4096)
    width_encoder: int = setting(64, "Channels of the encoder's first layer; doubled twice.", "Networks", low=4, high=1024)
    width_generator: int = setting(256, "Channels of every generator block.", "Networks", low=4, high=1024)

    @classmethod
    def like(cls, config: Config) -> "AutoencoderSettings":
        """With the images, networks, steps and seed of an AMA training."""
        shared = {name: value for name, value in config.to_dict().items() if name in cls.__dataclass_fields__}
        return cls.from_dict(shared)


class AutoencoderTrainer(Trainer):
    """Encoder and generator, trained on the mean squared error; Adam with its usual betas."""

    Settings = AutoencoderSettings
    curves: ClassVar[tuple[Curve, ...]] = (Curve("loss", "squared error", "mean over pixels, on the [-1, 1] scale"),)
    validated_by = "L2"
    splits = True

    def build(self) -> nn.Module:
        return nn.Sequential(Encoder(self.config), Generator(self.config))

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"EG": torch.optim.Adam(self.networks.parameters(), self.config.lr, fused=fused(self.device))}

    def update(self, x: Tensor) -> dict[str, Tensor]:
        n, x = len(x), distributed.mine(x)
        loss = distributed.weighted(nn.functional.mse_loss(self.networks(x).float(), x), len(x), n)
        descend(loss, *self.optimisers.values())
        return {"loss": loss}

    def bare_state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.networks.state_dict().items()}

    def sample(self, images: np.ndarray) -> np.ndarray:
        return _reconstruct(self.networks, images)[0]

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        return {"L2": _reconstruct(_build(self.config, weights, self.device), images)[1]}


class AutoencoderDetector(AnomalyDetector):
    """The squared error of a plain autoencoder.

    Notes:
        The baseline that reconstruction methods are measured against; it generalises to what it never saw, and then misses it.
    """

    name = "autoencoder"
    title = "L2 autoencoder"
    reference = "trivial baseline; networks of AMA"
    Settings = AutoencoderSettings
    trainer_class = AutoencoderTrainer
    decides = "L2"
    SCORES = (
        Score(
            "L2",
            "the mean squared difference between the image and its reconstruction.",
            r"s(x) = \tfrac{1}{n} \lVert x - G(E(x)) \rVert_2^2",
        ),
    )

    def use_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.networks_ = _build(self.settings, half_precision(weights), self.torch_device)

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        """Nothing: the error is the score."""

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        return {"L2": _reconstruct(self.networks_, images, progress)[1]}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        weights = {name: t.detach().cpu().contiguous() for name, t in self.networks_.state_dict().items()}
        return half_precision(weights), {}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Nothing beside the weights."""

    def reconstruct(self, X) -> np.ndarray:
        """G(E(x)), uint8 (N, S, S, C)."""
        return _reconstruct(self._fitted().networks_, self.prepared(X))[0]

    @torch.no_grad()
    def encode(self, X) -> np.ndarray:
        """Codes E(x), float32 (N, nz)."""
        images, encoder = self.prepared(X), self._fitted().networks_[0]
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return np.concatenate([encoder(to_tensor(part, self.torch_device)).cpu().numpy() for part in parts])

    @torch.no_grad()
    def decode(self, z: np.ndarray) -> np.ndarray:
        """Images G(z), uint8 (N, S, S, C), of codes (N, nz). Raises DataError on another shape or non-finite values."""
        z = np.asarray(z, dtype=np.float32)
        if z.ndim != 2 or z.shape[1] != self.settings.nz or not len(z) or not np.isfinite(z).all():
            raise DataError(f"Codes must be finite and of shape (N, {self.settings.nz}), got {z.shape}.")
        return to_images(self._fitted().networks_[1](torch.from_numpy(z).to(self.torch_device)))


def _build(config: AutoencoderSettings, weights: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """Encoder and generator in eval mode from stored weights. Raises ValueError where they do not belong to the settings."""
    with torch.device("meta"):
        networks = nn.Sequential(Encoder(config), Generator(config))
    try:
        networks.to_empty(device="cpu").load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError("the weights do not belong to these settings") from error
    return networks.requires_grad_(False).to(device, memory_format=torch.channels_last).eval()


@torch.no_grad()
def _reconstruct(networks: nn.Module, images: np.ndarray, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions, uint8 (N, S, S, C), and mean squared errors (N,), in eval mode."""
    networks.eval()
    device = next(networks.parameters()).device
    pictures, errors = [], []
    for start in range(0, len(images), BATCH):
        x = to_tensor(images[start : start + BATCH], device)
        x_hat = networks(x)
        pictures.append(to_images(x_hat))
        errors.append((x_hat - x).square().mean(dim=(1, 2, 3)).cpu().double().numpy())
        if progress:
            progress(min(start + BATCH, len(images)), len(images))
    return np.concatenate(pictures), np.concatenate(errors)
