"""The shell: the norms |z| of codes beside chi_d, the law of the norm of a standard normal code, and atypical codes.

Codes are float32 arrays (n, d). In many dimensions nearly all of a standard normal lies near the radius sqrt(d).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi

from ama_core.detectors.ama import latent
from ama_core.detectors.ama.config import DIRECTIONS
from ama_core.errors import ConfigError, DataError

BAND_LEVEL = 0.95


def shell_band(d: int, level: float = BAND_LEVEL) -> tuple[float, float]:
    """The central part `level` of chi_d: where |z| of a standard normal z in d dimensions lies with that probability."""
    low, high = chi.interval(level, d)
    return float(low), float(high)


def chi_density(radius: np.ndarray, d: int) -> np.ndarray:
    """Density of chi_d at `radius` (n,)."""
    return chi.pdf(radius, d)


@dataclass(frozen=True)
class ShellFacts:
    """Where the norms of some codes lie: the median of |z| / sqrt(d), and the share within the 95 % band of chi_d."""

    median_ratio: float
    share_in_band: float
    n: int


def shell_facts(codes: np.ndarray) -> ShellFacts:
    """Of codes (n, d), n >= 1: the median and the share of no codes are NaN."""
    norms, d = np.linalg.norm(codes, axis=1), codes.shape[1]
    low, high = shell_band(d)
    return ShellFacts(float(np.median(norms) / np.sqrt(d)), float(np.mean((norms >= low) & (norms <= high))), len(codes))


def norm_range(codes: np.ndarray, level: float = 0.99) -> tuple[float, float]:
    """Between which lengths the central part `level` of codes (n, d) lies. Raises IndexError where there are none."""
    low, high = np.quantile(np.linalg.norm(codes, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_between(codes: np.ndarray, low: float, high: float) -> float:
    """The fraction of codes (n, d) with a length from `low` to `high`, in [0, 1]; NaN where there are none."""
    norms = np.linalg.norm(codes, axis=1)
    return float(np.mean((norms >= low) & (norms <= high)))


@dataclass(frozen=True)
class NormHistograms:
    """Histograms of |z| on shared bins, as densities.

    Attributes:
        edges: (B + 1,). densities: name -> (B,) per unit of |z|; what lies beyond the edges counts in no bin.
        rows: name -> for each bin the positions of its codes among those given.
        grid, chi: (G,) the curve of chi_d over the same range.
    """

    edges: np.ndarray
    densities: dict[str, np.ndarray]
    rows: dict[str, list[np.ndarray]]
    grid: np.ndarray
    chi: np.ndarray


def norm_histograms(samples: Mapping[str, np.ndarray], bins: int = 32) -> NormHistograms:
    """|z| of several sets of codes (n, d) on shared bins over their central 99 % and the whole band of chi_d."""
    if not samples:
        raise DataError("There are no codes to draw.")
    norms = {name: np.linalg.norm(codes, axis=1) for name, codes in samples.items()}
    d = next(iter(samples.values())).shape[1]
    ends = [shell_band(d, 0.999), *(np.percentile(v, [0.5, 99.5]) for v in norms.values())]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    edges = np.linspace(max(0.0, low - 0.02 * (high - low)), high + 0.02 * (high - low), bins + 1)
    width = edges[1] - edges[0]
    places = {name: np.searchsorted(edges, v, side="right") - 1 for name, v in norms.items()}
    rows = {name: [np.flatnonzero(place == b) for b in range(bins)] for name, place in places.items()}
    densities = {name: np.array([len(r) for r in found]) / (len(norms[name]) * width) for name, found in rows.items()}
    grid = np.linspace(edges[0], edges[-1], 300)
    return NormHistograms(edges, densities, rows, grid, chi_density(grid, d))


def atypical(n: int, d: int, direction: str, delta: float, seed: int) -> np.ndarray:
    """`latent.atypical_codes`, (n, d) float32: one seed keeps directions while delta moves the codes along them."""
    if direction not in DIRECTIONS or not 0 <= delta < np.inf or n < 1:
        raise ConfigError(f"Atypical codes need a direction of {', '.join(DIRECTIONS)}, a finite delta >= 0 and n >= 1.")
    return latent.atypical_codes(n, d, direction, delta, torch.Generator().manual_seed(seed)).numpy()
