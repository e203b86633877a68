"""Skip-GANomaly: a U-Net that reconstructs normal images, and a discriminator whose features see the difference."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ama_core.detectors.base import Score
from ama_core.detectors.dcgan import Critic, stages
from ama_core.detectors.modules import bare, logistic, per_image, rebuilt, reconstructed
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, setting
from ama_core.training.trainer import Curve, Trainer, descend, fused

PIXELS, FEATURES = 0.9, 0.1  # weights of the two errors in the score, as published


@dataclass(frozen=True)
class SkipGANomalySettings(TrainingSettings):
    """Settings of Skip-GANomaly; the preset `paper` has the published width, batches, weights and rates."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(width=16, batch_size=64, epochs=1000, max_steps=800, lr=2e-4, lr_schedule="linear"),
        "small": dict(width=32, batch_size=64, epochs=1000, max_steps=4000, lr=2e-4, lr_schedule="linear"),
        "paper": dict(batch_size=64, epochs=15, lr=2e-4, lr_schedule="linear"),
    }

    width: int = setting(
        64, "Channels of the first layer; doubled at each further one. Published: 64.", "Networks", low=4, high=256
    )
    weight_adversarial: float = setting(1.0, "Weight of the adversarial loss. Published: 1.", "Objective", low=0.0)
    weight_pixels: float = setting(50.0, "Weight of the L1 error of the pixels. Published: 50.", "Objective", low=0.0)
    weight_features: float = setting(1.0, "Weight of the squared error of the features. Published: 1.", "Objective", low=0.0)


class UNet(nn.Module):
    """Images to images in [-1, 1], with a skip from each scale to its mirror."""

    def __init__(self, image_size: int, channels: int, width: int):
        super().__init__()
        widths = [width * 2**i for i in range(stages(image_size))]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2))
            for c_in, c_out in zip([channels, *widths], widths)
        )
        ups = []
        for i in reversed(range(len(widths))):
            c_in = widths[i] * (1 if i == len(widths) - 1 else 2)
            c_out = widths[i - 1] if i else channels
            ups.append(nn.ConvTranspose2d(c_in, c_out, 4, 2, 1))
        self.up = nn.ModuleList(ups)
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in reversed(widths[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for layer in self.down:
            x = layer(x)
            seen.append(x)
        h = seen.pop()
        for up, norm in zip(self.up, self.norms):
            h = torch.cat([F.relu(norm(up(h))), seen.pop()], dim=1)
        return self.up[-1](h).tanh()


class Networks(nn.Module):
    """The reconstructing U-Net and the discriminator."""

    def __init__(self, settings: SkipGANomalySettings):
        super().__init__()
        self.G = UNet(settings.image_size, settings.channels, settings.width)
        self.D = Critic(settings.image_size, settings.channels, settings.width)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The image as the U-Net draws it, of the same shape."""
        return self.G(x)

    def errors(self, x: Tensor) -> Tensor:
        """0.9 mean squared pixel error + 0.1 mean squared feature error, (N,) fp32."""
        x_hat = self.reconstruct(x)
        pixels = (x - x_hat).float().square().mean(dim=(1, 2, 3))
        features = (self.D.features(x) - self.D.features(x_hat)).float().square().mean(dim=1)
        return PIXELS * pixels + FEATURES * features


class SkipGANomalyTrainer(Trainer):
    """A step of G, then one of D; Adam (0.5, 0.999)."""

    Settings = SkipGANomalySettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("loss_generator", "generator loss", "adversarial, pixels and features, weighted"),
        Curve("loss_critic", "discriminator loss", "cross-entropy of real and reconstructed images"),
    )
    validated_by = "residual"

    def build(self) -> nn.Module:
        return Networks(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        options = dict(lr=self.config.lr, betas=(0.5, 0.999), fused=fused(self.device))
        return {name: torch.optim.Adam(getattr(self.networks, name).parameters(), **options) for name in "GD"}

    def update(self, x: Tensor) -> dict[str, Tensor]:
        G, D, c = self.networks.G, self.networks.D, self.config
        x_hat = G(x)
        D.requires_grad_(False)
        fake = D(x_hat)
        loss_g = c.weight_adversarial * logistic(fake, 1)
        loss_g = loss_g + c.weight_pixels * F.l1_loss(x_hat.float(), x)
        loss_g = loss_g + c.weight_features * F.mse_loss(D.features(x_hat).float(), D.features(x).float())
        descend(loss_g, self.optimisers["G"])
        D.requires_grad_(True)
        real, fake = D(x), D(x_hat.detach())
        loss_d = logistic(real, 1)
        loss_d = loss_d + logistic(fake, 0)
        descend(loss_d, self.optimisers["D"])
        return {"loss_generator": loss_g, "loss_critic": loss_d}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def sample(self, images: np.ndarray) -> np.ndarray:
        return reconstructed(self.networks.eval().reconstruct, images, self.device)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        networks = rebuilt(lambda: Networks(self.config), weights, self.device)
        return {"residual": per_image(networks.errors, images, self.device)}


class SkipGANomalyDetector(OneNetworkDetector):
    """The weighted error of reconstructed pixels and of the discriminator's features.

    Notes:
        The U-Net halves the image down to 4 x 4, three times at 32 pixels, where the published one does so five times; features
        are those before the discriminator's last layer, in place of 100 of its own. Scored in eval mode: the released
        code tests in training mode, so that an image's score depends on its batch. The error is not rescaled to [0, 1] over the
        test set, which would need the test set.

    References:
        Akçay, Atapour-Abarghouei, Breckon: Skip-GANomaly, IJCNN 2019.
    """

    name = "skipganomaly"
    title = "Skip-GANomaly"
    reference = "Akçay et al., IJCNN 2019"
    Settings = SkipGANomalySettings
    trainer_class = SkipGANomalyTrainer
    decides = "residual"
    SCORES = with_two_sided(
        Score(
            "residual",
            "how badly the network reconstructs the image, in its pixels and to the discriminator.",
            r"s(x) = 0.9\, \lVert x - \hat x \rVert_2^2 + 0.1\, \lVert f(x) - f(\hat x) \rVert_2^2,\ \text{means}",
            source="Eq. 5",
        )
    )

    @staticmethod
    def network(settings) -> nn.Module:
        return Networks(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return self.network_.errors(x)

    def reconstruct(self, X) -> np.ndarray:
        """The reconstructed images, uint8 (N, S, S, C)."""
        return reconstructed(self._fitted().network_.reconstruct, self.prepared(X), self.torch_device)
