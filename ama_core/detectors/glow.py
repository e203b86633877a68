"""Glow: an invertible network whose likelihood is exact; typicality asks whether that likelihood is usual."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ama_core.detectors.base import Progress, Score
from ama_core.detectors.modules import bare, per_image, rebuilt
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, setting
from ama_core.training import distributed
from ama_core.training.trainer import Curve, Trainer

LEVELS = 256
CHUNK = 128


@dataclass(frozen=True)
class GlowSettings(TrainingSettings):
    """Settings of Glow; the preset `paper` is the usual implementation for 32 x 32 images."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(levels=3, flows=4, hidden=48, batch_size=64, epochs=1000, max_steps=700, lr=1e-3, lr_schedule="linear"),
        "small": dict(levels=3, flows=8, hidden=64, batch_size=64, epochs=1000, max_steps=3000, lr=1e-3, lr_schedule="linear"),
        "paper": dict(batch_size=64, epochs=250, lr=5e-4, lr_schedule="constant"),
    }

    levels: int = setting(3, "Levels, each of half the size. Published: 3.", "Networks", low=1, high=4)
    flows: int = setting(32, "Steps of flow a level. Published: 32.", "Networks", low=1, high=64)
    hidden: int = setting(512, "Channels inside a coupling. Published: 512.", "Networks", low=4, high=1024)


class ActNorm(nn.Module):
    """A scale and a shift for each channel, set by the first batch so that it comes out with mean 0 and deviation 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.ready:
            with torch.no_grad():
                if distributed.size() > 1:
                    mean, variance, n = distributed.moments(x)
                    deviation = (variance * n / (n - 1)).sqrt()
                else:
                    mean, deviation = x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True)
                self.log_scale.copy_(-(deviation + 1e-6).log())
                self.shift.copy_(-mean)
                self.ready.fill_(True)
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum() * x.shape[2] * x.shape[3]

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() - self.shift


class Mixing(nn.Module):
    """An invertible 1 x 1 convolution: W = P L (U + diag(s)), so that its log-determinant is the sum of log |s|."""

    def __init__(self, channels: int):
        super().__init__()
        if torch.empty(0).device.type == "meta":  # its weights are about to be loaded
            permutation = lower = upper = torch.empty(channels, channels)
        else:
            permutation, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.log_s = nn.Parameter(upper.diagonal().abs().log())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))

    def matrix(self) -> Tensor:
        identity = torch.eye(len(self.log_s), device=self.log_s.device)
        lower = self.lower.tril(-1) + identity
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())
        return self.permutation @ lower @ upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.conv2d(x, self.matrix()[:, :, None, None]), self.log_s.sum() * x.shape[2] * x.shape[3]

    def inverse(self, y: Tensor) -> Tensor:
        return F.conv2d(y, self.matrix().inverse()[:, :, None, None])


class Coupling(nn.Module):
    """Half of the channels scale and shift the other half; begins as the identity."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.kept = channels // 2
        self.network = nn.Sequential(
            nn.Conv2d(self.kept, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, 2 * (channels - self.kept), 3, padding=1),
        )
        nn.init.zeros_(self.network[-1].weight)
        nn.init.zeros_(self.network[-1].bias)

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(kept).chunk(2, dim=1)
        return F.logsigmoid(raw + 2) - math.log(1 / (1 + math.exp(-2))), shift  # log scale, 0 at the start

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, other = x[:, : self.kept], x[:, self.kept :]
        log_scale, shift = self._scale_and_shift(kept)
        return torch.cat([kept, (other + shift) * log_scale.exp()], dim=1), log_scale.sum(dim=(1, 2, 3))

    def inverse(self, y: Tensor) -> Tensor:
        kept, other = y[:, : self.kept], y[:, self.kept :]
        log_scale, shift = self._scale_and_shift(kept)
        return torch.cat([kept, other * (-log_scale).exp() - shift], dim=1)


class Glow(nn.Module):
    """Images to latents of the same number of values, level by level; half of each level's channels leave it for good."""

    def __init__(self, settings: GlowSettings):
        super().__init__()
        channels = settings.channels
        self.steps, self.priors = nn.ModuleList(), nn.ModuleList()
        for level in range(settings.levels):
            channels *= 4
            self.steps.append(
                nn.ModuleList(
                    nn.ModuleList([ActNorm(channels), Mixing(channels), Coupling(channels, settings.hidden)])
                    for _ in range(settings.flows)
                )
            )
            if level < settings.levels - 1:
                prior = nn.Conv2d(
                    channels // 2, channels, 3, padding=1
                )  # mean and log deviation of what leaves, from what stays
                nn.init.zeros_(prior.weight)
                nn.init.zeros_(prior.bias)
                self.priors.append(prior)
                channels //= 2

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images (N, c, S, S) to the latents of each level and log p(x) (N,) in nats, fp32, by the change of variables."""
        latents, log_p = [], torch.zeros(x.shape[0], device=x.device)
        for level, steps in enumerate(self.steps):
            x = F.pixel_unshuffle(x, 2)
            for step in steps:
                for layer in step:
                    x, log_determinant = layer(x)
                    log_p = log_p + log_determinant
            if level < len(self.priors):
                x, leaves = x.chunk(2, dim=1)
                mean, log_deviation = self.priors[level](x).chunk(2, dim=1)
                log_p = log_p + _log_normal(leaves, mean, log_deviation)
                latents.append(leaves)
        latents.append(x)
        return latents, log_p + _log_normal(x, torch.zeros_like(x), torch.zeros_like(x))

    def inverse(self, latents: list[Tensor]) -> Tensor:
        """Latents of `forward` back to images."""
        x = latents[-1]
        for level in reversed(range(len(self.steps))):
            if level < len(self.priors):
                x = torch.cat([x, latents[level]], dim=1)
            for step in reversed(self.steps[level]):
                for layer in reversed(step):
                    x = layer.inverse(x)
            x = F.pixel_shuffle(x, 2)
        return x

    def nll(self, x: Tensor, noise: Tensor | float = 0.5) -> Tensor:
        """-log2 p(x) per pixel and channel, (N,), of images in [-1, 1] on 256 levels.

        Each level is a cell, in which `noise` in [0, 1) picks a place: training draws it (dequantisation), scoring takes the
        middle, so that a score is no matter of chance.
        """
        level = ((x + 1) * (LEVELS - 1) / 2).round()
        _, log_p = self((level + noise) / LEVELS - 0.5)
        return (math.log(LEVELS) - log_p / x.shape[1:].numel()) / math.log(2)


def _log_normal(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log density (N,) of independent normals."""
    terms = -0.5 * (((x - mean) * (-log_deviation).exp()) ** 2 + math.log(2 * math.pi)) - log_deviation
    return terms.sum(dim=(1, 2, 3))


