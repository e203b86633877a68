"""Nearest neighbours on HOG and colour: hard to beat on a few hundred photographs, and fitted in seconds."""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ama_core.data import draw
from ama_core.detectors.base import AnomalyDetector, Progress, Score
from ama_core.errors import ConfigError
from ama_core.settings import Settings, setting

MAX_TRAIN = 4_000  # training images that are kept, drawn by the seed: the bundle stays small
CELLS = 4  # of the histograms of gradients, along each side
BATCH = 256


@dataclass(frozen=True)
class NearestSettings(Settings):
    """Settings of the nearest neighbours."""

    neighbours: int = setting(5, "Training images whose mean distance is the score.", "What is trained", low=1, high=100)


class NearestDetector(AnomalyDetector):
    """The mean distance to the nearest training images in histograms of oriented gradients and colour.

    Notes:
        Features: scikit-image's `hog` on 4 x 4 cells with 9 orientations, blocks of 2 x 2; mean and standard deviation of
        each channel; every feature standardised by the training images. Distances are Euclidean.

    References:
        Dalal, Triggs: Histograms of Oriented Gradients for Human Detection, CVPR 2005.
    """

    name = "nearest"
    title = "Nearest neighbours, HOG and colour"
    reference = "Dalal and Triggs, CVPR 2005 (features)"
    Settings = NearestSettings
    decides = "distance"
    SCORES = (
        Score(
            "distance",
            "how far the image is from the most similar training images, in shape and colour.",
            r"s(x) = \tfrac{1}{k} \sum_{i=1}^{k} \lVert \phi(x) - \phi(x_{(i)}) \rVert_2,\quad "
            r"\phi = [\mathrm{HOG}, \text{mean}, \text{sd of colour}]",
        ),
    )

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        found = _features(train[draw(len(train), MAX_TRAIN, self.settings.seed)])
        spread = found.std(axis=0)
        self.mean_ = found.mean(axis=0).astype(np.float32)
        self.scale_ = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)  # a feature that never varies counts as it is
        self._index(((found - self.mean_) / self.scale_).astype(np.float16))  # as they are stored

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        found = []
        for start in range(0, len(images), BATCH):
            distances, _ = self._search.kneighbors(self.features(images[start : start + BATCH]))
            found.append(distances.mean(axis=1, dtype=np.float64))
            if progress:
                progress(min(start + BATCH, len(images)), len(images))
        return {"distance": np.concatenate(found)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return {}, {"mean": self.mean_, "scale": self.scale_, "training_features": self.training_features_}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.mean_, self.scale_ = arrays["mean"], arrays["scale"]
        kept = arrays["training_features"]
        if kept.ndim != 2 or not len(kept) or self.mean_.shape != kept.shape[1:] or self.scale_.shape != kept.shape[1:]:
            raise ValueError("features and their scale do not fit together")
        if not (self.scale_ > 0).all():
            raise ValueError("scales must be positive")
        self._index(kept)

    def features(self, X) -> np.ndarray:
        """Standardised features, float32 (N, p)."""
        return ((_features(self.prepared(X)) - self.mean_) / self.scale_).astype(np.float32)

    def _index(self, kept: np.ndarray) -> None:
        self.training_features_ = kept
        n = min(self.settings.neighbours, len(kept))
        # Brute force is one matrix product: for hundreds of features faster than any tree.
        self._search = NearestNeighbors(n_neighbors=n, algorithm="brute").fit(kept.astype(np.float32))


def _features(images: np.ndarray) -> np.ndarray:
    """HOG, then mean and standard deviation of each channel in [0, 1]: uint8 (N, S, S, C) to float64 (N, p)."""
    try:
        from skimage.feature import hog  # only here: no other detector needs it
    except ImportError as error:
        raise ConfigError("Nearest neighbours need scikit-image: pip install scikit-image.") from error
    side = images.shape[1] // CELLS
    grey = images.shape[3] == 1
    found = []
    for image in images:
        gradients = hog(
            image[..., 0] if grey else image,
            orientations=9,
            pixels_per_cell=(side, side),
            cells_per_block=(2, 2),
            channel_axis=None if grey else -1,
        )
        pixels = image.reshape(-1, image.shape[2]) / 255
        found.append(np.concatenate([gradients, pixels.mean(axis=0), pixels.std(axis=0)]))
    return np.stack(found)
