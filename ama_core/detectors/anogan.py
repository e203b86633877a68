"""AnoGAN: a GAN of normal images; a test image's code is searched for by gradient steps, one image after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.base import Progress, Score
from ama_core.detectors.dcgan import Critic, Generator
from ama_core.detectors.modules import bare, logistic, rebuilt, stored
from ama_core.detectors.one_score import OneScoreDetector, with_two_sided
from ama_core.settings import TrainingSettings, setting
from ama_core.storage.bundle import half_precision
from ama_core.tensors import to_images, to_tensor
from ama_core.training.trainer import Curve, Trainer, descend, fused

CHUNK = 128  # images that are inverted at once; each has its own code, so that the result does not depend on it


@dataclass(frozen=True)
class AnoGANSettings(TrainingSettings):
    """Settings of AnoGAN; the preset `paper` has what is published, as far as it is."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(
            nz=32, width=16, batch_size=64, epochs=1000, max_steps=1000, lr=2e-4, lr_schedule="constant", inversion_steps=60
        ),
        "small": dict(
            nz=64, width=32, batch_size=64, epochs=1000, max_steps=4000, lr=2e-4, lr_schedule="constant", inversion_steps=200
        ),
        "paper": dict(batch_size=64, epochs=20, lr=2e-4, lr_schedule="constant", inversion_lr=1e-3),
    }

    nz: int = setting(100, "Latent dimension. Published: 100.", "Networks", low=2, high=1024)
    width: int = setting(64, "Channels of the first layer; doubled at each further one.", "Networks", low=4, high=256)
    inversion_steps: int = setting(
        500,
        "Adam steps of the search for each test image's code. Published: 500. Scoring takes as many times longer.",
        "Scoring",
        low=1,
        high=5000,
    )
    inversion_lr: float = setting(
        1e-2,
        "Learning rate of the code search. Published: 1e-3; larger where there are fewer steps.",
        "Scoring",
        low=1e-5,
        high=1.0,
    )
    weight_features: float = setting(
        0.1,
        "Weight of the features' L1 error against that of the pixels. Published: 0.1 (not verified against the publication).",
        "Scoring",
        low=0.0,
        high=1.0,
    )


class Networks(nn.Module):
    """Generator and discriminator of a DCGAN."""

    def __init__(self, settings: AnoGANSettings):
        super().__init__()
        c = settings
        self.G = Generator(c.image_size, c.channels, c.width, c.nz)
        self.D = Critic(c.image_size, c.channels, c.width)


class AnoGANTrainer(Trainer):
    """A plain DCGAN: a step of D, then one of G; Adam (0.5, 0.999)."""

    Settings = AnoGANSettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("loss_critic", "discriminator loss", "cross-entropy of real and generated images"),
        Curve("loss_generator", "generator loss", "cross-entropy of generated images taken for real"),
    )
    validated_by = "residual"
    scores_slowly = True

    def build(self) -> nn.Module:
        return Networks(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        options = dict(lr=self.config.lr, betas=(0.5, 0.999), fused=fused(self.device))
        return {name: torch.optim.Adam(getattr(self.networks, name).parameters(), **options) for name in "GD"}

    def update(self, x: Tensor) -> dict[str, Tensor]:
        G, D = self.networks.G, self.networks.D
        made = G(torch.randn(len(x), self.config.nz, generator=self.rng, device=self.device))
        real, fake = D(x), D(made.detach())
        loss_d = logistic(real, 1)
        loss_d = loss_d + logistic(fake, 0)
        descend(loss_d, self.optimisers["D"])
        D.requires_grad_(False)
        fake = D(made)
        loss_g = logistic(fake, 1)
        descend(loss_g, self.optimisers["G"])
        D.requires_grad_(True)
        return {"loss_critic": loss_d, "loss_generator": loss_g}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        networks = rebuilt(lambda: Networks(self.config), weights, self.device)
        return {"residual": invert(networks, self.config, images, self.device)[0]}


def invert(
    networks: Networks, settings: AnoGANSettings, images: np.ndarray, device: torch.device, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Search the code of each image: final losses (N,) float64, and the nearest generated images, uint8 (N, S, S, C).

    Every search begins at the same code, 0, so that a score depends on its image alone.
    """
    losses, pictures = [], []
    for start in range(0, len(images), CHUNK):
        x = to_tensor(images[start : start + CHUNK], device)
        with torch.no_grad():
            wanted = networks.D.features(x).float()
        z = torch.zeros(len(x), settings.nz, device=device, requires_grad=True)
        optimiser = torch.optim.Adam([z], settings.inversion_lr)
        with torch.enable_grad():
            for _ in range(settings.inversion_steps):
                optimiser.zero_grad(set_to_none=True)
                _residual(networks, settings, x, wanted, z)[0].sum().backward()
                optimiser.step()
        with torch.no_grad():
            loss, made = _residual(networks, settings, x, wanted, z)
        losses.append(loss.cpu().double().numpy())
        pictures.append(to_images(made))
        if progress:
            progress(min(start + CHUNK, len(images)), len(images))
    return np.concatenate(losses), np.concatenate(pictures)


def _residual(networks: Networks, settings: AnoGANSettings, x: Tensor, wanted: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """(1 - w) ||x - G(z)||_1 + w ||f(x) - f(G(z))||_1, means, (N,); and G(z)."""
    made = networks.G(z)
    pixels = (x - made).float().abs().mean(dim=(1, 2, 3))
    features = (networks.D.features(made).float() - wanted).abs().mean(dim=1)
    return (1 - settings.weight_features) * pixels + settings.weight_features * features, made


class AnoGANDetector(OneScoreDetector):
    """How near the generator comes to an image, in pixels and in the discriminator's features.

    Notes:
        By far the slowest to score: `inversion_steps` passes forward and backward for each image. Every search begins at the
        code 0, where the published one begins at a random code, so that a score is no matter of chance. Both errors are means,
        not sums. The weight 0.1 of the features is as remembered, and the length of the training is ours.

    References:
        Schlegl et al.: Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker Discovery,
        IPMI 2017.
    """

    name = "anogan"
    title = "AnoGAN"
    reference = "Schlegl et al., IPMI 2017"
    Settings = AnoGANSettings
    trainer_class = AnoGANTrainer
    decides = "residual"
    SCORES = with_two_sided(
        Score(
            "residual",
            "how far the nearest image that the generator can draw is from this one.",
            r"s(x) = \min_z\ (1 - \lambda)\, \lVert x - G(z) \rVert_1 + \lambda\, \lVert f(x) - f(G(z)) \rVert_1,"
            r"\ \lambda \text{ the setting weight\_features}",
            source="Eq. 5",
        )
    )

    def use_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.networks_ = rebuilt(lambda: Networks(self.settings), half_precision(weights), self.torch_device)

    def weights(self) -> dict[str, Tensor]:
        return half_precision(stored(self.networks_))

    def values(self, images: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        return invert(self.networks_, self.settings, images, self.torch_device, progress)[0]

    def reconstruct(self, X) -> np.ndarray:
        """The nearest images that the generator draws, uint8 (N, S, S, C)."""
        images = self.prepared(X)
        return invert(self._fitted().networks_, self.settings, images, self.torch_device)[1]
