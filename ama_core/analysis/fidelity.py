"""Whether a model reconstructs the image that it was given, or only an image of the kind (the paper's Fig. 2, as numbers).

Errors are mean absolute differences of pixels as fractions of the full scale: 0 the same image, 1 black for white.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ama_core.errors import DataError

FAITHFUL, LOOSE = 0.5, 0.9  # `Fidelity.ratio` up to which outputs follow their images, and follow them loosely


@dataclass(frozen=True)
class Fidelity:
    """How the reconstructions of n images lie beside the images.

    Attributes:
        error: mean over images of |x_i - x̂_i|.
        other: the same between an image and the reconstructions of the others, |x_i - x̂_j| with j ≠ i.
        spread: how far apart reconstructions are among themselves, the mean of |x̂_i - x̂_j| over pairs.
        input_spread: the same of the images, |x_i - x_j|.
        found: the fraction of images to which their own reconstruction is the nearest of all n; 1 / n is chance.
    """

    error: float
    other: float
    spread: float
    input_spread: float
    found: float
    n: int

    @property
    def ratio(self) -> float:
        """`error` / `other`: 0 where every image is reconstructed exactly, 1 where outputs do not depend on their image."""
        return self.error / self.other if self.other else 1.0


def fidelity(images: np.ndarray, reconstructions: np.ndarray) -> Fidelity:
    """Of images and their reconstructions, both uint8 (n, H, W, C) with n >= 2.

    Raises:
        DataError: shapes differ, or there are fewer than two images.
    """
    if images.shape != reconstructions.shape or len(images) < 2:
        raise DataError(
            f"At least two images and as many reconstructions are compared, got {images.shape} and {reconstructions.shape}."
        )
    x, y = (np.asarray(a, np.float32).reshape(len(a), -1) / 255 for a in (images, reconstructions))
    n, pixels = x.shape
    across = cdist(x, y, "cityblock") / pixels  # (i, j): image i, reconstruction j
    pairs = n * (n - 1)
    own = np.diagonal(across)
    nearest = own <= across.min(axis=1)
    alone = (across <= own[:, None]).sum(axis=1) == 1  # outputs that are all alike find nothing
    return Fidelity(
        error=float(own.mean()),
        other=float((across.sum() - own.sum()) / pairs),
        spread=float(cdist(y, y, "cityblock").sum() / pixels / pairs),
        input_spread=float(cdist(x, x, "cityblock").sum() / pixels / pairs),
        found=float((nearest & alone).mean()),
        n=n,
    )
