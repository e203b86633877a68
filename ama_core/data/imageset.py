"""ImageSet: a named array of images with labels, the one form in which every data set travels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ama_core.errors import DataError

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split of one data set. Arrays may be shared through a cache: treat them as read-only.

    Raises `DataError` where a field is not as stated here.
    """

    name: str
    split: str
    """"train" or "test"."""
    images: np.ndarray
    """uint8 (N, H, W, C), C 1 or 3, N ≥ 1."""
    labels: np.ndarray
    """int64 (N,), zeros where the set has none."""
    paths: tuple[str, ...] | None = None
    """The file that each image came from, for folders."""
    notes: tuple[str, ...] = ()
    """What was done to the images or left out on the way in, in sentences for the user."""

    def __post_init__(self):
        where = f"Set '{self.name}' ({self.split})"
        images, labels = self.images, self.labels
        if self.split not in SPLITS:
            raise DataError(f"{where}: the split must be one of {', '.join(SPLITS)}.")
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            raise DataError(f"{where}: images must be a uint8 array, got {getattr(images, 'dtype', type(images))}.")
        if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
            raise DataError(
                f"{where}: images must have the shape (N, H, W, C) with C = 1 or 3 and at least one image, got {images.shape}."
            )
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{where}: labels must be int64 with shape ({len(images)},), one per image, "
                f"got {getattr(labels, 'dtype', type(labels))} {getattr(labels, 'shape', '')}."
            )
        if self.paths is not None and len(self.paths) != len(images):
            raise DataError(f"{where}: {len(self.paths)} paths for {len(images)} images.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over shape, images and labels: the same data give the same fingerprint."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8"))
        return digest.hexdigest()[:16]

    def take(self, indices: np.ndarray) -> ImageSet:
        """The images at `indices` (integers, or a boolean mask), in that order."""
        index = np.asarray(indices)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        paths = None if self.paths is None else tuple(self.paths[i] for i in index)
        return replace(self, images=self.images[index], labels=self.labels[index], paths=paths)
