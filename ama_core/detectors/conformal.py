"""Conformal p-values: honest false-alarm rates from held-out normal images, and a test of whether they still hold.

Anomaly scores are float arrays in which larger means more anomalous.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from scipy.stats import ks_2samp

DRIFT_LEVEL = 0.001  # so rare that a false drift warning is met once in a thousand batches
DRIFT_LEAST = 20  # images: of fewer, the test sees gross drift alone


def as_stored(scores: np.ndarray) -> np.ndarray:
    """Scores at the precision at which bundles keep them, float32: those that tie do so before they are stored and after."""
    with np.errstate(over="ignore"):
        return np.asarray(scores).astype(np.float32)


def conformal_p_value(anomaly_score: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """p = (1 + #{calibration score >= s}) / (n + 1), in (0, 1].

    For exchangeable normal data, flagging p <= alpha raises at most a fraction alpha of false alarms.

    Args:
        anomaly_score: s, (N,), larger = more anomalous.
        calibration: anomaly scores of held-out normal images, (n,), in any order.
    """
    calibration = np.sort(as_stored(calibration))
    at_least = len(calibration) - np.searchsorted(calibration, as_stored(anomaly_score), side="left")
    return (1 + at_least) / (len(calibration) + 1)


def conformal_threshold(calibration: np.ndarray, alpha: float) -> float:
    """The anomaly score above which (see `as_stored`) p <= alpha; infinite where n is too small for any image to be flagged at
    alpha, and minus infinity at alpha = 1, at which all are.
    """
    n = len(calibration)
    allowed = int(np.floor(alpha * (n + 1) + 1e-9)) - 1  # calibration scores that may reach s
    if allowed >= n:
        return -np.inf
    return float(np.sort(calibration)[n - 1 - allowed]) if allowed >= 0 else np.inf


def smallest_alpha(n: int) -> float:
    """The smallest false-alarm rate at which any image can be flagged with n calibration scores: 1 / (n + 1)."""
    return 1 / (n + 1)


def decidable(n: int, alpha: float) -> bool:
    """Whether any image can be flagged at the false-alarm rate `alpha` with n calibration scores."""
    return alpha * (n + 1) >= 1 - 1e-9


def out_of_reach(
    n: int, alpha: float, nothing: str = "nothing can be flagged", shown: Callable[[float], str] = "{:.3g}".format
) -> str | None:
    """Why `nothing` is so at `alpha`, a sentence; None where n calibration scores allow that rate. `shown`: a rate as text."""
    if decidable(n, alpha):
        return None
    return (
        f"At a false-alarm rate of {shown(alpha)} {nothing}, however unusual: with {n:,} calibration images no p-value is "
        f"below 1/{n + 1:,} = {shown(smallest_alpha(n))}."
    )


def reachable_alpha(n: int, alpha: float, offered: Iterable[float]) -> float | None:
    """`alpha`, or the first larger one of those `offered`, at which n calibration scores allow to flag anything; else None."""
    return next((rate for rate in (alpha, *offered) if rate >= max(smallest_alpha(n), alpha)), None)


def drift_p_value(scores: np.ndarray, calibration: np.ndarray) -> float:
    """How probable it is that normal images differ from the calibration images so much *as a whole*, in (0, 1].

    Two-sample Kolmogorov-Smirnov test on a score. Below DRIFT_LEVEL, a batch of DRIFT_LEAST images or more is said to have
    drifted: the false-alarm rate is promised for images like those of the calibration alone.

    Args:
        scores: of the batch, (N,). calibration: the same score of held-out normal images, (n,).
    """
    return float(ks_2samp(as_stored(scores), as_stored(calibration)).pvalue)  # equal scores tie, however each is kept


def batch_drift(
    scores: Mapping[str, np.ndarray], calibration: Mapping[str, np.ndarray], names: Iterable[str]
) -> tuple[float, str]:
    """`drift_p_value` of a batch by several scores, and which of them speaks the loudest.

    More than one, since a false-alarm rate is broken by drift of the deciding score, which another may not show. The smallest
    p-value times their number (Bonferroni).

    Args:
        scores: anomaly scores of the batch by name, each (N,). calibration: of held-out normal images, each (n,).
        names: the scores that are looked at.
    """
    found = {name: drift_p_value(scores[name], calibration[name]) for name in names}
    least = min(found, key=found.get)
    return min(1.0, len(found) * found[least]), least
