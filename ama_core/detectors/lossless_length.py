"""Lossless length: how many bytes a codec needs. Where it does as well, a detector has only seen how complex images are."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import features

from ama_core.data.pictures import to_picture
from ama_core.detectors.base import Score
from ama_core.detectors.one_score import TwoSidedDetector
from ama_core.errors import ConfigError
from ama_core.settings import Settings, setting

OPTIONS = {"WebP": {"lossless": True, "method": 2}, "PNG": {"optimize": True}}
CODECS = tuple(OPTIONS)
CODEC = "WebP" if features.check("webp") else "PNG"  # WebP's lossless mode packs small images tighter
SAMPLE = 5_000  # training images, drawn by the seed, behind mean and deviation


def lossless_length(images: np.ndarray, codec: str = CODEC) -> np.ndarray:
    """Bytes (N,) of each image, uint8 (N, S, S, C), under one of CODECS, lossless; grey images as grey."""
    lengths = np.empty(len(images))
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        to_picture(image).save(buffer, codec, **OPTIONS[codec])
        lengths[i] = buffer.tell()
    return lengths


@dataclass(frozen=True)
class LosslessLengthSettings(Settings):
    """Settings of the lossless length."""

    codec: str = setting(
        CODEC,
        "Lossless codec of Pillow whose bytes are counted: WebP packs small images tighter than PNG.",
        "What is trained",
        choices=CODECS,
    )


class LosslessLengthDetector(TwoSidedDetector):
    """How far an image's length under a lossless codec is from that of the training images, in standard deviations.

    Notes:
        A trivial baseline of the evaluation protocol: how complex an image is, and nothing else.
    """

    name = "lossless_length"
    title = "Lossless length"
    reference = "trivial baseline"
    Settings = LosslessLengthSettings
    decides = "length"
    SCORES = (
        Score(
            "length",
            "how far the compressed length of the image is from that of the training images, on either side.",
            r"s(x) = |L(x) - \mu| / \sigma,\quad L \text{ in bytes},\ \mu, \sigma \text{ of the training images' } L",
        ),
    )

    sample = SAMPLE

    def card_remark(self) -> str:
        return f", {self.settings.codec} lossless"

    def statistic(self, images: np.ndarray) -> np.ndarray:
        if self.settings.codec == "WebP" and not features.check("webp"):
            raise ConfigError("Pillow here has no WebP: set codec=PNG.")
        return lossless_length(images, self.settings.codec)
