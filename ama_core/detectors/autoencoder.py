"""L2 autoencoder: AMA's encoder and generator trained on the squared error alone: a baseline for AMA."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.ama.config import PRESETS, Config
from ama_core.detectors.ama.networks import Encoder, Generator
from ama_core.detectors.base import Progress, Score, checked_codes
from ama_core.detectors.modules import bare, per_image, rebuilt, reconstructed
from ama_core.detectors.one_score import OneNetworkDetector
from ama_core.settings import TrainingSettings, setting
from ama_core.tensors import BATCH, to_images
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
        return networks(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"EG": torch.optim.Adam(self.networks.parameters(), self.config.lr, fused=fused(self.device))}

    def update(self, x: Tensor) -> dict[str, Tensor]:
        n, x = len(x), distributed.mine(x)
        loss = distributed.weighted(nn.functional.mse_loss(self.networks(x).float(), x), len(x), n)
        descend(loss, *self.optimisers.values())
        return {"loss": loss}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def sample(self, images: np.ndarray) -> np.ndarray:
        return reconstructed(self.networks.eval(), images, self.device)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        network = rebuilt(lambda: networks(self.config), weights, self.device, torch.channels_last)
        return {"L2": per_image(lambda x: squared_error(network, x), images, self.device)}


def networks(settings: AutoencoderSettings) -> nn.Sequential:
    """Encoder, then generator."""
    return nn.Sequential(Encoder(settings), Generator(settings))


def squared_error(network: nn.Module, x: Tensor) -> Tensor:
    """The mean squared error (N,) of images (N, c, S, S) as they are reconstructed."""
    return (network(x) - x).square().mean(dim=(1, 2, 3))


class AutoencoderDetector(OneNetworkDetector):
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

    memory_format = torch.channels_last

    @staticmethod
    def network(settings) -> nn.Module:
        return networks(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return squared_error(self.network_, x)

    # No two-sided version, and so no statistics of the score.

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        """Nothing: the error is the score."""

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        return {"L2": self.values(images, progress)}

    def tensor_scores(self, value: Tensor) -> dict[str, Tensor]:
        return {"L2": value}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return self.weights(), {}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Nothing beside the weights."""

    # Images and codes

    def reconstruct(self, X) -> np.ndarray:
        """G(E(x)), uint8 (N, S, S, C)."""
        return reconstructed(self._fitted().network_, self.prepared(X), self.torch_device)

    def encode(self, X) -> np.ndarray:
        """Codes E(x), float32 (N, nz)."""
        images, network = self.prepared(X), self._fitted().network_
        return per_image(network[0], images, self.torch_device).astype(np.float32)

    @torch.no_grad()
    def decode(self, z: np.ndarray) -> np.ndarray:
        """Images G(z), uint8 (N, S, S, C), of codes (N, nz). Raises DataError on another shape or non-finite values."""
        generator = self._fitted().network_[1]
        chunks = torch.from_numpy(checked_codes(z, self.settings.nz)).split(BATCH)
        return np.concatenate([to_images(generator(chunk.to(self.torch_device))) for chunk in chunks])
