"""Several detectors on the same normal and anomalous images: what each finds, what it costs, and which to take."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from ama_core.data import ImageSet
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.conformal import conformal_p_value
from ama_core.errors import DataError
from ama_core.evaluation.metrics import auroc_interval
from ama_core.settings import FALSE_ALARM_RATE

LEVEL = 0.95  # of intervals, and of the test of a difference
FEW = 5  # anomalous or normal test images: with fewer, nothing is told apart
USELESS = 0.55  # an AUROC that is no higher, by its interval, is of no use: more images would only make that surer
CLOSE = 0.01  # AUROCs this near to the best count as equal, where that is not surely wrong; then time decides
Progress = Callable[[str, str], None]
"""Called with the title of a detector and what is being done with it."""
Tick = Callable[[float], None]
"""Called often with how much of that is done, in [0, 1]; it may raise to stop."""


@dataclass(frozen=True)
class Compared:
    """One detector among several, all on the same images.

    Attributes:
        name, title: of the detector. score: its score that decides.
        auroc, low, high: of that score, with its 95 % interval.
        detected, false_alarms: fractions of the anomalous and of the normal test images that are flagged at `alpha`.
        seconds_train: wall-clock time of `fit`; of one that was fitted before, what it says of its training, infinite where
            it says nothing. ms_per_image: of scoring the test images.
        normal, anomalous: anomaly scores of the test images, (n,), (m,).
    """

    name: str
    title: str
    score: str
    auroc: float
    low: float
    high: float
    detected: float
    false_alarms: float
    alpha: float
    seconds_train: float
    ms_per_image: float
    normal: np.ndarray
    anomalous: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Detectors, the best first, and which one to take.

    Attributes:
        recommended: the name of a detector. reason: why, in sentences. significant: whether every other is worse by more than
            chance explains (see `surely_better`).
        n_normal, n_anomalous: test images. made: whether the anomalies are synthetic defects.
        detectors: by falling AUROC.
        against: what the anomalous images are called.
    """

    recommended: str
    reason: str
    significant: bool
    n_normal: int
    n_anomalous: int
    made: bool
    detectors: tuple[Compared, ...]
    against: str = ""


def compare(
    train: ImageSet,
    normal: ImageSet,
    anomalous: ImageSet,
    detectors: Mapping[str, AnomalyDetector],
    *,
    fitted: Mapping[str, AnomalyDetector] | None = None,
    alpha: float = FALSE_ALARM_RATE,
    made: bool = False,
    progress: Progress | None = None,
    tick: Tick | None = None,
) -> Comparison:
    """Fit every detector on `train` and test all of them on the same normal and anomalous images.

    Args:
        detectors: unfitted ones by name; they are fitted in place.
        fitted: further ones by other names, fitted before to the same training images; they are tested as they are.
        alpha: the false-alarm rate at which `detected` is counted, in (0, 1).
        made: whether `anomalous` are synthetic defects, which the reason then says.

    Raises DataError where there is no detector, or two have one name.
    """
    fitted = fitted or {}
    if not detectors and not fitted:
        raise DataError("There is no detector to compare.")
    if twice := set(detectors) & set(fitted):
        raise DataError(f"Two detectors are called {twice.pop()!r}: give each a name of its own.")
    found = []
    for name, detector in (*fitted.items(), *detectors.items()):
        seconds = _known_seconds(detector) if name in fitted else _fit(detector, train, progress, tick)
        found.append(_tested(name, detector, seconds, normal, anomalous, alpha, progress, tick))
    ranked = tuple(sorted(found, key=lambda one: (-one.auroc, one.seconds_train)))
    recommended, reason, significant = recommend(ranked, made)
    return Comparison(recommended, reason, significant, len(normal), len(anomalous), made, ranked, anomalous.name)


def at_rate(found: Comparison, detectors: Mapping[str, AnomalyDetector], alpha: float) -> Comparison:
    """A comparison with what its detectors, now fitted, flag at another rate; the recommendation does not depend on it.

    Args:
        detectors: those that were compared, by name; KeyError where one is missing.
        alpha: the false-alarm rate, in (0, 1).
    """

    def counted(one: Compared) -> Compared:
        calibration = detectors[one.name].held_out_scores_[one.score]
        flagged = [float((conformal_p_value(of, calibration) <= alpha).mean()) for of in (one.anomalous, one.normal)]
        return replace(one, detected=flagged[0], false_alarms=flagged[1], alpha=alpha)

    return replace(found, detectors=tuple(counted(one) for one in found.detectors))


def _known_seconds(detector: AnomalyDetector) -> float:
    """How long the training of a fitted detector took, as it says itself; infinite where it does not."""
    return float(getattr(detector, "info_", {}).get("training", {}).get("seconds", np.inf))


def _fit(detector: AnomalyDetector, train: ImageSet, progress: Progress | None, tick: Tick | None) -> float:
    """Fit a detector; returns the seconds that this took."""
    if progress:
        progress(detector.title, "training")
    follow = (lambda event: tick(event.step / max(event.total_steps, 1))) if tick else None
    start = time.perf_counter()
    detector.fit(train, on_event=follow)
    return time.perf_counter() - start


