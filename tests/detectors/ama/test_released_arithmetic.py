"""Networks and one training step against an independent implementation of the authors' arithmetic, from the specification.

Nothing of the engine is used for the expected values: plain functions on named weights, in fp64, with the spectral norm by
singular values and every network called again at every use.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ama_core import Config
from ama_core.detectors.ama.networks import Networks
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.training.loop import train

CPU = torch.device("cpu")


class Plain:
    """E, G and D as functions of a dictionary of weights; batch norm by batch statistics, or by the running ones."""

    def __init__(self, weights: dict[str, torch.Tensor], blocks_g: int = 3):
        self.w, self.blocks_g, self.training = weights, blocks_g, True

    def batch_norm(self, name, h):
        if self.training:
            mean, var = h.mean(dim=(0, 2, 3)), h.var(dim=(0, 2, 3), unbiased=False)
        else:
            mean, var = self.w[f"{name}.running_mean"], self.w[f"{name}.running_var"]
        view = (1, -1, 1, 1)
        h = (h - mean.view(view)) / (var.view(view) + 1e-5).sqrt()
        return h * self.w[f"{name}.weight"].view(view) + self.w[f"{name}.bias"].view(view)

    def conv(self, name, h, **options):
        return F.conv2d(h, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), **options)

    def E(self, x):
        for i in (0, 3, 6):
            x = F.leaky_relu(self.batch_norm(f"E.features.{i + 1}", self.conv(f"E.features.{i}", x, stride=2, padding=1)), 0.2)
        return self.conv("E.to_code", x).flatten(1)

    def G(self, z):
        h = (z @ self.w["G.from_code.weight"].T + self.w["G.from_code.bias"]).view(len(z), -1, 4, 4)
        for i in range(self.blocks_g):
            name = f"G.blocks.{i}"
            up = lambda t: t.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # noqa: E731
            r = self.conv(f"{name}.residual.3", up(self.batch_norm(f"{name}.residual.0", h).relu()), padding=1)
            r = self.conv(f"{name}.residual.6", self.batch_norm(f"{name}.residual.4", r).relu(), padding=1)
            h = r + self.conv(f"{name}.shortcut", up(h))
        return self.conv("G.to_image.2", self.batch_norm("G.to_image.0", h).relu(), padding=1).tanh()

    def normed(self, name):
        """A weight by its largest singular value; singular vectors are constants for the gradient, as in a power iteration."""
        weight = self.w[f"{name}.parametrizations.weight.original"]
        matrix = weight.flatten(1)
        u, _, v = torch.linalg.svd(matrix.detach(), full_matrices=False)
        return weight / (u[:, 0] @ matrix @ v[0])

    def sn_conv(self, name, h, **options):
        return F.conv2d(h, self.normed(name), self.w[f"{name}.bias"], **options)

    def f(self, pair):
        """Block 1: conv, ReLU, conv, pool, shortcut pool, conv; block 2 pre-activated with the pool; then two plain ones."""
        pool = lambda t: F.avg_pool2d(t, 2)  # noqa: E731
        b = "D.blocks"
        h = self.sn_conv(f"{b}.0.residual.2", self.sn_conv(f"{b}.0.residual.0", pair, padding=1).relu(), padding=1)
        h = pool(h) + self.sn_conv(f"{b}.0.shortcut.1", pool(pair))
        r = self.sn_conv(f"{b}.1.residual.3", self.sn_conv(f"{b}.1.residual.1", h.relu(), padding=1).relu(), padding=1)
        h = pool(r) + pool(self.sn_conv(f"{b}.1.shortcut.1", h))
        for i in (2, 3):
            r = self.sn_conv(f"{b}.{i}.residual.1", h.relu(), padding=1)
            h = h + self.sn_conv(f"{b}.{i}.residual.3", r.relu(), padding=1)
        return h.relu().sum(dim=(2, 3))

    def D(self, pair):
        return self.f(pair) @ self.normed("D.to_value").squeeze(0)


def doubled(networks: Networks) -> dict[str, torch.Tensor]:
    learned = {name for name, _ in networks.named_parameters()}
    return {
        name: t.detach().clone().double().requires_grad_(name in learned)
        for name, t in networks.state_dict().items()
        if t.is_floating_point()
    }


def settle(networks: Networks, channels: int = 6) -> None:
    """The power iterations of the spectral norm at their end."""
    with torch.no_grad():
        for _ in range(500):
            networks.D(torch.zeros(1, channels, 32, 32))


def test_scores_at_paper_width():
    """R of random images within 1e-5 of the plain arithmetic, and the critic's values with it."""
    torch.manual_seed(0)
    networks = Networks(Config())
    settle(networks)
    networks.eval()
    plain = Plain(doubled(networks))
    plain.training = False
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        x_hat = networks.reconstruct(x)
        wide = x.double()
        expected_hat = plain.G(plain.E(wide))
        assert (x_hat - expected_hat).abs().max() < 1e-4
        f = networks.D.features(networks.pair(x, x)) - networks.D.features(networks.pair(x, x_hat))
        expected = plain.f(torch.cat([wide, wide], 1)) - plain.f(torch.cat([wide, expected_hat], 1))
        torch.testing.assert_close(f.abs().sum(1).double(), expected.abs().sum(1), rtol=1e-5, atol=0)
        value, expected_value = networks.D(networks.pair(x, x_hat)), plain.D(torch.cat([wide, expected_hat], 1))
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=1e-5)


