"""PCA reconstruction: what a linear autoencoder leaves over, fitted in seconds."""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from torch import Tensor

from ama_core.detectors.base import AnomalyDetector, Progress, Score, checked_codes
from ama_core.settings import Settings, setting

BATCH = 4096  # images that are projected at once: bounds memory, changes no result


@dataclass(frozen=True)
class PCASettings(Settings):
    """Settings of PCA reconstruction."""

    components: int = setting(
        32,
        "Principal components that are kept, at most as many as there are training images.",
        "What is trained",
        low=1,
        high=1024,
    )


class PCADetector(AnomalyDetector):
    """The squared distance of an image from the plane of largest variance of the training images.

    Notes:
        scikit-learn's `PCA` on pixels, solver "randomized" with the detector's seed.
    """

    name = "pca"
    title = "PCA reconstruction"
    reference = "scikit-learn, decomposition.PCA"
    Settings = PCASettings
    decides = "residual"
    SCORES = (
        Score(
            "residual",
            "the mean squared difference between the image and the nearest mixture of the principal components.",
            r"s(x) = \tfrac{1}{n} \lVert x - \mu - W^\top W (x - \mu) \rVert_2^2",
        ),
    )

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        vectors = _vectors(train)
        n = min(self.settings.components, *vectors.shape)
        fitted = PCA(n, svd_solver="randomized", random_state=self.settings.seed).fit(vectors)
        # As they are stored: statistics are of the very numbers that are loaded later.
        self.mean_, self.components_ = fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32)

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        found = []
        for start in range(0, len(images), BATCH):
            vectors = _vectors(images[start : start + BATCH])
            found.append(np.square(vectors - self._nearest(vectors), dtype=np.float64).mean(axis=1))
            if progress:
                progress(min(start + BATCH, len(images)), len(images))
        return {"residual": np.concatenate(found)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        return {}, {"mean": self.mean_, "components": self.components_}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        spec = self.settings.input
        pixels = spec.size * spec.size * spec.channels
        self.mean_, self.components_ = arrays["mean"], arrays["components"]
        if self.mean_.shape != (pixels,) or self.components_.ndim != 2 or self.components_.shape[1] != pixels:
            raise ValueError("mean and components do not fit the image size")

    def reconstruct(self, X) -> np.ndarray:
        """The nearest mixture of components, uint8 (N, S, S, C)."""
        self._fitted()
        images = self.prepared(X)
        return _images(self._nearest(_vectors(images)), images.shape[1:])

    def encode(self, X) -> np.ndarray:
        """Coordinates on the components, float32 (N, components)."""
        self._fitted()
        return (_vectors(self.prepared(X)) - self.mean_) @ self.components_.T

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Images of coordinates (N, components), uint8 (N, S, S, C). Raises DataError on another shape or non-finite values."""
        self._fitted()
        z = checked_codes(z, len(self.components_))
        spec = self.settings.input
        return _images(z @ self.components_ + self.mean_, (spec.size, spec.size, spec.channels))

    def _nearest(self, vectors: np.ndarray) -> np.ndarray:
        centred = vectors - self.mean_
        return centred @ self.components_.T @ self.components_ + self.mean_


def _vectors(images: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, C) to float32 (N, S * S * C) in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _images(vectors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.rint(vectors.clip(0, 1) * 255).astype(np.uint8).reshape(-1, *shape)
