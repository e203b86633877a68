"""Likelihood ratio: a density model against a background model of the same kind, trained on images that were perturbed."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.base import Score
from ama_core.detectors.modules import bare, per_image, rebuilt
from ama_core.detectors.one_score import OneNetworkDetector, with_two_sided
from ama_core.detectors.pixelcnn import CHUNK, LEVELS, PixelCNN, PixelCNNSettings, adam
from ama_core.settings import setting
from ama_core.training import distributed
from ama_core.training.trainer import Curve, Trainer, descend


@dataclass(frozen=True)
class LikelihoodRatioSettings(PixelCNNSettings):
    """Settings of the likelihood ratio: those of both density models, and how the background's images are perturbed."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PixelCNNSettings.PRESETS

    mutation: float = setting(
        0.2,
        "Probability with which a pixel's value is replaced for the background model. Published: 0.1, 0.2 or 0.3, chosen on "
        "another anomalous set, never the target's; here fixed beforehand.",
        "Objective",
        low=0.0,
        high=1.0,
    )
    background_decay: float = setting(
        0.0,
        "L2 penalty on the background model. Published: 0, 10 or 100, chosen in the same way.",
        "Objective",
        low=0.0,
        high=1000.0,
    )


def mutated(x: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Images in [-1, 1] with each value, at this probability, replaced by itself plus U{0..255} modulo 256."""
    level = ((x + 1) * (LEVELS - 1) / 2).round()
    added = torch.randint(LEVELS, x.shape, generator=rng, device=x.device)
    chosen = torch.rand(x.shape, generator=rng, device=x.device) < probability
    return torch.where(chosen, (level + added) % LEVELS, level) * 2 / (LEVELS - 1) - 1


class Pair(nn.Module):
    """The model of normal images, and the background model."""

    def __init__(self, settings: LikelihoodRatioSettings):
        super().__init__()
        self.normal, self.background = PixelCNN(settings), PixelCNN(settings)

    def ratio(self, x: Tensor) -> Tensor:
        """log p_background(x) - log p(x) in bits per dimension, (N,): larger = more anomalous."""
        return (self.background.log_probability(x) - self.normal.log_probability(x)) / (math.log(2) * x.shape[1:].numel())


class LikelihoodRatioTrainer(Trainer):
    """Both models take a step on the same batch, the background's perturbed: equally old, as fixed beforehand."""

    Settings = LikelihoodRatioSettings
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("nll", "bits per dimension", "of the model of normal images"),
        Curve("nll_background", "of the background model", "bits per dimension of perturbed images"),
    )
    validated_by = "LLR"
    splits = True

    def build(self) -> nn.Module:
        return Pair(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        decay = self.config.background_decay
        return {
            "normal": adam(self.networks.normal, self.config, self.device),
            "background": adam(self.networks.background, self.config, self.device, weight_decay=decay),
        }

    def update(self, x: Tensor) -> dict[str, Tensor]:
        loss = distributed.mean(self.networks.normal.nll(distributed.mine(x)), len(x))
        descend(loss, self.optimisers["normal"])
        perturbed = distributed.mine(mutated(x, self.config.mutation, self.rng))
        background = distributed.mean(self.networks.background.nll(perturbed), len(x))
        descend(background, self.optimisers["background"])
        return {"nll": loss, "nll_background": background}

    def bare_state(self) -> dict[str, Tensor]:
        return bare(self.networks)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        pair = rebuilt(lambda: Pair(self.config), weights, self.device)
        return {"LLR": per_image(pair.ratio, images, self.device, None, CHUNK)}


class LikelihoodRatioDetector(OneNetworkDetector):
    """How much more probable an image is to a background model than to the model of normal images.

    Notes:
        What both models know alike, such as how smooth an image is, cancels. The result depends on the age of both: they are
        trained for the same number of steps. Large variance over seeds. How often a value is perturbed, and the background's L2
        penalty, are fixed beforehand, where the publication chooses them on another set of anomalies. Networks as of
        `pixelcnn`.

    References:
        Ren et al.: Likelihood Ratios for Out-of-Distribution Detection, NeurIPS 2019.
    """

    name = "likelihood_ratio"
    title = "Likelihood ratio"
    reference = "Ren et al., NeurIPS 2019"
    Settings = LikelihoodRatioSettings
    trainer_class = LikelihoodRatioTrainer
    decides = "LLR"
    SCORES = with_two_sided(
        Score(
            "LLR",
            "how much better a background model explains the image than the model of normal images.",
            r"\mathrm{LLR}(x) = \log p_{\mathrm{background}}(x) - \log p(x)",
            log_axis=False,
            source="Eq. 4, with its sign turned",
        )
    )

    chunk = CHUNK

    @staticmethod
    def network(settings) -> nn.Module:
        return Pair(settings)

    def score_batch(self, x: Tensor) -> Tensor:
        return self.network_.ratio(x)
