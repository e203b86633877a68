"""ALAD: a bidirectional GAN whose critic of pairs (x, x) and (x, G(E(x))) gives the score that AMA's R took over."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ama_core.detectors.base import Score
from ama_core.detectors.dcgan import Critic, Features, Generator
from ama_core.detectors.modules import bare, logistic, parameters, per_image, rebuilt, reconstructed
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, setting
from ama_core.training.trainer import Curve, Trainer, descend, fused


@dataclass(frozen=True)
class ALADSettings(TrainingSettings):
    """Settings of ALAD; the preset `paper` has the published width, batches and rates."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(
            nz=32, width=16, batch_size=64, epochs=1000, max_steps=1000, lr=2e-4, lr_schedule="constant", average=0.99
        ),
        "small": dict(
            nz=64, width=32, batch_size=64, epochs=1000, max_steps=4000, lr=2e-4, lr_schedule="constant", average=0.999
        ),
        "paper": dict(width=128, batch_size=32, epochs=100, lr=2e-4, lr_schedule="constant", average=0.999),
    }

    nz: int = setting(100, "Latent dimension. Published: 100.", "Networks", low=2, high=1024)
    width: int = setting(
        64, "Channels of the first layer; doubled at each further one. Published: 128 in E.", "Networks", low=4, high=256
    )


class CodeCritic(nn.Module):
    """D of pairs of an image and a code, or of two codes: vectors in, a logit (N,) out."""

    def __init__(self, size: int, hidden: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Linear(size, hidden)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(hidden, 1))
        )

    def forward(self, *vectors: Tensor) -> Tensor:
        return self.layers(torch.cat(vectors, dim=1)).float().squeeze(1)


class ImageCodeCritic(nn.Module):
    """D_xz: features of the image beside the code."""

    def __init__(self, settings: ALADSettings):
        super().__init__()
        self.features = Features(settings.image_size, settings.channels, settings.width, norm=False, spectral=True)
        self.head = CodeCritic(self.features.size + settings.nz)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.head(self.features(x), z)


class Encoder(nn.Module):
    """E: images to codes (N, nz)."""

    def __init__(self, settings: ALADSettings):
        super().__init__()
        self.features = Features(settings.image_size, settings.channels, settings.width, spectral=True)
        self.to_code = spectral_norm(nn.Linear(self.features.size, settings.nz))

    def forward(self, x: Tensor) -> Tensor:
        return self.to_code(self.features(x))


class Networks(nn.Module):
    """E, G and the three critics."""

    def __init__(self, settings: ALADSettings):
        super().__init__()
        c = settings
        self.E, self.G = Encoder(c), Generator(c.image_size, c.channels, c.width, c.nz)
        self.D_xz = ImageCodeCritic(c)
        self.D_xx = Critic(c.image_size, 2 * c.channels, c.width, norm=False, spectral=True)
        self.D_zz = CodeCritic(2 * c.nz)

    def reconstruct(self, x: Tensor) -> Tensor:
        """G(E(x)), of the same shape."""
        return self.G(self.E(x))

    def feature_distance(self, x: Tensor) -> Tensor:
        """||f_xx(x, x) - f_xx(x, G(E(x)))||_1, (N,) fp32."""
        real, recon = (self.D_xx.features(torch.cat([x, y], dim=1)).float() for y in (x, self.reconstruct(x)))
        return (real - recon).abs().sum(dim=1)


class ALADTrainer(Trainer):
    """A step of the critics, then one of E and G, in all three games; Adam (0.5, 0.999)."""

    Settings = ALADSettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("loss_critic", "critics' loss", "cross-entropy over the pairs (x, z), (x, x) and (z, z)"),
        Curve("loss_autoencoder", "loss of E and G", "the same with the labels exchanged"),
    )
    validated_by = "F1"

    def build(self) -> nn.Module:
        return Networks(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        n, options = self.networks, dict(lr=self.config.lr, betas=(0.5, 0.999), fused=fused(self.device))
        return {
            "EG": torch.optim.Adam(parameters(n.E, n.G), **options),
            "D": torch.optim.Adam(parameters(n.D_xz, n.D_xx, n.D_zz), **options),
        }

    def update(self, x: Tensor) -> dict[str, Tensor]:
        n = self.networks
        z = torch.randn(len(x), self.config.nz, generator=self.rng, device=self.device)
        code, made = n.E(x), n.G(z)
        again_x, again_z = n.G(code), n.E(made)

        def games(detached: bool) -> tuple[list[Tensor], list[Tensor]]:
            """Logits of the pairs that are real to the critics, and of those that are not."""
            c, m, ax, az = (t.detach() if detached else t for t in (code, made, again_x, again_z))
            real = [n.D_xz(x, c), n.D_xx(torch.cat([x, x], dim=1)), n.D_zz(z, z)]
            return real, [n.D_xz(m, z), n.D_xx(torch.cat([x, ax], dim=1)), n.D_zz(z, az)]

        critics = (n.D_xz, n.D_xx, n.D_zz)
        real, fake = games(detached=True)
        loss_d = sum(logistic(r, 1) for r in real) + sum(logistic(f, 0) for f in fake)
        descend(loss_d, self.optimisers["D"])
        for critic in critics:
            critic.requires_grad_(False)
        real, fake = games(detached=False)
        loss_eg = sum(logistic(f, 1) for f in fake) + logistic(real[0], 0)  # of E alone depends the real pair (x, E(x))
        descend(loss_eg, self.optimisers["EG"])
        for critic in critics:
            critic.requires_grad_(True)
        return {"loss_critic": loss_d, "loss_autoencoder": loss_eg}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def sample(self, images: np.ndarray) -> np.ndarray:
        return reconstructed(self.networks.eval().reconstruct, images, self.device)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        networks = rebuilt(lambda: Networks(self.config), weights, self.device)
        return {"F1": per_image(networks.feature_distance, images, self.device)}


class ALADDetector(OneNetworkDetector):
    """How differently the critic of image pairs sees (x, x) and (x, G(E(x))).

    Notes:
        AMA's R is this score on another critic. Without the published dropout, whose random numbers would not survive a
        resumed training; and D_xx is built like E and as wide, where the published one has two convolutions of 64 and 128
        channels. Scored with a moving average of the weights, as published; weights of the last step, where the released code
        stops early on held-out normal images.

    References:
        Zenati et al.: Adversarially Learned Anomaly Detection, ICDM 2018.
    """

    name = "alad"
    title = "ALAD"
    reference = "Zenati et al., ICDM 2018"
    Settings = ALADSettings
    trainer_class = ALADTrainer
    decides = "F1"
    SCORES = with_two_sided(
        Score(
            "F1",
            "how differently the critic sees the pairs (image, image) and (image, reconstruction).",
            r"s(x) = \lVert f_{xx}(x, x) - f_{xx}(x, G(E(x))) \rVert_1",
            source="Eq. 7",
        )
    )

    @staticmethod
    def network(settings) -> nn.Module:
        return Networks(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return self.network_.feature_distance(x)

    def reconstruct(self, X) -> np.ndarray:
        """G(E(x)), uint8 (N, S, S, C)."""
        return reconstructed(self._fitted().network_.reconstruct, self.prepared(X), self.torch_device)

    def encode(self, X) -> np.ndarray:
        """Codes E(x), float32 (N, nz)."""
        self._fitted()
        return per_image(self.network_.E, self.prepared(X), self.torch_device).astype(np.float32)
