"""Each term of the objective: its value against NumPy, its sign by what lowers it, the penalty by finite differences."""

import numpy as np
import pytest
import torch

from ama_core import Config
from ama_core.detectors.ama import losses
from ama_core.detectors.ama.networks import Networks
from ama_core.detectors.modules import gradient_penalty

CPU = torch.device("cpu")
LAMBDA_NEG = 5.0


@pytest.fixture
def values(rng):
    """D(x, x), D(x, x_hat), y for 9 normals and one negative."""
    d_real, d_recon = (torch.from_numpy(rng.normal(size=10)).requires_grad_() for _ in range(2))
    return d_real, d_recon, losses.signs(9, 1, LAMBDA_NEG, CPU).double()


def test_signs():
    np.testing.assert_array_equal(losses.signs(3, 2, 5.0, CPU).numpy(), [1, 1, 1, -5, -5])
    np.testing.assert_array_equal(losses.signs(2, 0, 5.0, CPU).numpy(), [1, 1])


def test_effective_weights_of_normals_and_negatives():
    """5 on 10 % of the batch: effective weights 0.9 and 0.5 (specification, Section 2)."""
    y = losses.signs(9, 1, LAMBDA_NEG, CPU).numpy()
    assert y[y > 0].sum() / 10 == 0.9 and -y[y < 0].sum() / 10 == 0.5


def test_critic_wasserstein(values):
    d_real, d_recon, y = values
    loss = losses.critic_wasserstein(*values)
    real, recon = d_real.detach().numpy(), d_recon.detach().numpy()
    normals = np.mean(recon[:9] - real[:9]) * 9
    negatives = -LAMBDA_NEG * (recon[9] - real[9])
    assert loss.item() == pytest.approx((normals + negatives) / 10, rel=1e-12)
    loss.backward()
    # Minimising raises D(x, x) of normals and lowers it for negatives; the other way round for D(x, x_hat).
    np.testing.assert_allclose(d_real.grad.numpy(), [-0.1] * 9 + [0.5])
    np.testing.assert_allclose(d_recon.grad.numpy(), [0.1] * 9 + [-0.5])


def test_critic_drift(values):
    d_real, *_ = values
    loss = losses.critic_drift(d_real)
    real = d_real.detach().numpy()
    assert loss.item() == pytest.approx((real**2).mean(), rel=1e-12)
    loss.backward()
    np.testing.assert_allclose(d_real.grad.numpy(), real / 5)  # towards zero, from either side


def test_autoencoder_wasserstein(values):
    _, d_recon, y = values
    loss = losses.autoencoder_wasserstein(d_recon, y)
    recon = d_recon.detach().numpy()
    assert loss.item() == pytest.approx((-recon[:9].sum() + LAMBDA_NEG * recon[9]) / 10, rel=1e-12)
    loss.backward()
    # E and G make normal reconstructions look real, and un-learn the negatives.
    np.testing.assert_allclose(d_recon.grad.numpy(), [-0.1] * 9 + [0.5])


def test_critic_and_autoencoder_are_opponents(values):
    """What E and G do with D(x, x_hat) is exactly the opposite of what D does with it, row by row."""
    _, d_recon, y = values
    (of_critic,) = torch.autograd.grad(losses.critic_wasserstein(*values), d_recon)
    (of_autoencoder,) = torch.autograd.grad(losses.autoencoder_wasserstein(d_recon, y), d_recon)
    torch.testing.assert_close(of_critic, -of_autoencoder)


def test_simplex_terms(rng):
    d_real, d_inter = (torch.from_numpy(rng.normal(size=n)).requires_grad_() for n in (4, 12))
    critic, autoencoder = losses.critic_simplex(d_real, d_inter), losses.autoencoder_simplex(d_inter)
    real, inter = d_real.detach().numpy(), d_inter.detach().numpy()
    # Averaged over mixtures and their parents: first per mixture, then over mixtures.
    assert critic.item() == pytest.approx(inter.reshape(4, 3).mean(axis=1).mean() - real.mean())
    assert autoencoder.item() == pytest.approx(-inter.mean())
    (critic + 2 * autoencoder).backward()
    np.testing.assert_allclose(d_real.grad.numpy(), -1 / 4)  # D(x, x) up
    np.testing.assert_allclose(d_inter.grad.numpy(), 1 / 12 - 2 / 12)  # D pushes it down, E and G up


