"""Detectors with one score of their own: the score, and its two-sided version, the idea of AMA's A-score carried over."""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.data import draw
from ama_core.detectors.base import AnomalyDetector, Progress, Score
from ama_core.detectors.graph import Graph
from ama_core.detectors.modules import per_image, rebuilt, stored
from ama_core.storage.bundle import half_precision
from ama_core.tensors import BATCH

TWO_SIDED_PREFIX = "A_"  # begins the name of the two-sided version


def with_two_sided(score: Score) -> tuple[Score, Score]:
    """The score, and |score - mu| / sigma with both taken from the training images: anomalous on either side.

    Its ranking is that of a Gaussian density of the score (AMA, Eq. 6).
    """
    two_sided = Score(
        TWO_SIDED_PREFIX + score.name,
        f"how unusual that {score.name} is among the training images, on either side.",
        rf"A(x) = |{{\rm {score.name}}}(x) - \mu| / \sigma,\quad \mu, \sigma \text{{ of the training images}}",
        source="AMA, Eq. 6, on another score",
    )
    return score, two_sided


class OneScoreDetector(AnomalyDetector):
    """Base of detectors that give each image one number.

    A subclass writes `SCORES = with_two_sided(Score(...))`, `values`, and the weights and arrays of its own.

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
        return {name: found, TWO_SIDED_PREFIX + name: np.abs(found - self.mu_) / self.sigma_}

    def weights(self) -> dict[str, Tensor]:
        """Tensors that scoring needs; none by default."""
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return self.weights(), {"mu": np.float64(self.mu_), "sigma": np.float64(self.sigma_)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mu_, self.sigma_ = float(arrays["mu"]), float(arrays["sigma"])
        if not self.sigma_ > 0:
            raise ValueError("sigma must be positive")


class TwoSidedDetector(AnomalyDetector):
    """Base of detectors that compare one plain statistic of an image with that of the training images, on either side.

    A subclass writes `SCORES` of one score, and `statistic`.

    Attributes:
        mean_, sd_: mean and standard deviation of the statistic of training images; sd_ is 1 where it does not vary.
    """

    mean_: float
    sd_: float
    sample: int | None = None  # training images that the mean and deviation are taken of; None: all that are given

    @abstractmethod
    def statistic(self, images: np.ndarray) -> np.ndarray:
        """The statistic (N,) float64 of uint8 images (N, S, S, C)."""

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        some = train if self.sample is None else train[draw(len(train), self.sample, self.settings.seed)]
        values = self.statistic(some)
        self.mean_, self.sd_ = float(values.mean()), float(values.std()) or 1.0

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        return {self.SCORES[0].name: np.abs(self.statistic(images) - self.mean_) / self.sd_}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return {}, {"mean": np.float64(self.mean_), "sd": np.float64(self.sd_)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean_, self.sd_ = float(arrays["mean"]), float(arrays["sd"])
        if not self.sd_ > 0:
            raise ValueError("sd must be positive")


class OneNetworkDetector(OneScoreDetector):
    """Base of detectors whose score of an image is one pass through one network, or through one module of several.

    A subclass writes `network`, `score_batch`, and what `OneScoreDetector` asks for but `values` and `weights`.

    Attributes:
        network_: the module in eval mode, fp32, on the device of the detector.
    """

    network_: nn.Module
    stored_in_half = True  # how weights are stored
    chunk = BATCH  # images that are scored at once
    memory_format = torch.preserve_format  # layout of the weights; another one changes speed, and the last bits of scores

    @staticmethod
    @abstractmethod
    def network(settings) -> nn.Module:
        """The module of these settings, with random weights."""

    @abstractmethod
    def score_batch(self, x: Tensor) -> Tensor:
        """The score (n,) of float images (n, C, S, S) in [-1, 1], larger = more anomalous."""

    def use_weights(self, weights: Mapping[str, Tensor]) -> None:
        weights = self._as_stored(weights)
        self.network_ = rebuilt(lambda: self.network(self.settings), weights, self.torch_device, self.memory_format)

    def weights(self) -> dict[str, Tensor]:
        return self._as_stored(stored(self.network_))

    def values(self, images: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        return per_image(self.score_batch, images, self.torch_device, progress, self.chunk)

    def graph(self) -> Graph:
        """The scores and the p-value of the deciding one, as one module on the CPU."""
        self._fitted()
        copy, (weights, arrays) = type(self)(self.settings, device="cpu"), self.state()
        copy.use_weights(weights)
        copy.restore(arrays)
        outputs = lambda _, x: copy.tensor_scores(copy.score_batch(x).double())  # noqa: E731 (of `copy`, which Graph holds)
        return Graph(copy.network_, outputs, self.by, False, self.held_out_scores_[self.by]).eval()

    def tensor_scores(self, value: Tensor) -> dict[str, Tensor]:
        """As `raw_scores`, from the network's score (n,) of each image."""
        name = self.SCORES[0].name
        return {name: value, TWO_SIDED_PREFIX + name: (value - self.mu_).abs() / self.sigma_}

    def _as_stored(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return half_precision(weights) if self.stored_in_half else weights
