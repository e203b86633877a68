"""Mixtures of three images' codes (the paper's "Simplex interpolation"), inside and outside of their triangle."""

from collections.abc import Sequence

import numpy as np
import torch

from ama_core.detectors.ama.detector import AMADetector
from ama_core.detectors.ama.latent import simplex_interpolation
from ama_core.errors import DataError

SIMPLEX_RANGE = (-0.5, 1.5)  # weights that may be tried; outside [0, 1] is outside the simplex


def mixtures(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """e_hat = sum_i alpha_i E(x_i) / sum_i alpha_i (Section "Simplex interpolation"): codes (k, d), alphas (m, k) -> (m, d).

    Raises:
        DataError: weights are not finite, or their sum is so near 0 that the mixture means nothing.
    """
    weights = np.atleast_2d(np.asarray(weights, np.float64))
    total = weights.sum(axis=1, keepdims=True)
    if not np.isfinite(weights).all() or np.any(total < 0.1):
        raise DataError("The three weights must add up to more than 0.1: a mixture is divided by their sum.")
    parents = torch.arange(len(codes)).expand(len(weights), -1)
    return simplex_interpolation(torch.from_numpy(codes), parents, torch.from_numpy(weights / total)).float().numpy()


def triangle_weights(side: int = 6, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Barycentric lattice (m, 3) with rows that sum to 1: `side` steps from `low` to `high` of each weight.

    side 6 in [0, 1]: the 21 points of a triangle with six along each edge. Where `low` < 0 what lies outside of the simplex
    is covered as well.
    """
    values = np.linspace(low, high, side)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values, indexing="ij"))
    c = 1 - a - b
    inside = (c >= low - 1e-9) & (c <= high + 1e-9)
    return np.round(np.stack([a, b, c], axis=1)[inside], 6)


def path_weights(start: int, end: int, steps: int = 9, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Weights (steps, 3) on the line from image `start` to image `end`: t from `low` to `high`, beyond the images outside."""
    t = np.linspace(low, high, steps)
    weights = np.zeros((steps, 3))
    weights[:, start], weights[:, end] = 1 - t, t
    return weights


def rebalance(weights: Sequence[float], moved: int, low: float, high: float) -> tuple[float, ...]:
    """Three weights that sum to 1 again after the `moved` one was set: the others give or take alike, within [low, high]."""
    first, second = (i for i in range(3) if i != moved)
    new = [float(w) for w in weights]
    new[moved] = float(np.clip(new[moved], low, high))
    rest = 1 - new[moved]
    shared = new[first] + (rest - new[first] - new[second]) / 2
    new[first] = float(np.clip(round(shared, 2), max(low, rest - high), min(high, rest - low)))
    new[second] = rest - new[first]
    return tuple(round(w, 6) for w in new)


def triangle_xy(weights: np.ndarray) -> np.ndarray:
    """Barycentric weights (m, 3) as points (m, 2) of the equilateral triangle with corners (0, 0), (1, 0), (1/2, sqrt(3)/2)."""
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
    return np.asarray(weights) @ corners


def mixture_critic(detector: AMADetector, decoded: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """D of decoded mixtures (m, S, S, c), (m,): paired with each of the parents (k, S, S, c) and averaged, as in training.

    High = the critic takes the decode for the parent itself. A plain critic sees the decode alone.
    """
    m, k = len(decoded), len(parents)
    if detector.settings.reconstruction == "plain":
        return detector.critic(decoded, decoded)
    return detector.critic(np.tile(parents, (m, 1, 1, 1)), np.repeat(decoded, k, axis=0)).reshape(m, k).mean(axis=1)
