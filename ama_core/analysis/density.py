"""Densities of scores, for charts: one grid, one bandwidth rule, and no mass where no data can be."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import gaussian_kde, norm

from ama_core.errors import DataError

POINTS, BINS = 400, 40  # of the shared grid; every bin of a histogram holds the same number of its points


@dataclass(frozen=True)
class Densities:
    """Kernel density estimates of several samples on one grid.

    Attributes:
        grid: (G,), ascending, in the units of the samples.
        curves: name -> density (G,) per unit, or per factor of 10 where `log`.
        histograms: name -> the same of the bin that each point of the grid lies in, (G,).
        medians: name -> median of the sample.
        log: whether the estimates were made of log10 of the samples; the grid is then even in log10.
    """

    grid: np.ndarray
    curves: dict[str, np.ndarray]
    histograms: dict[str, np.ndarray]
    medians: dict[str, float]
    log: bool


def densities(
    samples: Mapping[str, np.ndarray], *, log: bool = False, lower: float = -np.inf, upper: float = np.inf
) -> Densities:
    """Gaussian kernel estimates of samples (n,), each by Silverman's rule, reflected at `lower` and `upper`; and histograms.

    The grid spans the central 99.6 % of every sample, so that a single outlier does not squeeze all the rest.

    Args:
        log: estimate log10 of the samples, which must then be positive; no bound is needed, nothing falls below 0.

    Raises:
        DataError: a sample is empty, not finite, or not positive where `log`.
    """
    for name, values in samples.items():
        if not len(values) or not np.isfinite(values).all() or (log and np.min(values) <= 0):
            raise DataError(f"Scores of {name!r} must be finite{' and positive' if log else ''}, and at least one.")
    if not samples:
        raise DataError("There are no scores to draw.")
    values = {name: np.asarray(v, dtype=np.float64) for name, v in samples.items()}
    medians = {name: float(np.median(v)) for name, v in values.items()}
    if log:
        values, lower, upper = {name: np.log10(v) for name, v in values.items()}, -np.inf, np.inf

    ends = {name: np.percentile(v, [0.2, 99.8]) for name, v in values.items()}
    low, high = min(e[0] for e in ends.values()), max(e[1] for e in ends.values())
    span = max(high - low, 1e-3 * max(abs(low), abs(high), 1e-3))
    widths = {name: max(_silverman(v), span / POINTS) for name, v in values.items()}  # or a constant sample vanishes
    low = max(lower, min(ends[name][0] - 3 * h for name, h in widths.items()))
    high = min(upper, max(ends[name][1] + 3 * h for name, h in widths.items()))
    grid = np.linspace(low, high, POINTS)
    curves = {name: _reflected(grid, v, widths[name], lower, upper) for name, v in values.items()}
    histograms = {name: _histogram(v, low, high) for name, v in values.items()}
    return Densities(10**grid if log else grid, curves, histograms, medians, log)


def share_below(value: float, sample: np.ndarray) -> float:
    """The fraction of `sample` (n,) that is smaller than `value`, in [0, 1]."""
    return float(np.mean(np.asarray(sample) < value))


def _silverman(values: np.ndarray) -> float:
    """Silverman's robust bandwidth, 0.9 min(sd, IQR / 1.34) n^(-1/5)."""
    quartiles = np.percentile(values, [25, 75])
    spreads = [s for s in (values.std(), (quartiles[1] - quartiles[0]) / 1.34) if s > 0]
    return 0.9 * min(spreads, default=0.0) * len(values) ** -0.2


def _reflected(grid: np.ndarray, values: np.ndarray, width: float, lower: float, upper: float) -> np.ndarray:
    """The estimate on `grid`, with what would spill over a bound folded back."""
    if values.std() > 1e-9 * width:
        estimate = gaussian_kde(values, bw_method=width / values.std(ddof=1))  # SciPy's bandwidth is in standard deviations
    else:
        estimate = norm(values[0], width).pdf  # all the same, as good as: `gaussian_kde` needs a spread
    return estimate(grid) + sum(estimate(2 * bound - grid) for bound in (lower, upper) if np.isfinite(bound))


def _histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Densities of BINS equal bins between `low` and `high`, repeated for the POINTS of the grid."""
    counts, edges = np.histogram(values, BINS, (low, high))
    return np.repeat(counts / (len(values) * (edges[1] - edges[0])), POINTS // BINS)
