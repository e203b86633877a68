"""Plain changes of an image: contrast, brightness, blur and noise, to ask a model what it says of a changed image."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from ama_core.data.pictures import to_picture
from ama_core.errors import DataError


@dataclass(frozen=True)
class Change:
    """What is done to an image, in this order; the defaults leave it as it is.

    Attributes:
        contrast: factor on the distance of every pixel from the image's mean grey, >= 0.
        brightness: factor on every pixel, >= 0.
        blur: standard deviation of a Gaussian blur in pixels, >= 0.
        noise: standard deviation of Gaussian noise as a fraction of the full scale, >= 0; the same noise for every strength.
        seed: of the noise.
    """

    contrast: float = 1.0
    brightness: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("contrast", "brightness", "blur", "noise"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise DataError(f"{name} must be a finite number of at least 0, got {value}.")

    @property
    def nothing(self) -> bool:
        """Whether images stay as they are."""
        return self == Change(seed=self.seed)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Changed copies of images, uint8 (N, H, W, C) to the same."""
        after = [np.asarray(self._of_one(to_picture(image))) for image in images]
        changed = np.stack(after).reshape(images.shape)
        if not self.noise:
            return changed
        drawn = np.random.default_rng(self.seed).standard_normal(images.shape[1:])  # every image gets the same
        return np.rint(np.clip(changed + 255 * self.noise * drawn, 0, 255)).astype(np.uint8)

    def _of_one(self, image: Image.Image) -> Image.Image:
        if self.contrast != 1:
            image = ImageEnhance.Contrast(image).enhance(self.contrast)
        if self.brightness != 1:
            image = ImageEnhance.Brightness(image).enhance(self.brightness)
        return image.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur else image
