"""Pixel mean: the plainest baseline. Where it does as well as a detector, that detector has only seen brightness."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ama_core.detectors.base import AnomalyDetector, Progress, Score
from ama_core.settings import Settings


def pixel_mean(images: np.ndarray) -> np.ndarray:
    """Mean over all pixels and channels of each image, (N,) in 0..255."""
    return images.mean(axis=(1, 2, 3), dtype=np.float64)


def two_sided(values: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """|values - mean| / sd, (N,): no direction is picked by looking at anomalies."""
    return np.abs(values - mean) / sd


def mean_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of reference values; 1 in place of a deviation of 0."""
    return float(values.mean()), float(values.std()) or 1.0


@dataclass(frozen=True)
class PixelMeanSettings(Settings):
    """Settings of the pixel mean: those that every detector has."""


class PixelMeanDetector(AnomalyDetector):
    """How far an image's mean brightness is from that of the training images, in standard deviations.

    Notes:
        A trivial baseline of the evaluation protocol. It is trained in no time and knows nothing of shapes.

    Examples:
        >>> PixelMeanDetector(PixelMeanSettings(channels=1)).fit("digits").p_value("flat")  # doctest: +SKIP
    """

    name = "pixel_mean"
    title = "Pixel mean"
    reference = "trivial baseline"
    Settings = PixelMeanSettings
    decides = "brightness"
    SCORES = (
        Score(
            "brightness",
            "how far the mean brightness of the image is from that of the training images, on either side.",
            r"s(x) = |\bar x - \mu| / \sigma,\quad \mu, \sigma \text{ of the training images' } \bar x",
        ),
    )

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        self.mean_, self.sd_ = mean_and_spread(pixel_mean(train))

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        return {"brightness": two_sided(pixel_mean(images), self.mean_, self.sd_)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return {}, {"mean": np.float64(self.mean_), "sd": np.float64(self.sd_)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean_, self.sd_ = float(arrays["mean"]), float(arrays["sd"])
        if not self.sd_ > 0:
            raise ValueError("sd must be positive")
