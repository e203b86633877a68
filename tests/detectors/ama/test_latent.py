"""Simplex interpolation and atypical codes, against NumPy and the geometry they promise."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ama_core.detectors.ama import latent, losses
from ama_core.errors import ConfigError


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("mode", ["paper", "released"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_simplex_weights_are_on_the_simplex(generator, mode, k):
    w = latent.simplex_weights(4000, k, generator, mode=mode).numpy()
    assert w.shape == (4000, k)
    np.testing.assert_allclose(w.sum(axis=1), 1, atol=1e-6)
    assert w.min() >= -1e-7 and w.max() <= 1
    np.testing.assert_allclose(w.mean(axis=1), 1 / k, atol=1e-6)


def test_simplex_weights_of_the_paper_are_normalised_uniforms(generator):
    """Exchangeable, and distributed as u_1 / (u_1 + u_2 + u_3); drawn here with NumPy."""
    w = latent.simplex_weights(20_000, 3, generator).numpy()
    u = np.random.default_rng(0).uniform(0, 0.5, (20_000, 3))
    expected = u / u.sum(axis=1, keepdims=True)
    for column in w.T:
        np.testing.assert_allclose(np.quantile(column, [0.1, 0.5, 0.9]), np.quantile(expected, [0.1, 0.5, 0.9]), atol=0.02)
    assert w.max() > 0.8  # one parent may dominate


def test_simplex_weights_of_the_released_code(generator):
    """a_1, a_2 ~ U(0, 0.5), a_3 = 1 - a_1 - a_2."""
    w = latent.simplex_weights(20_000, 3, generator, mode="released").numpy()
    for column in w[:, :2].T:
        assert kstest(column, "uniform", args=(0, 0.5)).pvalue > 1e-3
    assert abs(np.corrcoef(w[:, 0], w[:, 1])[0, 1]) < 0.03  # independent
    np.testing.assert_allclose(w[:, 2], 1 - w[:, 0] - w[:, 1], atol=1e-6)


@pytest.mark.parametrize("n, k", [(3, 3), (16, 3), (17, 5), (8, 8)])
def test_parents_are_distinct_and_used_equally(generator, n, k):
    parents = latent.simplex_parents(n, k, generator).numpy()
    assert parents.shape == (n, k)
    assert all(len(set(row)) == k for row in parents.tolist())
    np.testing.assert_array_equal(np.bincount(parents.ravel(), minlength=n), k)


def test_too_few_images_are_not_mixed_with_themselves(generator):
    with pytest.raises(ConfigError, match="3 different images cannot be mixed from 2"):
        latent.simplex_parents(2, 3, generator)


def test_an_unknown_name_is_an_error(generator):
    for call in (
        lambda: latent.simplex_weights(4, 3, generator, mode="typo"),
        lambda: latent.atypical_codes(4, 8, "typo", 1.0, generator),
        lambda: latent.atypical_codes_released(torch.ones(4, 8), "none", generator),
        lambda: losses.latent_regulariser(torch.ones(4, 8), "typo", 1.0),
    ):
        with pytest.raises(ConfigError, match="There is no .* Known: "):
            call()


def test_parents_vary(generator):
    first, second = (latent.simplex_parents(50, 3, generator) for _ in range(2))
    assert not torch.equal(first, second)


def test_interpolation_is_the_weighted_mean_of_the_parents(rng):
    z, w = rng.normal(size=(6, 4)), rng.random((5, 3))
    w /= w.sum(axis=1, keepdims=True)
    parents = np.array([rng.choice(6, 3, replace=False) for _ in range(5)])
    expected = np.array([sum(w[i, j] * z[parents[i, j]] for j in range(3)) for i in range(5)])
    found = latent.simplex_interpolation(*map(torch.from_numpy, (z, parents, w)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_interpolation_passes_the_gradient_to_the_parents():
    z = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    latent.simplex_interpolation(z, torch.tensor([[2, 0, 3]]), weights).sum().backward()
    np.testing.assert_allclose(z.grad[:, 0].numpy(), [0.3, 0, 0.2, 0.5])


@pytest.mark.parametrize("d", [8, 32, 128])
@pytest.mark.parametrize("direction, low, high", [("inward", -1, 0), ("outward", 0, 1)])
def test_atypical_radius_is_uniform_beside_the_shell(generator, d, direction, low, high):
    delta = 2.0
    radius = latent.atypical_codes(4000, d, direction, delta, generator).norm(dim=1).numpy()
    start = np.sqrt(d) + low * delta
    assert radius.min() >= start - 1e-4 and radius.max() <= np.sqrt(d) + high * delta + 1e-4
    assert kstest(radius, "uniform", args=(start, delta)).pvalue > 1e-3


def test_inward_never_passes_the_origin(generator):
    z = latent.atypical_codes(1000, 4, "inward", 100.0, generator)
    assert torch.isfinite(z).all() and z.norm(dim=1).max() <= 2 + 1e-5


@pytest.mark.parametrize("direction", ["inward", "outward"])
def test_atypical_direction_is_uniform(generator, direction):
    d = 5
    z = latent.atypical_codes(20_000, d, direction, 1.0, generator).double().numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(unit.T @ unit / len(unit), np.eye(d) / d, atol=0.01)
    # In d dimensions a coordinate x of a uniform direction has (x + 1) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2).
    assert kstest((unit[:, 0] + 1) / 2, "beta", args=((d - 1) / 2, (d - 1) / 2)).pvalue > 1e-3


def test_delta_zero_lies_on_the_shell(generator):
    for direction in ("inward", "outward"):
        z = latent.atypical_codes(10, 9, direction, 0.0, generator)
        np.testing.assert_allclose(z.norm(dim=1).numpy(), 3, rtol=1e-6)


def test_sipple_is_a_cube_at_the_origin(generator):
    z = latent.atypical_codes(4000, 6, "sipple", 3.0, generator).numpy()
    assert np.abs(z).max() <= 1 and np.abs(z.mean(axis=0)).max() < 0.05
    for column in z.T:
        assert kstest(column, "uniform", args=(-1, 2)).pvalue > 1e-4


def test_released_codes_scale_the_encodings(generator):
    z = torch.randn(500, 8, generator=generator)
    for direction, (low, high) in {"inward": (0, 0.5), "outward": (2, np.inf)}.items():
        found = latent.atypical_codes_released(z, direction, generator)
        factor = (found / z).numpy()
        np.testing.assert_allclose(factor, np.repeat(factor[:, :1], 8, axis=1), rtol=1e-4)  # one factor a code
        assert factor.min() >= low - 1e-6 and factor.max() <= high + 1e-6
        a = factor[:, 0] if direction == "inward" else 1 / factor[:, 0]
        assert kstest(a, "uniform", args=(0, 0.5)).pvalue > 1e-4
    sipple = latent.atypical_codes_released(z + 10, "sipple", generator)
    limit = float((z + 10).abs().min())
    assert sipple.shape == z.shape and sipple.min() >= 0 and 0.9 * limit < sipple.max() <= limit


def test_shell_ratio(rng):
    z = rng.normal(size=(7, 16)).astype(np.float32)
    expected = np.linalg.norm(z.astype(np.float64), axis=1) / 4
    np.testing.assert_allclose(latent.shell_ratio(torch.from_numpy(z)).numpy(), expected, rtol=1e-6)
    assert latent.shell_ratio(torch.ones(1, 16, dtype=torch.bfloat16)).dtype == torch.float32


def test_draws_depend_on_the_generator_alone():
    def draws(seed):
        g = torch.Generator().manual_seed(seed)
        return [
            latent.simplex_weights(4, 3, g),
            latent.simplex_parents(4, 3, g),
            latent.atypical_codes(4, 5, "inward", 1.0, g),
            latent.atypical_codes_released(torch.ones(4, 5), "outward", g),
        ]

    torch.manual_seed(1)
    first = draws(0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, draws(0)))
    assert not torch.equal(first[0], draws(1)[0])


def test_interpolation_is_not_rounded_under_autocast(rng):
    """bf16 has 8 bits: rounded weights would move e_hat by up to half a percent."""
    z, w = rng.normal(size=(6, 4)).astype(np.float32), rng.random((5, 3)).astype(np.float32)
    w /= w.sum(axis=1, keepdims=True)
    parents = np.array([rng.choice(6, 3, replace=False) for _ in range(5)])
    expected = np.einsum("mk,mkd->md", w.astype(float), z[parents].astype(float))
    with torch.autocast("cpu", torch.bfloat16):
        found = latent.simplex_interpolation(*map(torch.from_numpy, (z, parents, w)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