def expected_gradients(config: Config, weights, x_normal, real_negatives=None) -> dict[str, torch.Tensor]:
    """Gradients of one step: of the critic's first update, and of E's and G's, at weights that do not move in between.

    Random numbers in the documented order: negatives, parents, mixing weights, then rows and weights of the penalty.
    """
    released = config.mode == "released"
    plain, rng = Plain(weights), torch.Generator().manual_seed(config.seed)
    n_neg = len(x_normal) - round(0.9 * len(x_normal)) if config.atypical != "none" or real_negatives is not None else 0
    n = len(x_normal) - n_neg
    x_normal = x_normal[:n]
    if real_negatives is not None:
        x = torch.cat([x_normal, real_negatives[torch.randint(len(real_negatives), (n_neg,), generator=rng)]])
    elif n_neg:
        plain.training = False
        with torch.no_grad():
            if released:
                a = 0.5 * torch.rand(n_neg, 1, generator=rng)
                z_neg = a * plain.E(x_normal[:n_neg])
            else:
                direction = torch.randn(n_neg, config.nz, generator=rng).double()
                depth = config.delta * torch.rand(n_neg, 1, generator=rng)
                z_neg = direction / direction.norm(dim=1, keepdim=True) * (math.sqrt(config.nz) - depth)
            x = torch.cat([x_normal, plain.G(z_neg)])
        plain.training = True
    else:
        x = x_normal
    y = torch.tensor([1.0] * n + [-config.lambda_neg] * n_neg).double()

    order = torch.randperm(n, generator=rng)
    parents = torch.stack([order, order.roll(-1), order.roll(-2)], 1)
    if released:
        first = torch.rand(n, 2, generator=rng).double() * 0.5
        mix = torch.cat([first, 1 - first.sum(1, keepdim=True)], 1)
    else:
        alpha = 0.5 * torch.rand(n, 3, generator=rng).double()
        mix = alpha / alpha.sum(1, keepdim=True)
    rows, a = torch.randperm(len(x), generator=rng), torch.rand(len(x), generator=rng).double().view(-1, 1, 1, 1)

    def both(first, second):
        return torch.cat([first, second], 1)

    def codes_of_normals():
        return plain.E(x_normal) if released else plain.E(x)[:n]

    def mixtures():
        return plain.G((mix.unsqueeze(2) * codes_of_normals()[parents]).sum(1))

    def parent_values(x_inter):
        return torch.stack([plain.D(both(x_normal[parents[:, j]], x_inter)) for j in range(3)], 1)

    x_hat, x_inter = plain.G(plain.E(x)).detach(), mixtures().detach()
    loss_d = (-y * plain.D(both(x, x)) + y * plain.D(both(x, x_hat))).mean()
    loss_d = loss_d + config.lambda_inter * (parent_values(x_inter).mean() - plain.D(both(x_normal, x_normal)).mean())
    between = both(x[rows], a * x[rows] + (1 - a) * x_hat[rows]).requires_grad_()
    (slope,) = torch.autograd.grad(plain.D(between).sum(), between, create_graph=True)
    norm = slope.square().sum(dim=1 if released else (1, 2, 3)).sqrt()
    loss_d = loss_d + config.lambda_gp * ((norm - 1) ** 2).mean()

    loss_eg = (-y * plain.D(both(x, plain.G(plain.E(x))))).mean()
    loss_eg = loss_eg + config.lambda_reg * codes_of_normals().norm(dim=1).mean()
    if not released:  # the released code cuts this gradient off
        loss_eg = loss_eg - config.lambda_inter * parent_values(mixtures()).mean()

    found = {}
    for loss, networks in ((loss_d, "D"), (loss_eg, "EG")):
        names = [name for name, w in weights.items() if name[0] in networks and w.requires_grad]
        found |= dict(zip(names, torch.autograd.grad(loss, [weights[name] for name in names])))
    return found


