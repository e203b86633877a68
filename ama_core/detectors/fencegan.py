"""Fence GAN: a generator that draws the border of the normal images, and a discriminator that is left knowing the inside."""

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.base import Score
from ama_core.detectors.dcgan import Critic, Generator
from ama_core.detectors.modules import bare, logistic, per_image, rebuilt
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, setting
from ama_core.training.trainer import Curve, Trainer, descend, fused


@dataclass(frozen=True)
class FenceGANSettings(TrainingSettings):
    """Settings of Fence GAN; the preset `paper` trains as published for MNIST."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(
            batch_size=128, epochs=1000, max_steps=1500, lr=2e-4, lr_critic=1e-4, nz=64, width=16, lr_schedule="constant"
        ),
        "small": dict(batch_size=128, epochs=1000, max_steps=6000, lr=2e-4, lr_critic=1e-4, lr_schedule="constant"),
        "paper": dict(batch_size=200, epochs=115, pretraining=15 / 115, lr=2e-5, lr_critic=1e-5, lr_schedule="constant"),
    }

    nz: int = setting(200, "Latent dimension. Published: 200 (256 for CIFAR-10).", "Networks", low=2, high=1024)
    width: int = setting(32, "Channels of the first layer; doubled at each further one.", "Networks", low=4, high=256)
    alpha: float = setting(
        0.1, "Where the fence is: D of generated images is drawn to it. Published: 0.1 (0.5).", "Objective", low=0.01, high=0.99
    )
    beta: float = setting(
        30.0, "Weight of the dispersion that keeps generated images apart. Published: 30 (10).", "Objective", low=0.0
    )
    gamma: float = setting(
        0.1, "Weight of generated images in D's loss. Published: 0.1 (0.5).", "Objective", low=0.0, high=10.0
    )
    pretraining: float = setting(
        0.1, "Fraction of the steps in which D learns alone. Published: 15 epochs before 100.", "Training", low=0.0, high=0.9
    )
    lr_critic: float = setting(1e-5, "Learning rate of D. Published: 1e-5 (1e-4).", "Training", low=1e-8, high=1.0)


class FenceGANTrainer(Trainer):
    """A step of D, then one of G; Adam (0.5, 0.999)."""

    Settings = FenceGANSettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("loss_critic", "discriminator loss", "cross-entropy of real, and with weight gamma of generated images"),
        Curve("loss_generator", "generator loss", "distance of D from the fence, and dispersion"),
    )
    validated_by = "D"

    def build(self) -> nn.Module:
        c = self.config
        return nn.ModuleDict(
            {
                "G": Generator(c.image_size, c.channels, c.width, c.nz),
                "D": Critic(c.image_size, c.channels, c.width, norm=False),
            }
        )

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {
            "G": torch.optim.Adam(self.networks["G"].parameters(), c.lr, (0.5, 0.999), fused=fused(self.device)),
            "D": torch.optim.Adam(self.networks["D"].parameters(), c.lr_critic, (0.5, 0.999), fused=fused(self.device)),
        }

    def update(self, x: Tensor) -> dict[str, Tensor]:
        G, D, c = self.networks["G"], self.networks["D"], self.config
        self.optimisers["D"].param_groups[0]["lr"] = c.lr_critic  # its own, constant as published
        z = torch.randn(len(x), c.nz, generator=self.rng, device=self.device)
        real, fake = D(x), D(G(z).detach())
        loss_d = logistic(real, 1)
        loss_d = loss_d + c.gamma * logistic(fake, 0)
        descend(loss_d, self.optimisers["D"])
        D.requires_grad_(False)
        images = G(torch.randn(len(x), c.nz, generator=self.rng, device=self.device))
        loss_g = logistic(D(images), c.alpha) + c.beta * dispersion(images)
        D.requires_grad_(True)
        if self._draws(self.step):
            descend(loss_g, self.optimisers["G"])
        return {"loss_critic": loss_d, "loss_generator": loss_g}

    def _draws(self, step: int) -> bool:
        """Whether G learns at this step: after those in which D learns alone."""
        return step >= self.config.pretraining * self.total

    def stages(self) -> tuple[int, ...]:
        return 0, ceil(self.config.pretraining * self.total)

    def selectable(self) -> bool:
        return self._draws(self.step - 1)

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks["D"])

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        c = self.config
        D = rebuilt(lambda: Critic(c.image_size, c.channels, c.width, norm=False), weights, self.device)
        return {"D": per_image(lambda x: -D(x), images, self.device)}


def dispersion(images: Tensor) -> Tensor:
    """1 / mean_i ||G(z_i) - mean_j G(z_j)||_2 of generated images (N, c, S, S)."""
    flat = images.float().flatten(1)
    return 1 / (flat - flat.mean(dim=0)).norm(dim=1).mean().clamp_min(1e-6)


class FenceGANDetector(OneNetworkDetector):
    """What the discriminator says of an image.

    Notes:
        The score is -logit D(x), which ranks as the published 1 - D(x) does and does not saturate. The published MNIST protocol
        is the reverse of one-class testing: one digit is anomalous there. Generator and discriminator are the DCGAN that all
        adversarial detectors share here, and losses and rates of the preset `paper` are MNIST's for every set of images.

    References:
        Ngo et al.: Fence GAN: Towards Better Anomaly Detection, ICTAI 2019.
    """

    name = "fencegan"
    title = "Fence GAN"
    reference = "Ngo et al., ICTAI 2019"
    Settings = FenceGANSettings
    trainer_class = FenceGANTrainer
    decides = "D"
    SCORES = with_two_sided(
        Score(
            "D",
            "how little the discriminator takes the image for a normal one.",
            r"s(x) = -\mathrm{logit}\, D(x),\ \text{which ranks as } 1 - D(x)",
            log_axis=False,
        )
    )

    @staticmethod
    def network(settings) -> nn.Module:
        return Critic(settings.image_size, settings.channels, settings.width, norm=False)

    def score_batch(self, x: Tensor) -> Tensor:
        return -self.network_(x)
