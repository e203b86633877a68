"""WAIC on an ensemble of Wasserstein GANs: where critics that were trained alike disagree, an image is unknown to them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.base import Score
from ama_core.detectors.dcgan import Critic, Generator
from ama_core.detectors.modules import bare, gradient_penalty, logistic, parameters, per_image, rebuilt
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, setting
from ama_core.training.trainer import Curve, Trainer, descend


@dataclass(frozen=True)
class WAICSettings(TrainingSettings):
    """Settings of the ensemble; the preset `paper` has the published members, steps and rates."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(
            members=3, nz=32, width=16, batch_size=64, epochs=1000, max_steps=500, n_critic=2, lr=2e-4, lr_schedule="constant"
        ),
        "small": dict(width=32, nz=64, batch_size=64, epochs=1000, max_steps=3000, lr=1e-4, lr_schedule="constant"),
        "paper": dict(batch_size=64, epochs=10_000, max_steps=24_002, lr=5e-5, lr_schedule="constant"),
    }

    members: int = setting(5, "Wasserstein GANs in the ensemble. Published: 5.", "Networks", low=2, high=20)
    nz: int = setting(128, "Latent dimension. Published: 128.", "Networks", low=2, high=1024)
    width: int = setting(64, "Channels of the first layer; doubled at each further one.", "Networks", low=4, high=256)
    n_critic: int = setting(5, "Critic steps per generator step. Published: 5.", "Training", low=1, high=100)
    lambda_gp: float = setting(10.0, "Weight of the gradient penalty. Published: 10.", "Objective", low=0.0)
    cross_entropy: float = setting(
        1 / 6,
        "Fraction of the steps, the last ones, in which the critics learn to tell real from generated images by cross-entropy: "
        "Wasserstein values of different members have no common scale. Published: 4,001 of 24,002.",
        "Training",
        low=0.0,
        high=0.9,
    )


class Ensemble(nn.Module):
    """Members with their own start: generators and critics."""

    def __init__(self, settings: WAICSettings):
        super().__init__()
        c = settings
        self.G = nn.ModuleList(Generator(c.image_size, c.channels, c.width, c.nz) for _ in range(c.members))
        self.D = critics(c)


def critics(settings: WAICSettings) -> nn.ModuleList:
    """The critics alone: all that scores images. No batch norm, which a gradient penalty does not go with."""
    c = settings
    return nn.ModuleList(Critic(c.image_size, c.channels, c.width, norm=False) for _ in range(c.members))


def waic(members: nn.ModuleList, x: Tensor) -> Tensor:
    """-(mean_k logit_k(x) - var_k logit_k(x)), (N,): larger = more anomalous."""
    logits = torch.stack([critic(x) for critic in members])
    return logits.var(dim=0, unbiased=False) - logits.mean(dim=0)


class WAICTrainer(Trainer):
    """First every member as a WGAN-GP, then its critic by cross-entropy; RMSProp as published."""

    Settings = WAICSettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("loss_critic", "critics' loss", "Wasserstein with penalty, then cross-entropy; mean over members"),
        Curve("loss_generator", "generators' loss", "minus the critics' values of generated images", chart=""),
    )
    remedy = "Lower lr, or raise lambda_gp."
    validated_by = "WAIC"

    def build(self) -> nn.Module:
        return Ensemble(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "G": torch.optim.RMSprop(parameters(*self.networks.G), self.config.lr),
            "D": torch.optim.RMSprop(parameters(*self.networks.D), self.config.lr),
        }

    def update(self, x: Tensor) -> dict[str, Tensor]:
        adversarial = self.step < self._starts
        for _ in range(self.config.n_critic if adversarial else 1):
            losses = [self._critic_loss(G, D, x, adversarial) for G, D in zip(self.networks.G, self.networks.D)]
            loss_d = torch.stack(losses).sum()
            descend(loss_d, self.optimisers["D"])
        self.networks.D.requires_grad_(False)
        values = [D(G(self._codes(len(x)))).mean() for G, D in zip(self.networks.G, self.networks.D)]
        self.networks.D.requires_grad_(True)
        loss_g = -torch.stack(values).sum()
        if adversarial:
            descend(loss_g, self.optimisers["G"])
        return {"loss_critic": loss_d / len(values), "loss_generator": loss_g / len(values)}

    @property
    def _starts(self) -> int:
        """Steps of the WGANs, before those of cross-entropy."""
        return self.total - int(self.config.cross_entropy * self.total)

    def stages(self) -> tuple[int, ...]:
        return 0, self._starts

    def selectable(self) -> bool:
        return self.step > self._starts or self._starts == self.total  # where the last stage was left out, any step may be

    def _codes(self, n: int) -> Tensor:
        return torch.randn(n, self.config.nz, generator=self.rng, device=self.device)

    def _critic_loss(self, G: nn.Module, D: nn.Module, x: Tensor, adversarial: bool) -> Tensor:
        with torch.no_grad():
            made = G(self._codes(len(x))).float()
        real, fake = D(x), D(made)
        if not adversarial:
            return logistic(real, 1) + logistic(fake, 0)
        a = torch.rand(len(x), generator=self.rng, device=self.device)
        penalty = gradient_penalty(D, lambda _, between: between, x, made, a)
        return fake.mean() - real.mean() + self.config.lambda_gp * penalty

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks.D)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        members = rebuilt(lambda: critics(self.config), weights, self.device)
        return {"WAIC": per_image(lambda x: waic(members, x), images, self.device)}


class WAICDetector(OneNetworkDetector):
    """Mean of the critics' logits, minus their variance.

    Notes:
        Its authors call it WAIC on GANs themselves, and say that it is not WAIC proper, since a critic gives no likelihood.
        Without the last stage the members' values have arbitrary scales and their variance means nothing. The critic steps
        before a generator step share one batch of normal images, of which the published training draws a new one for each.

    References:
        Choi, Jang, Alemi: WAIC, but Why? Generative Ensembles for Robust Anomaly Detection, 2018.
    """

    name = "waic"
    title = "WAIC, ensemble of WGANs"
    reference = "Choi et al., arXiv 1810.01392"
    Settings = WAICSettings
    trainer_class = WAICTrainer
    decides = "WAIC"
    SCORES = with_two_sided(
        Score(
            "WAIC",
            "how little an ensemble of critics takes the image for real, and how much its members disagree.",
            r"s(x) = \mathrm{Var}_k\, D_k(x) - \mathbb{E}_k\, D_k(x)",
            log_axis=False,
            source="Eq. 2, of critics' logits",
        )
    )

    @staticmethod
    def network(settings) -> nn.Module:
        return critics(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return waic(self.network_, x)
