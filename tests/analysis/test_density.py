"""Densities for the eye: all mass where data can be, one grid, and the same as the sum of kernels written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from ama_core.analysis.density import BINS, POINTS, densities, share_below
from ama_core.detectors.ama.scores import a_distance, log_a_score, mu_sigma_behind
from ama_core.errors import DataError


def silverman(values: np.ndarray) -> float:
    low, high = np.percentile(values, [25, 75])
    return 0.9 * min(values.std(), (high - low) / 1.34) * len(values) ** -0.2


def kernels(grid: np.ndarray, centres: np.ndarray, width: float, n: int) -> np.ndarray:
    return np.exp(-0.5 * ((grid[:, None] - centres) / width) ** 2).sum(axis=1) / (n * width * np.sqrt(2 * np.pi))


def test_a_curve_is_the_sum_of_its_reflected_kernels(rng):
    values = np.abs(rng.normal(0, 2, 300))
    found = densities({"a": values}, lower=0.0, upper=9.0)
    centres = np.concatenate([values, -values, 18 - values])
    np.testing.assert_allclose(found.curves["a"], kernels(found.grid, centres, silverman(values), 300), rtol=1e-9)


def test_on_a_logarithmic_axis_it_is_that_of_the_logarithms(rng):
    values = rng.lognormal(3, 1, 400)
    found, logs = densities({"a": values}, log=True, lower=0.0), np.log10(values)
    np.testing.assert_allclose(found.curves["a"], kernels(np.log10(found.grid), logs, silverman(logs), 400), rtol=1e-9)
    assert found.log and np.allclose(np.diff(np.log10(found.grid), 2), 0)


@pytest.mark.parametrize("log", [False, True])
def test_all_mass_lies_where_data_can_be(rng, log):
    samples = {"a": np.abs(rng.normal(0, 1, 2000)) + 1e-3, "b": rng.gamma(2, 3, 500), "same": np.full(50, 2.0), "one": [4.0]}
    found = densities(samples, log=log, lower=0.0)
    x = np.log10(found.grid) if log else found.grid
    assert found.grid.min() >= 0 and len(found.grid) == POINTS and list(found.curves) == list(samples)
    for name in samples:
        assert np.isfinite(found.curves[name]).all() and (found.curves[name] >= 0).all()
        assert np.trapezoid(found.curves[name], x) == pytest.approx(1, abs=0.02), name
    assert found.medians["same"] == 2.0


def test_no_mass_lies_beyond_an_upper_bound(rng):
    values = -np.abs(rng.normal(0, 1, 1000))
    found = densities({"a": values}, upper=0.0)
    assert found.grid.max() == 0 and np.trapezoid(found.curves["a"], found.grid) == pytest.approx(1, abs=0.01)
    assert found.curves["a"][-1] > 0.9 * found.curves["a"].max(), "no dip at the bound, where data are densest"


@pytest.mark.parametrize("log", [False, True])
def test_a_histogram_counts_what_lies_in_its_bins(rng, log):
    values = rng.gamma(2, 3, 700)
    found = densities({"a": values}, log=log, lower=0.0)
    x, v = (np.log10(found.grid), np.log10(values)) if log else (found.grid, values)
    edges = np.linspace(x[0], x[-1], BINS + 1)
    heights = found.histograms["a"].reshape(BINS, -1)
    assert (heights == heights[:, :1]).all(), "one height a bin"
    for i, (low, high) in enumerate(zip(edges, edges[1:])):
        inside = (v >= low) & ((v <= high) if i == BINS - 1 else (v < high))
        assert heights[i, 0] * (high - low) == pytest.approx(inside.mean())


@given(some.lists(some.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=40))
def test_any_scores_have_a_density(values):
    found = densities({"a": np.array(values)})
    assert np.isfinite(found.curves["a"]).all() and (np.diff(found.grid) > 0).all()
    assert np.trapezoid(found.curves["a"], found.grid) < 1.02


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_what_cannot_be_drawn_is_an_error(values):
    with pytest.raises(DataError, match="'a' must be finite"):
        densities({"a": np.array(values)})


def test_a_logarithm_needs_positive_scores():
    with pytest.raises(DataError, match="positive"):
        densities({"a": np.array([0.0, 1.0])}, log=True)
    with pytest.raises(DataError, match="no scores"):
        densities({})


def test_share_below():
    assert share_below(2.0, np.array([1.0, 2.0, 3.0, 4.0])) == 0.25


def test_the_distance_of_a_orders_as_a_does_and_is_read_off_stored_scores(rng):
    r = rng.gamma(3, 40, 500)
    mu, sigma = 100.0, 30.0
    log_a = log_a_score(r, mu, sigma)
    distance = a_distance(r, mu, sigma)
    assert np.array_equal(np.argsort(-log_a, kind="stable"), np.argsort(np.abs(r - mu), kind="stable"))
    np.testing.assert_allclose(log_a[distance > 0.01], (log_a_score(mu, mu, sigma) - distance**2 / 2)[distance > 0.01])
    assert a_distance(np.array([mu]), mu, sigma) == 0.01, "it has a logarithm"
    found = mu_sigma_behind(r.astype(np.float32), log_a.astype(np.float32))
    assert found == pytest.approx((mu, sigma), rel=1e-4)
    assert mu_sigma_behind(np.full(9, 5.0), np.full(9, -3.0))[0] == pytest.approx(5)
