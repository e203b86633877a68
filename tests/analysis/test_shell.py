"""The shell's figures against arithmetic without SciPy, and atypical codes."""

import math

import numpy as np
import pytest

from ama_core.analysis import shell
from ama_core.errors import ConfigError, DataError


@pytest.mark.parametrize("d", [8, 32, 128])
def test_gaussian_codes_follow_the_shell(rng, d):
    codes = rng.normal(size=(20_000, d))
    facts = shell.shell_facts(codes)
    assert facts.median_ratio == pytest.approx(1, abs=0.05) and facts.share_in_band == pytest.approx(0.95, abs=0.01)
    low, high = shell.shell_band(d)
    assert low < math.sqrt(d) < high
    assert shell.shell_facts(codes * 2).share_in_band < 0.2 and shell.shell_facts(codes * 2).median_ratio > 1.9


def test_chi_density_is_the_formula():
    r = np.array([0.5, 2.0, 5.0])
    for d in (3, 8):
        formula = r ** (d - 1) * np.exp(-(r**2) / 2) / (2 ** (d / 2 - 1) * math.gamma(d / 2))
        assert np.allclose(shell.chi_density(r, d), formula)


def test_band_of_128_dimensions_is_the_known_one():
    assert shell.shell_band(128) == pytest.approx((9.93, 12.70), abs=0.01)


def test_what_lies_between_two_lengths_is_counted(rng):
    codes = rng.normal(size=(1, 7))
    codes = codes / np.linalg.norm(codes) * np.arange(1, 101)[:, None]  # of lengths 1 to 100
    assert shell.norm_range(codes, 0.98) == pytest.approx((1.99, 99.01))
    assert shell.share_between(codes, 10, 19.5) == pytest.approx(0.10)
    assert shell.share_between(codes, *shell.norm_range(codes, 1.0)) == pytest.approx(1, abs=0.021)


def test_norm_histograms_are_densities_that_know_their_codes(rng):
    samples = {"a": rng.normal(size=(400, 16)), "b": 3 * rng.normal(size=(100, 16))}
    found = shell.norm_histograms(samples)
    widths = np.diff(found.edges)
    assert np.allclose(widths, widths[0]) and found.edges[0] >= 0
    for name, codes in samples.items():
        assert 0.97 <= (found.densities[name] * widths).sum() <= 1 + 1e-9
        norms = np.linalg.norm(codes, axis=1)
        for b, rows in enumerate(found.rows[name]):
            assert ((norms[rows] >= found.edges[b]) & (norms[rows] <= found.edges[b + 1])).all()
    assert np.trapezoid(found.chi, found.grid) == pytest.approx(1, abs=0.01)
    with pytest.raises(DataError):
        shell.norm_histograms({})


def test_atypical_codes_move_along_their_directions_as_delta_grows():
    d, root = 16, 4.0
    near, far = (shell.atypical(9, d, "outward", delta, seed=5) for delta in (0.5, 2.0))
    norms = np.linalg.norm(near, axis=1), np.linalg.norm(far, axis=1)
    assert np.allclose(near / norms[0][:, None], far / norms[1][:, None], atol=1e-5)
    assert (norms[0] >= root - 1e-4).all() and (norms[0] <= root + 0.5 + 1e-4).all()
    assert np.allclose((norms[1] - root) / 2.0, (norms[0] - root) / 0.5, atol=1e-4)
    assert (np.linalg.norm(shell.atypical(9, d, "inward", 1.0, 5), axis=1) <= root + 1e-4).all()
    assert np.abs(shell.atypical(9, d, "sipple", 1.0, 5)).max() <= 1
    assert np.array_equal(near, shell.atypical(9, d, "outward", 0.5, seed=5))


@pytest.mark.parametrize("wrong", [("sideways", 1.0), ("inward", -1.0), ("inward", math.nan), ("inward", math.inf)])
def test_impossible_atypical_codes_are_refused(wrong):
    with pytest.raises(ConfigError):
        shell.atypical(4, 8, *wrong, 0)