@pytest.mark.parametrize("kind", ["norm", "hinge"])
def test_latent_regulariser(rng, kind):
    z = rng.normal(size=(20, 4)) * rng.uniform(0.1, 3, size=(20, 1))
    norms = np.sqrt((z**2).sum(axis=1))
    expected = norms.mean() if kind == "norm" else np.where(norms > 2, norms - 2, 0).mean()
    assert (norms < 2).any() and (norms > 2).any()
    assert losses.latent_regulariser(torch.from_numpy(z), kind, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_hinge_leaves_codes_inside_the_shell_alone():
    z = torch.tensor([[0.5, 0.0], [3.0, 0.0]], requires_grad=True)
    losses.latent_regulariser(z, "hinge", 2**0.5).backward()
    np.testing.assert_allclose(z.grad.numpy(), [[0, 0], [0.5, 0]])
    z.grad = None
    losses.latent_regulariser(z, "norm", 2**0.5).backward()
    np.testing.assert_allclose(z.grad.numpy(), [[0.5, 0], [0.5, 0]])


class SmoothCritic:
    """D(v) = sum_j c_j sin(w_j . v) of the flattened input, in float64: as torch, and as NumPy."""

    def __init__(self, rng, size: int):
        self.w = torch.from_numpy(rng.normal(size=(7, size))).requires_grad_()
        self.c = torch.from_numpy(rng.normal(size=7)).requires_grad_()

    def __call__(self, inputs):
        return torch.sin(inputs.flatten(1) @ self.w.T) @ self.c

    def value(self, v: np.ndarray) -> float:
        return float(np.sin(self.w.detach().numpy() @ v.ravel()) @ self.c.detach().numpy())

    def gradient(self, v: np.ndarray, step: float = 1e-5) -> np.ndarray:
        """By central differences, one pixel at a time."""
        found = np.empty(v.shape)
        for i in np.ndindex(v.shape):
            up, down = v.copy(), v.copy()
            up[i] += step
            down[i] -= step
            found[i] = (self.value(up) - self.value(down)) / (2 * step)
        return found


def mirrored(x, y):
    return torch.cat([x, y], dim=1)


def plain(x, y):
    return y


@pytest.mark.parametrize("pair, channels", [(mirrored, 4), (plain, 2)])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_gradient_penalty_against_finite_differences(rng, pair, channels, per_pixel):
    x, x_hat = rng.normal(size=(2, 5, 2, 3, 3))
    a = rng.random(5)
    critic = SmoothCritic(rng, channels * 9)
    expected = []
    for i in range(5):
        mixed = a[i] * x[i] + (1 - a[i]) * x_hat[i]
        gradient = critic.gradient(np.concatenate([x[i], mixed]) if pair is mirrored else mixed)
        assert gradient.shape == (channels, 3, 3)
        norms = np.sqrt((gradient**2).sum(axis=0)) if per_pixel else np.sqrt((gradient**2).sum())
        expected.append(np.mean((norms - 1) ** 2))
    found = gradient_penalty(critic, pair, *map(torch.from_numpy, (x, x_hat, a)), per_pixel=per_pixel)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_gradient_penalty_reaches_the_critic_s_weights(rng):
    """Its derivative with respect to a weight of D, by finite differences of the penalty itself."""
    x, x_hat = torch.from_numpy(rng.normal(size=(2, 3, 1, 2, 2)))
    a = torch.from_numpy(rng.random(3))
    critic = SmoothCritic(rng, 8)
    gradient_penalty(critic, mirrored, x, x_hat, a).backward()
    step, found = 1e-2, []
    for sign in (1, -1):
        with torch.no_grad():
            critic.w[2, 3] += sign * step
        found.append(gradient_penalty(critic, mirrored, x, x_hat, a).item())
        with torch.no_grad():
            critic.w[2, 3] -= sign * step
    assert critic.w.grad[2, 3].item() == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-2)


def test_gradient_penalty_of_a_unit_slope_is_zero(rng):
    direction = torch.from_numpy(rng.normal(size=8))
    direction /= direction.norm()
    x, x_hat = torch.from_numpy(rng.normal(size=(2, 4, 1, 2, 2)))
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def critic(inputs):
        return scale * (inputs.flatten(1) @ direction)

    assert gradient_penalty(critic, mirrored, x, x_hat, torch.rand(4)).item() == pytest.approx(0, abs=1e-10)
    scale.data.fill_(3.0)
    assert gradient_penalty(critic, mirrored, x, x_hat, torch.rand(4)).item() == pytest.approx(4, rel=1e-6)


def test_gradient_penalty_passes_nothing_to_the_autoencoder(rng):
    x = torch.from_numpy(rng.normal(size=(2, 1, 2, 2)))
    x_hat = torch.from_numpy(rng.normal(size=(2, 1, 2, 2))).requires_grad_()
    gradient_penalty(SmoothCritic(rng, 8), mirrored, x, x_hat, torch.rand(2)).backward()
    assert x_hat.grad is None


def test_what_critics_are_trained_on_is_fp32_under_autocast():
    """Losses are small differences of a critic's values: bf16 has three digits."""
    networks = Networks(Config(channels=1, nz=4, width_encoder=4, width_generator=4, width_critic=4))
    x, x_hat = torch.rand(2, 3, 1, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        pair = networks.pair(x, x_hat)
        assert networks.D.feature_map(pair).dtype == torch.bfloat16, "the rest computes fast"
        assert networks.D.features(pair).dtype == networks.D(pair).dtype == torch.float32
        assert gradient_penalty(networks.D, networks.pair, x, x_hat, torch.rand(3)).dtype == torch.float32
        half = [t.bfloat16() for t in (x, x_hat, torch.rand(3))]
        assert gradient_penalty(networks.D, networks.pair, *half).dtype == torch.float32