class GlowTrainer(Trainer):
    """Maximum likelihood on dequantised images, Adamax; always in fp32, which invertibility needs."""

    Settings = GlowSettings
    curves: ClassVar[tuple[Curve, ...]] = (Curve("nll", "bits per dimension", "-log2 p(x) per pixel and channel"),)
    validated_by = "NLL"
    splits = True

    def build(self) -> nn.Module:
        return Glow(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"Adamax": torch.optim.Adamax(self.networks.parameters(), self.config.lr)}

    def update(self, x: Tensor) -> dict[str, Tensor]:
        noise = torch.rand(x.shape, generator=self.rng, device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            loss = distributed.mean(self.networks.nll(distributed.mine(x), distributed.mine(noise)), len(x))
        self.optimisers["Adamax"].zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.networks.parameters())
        nn.utils.clip_grad_norm_(self.networks.parameters(), 50.0)
        self.optimisers["Adamax"].step()
        return {"nll": loss}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "NLL": per_image(rebuilt(lambda: Glow(self.config), weights, self.device).nll, images, self.device, None, CHUNK)
        }


class GlowDetector(OneNetworkDetector):
    """The likelihood of an image under Glow.

    Notes:
        Weights are stored in fp32: rounded to half precision a flow is no longer the same density. The score uses the middle of
        each grey level's cell in place of random dequantisation.

    References:
        Kingma, Dhariwal: Glow, NeurIPS 2018.
    """

    name = "glow"
    title = "Glow likelihood"
    reference = "Kingma and Dhariwal, NeurIPS 2018"
    Settings = GlowSettings
    trainer_class = GlowTrainer
    decides = "NLL"
    SCORES = with_two_sided(
        Score(
            "NLL",
            "how improbable the image is, in bits for each pixel and channel.",
            r"\mathrm{NLL}(x) = -\tfrac{1}{n} \left(\log_2 p(z) + \log_2 |\det \partial z / \partial x|\right)",
            log_axis=False,
        )
    )

    stored_in_half, chunk = False, CHUNK

    @staticmethod
    def network(settings) -> nn.Module:
        return Glow(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return self.network_.nll(x)


@dataclass(frozen=True)
class TypicalitySettings(GlowSettings):
    """Settings of typicality: those of its density model."""


class TypicalityTrainer(GlowTrainer):
    """That of the density model."""

    Settings = TypicalitySettings
    validated_by = "typicality"

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        of_train = super().anomaly_scores(weights, train, train)["NLL"]
        return {"typicality": np.abs(super().anomaly_scores(weights, train, images)["NLL"] - of_train.mean())}


class TypicalityDetector(GlowDetector):
    """How far the mean NLL of M images lies from that of the training images, on either side; M = 1 here.

    Notes:
        With M = 1 it is the A-score's recipe with the likelihood in R's place, so it needs no two-sided version. The
        published M = 2 scores pairs: `of_groups`. The row of AMA's Table 1 that carries this method's name matches a
        fraction of rejected images, not an AUROC.

    References:
        Nalisnick, Matsukawa, Teh, Lakshminarayanan: Detecting Out-of-Distribution Inputs to Deep Generative Models Using
        Typicality, 2019.
    """

    name = "typicality"
    title = "Typicality"
    reference = "Nalisnick et al., arXiv 1906.02994"
    Settings = TypicalitySettings
    trainer_class = TypicalityTrainer
    decides = "typicality"
    SCORES = (
        Score(
            "typicality",
            "how unusual the likelihood of the image is, whether too low or too high.",
            r"s(x) = \left| \tfrac{1}{M} \sum_{m=1}^{M} \mathrm{NLL}(x_m) - \mathbb{E}_{\text{train}}\, \mathrm{NLL} \right|,"
            r"\quad M = 1",
            source="Eq. 4",
        ),
    )

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        return {"typicality": np.abs(self.values(images, progress) - self.mu_)}

    def tensor_scores(self, value: Tensor) -> dict[str, Tensor]:
        return {"typicality": (value - self.mu_).abs()}

    def of_groups(self, X, m: int = 2) -> np.ndarray:
        """The score of groups of m images that follow one another, (N // m,)."""
        values = self._fitted().values(self.prepared(X))
        return np.abs(values[: len(values) // m * m].reshape(-1, m).mean(axis=1) - self.mu_)
