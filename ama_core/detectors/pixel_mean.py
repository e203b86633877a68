"""Pixel mean: the plainest baseline. Where it does as well as a detector, that detector has only seen brightness."""

from dataclasses import dataclass

import numpy as np

from ama_core.detectors.base import Score
from ama_core.detectors.one_score import TwoSidedDetector
from ama_core.settings import Settings


def pixel_mean(images: np.ndarray) -> np.ndarray:
    """Mean over all pixels and channels of each image, (N,) in 0..255."""
    return images.mean(axis=(1, 2, 3), dtype=np.float64)


@dataclass(frozen=True)
class PixelMeanSettings(Settings):
    """Settings of the pixel mean: those that every detector has."""


class PixelMeanDetector(TwoSidedDetector):
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

    def statistic(self, images: np.ndarray) -> np.ndarray:
        return pixel_mean(images)
