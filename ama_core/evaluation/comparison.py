"""Detectors beside each other: those trained on the same normal images, over many OOD sets, and two of them on the same images.

Everything is computed from what was measured of the models and stored with them.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata, spearmanr

from ama_core.data import draw, label_of
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.detectors.one_score import TWO_SIDED_PREFIX
from ama_core.errors import DataError
from ama_core.evaluation.cases import NEAR_CHANCE
from ama_core.evaluation.metrics import auroc_interval
from ama_core.evaluation.protocol import STORED_SAMPLE, left_out_by
from ama_core.storage.bundle import StoredScores

DECIDES, RAW, TWO_SIDED = KINDS = ("the score that decides", "the raw score", "its two-sided version")


def which_score(names: Sequence[str], decides: str, kind: str) -> str | None:
    """The name of a detector's score of one of KINDS; None where it has none of that kind.

    Raw is the first that a detector lists; its two-sided version is called `A`, as AMA's, or `A_` and its name.
    """
    if kind == DECIDES:
        return decides
    if kind == RAW:
        return names[0]
    return next((name for name in ("A", f"{TWO_SIDED_PREFIX}{names[0]}") if name in names), None)


class NormalKey(NamedTuple):
    """Which normal images a model was trained on: their name, the one class of a one-class model, and the absolute path of
    one's own images, since two folders may both be called "good", or as a set of the catalog is.
    """

    name: str
    label: int | None
    path: str = ""

    @property
    def title(self) -> str:
        """What the images are called where people read (see `label_of`); one's own are not taken for a set of the catalog."""
        return self.name if self.path else label_of(self.name, self.label)


def normal_key(info: Mapping[str, Any]) -> NormalKey | None:
    """What a model was trained on, by its config.json; None where it does not say.

    Models that were shown real anomalies are compared with none: theirs is another task. Earlier versions stored paths as they
    were typed; where such a path is relative, the name alone counts.
    """
    normal = NormalData.of(info)
    if normal is None or normal.anomalies:
        return None
    known = normal.is_own and os.path.isabs(normal.source)
    return NormalKey(normal.name, normal.label, normal.source if known else "")


@dataclass(frozen=True)
class HeatTable:
    """AUROC of m models over k sets, NaN where it was not measured.

    Attributes:
        models: names. sets: names of the OOD sets, in the order given.
        auroc, low, high: (m, k), with the 95 % interval over the sampling of the test images.
        ranks: (m, k), 1 for the highest AUROC of a set, ties shared; NaN where not measured.
        mean_auroc, mean_rank: (m,) over the `shared` sets, on which all models were measured; NaN where there is none.
        shared: how many these are.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    auroc: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ranks: np.ndarray
    mean_auroc: np.ndarray
    mean_rank: np.ndarray
    shared: int

    def place_on(self, model: str, at: int) -> int:
        """The place of a model by the AUROC of the set number `at`, 1 the best; equal ones share the better place."""
        return 1 + int(np.nansum(self.auroc[:, at] > self.auroc[self.models.index(model), at]))

    def place(self, model: str) -> int:
        """The place of a model by mean rank, 1 the best; models of the same mean share the better place."""
        mine = self.mean_rank[self.models.index(model)]
        return 1 + int((self.mean_rank < mine).sum())


def heat_table(results: Mapping[str, Mapping[str, Mapping[str, Any]]], by: Mapping[str, str], sets: Sequence[str]) -> HeatTable:
    """The table of models over sets.

    Args:
        results: model -> OOD set -> row of `evaluate`. by: model -> the score to look at.
    """
    models = tuple(results)
    auroc, low, high = (np.full((len(models), len(sets)), np.nan) for _ in range(3))
    for i, model in enumerate(models):
        for j, name in enumerate(sets):
            row = results[model].get(name)
            if row and by[model] in row["scores"]:
                auroc[i, j] = row["scores"][by[model]]["auroc"]
                low[i, j], high[i, j] = auroc_interval(auroc[i, j], row["n_normal"], row["n_ood"])
    ranks = rankdata(-auroc, axis=0, nan_policy="omit") if auroc.size else auroc.copy()
    whole = ~np.isnan(auroc).any(axis=0)
    means = [values[:, whole].mean(axis=1) if whole.any() else np.full(len(models), np.nan) for values in (auroc, ranks)]
    return HeatTable(models, tuple(sets), auroc, low, high, ranks, *means, int(whole.sum()))


def seconds_per_image(detector: AnomalyDetector, images: np.ndarray) -> float:
    """How long scoring takes here, over images (n, H, W, C), n >= 1, in one call, after one that warms up."""
    detector.scores(images[:1])
    began = time.perf_counter()
    detector.scores(images)
    return (time.perf_counter() - began) / len(images)


def same_images(
    first: StoredScores, second: StoredScores, infos: Sequence[Mapping[str, Any]] = ({}, {})
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images that two models' stored samples of one split have in common.

    Args:
        infos: the models' config.json. Scores that an earlier version stored do not say which images they are of; these do,
            where nothing was left out of their tests, or the same.

    Returns:
        Their rows in the first sample, in the second, and their indices in the split, each (n,), by index.

    Raises:
        DataError: they are not of the same split, have no image in common, or do not say which images they are of.
    """
    both, drawn = (first, second), [first.index, second.index]
    sizes = [stored.n_split for stored in both]
    if None in sizes:
        sizes = [stored.n_total for stored in both]
        drawn = [draw(stored.n_total, STORED_SAMPLE, stored.seed) for stored in both]
    if (first.name, first.split, sizes[0]) != (second.name, second.split, sizes[1]):
        raise DataError(
            f"These scores are of {sizes[0]:,} images of {first.name} ({first.split}) and of {sizes[1]:,} of {second.name} "
            f"({second.split}): not the same images."
        )
    if any(stored.index is None for stored in both):
        left_out = [None if s.n_split == s.n_total else left_out_by(info, s.name) for s, info in zip(both, infos)]
        if left_out[0] != left_out[1]:
            raise DataError(
                f"Some images of {first.name} were used to train one of these models, so the two were not scored on the same "
                "images, and the older scores do not say which they cover: measure both again with `python -m ama_core "
                "measure`."
            )
    common, a, b = np.intersect1d(*drawn, assume_unique=True, return_indices=True)
    if not len(common):
        raise DataError(
            f"These two samples of {first.name} ({first.split}) have no image in common: measure both again with one seed."
        )
    return a, b, common


