"""Input complexity S: likelihood, minus what a lossless codec says of any image that simple."""

from dataclasses import dataclass

import numpy as np
from PIL import features

from ama_core.detectors.base import Progress, Score
from ama_core.detectors.lossless_length import CODECS, lossless_length
from ama_core.detectors.one_score import with_two_sided
from ama_core.detectors.pixelcnn import PixelCNNDetector, PixelCNNSettings, PixelCNNTrainer
from ama_core.errors import ConfigError
from ama_core.settings import setting
from ama_core.training.trainer import Trainer

EXTRA_CODECS = ("JPEGXL",)  # through imagecodecs, an extra


@dataclass(frozen=True)
class ComplexitySettings(PixelCNNSettings):
    """Settings of input complexity: those of its density model, and the codec."""

    codec: str = setting(
        "PNG",
        "Lossless codec behind the complexity. S moves by .06 to .13 with it, so it is fixed beforehand and recorded. "
        "JPEGXL, nearest to the published FLIF, needs the package imagecodecs.",
        "What is trained",
        choices=(*CODECS, *EXTRA_CODECS),
    )


class ComplexityTrainer(PixelCNNTrainer):
    """That of the density model."""

    Settings = ComplexitySettings

    def anomaly_scores(self, weights, train, images):
        nll = super().anomaly_scores(weights, train, images)["NLL"]
        return {"S": nll - bits_per_dimension(images, self.config.codec)}

    validated_by = "S"


class ComplexityDetector(PixelCNNDetector):
    """S(x) = -log2 p(x) - L(x), both in bits per dimension, over PixelCNN++.

    Notes:
        A likelihood ratio against a codec as the universal model of images. The published codec, FLIF, is unmaintained; the
        codec is part of the result. The image is encoded as it is: uint8, grey as grey. Network as of `pixelcnn`.

    References:
        Serra et al.: Input Complexity and Out-of-distribution Detection with Likelihood-based Generative Models, ICLR 2020.
    """

    name = "complexity"
    title = "Input complexity S"
    reference = "Serrà et al., ICLR 2020"
    Settings = ComplexitySettings
    trainer_class = ComplexityTrainer
    decides = "S"
    SCORES = with_two_sided(
        Score(
            "S",
            "how improbable the image is, beyond what its complexity explains.",
            r"S(x) = -\log_2 p(x) - L(x),\quad L \text{ the length under a lossless codec, both in bits per dimension}",
            log_axis=False,
            source="Eq. 3",
        )
    )

    graph = None  # a lossless codec is no tensor operation

    def trainer(self) -> Trainer | None:
        check_codec(self.settings.codec)
        return super().trainer()

    def values(self, images: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        return super().values(images, progress) - bits_per_dimension(images, self.settings.codec)

    def card_remark(self) -> str:
        return f", codec {self.settings.codec}"


def bits_per_dimension(images: np.ndarray, codec: str) -> np.ndarray:
    """Length (N,) of uint8 images (N, S, S, C) under a lossless codec, in bits per pixel and channel.

    Raises ConfigError where the codec is not here.
    """
    check_codec(codec)
    if codec == "JPEGXL":
        from imagecodecs import jpegxl_encode  # an extra

        lengths = np.array([len(jpegxl_encode(i[..., 0] if i.shape[2] == 1 else i, lossless=True, effort=5)) for i in images])
    else:
        lengths = lossless_length(images, codec)
    return 8 * lengths / images[0].size


def check_codec(codec: str) -> None:
    """Raises ConfigError where the codec is not here."""
    if codec == "WebP" and not features.check("webp"):
        raise ConfigError("Pillow here has no WebP: set codec=PNG.")
    if codec == "JPEGXL":
        try:
            import imagecodecs  # noqa: F401 (only whether it is there)
        except ImportError as error:
            raise ConfigError("JPEG XL needs imagecodecs: pip install imagecodecs, or set codec=PNG.") from error