def _tested(
    name: str,
    detector: AnomalyDetector,
    seconds: float,
    normal: ImageSet,
    anomalous: ImageSet,
    alpha: float,
    progress: Progress | None,
    tick: Tick | None,
) -> Compared:
    if progress:
        progress(detector.title, "scoring")
    follow = (lambda done, total: tick(done / total)) if tick else None
    start = time.perf_counter()
    of_normal, of_anomalous = (detector.scores(images.images, progress=follow) for images in (normal, anomalous))
    each = 1000 * (time.perf_counter() - start) / (len(normal) + len(anomalous))
    by = detector.by
    inliers, outliers = (detector.anomaly_scores(scores)[by] for scores in (of_normal, of_anomalous))
    auroc = float(delong([inliers], [outliers])[0][0])
    low, high = auroc_interval(auroc, len(normal), len(anomalous), LEVEL)
    return Compared(
        name=name,
        title=detector.title,
        score=by,
        auroc=auroc,
        low=low,
        high=high,
        detected=float((of_anomalous[f"p_{by}"] <= alpha).mean()),
        false_alarms=float((of_normal[f"p_{by}"] <= alpha).mean()),
        alpha=alpha,
        seconds_train=seconds,
        ms_per_image=each,
        normal=inliers,
        anomalous=outliers,
    )


def delong(normal: Sequence[np.ndarray], anomalous: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of k scores of the same images, (k,), and the covariance matrix of these estimates, (k, k).

    DeLong, DeLong, Clarke-Pearson (Biometrics, 1988), Eqs. 4 to 8; ties count one half. Covariances are zero where there is
    one image of a kind.

    Args:
        normal, anomalous: anomaly scores of the same images by each score: k arrays (n,) and k arrays (m,).
    """
    of_normal, of_anomalous = [], []
    for inliers, outliers in zip(normal, anomalous):
        of_anomalous.append(_share_below(outliers, np.sort(inliers)))
        of_normal.append(1 - _share_below(inliers, np.sort(outliers)))
    v10, v01 = np.array(of_anomalous), np.array(of_normal)
    covariance = np.zeros((len(v10), len(v10)))
    for components in (v10, v01):
        if components.shape[1] > 1:
            covariance += np.cov(components).reshape(covariance.shape) / components.shape[1]
    return v10.mean(axis=1), covariance


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the fraction of sorted others below it, equal ones counted half."""
    return 0.5 * (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / len(others)


def surely_better(first: Compared, second: Compared) -> bool:
    """Whether the AUROC of `first` exceeds that of `second` by more than chance explains: DeLong's test at LEVEL, of this pair
    alone, however many there are to choose from.
    """
    if min(len(first.normal), len(first.anomalous)) < FEW:
        return False
    aurocs, covariance = delong([first.normal, second.normal], [first.anomalous, second.anomalous])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return bool(aurocs[0] - aurocs[1] > norm.ppf((1 + LEVEL) / 2) * np.sqrt(max(variance, 0.0)))


def recommend(ranked: Sequence[Compared], made: bool = False) -> tuple[str, str, bool]:
    """Which of several detectors to take, why, and whether all others are worse by more than chance explains.

    The rule, fixed beforehand: the highest AUROC; of those within CLOSE of it that are not worse by more than chance explains
    (`surely_better`), the one that trains fastest. Where it is of no use at all, the reason says so.

    Args:
        ranked: by falling AUROC, of the same test images; IndexError where there is none.
        made: whether the anomalous images are synthetic defects, which the reason then says.

    Returns:
        The name of a detector, the reason in sentences, and that.
    """
    best, rest = ranked[0], ranked[1:]
    n, m = len(best.normal), len(best.anomalous)
    images = f"{m:,} {'synthetic defects' if made else 'anomalous images'} and {n:,} normal ones"
    tied = [one for one in rest if not surely_better(best, one)]
    chosen = min((best, *(one for one in tied if best.auroc - one.auroc <= CLOSE)), key=lambda one: one.seconds_train)
    enough, of_use = min(n, m) >= FEW, best.low > 0.5
    leader = (
        f"{best.title}, which ranks them best (AUROC {_interval(best)})," if rest else f"{best.title} (AUROC {_interval(best)})"
    )
    if enough and best.high < 0.5:
        reason = (
            f"With {images} even {leader} is worse than chance: it takes the anomalous images for more normal than the normal "
            "ones. Check whether the two folders are swapped; if not, use another detector."
        )
    elif enough and not of_use and best.high <= USELESS:
        reason = (
            f"Nothing here tells them apart: with {images} even {leader} is hardly better than chance. More images will not "
            "change that: use another detector."
        )
    elif not enough or not of_use:
        reason = f"Not enough images to tell: with {images} even {leader} may be no better than chance. Add more of both."
    elif not rest:
        reason = f"{best.title} is the only one (AUROC {_interval(best)}): there is nothing to compare it with."
    elif not tied:
        reason = (
            f"{best.title} finds most on these images (AUROC {best.auroc:.3f}, {_seconds(best)}; next is {rest[0].title}, "
            f"{rest[0].auroc:.3f}); with {images} the difference is larger than chance explains (DeLong's test, "
            f"{100 * LEVEL:.0f} %)."
        )
    else:
        names = ", ".join(f"{one.title} ({one.auroc:.3f})" for one in (best, *tied) if one is not chosen)
        reason = (
            f"{chosen.title} finds {'most' if chosen is best else 'as much as the best in less time'} on these images (AUROC "
            f"{_interval(chosen)}; {_seconds(chosen)}), but with {images} the difference from {names} may be due to chance."
        )
    if made:
        reason += " Synthetic defects stand in for real ones here: with real bad images the answer may differ."
    return chosen.name, reason, bool(rest) and not tied and of_use and enough


def _interval(one: Compared) -> str:
    return f"{one.auroc:.3f}, {one.low:.3f} to {one.high:.3f}"


def _seconds(one: Compared) -> str:
    if not np.isfinite(one.seconds_train):
        return "training time not recorded"
    if one.seconds_train < 0.05:
        return "trains in less than 0.1 s"
    return f"trains in {one.seconds_train:{'.1f' if one.seconds_train < 9.95 else ',.0f'}} s"