@dataclass(frozen=True)
class Agreement:
    """What two models say of the same n images at one false-alarm rate.

    Attributes:
        both, first_only, second_only, neither: how many images are flagged by whom.
        correlation: Spearman's, of the p-values; NaN where one of them does not vary.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    correlation: float

    @property
    def n(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither


def agreement(first: np.ndarray, second: np.ndarray, alpha: float) -> Agreement:
    """Of p-values (n,) of two models for the same images, n >= 1."""
    a, b = first <= alpha, second <= alpha
    varies = min(np.ptp(first), np.ptp(second)) > 0
    correlation = float(spearmanr(first, second).statistic) if varies else float("nan")
    return Agreement(*(int(part.sum()) for part in (a & b, a & ~b, ~a & b, ~a & ~b)), correlation)


def disagreements(first: np.ndarray, second: np.ndarray, alpha: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The at most n images that the first model flags and the second finds most normal, and the other way round.

    Args:
        first, second: p-values (N,) of the same images.

    Returns:
        Their indices among the images, the largest disagreement first.
    """

    def only(flags: np.ndarray, passes: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero((flags <= alpha) & (passes > alpha))
        return rows[np.argsort(-passes[rows], kind="stable")][:n]

    return only(first, second), only(second, first)


@dataclass(frozen=True)
class TwoSidedGain:
    """A detector's raw score on one OOD set, and the same score made two-sided.

    Attributes:
        raw, two_sided: names of the scores. auroc_raw, auroc_two_sided: of both.
    """

    raw: str
    two_sided: str
    auroc_raw: float
    auroc_two_sided: float

    @property
    def gain(self) -> float:
        """How much higher the AUROC of the two-sided score is."""
        return self.auroc_two_sided - self.auroc_raw

    @property
    def fooled(self) -> bool:
        """Whether the raw score calls the set clearly more normal than the normal test images."""
        return self.auroc_raw < 0.5 - NEAR_CHANCE


def two_sided_gains(
    results: Mapping[str, Mapping[str, Mapping[str, Any]]], scores: Mapping[str, tuple[str, str]], ood: str
) -> dict[str, TwoSidedGain]:
    """Raw scores and their two-sided versions of models on one set, the lowest raw AUROC first; models without it are left out.

    Args:
        results: model -> OOD set -> row of `evaluate`. scores: model -> (raw score, the same two-sided).
    """
    found = {}
    for model, (raw, two_sided) in scores.items():
        measured = results[model].get(ood, {}).get("scores", {})
        if raw in measured and two_sided in measured:
            found[model] = TwoSidedGain(raw, two_sided, measured[raw]["auroc"], measured[two_sided]["auroc"])
    return dict(sorted(found.items(), key=lambda item: item[1].auroc_raw))


def most_fooling(results: Mapping[str, Mapping[str, Mapping[str, Any]]], scores: Mapping[str, tuple[str, str]]) -> str | None:
    """The OOD set on which most raw scores are fooled; of several the one with the lowest mean. None where nothing is measured.

    Of the sets that were measured for most models.
    """
    sets = dict.fromkeys(name for model in scores for name in results[model])
    found = {name: list(two_sided_gains(results, scores, name).values()) for name in sets}
    most = max((len(gains) for gains in found.values()), default=0)
    if not most:
        return None
    whole = {name: gains for name, gains in found.items() if len(gains) == most}

    def order(name: str) -> tuple[int, float]:
        return -sum(t.fooled for t in whole[name]), float(np.mean([t.auroc_raw for t in whole[name]]))

    return min(whole, key=order)
