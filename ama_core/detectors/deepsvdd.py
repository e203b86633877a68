"""Deep SVDD: a network that maps normal images into a small ball; far from its centre is anomalous."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ama_core.detectors.base import Score
from ama_core.detectors.dcgan import GRID, stages
from ama_core.detectors.modules import bare, parameters, per_image, rebuilt
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.settings import TrainingSettings, schedule_setting, setting
from ama_core.training import distributed
from ama_core.training.trainer import Curve, Trainer, descend, fused

CENTRE_LEAST = 0.1  # |c_i| below this is pushed to it: a coordinate near 0 is matched by weights of 0


@dataclass(frozen=True)
class DeepSVDDSettings(TrainingSettings):
    """Settings of Deep SVDD; the preset `paper` trains as published for CIFAR-10."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": dict(batch_size=200, epochs=1000, max_steps=1500, lr=1e-3, lr_schedule="linear", width=16, dim=64),
        "small": dict(batch_size=200, epochs=1000, max_steps=6000, lr=1e-3, lr_schedule="linear"),
        "paper": dict(batch_size=200, epochs=500, lr=1e-4, lr_schedule="stages", pretraining=0.7),
    }

    lr_schedule: str = schedule_setting(
        stages="as published, x0.1 after 5/7 of the autoencoder's steps, and from lr again x0.1 after 1/3 of the others."
    )

    dim: int = setting(128, "Dimension of the embedding. Published: 128 (32 for MNIST).", "Networks", low=2, high=1024)
    width: int = setting(
        32, "Channels of the first layer; doubled at each further one. Published: 32.", "Networks", low=4, high=256
    )
    pretraining: float = setting(
        0.4,
        "Fraction of the steps in which an autoencoder is trained first, from which the network and its centre start. "
        "Published: 350 of 500 epochs.",
        "Training",
        low=0.0,
        high=0.95,
    )
    weight_decay: float = setting(5e-7, "L2 penalty on the weights. Published: 5e-7.", "Objective", low=0.0, high=1.0)


class Embedding(nn.Module):
    """phi: convolutions of 5 x 5 without a single bias, which would let it collapse, to (N, dim); and the ball's centre c."""

    def __init__(self, settings: DeepSVDDSettings):
        super().__init__()
        widths = [settings.width * 2**i for i in range(stages(settings.image_size))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 5, padding=2, bias=False) for c_in, c_out in zip([settings.channels, *widths], widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, eps=1e-4, affine=False) for c in widths)
        self.to_code = nn.Linear(widths[-1] * GRID * GRID, settings.dim, bias=False)
        self.register_buffer("centre", torch.zeros(settings.dim))

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms):
            x = F.max_pool2d(F.leaky_relu(norm(convolution(x)), 0.01), 2)
        return self.to_code(x.flatten(1))

    def distance(self, x: Tensor) -> Tensor:
        """||phi(x) - c||^2, (N,) fp32."""
        return (self(x).float() - self.centre).square().sum(dim=1)


class Decoder(nn.Module):
    """The mirror of the embedding, for the autoencoder it starts from: codes to images in [-1, 1]."""

    def __init__(self, settings: DeepSVDDSettings):
        super().__init__()
        widths = [settings.width * 2**i for i in reversed(range(stages(settings.image_size)))]
        self.width = widths[0]
        self.from_code = nn.Linear(settings.dim, widths[0] * GRID * GRID, bias=False)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 5, padding=2, bias=False) for c_in, c_out in zip(widths, [*widths[1:], settings.channels])
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, eps=1e-4, affine=False) for c in widths)

    def forward(self, z: Tensor) -> Tensor:
        h = self.from_code(z).unflatten(1, (self.width, GRID, GRID))
        for norm, convolution in zip(self.norms, self.convolutions):
            h = convolution(F.interpolate(F.leaky_relu(norm(h), 0.01), scale_factor=2))
        return h.tanh()


