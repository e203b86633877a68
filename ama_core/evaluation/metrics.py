"""AUROC, AUPRC and FPR95, their intervals, and what a threshold does.

Anomalies are the positive class throughout, and an AUROC below 0.5 is reported as it is: never max(AUROC, 1 - AUROC).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, betabinom, fisher_exact
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ama_core.detectors.base import AnomalyDetector
from ama_core.storage.bundle import StoredScores

REPLICATES = 200  # of the bootstrap: enough for a standard error, too few for quantiles
SOUND = 0.999  # of the band outside which a rate is said not to hold: many scores, rates and models are looked at
CURVE_ALPHAS = np.linspace(0.0, 0.3, 61)[1:]  # false-alarm rates at which a calibration is looked at


def detection_metrics(normal: np.ndarray, anomalous: np.ndarray) -> dict[str, float]:
    """AUROC, AUPRC (anomaly positive) and FPR at 95 % TPR, from anomaly scores (n,), (m,)."""
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    scores = np.concatenate([normal, anomalous])
    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "auprc": float(average_precision_score(truth, scores)),
        "fpr95": float(false_positive_rate[true_positive_rate >= 0.95].min()),
    }


@dataclass(frozen=True)
class Confusion:
    """How many images were flagged and passed; an anomaly that is flagged is a hit."""

    hits: int
    misses: int
    false_alarms: int
    passed: int

    @classmethod
    def count(cls, normal_flagged: np.ndarray, anomalous_flagged: np.ndarray) -> "Confusion":
        """From what was flagged, bool (n,) of the normal and (m,) of the anomalous images."""
        false_alarms, hits = int(np.sum(normal_flagged)), int(np.sum(anomalous_flagged))
        return cls(hits, len(anomalous_flagged) - hits, false_alarms, len(normal_flagged) - false_alarms)

    @property
    def detection_rate(self) -> float:
        """Fraction of the anomalies that is flagged (recall, true-positive rate)."""
        return self.hits / (self.hits + self.misses)

    @property
    def false_alarm_rate(self) -> float:
        """Fraction of the normal images that is flagged (false-positive rate)."""
        return self.false_alarms / (self.false_alarms + self.passed)

    @property
    def precision(self) -> float:
        """Fraction of the flagged images that is anomalous; NaN where nothing is flagged."""
        flagged = self.hits + self.false_alarms
        return self.hits / flagged if flagged else float("nan")


def confusion_at(normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> Confusion:
    """What a threshold on anomaly scores (n,), (m,) does: above it an image is flagged."""
    return Confusion.count(np.asarray(normal) > threshold, np.asarray(anomalous) > threshold)


def confusion_outside(normal: np.ndarray, anomalous: np.ndarray, low: float, high: float) -> Confusion:
    """What a two-sided band on one axis does to values (n,), (m,): outside [low, high] an image is flagged."""
    return Confusion.count(*((np.asarray(v) < low) | (np.asarray(v) > high) for v in (normal, anomalous)))


def best_threshold(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """The threshold on anomaly scores (n,), (m,) with the largest detection rate minus false-alarm rate (Youden, Cancer, 1950).

    Half-way between the two scores that it parts; the highest score, so that nothing is flagged, where no threshold gains.
    """
    normal, anomalous = np.sort(normal), np.sort(anomalous)
    values = np.unique(np.concatenate([normal, anomalous]))
    above = [1 - np.searchsorted(kind, values, side="right") / len(kind) for kind in (anomalous, normal)]
    gains = above[0] - above[1]
    best = int(gains.argmax())
    if gains[best] <= 0 or best + 1 == len(values):
        return float(values[-1])
    return float((values[best] + values[best + 1]) / 2)


def both_rules(r: np.ndarray, threshold: float, low: float, high: float) -> dict[str, np.ndarray]:
    """What R alone (flagging above `threshold`) and A (flagging outside [low, high]) do with anomalies, whose R is (m,).

    Returns:
        Indices by `both` flag them, `A` alone, `R` alone, `neither`; each in the order of R.
    """
    r = np.asarray(r)
    order = np.argsort(r, kind="stable")
    one, two = r[order] > threshold, (r[order] < low) | (r[order] > high)
    return {"both": order[one & two], "A": order[~one & two], "R": order[one & ~two], "neither": order[~one & ~two]}


def along(ranked: np.ndarray, n: int) -> np.ndarray:
    """At most n of some ranked things (m,), evenly along their order."""
    return ranked if len(ranked) <= n else ranked[np.linspace(0, len(ranked) - 1, n).round().astype(int)]


def roc_points(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC of anomaly scores (n,), (m,): false-alarm rates and detection rates, both ascending from 0 to 1."""
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    false_alarms, detections, _ = roc_curve(truth, np.concatenate([normal, anomalous]))
    return false_alarms, detections


