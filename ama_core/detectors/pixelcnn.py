"""PixelCNN++: the likelihood of an image, pixel by pixel; famously higher for simple images than for normal ones."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ama_core.detectors.base import Score
from ama_core.detectors.modules import bare, per_image, rebuilt
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, schedule_setting, setting
from ama_core.training import distributed
from ama_core.training.trainer import Curve, Trainer, descend, fused

LEVELS = 256
CHUNK = 128  # images per forward pass


@dataclass(frozen=True)
class PixelCNNSettings(TrainingSettings):
    """Settings of PixelCNN++; the preset `paper` trains as the likelihood-ratio paper does on FashionMNIST."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(filters=32, blocks=2, batch_size=32, epochs=1000, max_steps=700, lr=1e-3, lr_schedule="linear"),
        "small": dict(filters=32, blocks=5, batch_size=32, epochs=1000, max_steps=5000, lr=1e-3, lr_schedule="linear"),
        "paper": dict(batch_size=32, epochs=10_000, max_steps=50_000, lr=1e-4, lr_schedule="decay"),
    }

    lr_schedule: str = schedule_setting(decay="x0.999995 a step, as published.")

    filters: int = setting(32, "Channels of every layer. Published: 32.", "Networks", low=4, high=256)
    blocks: int = setting(5, "Gated residual blocks. Published: 5, in one hierarchy.", "Networks", low=1, high=30)
    mixtures: int = setting(1, "Logistic distributions mixed for each pixel. Published: 1.", "Networks", low=1, high=20)


def down(x: Tensor) -> Tensor:
    """Shifted one row down, zeros on top."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def right(x: Tensor) -> Tensor:
    """Shifted one column to the right, zeros on the left."""
    return F.pad(x, (1, 0))[:, :, :, :-1]


class DownConv(nn.Conv2d):
    """A convolution that sees its own row and those above it."""

    def __init__(self, c_in: int, c_out: int, rows: int = 2, columns: int = 3):
        super().__init__(c_in, c_out, (rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.kernel_size
        return super().forward(F.pad(x, (columns // 2, columns // 2, rows - 1, 0)))


class DownRightConv(nn.Conv2d):
    """A convolution that sees the rows above, and of its own row its place and what is left of it."""

    def __init__(self, c_in: int, c_out: int, rows: int = 2, columns: int = 2):
        super().__init__(c_in, c_out, (rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.kernel_size
        return super().forward(F.pad(x, (columns - 1, 0, rows - 1, 0)))


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, on top of each other."""
    return F.elu(torch.cat([x, -x], dim=1))


class GatedBlock(nn.Module):
    """Residual block with a gate; `aside`: channels of a second input."""

    def __init__(self, kind: type[nn.Conv2d], filters: int, aside: int = 0):
        super().__init__()
        self.first = kind(2 * filters, filters)
        self.aside = nn.Conv2d(2 * aside, filters, 1) if aside else None
        self.second = kind(2 * filters, 2 * filters)

    def forward(self, x: Tensor, aside: Tensor | None = None) -> Tensor:
        h = self.first(concat_elu(x))
        if self.aside is not None:
            h = h + self.aside(concat_elu(aside))
        value, gate = self.second(concat_elu(h)).chunk(2, dim=1)
        return x + value * gate.sigmoid()


class PixelCNN(nn.Module):
    """Parameters of each pixel's distribution from the pixels before it, row by row.

    A vertical stream sees the rows above, a horizontal one the own row to the left as well; none sees its pixel or a later one.
    """

    def __init__(self, settings: PixelCNNSettings):
        super().__init__()
        f, c, k = settings.filters, settings.channels, settings.mixtures
        self.channels, self.mixtures = c, k
        self.above = DownConv(c + 1, f)
        self.row_above = DownConv(c + 1, f, rows=1)
        self.left = DownRightConv(c + 1, f, rows=2, columns=1)
        self.vertical = nn.ModuleList(GatedBlock(DownConv, f) for _ in range(settings.blocks))
        self.horizontal = nn.ModuleList(GatedBlock(DownRightConv, f, aside=f) for _ in range(settings.blocks))
        # Per mixture: its weight; mean and log scale of each channel; and, of colour, how a channel leans on those before it.
        self.to_parameters = nn.Conv2d(f, k * (1 + 2 * c + (3 if c == 3 else 0)), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, c, S, S) in [-1, 1] to parameters (N, k, 1 + 2c (+ 3), S, S), fp32."""
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # padding differs from black
        v = down(self.above(x))
        h = down(self.row_above(x)) + right(self.left(x))
        for vertical, horizontal in zip(self.vertical, self.horizontal):
            v = vertical(v)
            h = horizontal(h, v)
        found = self.to_parameters(F.elu(h)).float()
        return found.unflatten(1, (self.mixtures, -1))

    def log_probability(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,) fp32, of images (N, c, S, S) in [-1, 1] on the 256 levels of uint8."""
        return mixture_log_probability(self(x), x).sum(dim=(1, 2))

    def nll(self, x: Tensor) -> Tensor:
        """-log p(x) in bits per pixel and channel, (N,)."""
        return -self.log_probability(x) / (math.log(2) * x.shape[1:].numel())


