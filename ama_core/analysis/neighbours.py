"""The training images that a detector sees most like an image: nearest in its standardised features (AMA: f(x, x)).

neighbours.npz   features of a seeded sample of the training images as float16, standardised, with the index and the class
                 of each image, so that images are fetched from the local data and none is stored
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from ama_core.data import draw, hold_out
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.storage.artefact import read_artefact, write_artefact

FILE = "neighbours.npz"
VERSION = 1
MAX_TRAIN = 4_000  # training images of a sample
MAX_BYTES = 500_000  # of their features: the bundle stays small at every width


@dataclass(frozen=True)
class Neighbours:
    """A sample of n training images as the critic sees them.

    Attributes:
        features: (n, width) float32, (f(x, x) - mean) / scale. mean, scale: (width,) float32.
        index: (n,) where each image stands in the training split as loaded, of all classes. labels: (n,) their classes.
        n_total: images of that split. typical: the median distance of the sample's images to their nearest neighbour in it.
    """

    features: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    n_total: int
    typical: float

    def __len__(self) -> int:
        return len(self.index)

    def nearest(self, features: np.ndarray, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of the sample, nearest first, to features f(x, x) (N, width): positions and distances, (N, k) each.

        Euclidean distance of standardised features; where the sample has fewer than k images, all of them.
        """
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.mean) or not np.isfinite(features).all():
            raise DataError(f"Features must be finite and of shape (N, {len(self.mean)}), got {features.shape}.")
        distances, positions = self._search.kneighbors((features - self.mean) / self.scale, min(k, len(self)))
        return positions, distances

    @cached_property
    def _search(self) -> NearestNeighbors:
        return NearestNeighbors(algorithm="brute").fit(self.features)


def measure_neighbours(detector: AnomalyDetector, *, seed: int = 0) -> Neighbours:
    """From a seeded sample of the images that the model was trained on, without those held out for calibration.

    Raises:
        DataError: the training images are not available locally, or are not those that the model was trained on.
    """
    images = evaluation.normal_split(detector, "train")
    normal = detector.normal
    label = normal.label
    own = np.arange(len(images)) if label is None else np.flatnonzero(images.labels == label)
    if len(own) != normal.n:
        raise DataError(
            f"{normal.name} (train) has {len(own):,} images here and had {normal.n:,} when the model was trained, so it "
            "is unknown which of them were held out."
        )
    config = detector.settings
    trained = own[hold_out(len(own), config.calibration_fraction, config.seed).train]
    width = detector.features(images.images[trained[:1]]).shape[1]
    index = trained[draw(len(trained), min(MAX_TRAIN, MAX_BYTES // (2 * width)), seed)]
    n, features = len(index), detector.features(images.images[index])
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), spread, 1.0).astype(np.float32)  # a dead unit stays 0
    features = ((features - mean) / scale).astype(np.float16).astype(np.float32)  # as they are stored
    typical = float(np.median(NearestNeighbors(algorithm="brute").fit(features).kneighbors(n_neighbors=1)[0])) if n > 1 else 0.0
    return Neighbours(features, mean, scale, index, images.labels[index], len(images), typical)


def write_neighbours(path: Path | str, stored: Neighbours) -> None:
    """Write `neighbours.npz` of the bundle at `path`, whole or not at all."""
    arrays = {"features": stored.features.astype(np.float16), "mean": stored.mean, "scale": stored.scale}
    arrays |= {"index": stored.index.astype(np.int32), "labels": stored.labels.astype(np.int32)}
    write_artefact(Path(path) / FILE, VERSION, {"n_total": stored.n_total, "typical": stored.typical}, arrays)


def read_neighbours(path: Path | str) -> Neighbours | None:
    """The neighbours of a bundle, None where none were measured. Raises BundleError on a damaged file."""
    return read_artefact(Path(path) / FILE, VERSION, _stored)


def _stored(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Neighbours:
    """What the file holds. Raises what `read_artefact` takes for damage."""
    floats = (arrays[name].astype(np.float32) for name in ("features", "mean", "scale"))
    integers = (arrays[name].astype(np.int64) for name in ("index", "labels"))
    stored = Neighbours(*floats, *integers, int(header["n_total"]), float(header["typical"]))
    _check(stored)
    return stored


def neighbour_images(detector: AnomalyDetector, stored: Neighbours) -> np.ndarray:
    """The images of the sample, uint8 (n, S, S, c) as the model sees them.

    Raises:
        DataError: the training images are not available locally, or are not those that were measured.
    """
    images = evaluation.normal_split(detector, "train")
    if len(images) != stored.n_total or not np.array_equal(images.labels[stored.index], stored.labels):
        raise DataError(
            f"The training images here, {len(images):,} of {images.name}, are not the {stored.n_total:,} images used when "
            "neighbours were stored. Measure the model again with `python -m ama_core measure`."
        )
    return detector.prepared(images.images[stored.index])


def _check(stored: Neighbours) -> None:
    """Raises ValueError where the parts do not fit together."""
    n, width = stored.features.shape
    index, floats = stored.index, (stored.features, stored.mean, stored.scale, stored.typical)
    if not n or stored.mean.shape != (width,) or stored.scale.shape != (width,):
        raise ValueError("its features and their scale do not fit together")
    if index.shape != (n,) or stored.labels.shape != (n,) or index.min() < 0 or index.max() >= stored.n_total:
        raise ValueError("image indices do not fit the features")
    if not all(np.isfinite(values).all() for values in floats) or stored.scale.min() <= 0:
        raise ValueError("values are not finite, or a scale is not positive")