class DeepSVDDTrainer(Trainer):
    """First an autoencoder; then the centre is the mean embedding; then embeddings are drawn towards it."""

    Settings = DeepSVDDSettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("loss", "loss", "squared error of the autoencoder first, then mean squared distance from the centre"),
    )
    validated_by = "distance"
    splits = True

    def build(self) -> nn.Module:
        return nn.ModuleDict({"embedding": Embedding(self.config), "decoder": Decoder(self.config)})

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        def adam(*modules: nn.Module) -> torch.optim.Optimizer:
            decay = self.config.weight_decay
            return torch.optim.Adam(parameters(*modules), self.config.lr, weight_decay=decay, fused=fused(self.device))

        embedding, decoder = self.networks["embedding"], self.networks["decoder"]
        return {"autoencoder": adam(embedding, decoder), "one_class": adam(embedding)}

    def prepare(self, images: np.ndarray) -> None:
        self.images = images

    def update(self, x: Tensor) -> dict[str, Tensor]:
        embedding, decoder = self.networks["embedding"], self.networks["decoder"]
        n, x = len(x), distributed.mine(x)
        if self.step < self._starts:
            loss = distributed.weighted(F.mse_loss(decoder(embedding(x)).float(), x), len(x), n)
            descend(loss, self.optimisers["autoencoder"])
            return {"loss": loss}
        if self.step == self._starts:
            self._set_centre()
        loss = distributed.mean(embedding.distance(x), n)
        descend(loss, self.optimisers["one_class"])
        return {"loss": loss}

    @property
    def _starts(self) -> int:
        """Steps of the autoencoder, before those of the one-class objective."""
        return int(self.config.pretraining * self.total)

    def learning_rate(self) -> float:
        if self.config.lr_schedule != "stages":
            return super().learning_rate()
        of_autoencoder, of_one_class = self._starts, self.total - self._starts
        if self.step < of_autoencoder:
            fallen = 7 * self.step >= 5 * of_autoencoder  # at epoch 250 of 350
        else:
            fallen = 3 * (self.step - of_autoencoder) >= of_one_class  # at epoch 50 of 150
        return self.config.lr * (0.1 if fallen else 1.0)

    def stages(self) -> tuple[int, ...]:
        return 0, self._starts

    def selectable(self) -> bool:
        return self.step > self._starts  # the centre is 0 until then

    def update_average(self) -> None:
        super().update_average()
        if self.average:  # the centre is set once: an average of it would lag behind between 0 and it
            self.average["centre"] = self.networks["embedding"].centre.clone()

    def _set_centre(self) -> None:
        embedding = self.networks["embedding"].eval()
        centre = per_image(embedding, self.images, self.device).mean(axis=0)
        centre = np.where(np.abs(centre) < CENTRE_LEAST, np.where(centre < 0, -CENTRE_LEAST, CENTRE_LEAST), centre)
        embedding.centre.copy_(torch.from_numpy(centre).float())
        distributed.same(embedding.centre)
        embedding.train()

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks["embedding"])

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        embedding = rebuilt(lambda: Embedding(self.config), weights, self.device)
        return {"distance": per_image(embedding.distance, images, self.device)}


class DeepSVDDDetector(OneNetworkDetector):
    """The squared distance of an image's embedding from the centre of the normal ones.

    Notes:
        One-class Deep SVDD, batch norm without affine part, no bias anywhere, centre pushed off zero: each of the three, left
        out, lets the network collapse to the centre for every image. Weights of the last step; the score falls off again after
        its best, which is not chosen. The autoencoder draws on [-1, 1] with tanh, where the published one has a sigmoid; images
        are not normalised in their contrast. For MNIST the publication has a smaller network, dim 32.

    References:
        Ruff et al.: Deep One-Class Classification, ICML 2018.
    """

    name = "deepsvdd"
    title = "Deep SVDD"
    reference = "Ruff et al., ICML 2018"
    Settings = DeepSVDDSettings
    trainer_class = DeepSVDDTrainer
    decides = "distance"
    SCORES = with_two_sided(
        Score(
            "distance",
            "how far the network puts the image from the centre of the normal ones.",
            r"s(x) = \lVert \phi(x) - c \rVert_2^2",
            source="Eq. 4",
        )
    )

    @staticmethod
    def network(settings) -> nn.Module:
        return Embedding(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return self.network_.distance(x)

    def features(self, X) -> np.ndarray:
        """Embeddings phi(x), float32 (N, dim)."""
        images = self.prepared(X)
        return per_image(self._fitted().network_, images, self.torch_device).astype(np.float32)
