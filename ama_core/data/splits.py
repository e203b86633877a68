"""Who is trained on, who calibrates, who is tested: seeded functions on indices (spec section 6).

NumPy's `default_rng(seed)` decides everything, so a seed stored beside a result restores its split.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ama_core.data.imageset import ImageSet
from ama_core.errors import DataError

RATIO = 0.2  # of test anomalies to normal test images


class HoldOut(NamedTuple):
    """Disjoint, sorted int64 indices into the normal training split; together they are all of it."""

    train: np.ndarray
    statistics: np.ndarray
    calibration: np.ndarray


def hold_out(n: int, fraction: float = 0.1, seed: int = 0) -> HoldOut:
    """Keep `fraction` of n training images out of training: half to fit statistics, half for p-values.

    Raises `DataError` unless 0 < fraction < 1 and every part gets at least one image.
    """
    if not 0 < fraction < 1:
        raise DataError(f"The held-out fraction must lie between 0 and 1, got {fraction}.")
    held = round(n * fraction)
    if held < 2 or n - held < 1:
        raise DataError(
            f"{fraction:.0%} of {n} training images are not enough for calibration, which needs 2 and others left to train on: "
            "add images" + (", or hold out a larger fraction (calibration_fraction)." if n > 2 else ".")
        )
    order = np.random.default_rng(seed).permutation(n)
    parts = np.split(order, [held // 2, held])
    statistics, calibration, train = (np.sort(part) for part in parts)
    return HoldOut(train, statistics, calibration)


def draw(n: int, limit: int, seed: int = 0) -> np.ndarray:
    """Sorted indices (min(n, limit),) int64 of images drawn without replacement from n; all of them where they are few."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))


def draw_anomalies(n_normal: int, n_ood: int, seed: int = 0, ratio: float = RATIO) -> np.ndarray:
    """Sorted indices of the test anomalies: `ratio`·n_normal of n_ood, without replacement; all where there are fewer.

    Raises `DataError` where either side is empty or the ratio is not positive.
    """
    if n_normal < 1 or n_ood < 1 or not ratio > 0:
        raise DataError(
            f"Need normal images, anomalies and a positive ratio; got {n_normal} normal, {n_ood} anomalous, {ratio}."
        )
    return draw(n_ood, min(count_anomalies(n_normal, ratio), n_ood), seed)


def count_anomalies(n_normal: int, ratio: float = RATIO) -> int:
    """How many anomalies are tested against n_normal images, where there are as many."""
    return max(1, round(ratio * n_normal))


def validation_anomalies(
    test: ImageSet, train: ImageSet | None = None, *, seed: int = 0, n: int = 50
) -> tuple[ImageSet, np.ndarray]:
    """`n` anomalies for choosing a checkpoint, and the sorted indices of `test` that must not be tested any more.

    They come from the OOD set's train split (then nothing is excluded). Where it has none they are carved out of the
    test split: at most half of it.
    """
    source, most = (test, len(test) // 2) if train is None else (train, len(train))
    if n < 1 or most < 1:
        raise DataError(
            f"Cannot take {n} validation anomalies from '{source.name}', where {len(source)} images are available for it: add "
            "images, or validate on others."
        )
    drawn = draw(len(source), min(n, most), seed)
    return source.take(drawn), drawn if train is None else np.empty(0, np.int64)


def one_class(train: ImageSet, label: int) -> ImageSet:
    """The images of class `label` alone: the normal training data of the one-class protocol (Table 2)."""
    keep = train.labels == label
    if not keep.any():
        raise DataError(f"'{train.name}' has no images of class {label}; it has {np.unique(train.labels).tolist()}.")
    return train.take(keep)


def anomaly_mask(test: ImageSet, label: int) -> np.ndarray:
    """bool (N,): True where a test image is not of the normal class `label`. The whole test split is used.

    Raises `DataError` unless both kinds occur, because no AUROC exists then.
    """
    mask = test.labels != label
    if mask.all() or not mask.any():
        raise DataError(
            f"One-class testing needs class {label} and others in '{test.name}'; it has {np.unique(test.labels).tolist()}."
        )
    return mask