@pytest.mark.parametrize("negatives", ["none", "inward", "real"])
@pytest.mark.parametrize("mode", ["paper", "released"])
def test_one_training_step(mode, negatives):
    config = Config(
        mode=mode,
        nz=6,
        width_encoder=6,
        width_generator=8,
        width_critic=8,
        batch_size=20,
        n_critic=1,
        max_steps=40,
        atypical="none" if negatives == "none" else "inward",
        warmup=0.0,
        delta=1.0,
        precision="fp32",
        lr_schedule="constant",
        lr=1e-8,  # so that E and G meet the critic that the expected gradients were taken at
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    anomalies = rng.integers(0, 90, (7, 32, 32, 3), dtype=np.uint8) if negatives == "real" else None
    state = AMATrainer(config, CPU)
    settle(state.networks)
    weights = doubled(state.networks)
    event = next(train(state, images, anomalies=anomalies, sample_every=1000))
    assert event.step == 1
    found = {name: p.grad for name, p in state.networks.named_parameters()}

    to_double = lambda a: torch.from_numpy(a).permute(0, 3, 1, 2).double() / 127.5 - 1  # noqa: E731
    batch = to_double(images)[np.random.default_rng([config.seed, 0]).permutation(len(images))[: config.batch_size]]
    expected = expected_gradients(config, weights, batch, None if anomalies is None else to_double(anomalies))
    assert found.keys() == expected.keys()
    whole = {key: math.sqrt(sum(g.square().sum() for name, g in expected.items() if name[0] == key)) for key in "EGD"}
    for name, gradient in expected.items():
        difference = (found[name].double() - gradient).norm().item()
        assert difference <= 1e-2 * gradient.norm().item() + 1e-5 * whole[name[0]], name


def test_real_anomalies_take_part_from_the_first_released_step_and_after_the_warmup_in_the_paper(monkeypatch):
    from ama_core.detectors.ama import losses

    counts = []
    signs = losses.signs
    monkeypatch.setattr(losses, "signs", lambda n, n_neg, *rest: (counts.append(n_neg), signs(n, n_neg, *rest))[1])
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 1), dtype=np.uint8)
    for mode, expected in (("released", [2] * 10), ("paper", [0] * 5 + [2] * 5)):
        counts.clear()
        config = Config(
            mode=mode,
            channels=1,
            nz=4,
            width_encoder=4,
            width_generator=4,
            width_critic=4,
            batch_size=20,
            n_critic=1,
            max_steps=10,
            warmup=0.5,
            precision="fp32",
        )
        list(train(AMATrainer(config, CPU), images, anomalies=images[:3], sample_every=1000))
        assert counts == expected, mode


def test_the_released_warmup_is_the_default_of_its_mode():
    assert Config.from_dict({"mode": "released"}).warmup == 0.11
    assert Config.from_dict({"mode": "released", "warmup": "0.3"}).warmup == 0.3
    assert Config.from_dict({}).warmup == 0.1
    assert Config.from_dict({"mode": "released"}).n_negatives == 26
    for batch in (3, 7, 8, 11):  # each negative comes from the code of a normal of the batch
        assert (
            Config.from_dict({"mode": "released", "negative_fraction": 0.5, "batch_size": batch, "k": 2}).n_negatives
            == batch // 2
        )