def auroc_interval(auroc: float, n_normal: int, n_anomalous: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of an AUROC, by the standard error of Hanley & McNeil (Radiology, 1982).

    It covers the sampling of the test images alone, not the training seed.
    """
    a = auroc
    two_anomalous, two_normal = a / (2 - a), 2 * a * a / (1 + a)  # both of a pair are beaten, or beat, at once
    variance = (a * (1 - a) + (n_anomalous - 1) * (two_anomalous - a * a) + (n_normal - 1) * (two_normal - a * a)) / (
        n_normal * n_anomalous
    )
    return _interval(auroc, max(variance, 0.0) ** 0.5, min(n_normal, n_anomalous), level)


def metric_intervals(
    detector: AnomalyDetector,
    row: Mapping[str, Any],
    normal: StoredScores | None,
    anomalous: StoredScores | None,
    level: float = 0.95,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Confidence intervals of a row of `evaluate`: score -> metric -> (low, high).

    By the standard error of a stratified bootstrap of the stored scores, as many drawn as the row has images. Without stored
    scores only AUROC has one, by `auroc_interval`. They cover the sampling of the test images alone.
    """
    n, m, measured = row["n_normal"], row["n_ood"], row["scores"]
    if normal is None or anomalous is None:
        return {by: {"auroc": auroc_interval(metrics["auroc"], n, m, level)} for by, metrics in measured.items()}
    errors = bootstrap_errors(detector.anomaly_scores(normal.scores), detector.anomaly_scores(anomalous.scores), n, m)
    return {
        by: {metric: _interval(metrics[metric], error, min(n, m), level) for metric, error in errors[by].items()}
        for by, metrics in measured.items()
    }


def bootstrap_errors(
    normal: Mapping[str, np.ndarray], anomalous: Mapping[str, np.ndarray], n_normal: int, n_anomalous: int, *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Standard errors of `detection_metrics`: score -> metric -> error.

    Args:
        normal, anomalous: anomaly scores (n,), (m,) of every score, of the same images.
        n_normal, n_anomalous: images that are drawn from each, with replacement, for every one of the REPLICATES.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        rng.multinomial(size, np.full(n, 1 / n), REPLICATES).astype(np.float32)
        for n, size in ((count(normal), n_normal), (count(anomalous), n_anomalous))
    ]
    return {
        by: {metric: float(values.std(ddof=1)) for metric, values in _drawn_metrics(normal[by], anomalous[by], *drawn).items()}
        for by in normal
    }


def _drawn_metrics(
    normal: np.ndarray, anomalous: np.ndarray, times_normal: np.ndarray, times_anomalous: np.ndarray
) -> dict[str, np.ndarray]:
    """`detection_metrics` (B,) of B drawings, by how often each image was drawn, float32 (B, n), (B, m)."""
    scores = np.concatenate([normal, anomalous])
    order = np.argsort(-scores, kind="stable")
    cuts = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last place of each distinct score
    flagged = []
    for times, before, after in ((times_normal, 0, len(anomalous)), (times_anomalous, len(normal), 0)):
        every = np.pad(times, ((0, 0), (before, after)))[:, order]
        flagged.append(np.pad(every.cumsum(axis=1)[:, cuts], ((0, 0), (1, 0))))  # counts of this size are exact in float32
    false_alarms, hits = flagged
    fpr, tpr = false_alarms / false_alarms[:, -1:], hits / hits[:, -1:]
    precision = hits[:, 1:] / np.maximum(hits + false_alarms, 1)[:, 1:]
    return {
        "auroc": np.trapezoid(tpr, fpr, axis=1),
        "auprc": (np.diff(tpr, axis=1) * precision).sum(axis=1),
        "fpr95": fpr[np.arange(len(fpr)), (tpr >= 0.95).argmax(axis=1)],
    }


def _interval(value: float, error: float, n: int, level: float) -> tuple[float, float]:
    """Interval of an estimate in [0, 1] by its standard error: that of Clopper & Pearson (Biometrika, 1934) for a proportion of
    as many independent images as would have that error (Korn & Graubard, Survey Methodology, 1998), or of n where it is 0.

    The normal approximation, value -+ z times the error, holds far too rarely with few images, and has no width at 0 and 1.
    """
    size = max(1.0, value * (1 - value) / error**2) if error > 0 and 0 < value < 1 else n
    hits, tail = value * size, (1 - level) / 2
    low = float(beta.ppf(tail, hits, size - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, size - hits)) if hits < size else 1.0
    return low, high


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation (by n - 1; None of a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def round_step(low: float, high: float, steps: int = 200) -> float:
    """The smallest round number, 1, 2 or 5 times a power of ten, of which at most `steps` cover [low, high]."""
    exponent = np.floor(np.log10((high - low) / steps))
    step = next(m * 10**exponent for m in (1, 2, 5, 10) if m * 10**exponent * steps >= high - low)
    return round(float(step), max(0, int(-np.floor(np.log10(step)))))


def threshold_places(low: float, high: float, log: bool, n: int = 200) -> list[float]:
    """About n thresholds from `low` to `high`, evenly along a linear or logarithmic axis: (n,) of four digits, ascending."""
    places = np.geomspace(low, high, n) if log else np.linspace(low, high, n)
    return sorted({float(f"{place:.4g}") for place in places})


def nearest_the_cut(values: np.ndarray, cut: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the at most n values (N,) just at or below the cut and just above it, each nearest first."""
    order = np.argsort(values, kind="stable")
    place = int(np.searchsorted(np.asarray(values)[order], cut, side="right"))
    return order[max(place - n, 0) : place][::-1], order[place : place + n]


def nearest_to(values: np.ndarray, place: float, n: int) -> np.ndarray:
    """Indices of the at most n of the values (N,) that are nearest to a place, by ascending value."""
    near = np.argsort(np.abs(np.asarray(values) - place), kind="stable")[:n]
    return near[np.argsort(np.asarray(values)[near], kind="stable")]


def false_alarm_curve(p_values: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The fraction of normal images, by their p-values (n,), that is flagged at every alpha (k,): (k,)."""
    return np.searchsorted(np.sort(p_values), alphas, side="right") / len(p_values)


def false_alarm_band(alphas: np.ndarray, n_test: int, n_calibration: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Between which false-alarm rates a sound calibration stays, low (k,) and high (k,), for every alpha (k,).

    Binomial for n_test images; and the rate behind it is itself random, Beta(l, n + 1 - l) with l = floor(alpha (n + 1)),
    since n_calibration scores are all that the p-values know.
    """
    allowed = np.floor(np.asarray(alphas) * (n_calibration + 1) + 1e-9)
    tail = (1 - level) / 2
    a, b = np.maximum(allowed, 1), np.maximum(n_calibration + 1 - allowed, 1)
    low, high = (betabinom.ppf(q, n_test, a, b) / n_test for q in (tail, 1 - tail))
    none = allowed < 1  # no image can be flagged
    return np.where(none, 0.0, low), np.where(none, 0.0, high)


def more_than_false_alarms(p: np.ndarray, alpha: float, n_calibration: int) -> bool:
    """Whether more of the p-values (n,) are at most `alpha` than those of n normal images would be (see `false_alarm_band`)."""
    _, high = false_alarm_band(np.array([alpha]), len(p), n_calibration)
    return bool(np.mean(np.asarray(p) <= alpha) > high[0])


def larger_by_chance(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """How probable it is that of two equal rates the first, hits of n images, comes out so much larger than the other.

    Fisher's exact test, one-sided. It covers the sampling of the test images alone, and takes the two samples for independent.
    """
    table = [[hits, n - hits], [other_hits, other_n - other_hits]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def count(scores: Mapping[str, np.ndarray]) -> int:
    """How many images the scores (n,) by name are of."""
    return len(next(iter(scores.values())))
