"""Detectors with one score of their own: the score, and its two-sided twin, the idea of AMA's A-score carried over."""

from abc import abstractmethod

import numpy as np
from torch import Tensor

from ama_core.detectors.base import AnomalyDetector, Progress, Score

TWIN = "A_"  # begins the name of the two-sided twin


def with_twin(score: Score) -> tuple[Score, Score]:
    """The score, and |score - mu| / sigma with both taken from the training images: anomalous on either side.

    Its ranking is that of a Gaussian density of the score (AMA, Eq. 6).
    """
    twin = Score(
        TWIN + score.name,
        f"how unusual that {score.name} is among the training images, on either side.",
        rf"A(x) = |{{\rm {score.name}}}(x) - \mu| / \sigma,\quad \mu, \sigma \text{{ of the training images}}",
        source="AMA, Eq. 6, on another score",
    )
    return score, twin


class OneScoreDetector(AnomalyDetector):
    """Base of detectors that give each image one number.

    A subclass writes `SCORES = with_twin(Score(...))`, `values`, and the weights and arrays of its own.

    Attributes:
        mu_, sigma_: mean and standard deviation of the score of training images.
    """

    mu_: float
    sigma_: float

    @abstractmethod
    def values(self, images: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """The score (N,) float64 of uint8 images (N, S, S, C), larger = more anomalous."""

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        found = self.values(train)
        self.mu_, self.sigma_ = float(found.mean()), max(float(found.std()), 1e-12)

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        name = self.SCORES[0].name
        found = self.values(images, progress)
        return {name: found, TWIN + name: np.abs(found - self.mu_) / self.sigma_}

    def weights(self) -> dict[str, Tensor]:
        """Tensors that scoring needs; none by default."""
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return self.weights(), {"mu": np.float64(self.mu_), "sigma": np.float64(self.sigma_)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mu_, self.sigma_ = float(arrays["mu"]), float(arrays["sigma"])
        if not self.sigma_ > 0:
            raise ValueError("sigma must be positive")