def mixture_log_probability(parameters: Tensor, x: Tensor) -> Tensor:
    """Log probability (N, S, S) of each pixel's value under a mixture of discretised logistic distributions.

    parameters: (N, k, 1 + 2c (+ 3), S, S) as of `PixelCNN`; x: (N, c, S, S). Of colour, the mean of green leans on red, that of
    blue on both (Salimans et al., 2017, Eq. 3). Each level holds the mass of its interval; the first and last also all beyond.
    """
    x, c = x.float(), x.shape[1]
    weights = parameters[:, :, 0].log_softmax(dim=1)
    means, log_scales = parameters[:, :, 1 : 1 + c], parameters[:, :, 1 + c : 1 + 2 * c].clamp_min(-7)
    if c == 3:
        lean = parameters[:, :, 7:].tanh()
        r, g = x[:, None, 0], x[:, None, 1]
        green = means[:, :, 1] + lean[:, :, 0] * r
        blue = means[:, :, 2] + lean[:, :, 1] * r + lean[:, :, 2] * g
        means = torch.stack([means[:, :, 0], green, blue], dim=2)
    centred, narrow, half = x[:, None] - means, torch.exp(-log_scales), 1 / (LEVELS - 1)
    upper, lower = narrow * (centred + half), narrow * (centred - half)
    # log CDF at the upper end, log of 1 - CDF at the lower; as softplus, since logsigmoid overflows once it is exported
    below_upper, above_lower = -F.softplus(-upper), -F.softplus(lower)
    # log(CDF(upper) - CDF(lower)) without the difference, of which single precision leaves nothing far from the mean:
    # the two above + log(1 - exp(lower - upper)), with 1 - exp(-2 v) = 2 tanh(v) / (1 + tanh(v)).
    t = (half * narrow).tanh()
    inside = below_upper + above_lower + (2 * t / (1 + t)).log()
    level = x[:, None].expand_as(means)
    of_channel = torch.where(level < -0.999, below_upper, torch.where(level > 0.999, above_lower, inside))
    return torch.logsumexp(weights + of_channel.sum(dim=2), dim=1)


class PixelCNNTrainer(Trainer):
    """Maximum likelihood, Adam (0.95, 0.9995)."""

    Settings = PixelCNNSettings
    curves: ClassVar[tuple[Curve, ...]] = (Curve("nll", "bits per dimension", "-log2 p(x) per pixel and channel"),)
    validated_by = "NLL"
    splits = True

    def build(self) -> nn.Module:
        return PixelCNN(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"Adam": adam(self.networks, self.config, self.device)}

    def update(self, x: Tensor) -> dict[str, Tensor]:
        loss = distributed.mean(self.networks.nll(distributed.mine(x)), len(x))
        descend(loss, self.optimisers["Adam"])
        return {"nll": loss}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "NLL": per_image(rebuilt(lambda: PixelCNN(self.config), weights, self.device).nll, images, self.device, None, CHUNK)
        }


def adam(
    network: nn.Module, settings: PixelCNNSettings, device: torch.device, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Adam as published for PixelCNN++."""
    return torch.optim.Adam(network.parameters(), settings.lr, (0.95, 0.9995), weight_decay=weight_decay, fused=fused(device))


class PixelCNNDetector(OneNetworkDetector):
    """The likelihood of an image under PixelCNN++.

    Notes:
        One hierarchy, no weight normalisation, no dropout. A trained model gives simple images of another set *more*
        probability than its own test images: FashionMNIST against MNIST has an AUROC far below chance. That is the
        failure which likelihood ratios, typicality and input complexity were made for.

    References:
        Salimans, Karpathy, Chen, Kingma: PixelCNN++, ICLR 2017. Nalisnick et al.: Do Deep Generative Models Know What They
        Don't Know?, ICLR 2019.
    """

    name = "pixelcnn"
    title = "PixelCNN++ likelihood"
    reference = "Salimans et al., ICLR 2017"
    Settings = PixelCNNSettings
    trainer_class = PixelCNNTrainer
    decides = "NLL"
    SCORES = with_two_sided(
        Score(
            "NLL",
            "how improbable the image is, in bits for each pixel and channel.",
            r"\mathrm{NLL}(x) = -\tfrac{1}{n} \sum_i \log_2 p(x_i \mid x_1, \ldots, x_{i-1})",
            log_axis=False,
        )
    )

    chunk = CHUNK

    @staticmethod
    def network(settings) -> nn.Module:
        return PixelCNN(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return self.network_.nll(x)
