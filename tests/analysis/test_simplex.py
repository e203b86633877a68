"""Mixtures of codes, the triangle that they fill, and the critic's value of them."""

import numpy as np
import pytest

from ama_core.analysis import simplex
from ama_core.errors import DataError


def test_mixtures_are_weighted_means(rng):
    codes = rng.normal(size=(3, 5)).astype(np.float32)
    weights = np.array([[1, 0, 0], [0.2, 0.3, 0.1], [-0.5, 1.0, 0.5]])
    mixed = simplex.mixtures(codes, weights)
    for row, w in zip(mixed, weights):
        assert np.allclose(row, sum(a * z for a, z in zip(w, codes)) / w.sum(), atol=1e-5)
    for wrong in ([0, 0, 0], [1, -1, 0], [np.nan, 1, 0]):
        with pytest.raises(DataError):
            simplex.mixtures(codes, [wrong])


def test_triangle_has_its_points_and_its_corners():
    weights = simplex.triangle_weights(6)
    assert weights.shape == (21, 3) and np.allclose(weights.sum(axis=1), 1) and weights.min() >= 0
    xy = simplex.triangle_xy(np.eye(3))
    assert np.allclose([np.linalg.norm(xy[i] - xy[i - 1]) for i in range(3)], 1)
    outside = simplex.triangle_weights(9, -0.5, 1.5)
    assert outside.min() == -0.5 and outside.max() == 1.5 and np.allclose(outside.sum(axis=1), 1)
    assert len({tuple(row) for row in outside}) == len(outside)


def test_path_leads_from_image_to_image():
    weights = simplex.path_weights(0, 2, 5)
    assert np.allclose(weights, [[1, 0, 0], [0.75, 0, 0.25], [0.5, 0, 0.5], [0.25, 0, 0.75], [0, 0, 1]])
    assert np.allclose(simplex.path_weights(1, 0, 9, -0.5, 1.5)[[0, -1]], [[-0.5, 1.5, 0], [1.5, -0.5, 0]])


def test_rebalanced_weights_add_up_and_stay_in_range(rng):
    for _ in range(200):
        weights, moved = rng.uniform(-0.5, 1.5, size=3), int(rng.integers(3))
        new = simplex.rebalance(weights, moved, -0.5, 1.5)
        assert sum(new) == pytest.approx(1) and min(new) >= -0.5 - 1e-9 and max(new) <= 1.5 + 1e-9
        assert new[moved] == pytest.approx(weights[moved], abs=1e-6)
    assert simplex.rebalance((0.4, 0.3, 0.3), 0, -0.5, 1.5) == pytest.approx((0.4, 0.3, 0.3))


def test_critic_of_a_mixture_is_the_mean_over_its_parents(tiny_detector, digits):
    parents, decoded = digits.images[:3], tiny_detector.decode(np.zeros((2, 8)))
    found = simplex.mixture_critic(tiny_detector, decoded, parents)
    one = [tiny_detector.critic(parents[i : i + 1], decoded[:1])[0] for i in range(3)]
    assert found.shape == (2,) and found[0] == pytest.approx(np.mean(one), abs=1e-3)
    assert tiny_detector.critic(parents, parents) == pytest.approx(tiny_detector.statistics(parents).d_real, abs=1e-3)
    with pytest.raises(DataError, match="pairs"):
        tiny_detector.critic(parents, decoded)
