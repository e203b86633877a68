"""The rivals' formulas, each against an independent computation, and what their networks promise."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ama_core.data import load
from ama_core.detectors import (
    alad,
    anogan,
    complexity,
    deepsvdd,
    fencegan,
    glow,
    likelihood_ratio,
    pixelcnn,
    skipganomaly,
    waic,
)
from ama_core.detectors.modules import per_image
from ama_core.errors import ConfigError, NotFittedError, TrainingDiverged
from ama_core.tensors import to_tensor

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return load("digits", "test").images[:7]


@pytest.fixture
def x(images):
    return to_tensor(images, CPU)


# Density models


@pytest.mark.parametrize("channels, mixtures", [(1, 1), (1, 4), (3, 3)])
def test_no_pixel_sees_itself_or_a_later_one(channels, mixtures):
    network = pixelcnn.PixelCNN(pixelcnn.PixelCNNSettings(channels=channels, filters=6, blocks=2, mixtures=mixtures))
    x = torch.rand(1, channels, 6, 6, requires_grad=True)
    out = network(x)
    seen = 0
    for row in range(6):
        for column in range(6):
            (gradient,) = torch.autograd.grad(out[0, :, :, row, column].sum(), x, retain_graph=True)
            reached = gradient.abs().sum(dim=(0, 1)).flatten()
            assert reached[6 * row + column :].sum() == 0
            seen += int((reached > 0).sum())
    assert seen > 200, "and it does see those before it"


@pytest.mark.parametrize("mixtures", [1, 3])
def test_the_probabilities_of_a_grey_pixel_sum_to_one_and_follow_the_formula(mixtures):
    parameters = torch.randn(1, mixtures, 3, 1, 1)
    levels = torch.arange(256.0).view(256, 1, 1, 1) / 127.5 - 1
    found = pixelcnn.mixture_log_probability(parameters.expand(256, -1, -1, -1, -1), levels).exp().flatten().double().numpy()
    assert found.sum() == pytest.approx(1, abs=1e-4)

    weight, mean, log_scale = (parameters[0, :, i, 0, 0].double().numpy() for i in range(3))
    weight = np.exp(weight) / np.exp(weight).sum()
    cdf = lambda v: (weight / (1 + np.exp(-(v - mean) * np.exp(-log_scale)))).sum()  # noqa: E731
    edges = [-np.inf, *((np.arange(255) + 0.5) / 127.5 - 1), np.inf]
    expected = [cdf(high) - cdf(low) for low, high in zip(edges, edges[1:])]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("log_scale", [-7, -5, -3, 0, 3])
@pytest.mark.parametrize("mean", [-1.2, -0.3, 0.0, 0.8])
def test_log_probabilities_far_from_the_mean(mean, log_scale):
    """Single precision against double, over all levels: log p falls on where a difference of two CDFs has vanished."""
    parameters = torch.tensor([0.0, mean, log_scale]).view(1, 1, 3, 1, 1).expand(256, -1, -1, -1, -1)
    found = pixelcnn.mixture_log_probability(parameters, torch.arange(256.0).view(256, 1, 1, 1) / 127.5 - 1)
    found = found.flatten().double().numpy()

    centred = np.arange(256) / 127.5 - 1 - np.float64(np.float32(mean))
    upper, lower = (centred + 1 / 255) * np.exp(-log_scale), (centred - 1 / 255) * np.exp(-log_scale)
    log_sigmoid = lambda v: -np.logaddexp(0, -v)  # noqa: E731
    expected = log_sigmoid(upper) + log_sigmoid(-lower) + np.log(-np.expm1(lower - upper))
    expected[0], expected[-1] = log_sigmoid(upper[0]), log_sigmoid(-lower[-1])  # open ends
    np.testing.assert_allclose(found, expected, rtol=4e-5, atol=1e-5)
    assert np.exp(found).sum() == pytest.approx(1, abs=3e-5)
    if mean == 0:
        np.testing.assert_allclose(found, found[::-1], rtol=1e-4)


@pytest.mark.parametrize("log_scale", [-6.5, -5, -3])
@pytest.mark.parametrize("level", [28, 227])
def test_a_pixel_far_from_the_mean_pulls_it(log_scale, level):
    parameters = torch.tensor([0.0, 0.0, log_scale]).view(1, 1, 3, 1, 1).requires_grad_()
    pixelcnn.mixture_log_probability(parameters, torch.full((1, 1, 1, 1), level / 127.5 - 1)).sum().backward()
    _, mean, scale = parameters.grad.flatten().tolist()
    assert mean * (level - 127.5) > 0 and abs(mean) == pytest.approx(math.exp(-log_scale), rel=1e-2)
    assert scale > 0, "a wider distribution would hold it"


def test_the_probabilities_of_a_small_image_sum_to_one():
    """Of colour, green leans on red and blue on both: summed over all values of a channel, the others' mass is left."""
    parameters = torch.randn(1, 2, 10, 1, 1)
    coarse = torch.tensor([-1.0, -0.2, 0.6])
    total = 0.0
    for red in coarse:
        for green in coarse:
            pixel = torch.stack([red.repeat(256), green.repeat(256), torch.arange(256) / 127.5 - 1], dim=1)[:, :, None, None]
            whole = pixelcnn.mixture_log_probability(parameters.expand(256, -1, -1, -1, -1), pixel).exp().sum().item()
            total += whole
            assert 0 < whole < 1
    assert total < 1


def test_nll_is_in_bits_per_dimension(x):
    network = pixelcnn.PixelCNN(pixelcnn.PixelCNNSettings(channels=1, filters=4, blocks=1)).eval()
    with torch.no_grad():
        expected = -network.log_probability(x).double().numpy() / (math.log(2) * 32 * 32)
        np.testing.assert_allclose(network.nll(x).numpy(), expected, rtol=1e-5)


def flow(levels=1, channels=1):
    network = glow.Glow(glow.GlowSettings(channels=channels, levels=levels, flows=2, hidden=6)).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("levels, channels", [(1, 1), (2, 1), (2, 3)])
def test_a_flow_inverts(levels, channels):
    network, x = flow(levels, channels), torch.randn(3, channels, 8, 8).double()
    latents, _ = network(x)
    assert sum(t[0].numel() for t in latents) == x[0].numel()
    torch.testing.assert_close(network.inverse(latents), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("levels", [1, 2])
def test_the_log_determinant_is_autograd_s(levels):
    network, x = flow(levels), torch.randn(1, 1, 4, 4).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda v: torch.cat([t.flatten() for t in network(v.view(1, 1, 4, 4))[0]]), x.flatten()
    )
    latents, log_p = network(x)
    prior = -0.5 * (latents[-1] ** 2 + math.log(2 * math.pi)).sum()
    if levels == 2:  # what leaves at the first level has a mean and deviation from what stays
        stays = latents[-1]
        for step in reversed(network.steps[1]):
            for layer in reversed(step):
                stays = layer.inverse(stays)
        stays = torch.nn.functional.pixel_shuffle(stays, 2)
        mean, log_deviation = network.priors[0](stays).chunk(2, dim=1)
        prior = prior + torch.distributions.Normal(mean, log_deviation.exp()).log_prob(latents[0]).sum()
    expected = prior + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(log_p.squeeze(), expected, rtol=1e-8, atol=1e-8)


def test_actnorm_begins_with_mean_0_and_deviation_1():
    layer, x = glow.ActNorm(3), 5 + 2 * torch.randn(16, 3, 4, 4)
    y, _ = layer(x)
    assert y.mean(dim=(0, 2, 3)).abs().max() < 1e-4 and (y.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-2
    again = layer(x + 1)[0]
    assert again.mean() > 0.1, "set once, by the first batch"


def test_glow_s_density_integrates_to_one():
    """Over a plane: an image of 2 x 2 pixels is too many dimensions for a grid, so two of its latents are looked at."""
    network = flow(1)
    with torch.no_grad():
        samples = network.inverse([torch.randn(20_000, 4, 1, 1).double()])
        _, log_p = network(samples)
        # E_p[q / p] = 1 for any density q: here a normal one around the samples' mean.
        mean, deviation = samples.mean(dim=0, keepdim=True), 0.7 * samples.std(dim=0, keepdim=True)
        log_q = torch.distributions.Normal(mean, deviation).log_prob(samples).sum(dim=(1, 2, 3))
        assert (log_q - log_p).exp().mean().item() == pytest.approx(1, abs=0.1)


def test_typicality_of_one_and_of_pairs(images):
    detector = glow.TypicalityDetector(
        glow.TypicalitySettings(channels=1, fit="pad", levels=2, flows=1, hidden=4, batch_size=16, max_steps=2), verbose=False
    ).fit(load("digits", "train").images[:200])
    nll = detector.values(images)
    np.testing.assert_allclose(detector.scores(images)["typicality"], np.abs(nll - detector.mu_))
    np.testing.assert_allclose(detector.of_groups(images, 2), np.abs(nll[:6].reshape(3, 2).mean(axis=1) - detector.mu_))


# Ratios


def test_s_is_likelihood_minus_length(images):
    settings = complexity.ComplexitySettings(channels=1, fit="pad", filters=4, blocks=1, batch_size=16, max_steps=2)
    detector = complexity.ComplexityDetector(settings, verbose=False).fit(load("digits", "train").images[:200])
    nll = per_image(detector.network_.nll, images, CPU)
    lengths = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0]).save(buffer, "PNG", optimize=True)
        lengths.append(8 * buffer.tell() / 1024)
    np.testing.assert_allclose(detector.scores(images)["S"], nll - lengths)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_xl_loses_nothing_and_is_shorter_for_what_is_simpler(channels):
    imagecodecs = pytest.importorskip("imagecodecs", reason='needs imagecodecs: pip install ".[codecs]"')
    rng = np.random.default_rng(0)
    flat = np.full((32, 32, channels), 90, np.uint8)
    noise = rng.integers(0, 256, (32, 32, channels), dtype=np.uint8)
    bits = complexity.bits_per_dimension(np.stack([flat, noise]), "JPEGXL")
    assert bits[0] < 1 and bits[1] > 8  # noise cannot be shortened
    coded = imagecodecs.jpegxl_encode(noise.squeeze(), lossless=True, effort=5)
    assert bits[1] == pytest.approx(8 * len(coded) / noise.size)
    np.testing.assert_array_equal(imagecodecs.jpegxl_decode(coded), noise.squeeze())


def test_a_codec_that_is_not_here_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(ConfigError, match="imagecodecs"):
        complexity.ComplexityDetector(complexity.ComplexitySettings(codec="JPEGXL")).trainer()


def test_the_ratio_is_of_the_background_to_the_model(x):
    pair = likelihood_ratio.Pair(likelihood_ratio.LikelihoodRatioSettings(channels=1, filters=4, blocks=1)).eval()
    with torch.no_grad():
        expected = (pair.normal.nll(x) - pair.background.nll(x)).numpy()
        np.testing.assert_allclose(pair.ratio(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_background_learns_perturbed_images_and_the_model_the_images(x, monkeypatch):
    settings = likelihood_ratio.LikelihoodRatioSettings(channels=1, filters=4, blocks=1, mutation=0.3, precision="fp32")
    trainer, seen = likelihood_ratio.LikelihoodRatioTrainer(settings, CPU), {}

    def perturb(images, probability, rng):
        seen["perturbed"] = (images, probability)
        return -images

    monkeypatch.setattr(likelihood_ratio, "mutated", perturb)
    for name in ("normal", "background"):
        network = getattr(trainer.networks, name)
        nll = network.nll
        monkeypatch.setattr(network, "nll", lambda images, name=name, nll=nll: (seen.update({name: images}), nll(images))[1])
    trainer.update(x)
    images, probability = seen["perturbed"]
    assert torch.equal(images, x) and probability == 0.3
    assert torch.equal(seen["normal"], x) and torch.equal(seen["background"], -x)


def test_mutation_replaces_its_fraction_and_stays_on_the_levels():
    x = torch.full((4, 1, 64, 64), -1 + 2 * 100 / 255)
    rng = torch.Generator().manual_seed(0)
    changed = likelihood_ratio.mutated(x, 0.3, rng)
    levels = (changed + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3) and levels.min() >= 0 and levels.max() <= 255
    fraction = (levels.round() != 100).float().mean().item()
    assert fraction == pytest.approx(0.3 * 255 / 256, abs=0.02)
    assert torch.allclose(likelihood_ratio.mutated(x, 0.0, rng), x)


# One-class


def test_deep_svdd_has_no_bias_and_a_centre_off_zero(images):
    settings = deepsvdd.DeepSVDDSettings(
        channels=1, fit="pad", width=4, dim=6, batch_size=16, epochs=100, max_steps=20, pretraining=0.5, precision="fp32"
    )
    detector = deepsvdd.DeepSVDDDetector(settings, device="cpu", verbose=False).fit(load("digits", "train").images[:200])
    assert not any(name.endswith("bias") for name, _ in detector.network_.named_parameters())
    centre = detector.network_.centre.numpy()
    assert (np.abs(centre) >= 0.1 - 1e-6).all()
    expected = ((detector.features(images) - centre) ** 2).sum(axis=1)
    np.testing.assert_allclose(detector.scores(images)["distance"], expected, rtol=1e-3)


def test_deep_svdd_s_centre_is_the_mean_embedding_of_all_training_images(images, x):
    trainer = deepsvdd.DeepSVDDTrainer(deepsvdd.DeepSVDDSettings(**STAGES, dim=16, pretraining=0.5), CPU)
    embedding = trainer.networks["embedding"]
    with torch.no_grad():
        embedding.to_code.weight *= 10  # means near 0 and far from it
    mean = per_image(copy.deepcopy(embedding).eval(), images, CPU).mean(axis=0)
    pushed = np.where(np.abs(mean) < 0.1, np.copysign(0.1, mean), mean)
    assert len(set(np.sign(mean))) == 2 and 0 < (mean == pushed).sum() < 16
    trainer.prepare(images)
    trainer.total, trainer.step = 20, 10
    trainer.update(x[:4])
    np.testing.assert_allclose(embedding.centre.numpy(), pushed, rtol=1e-5)


STAGES = dict(channels=1, fit="pad", width=4, batch_size=16, epochs=100, max_steps=20, precision="fp32")


@pytest.mark.parametrize(
    "kind, changes, starts",
    [
        (deepsvdd.DeepSVDDDetector, dict(dim=6, pretraining=0.9), 18),
        (waic.WAICDetector, dict(members=2, nz=4, n_critic=1, cross_entropy=0.1), 18),
        (waic.WAICDetector, dict(members=2, nz=4, n_critic=1, cross_entropy=0.0), 0),
        (fencegan.FenceGANDetector, dict(nz=4, pretraining=0.88), 18),
    ],
)
def test_weights_of_a_preliminary_stage_are_never_the_best(kind, changes, starts, monkeypatch):
    from ama_core.training import loop

    falling = iter(range(100, 0, -1))
    monkeypatch.setattr(loop, "_auroc", lambda *_: next(falling) / 100)  # the first ones that may be kept are
    detector = kind(kind.Settings(**STAGES, **changes), device="cpu", verbose=False)
    trainer, kept = detector.trainer(), {}
    digits = load("digits", "train").images[:200]

    def follow(event):
        if event.kind == "validation" and trainer.best and not kept:
            kept.update(step=event.step, auroc=trainer.best_auroc)

    detector.fit(
        digits, trainer=trainer, validation_anomalies=load("noise", "test").images[:9], select="validated", on_event=follow
    )
    assert kept == {"step": starts + 1, "auroc": (100 - starts) / 100} and trainer.best_auroc == kept["auroc"]
    if kind is deepsvdd.DeepSVDDDetector:
        assert (detector.network_.centre.abs() >= 0.1 - 1e-6).all(), "the centre of the stage that has one"


def rates(trainer, steps, total):
    trainer.total, found = total, []
    for trainer.step in steps:
        found.append(trainer.learning_rate())
    return found


def test_the_paper_preset_of_deep_svdd_has_a_schedule_for_each_stage():
    trainer = deepsvdd.DeepSVDDTrainer(deepsvdd.DeepSVDDSettings.preset("paper", width=4), CPU)
    epoch = 225  # steps, of CIFAR-10's 45,000 images that are left to train on
    assert trainer.config.total_steps(45_000) == 500 * epoch
    steps = [epoch * e for e in (0, 249, 250, 251, 349, 350, 399, 400, 401, 499)]
    assert rates(trainer, steps, 500 * epoch) == pytest.approx([1e-4, 1e-4, *[1e-5] * 3, 1e-4, 1e-4, *[1e-5] * 3])
    assert rates(trainer, [250 * epoch - 1, 350 * epoch - 1, 400 * epoch - 1], 500 * epoch) == pytest.approx([1e-4, 1e-5, 1e-4])
    tiny = deepsvdd.DeepSVDDTrainer(deepsvdd.DeepSVDDSettings.preset("tiny", width=4, lr_schedule="steps"), CPU)
    assert rates(tiny, [0, 29, 30, 60, 90], 100) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6]), "others are of the whole run"


def test_the_paper_preset_of_pixelcnn_decays_a_little_at_each_step():
    for kind in (pixelcnn.PixelCNNTrainer, complexity.ComplexityTrainer, likelihood_ratio.LikelihoodRatioTrainer):
        trainer = kind(kind.Settings.preset("paper", filters=4, blocks=1), CPU)
        assert rates(trainer, [0, 1, 50_000], 50_000) == pytest.approx([1e-4, 0.999995e-4, 1e-4 * 0.999995**50_000], rel=1e-9)


def test_fence_gan_s_discriminator_learns_alone_for_15_of_115_epochs():
    trainer = fencegan.FenceGANTrainer(fencegan.FenceGANSettings.preset("paper", width=4), CPU)
    trainer.total = trainer.config.total_steps(54_000)
    alone = [trainer._draws(step) for step in range(trainer.total)].index(True)
    assert (alone, trainer.total) == (15 * 270, 115 * 270)


def test_the_centre_is_not_averaged():
    settings = deepsvdd.DeepSVDDSettings(**STAGES, dim=6, pretraining=0.5, average=0.99)
    detector = deepsvdd.DeepSVDDDetector(settings, device="cpu", verbose=False)
    trainer = detector.trainer()
    detector.fit(load("digits", "train").images[:200], trainer=trainer)
    assert torch.equal(detector.network_.centre.half(), trainer.networks["embedding"].centre.half())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_flow_that_diverges_in_its_last_step_is_not_fitted(tmp_path):
    """Losses tell of the weights before a step; nothing but scores tells of those after the last one."""
    settings = glow.GlowSettings(
        channels=1, fit="pad", levels=3, flows=4, hidden=8, batch_size=16, max_steps=1, lr=1.0, lr_schedule="constant"
    )
    digits = load("digits", "train").images[:200]
    for validation in (None, load("noise", "test").images[:9]):
        detector = glow.GlowDetector(settings, device="cpu", verbose=False)
        with pytest.raises(TrainingDiverged, match="not finite.*Lower lr"):
            detector.fit(digits, validation_anomalies=validation)
        with pytest.raises(NotFittedError):
            detector.save(tmp_path / "model")


def test_the_two_sided_score(images):
    settings = deepsvdd.DeepSVDDSettings(channels=1, fit="pad", width=4, dim=6, batch_size=16, epochs=100, max_steps=4)
    detector = deepsvdd.DeepSVDDDetector(settings, device="cpu", verbose=False).fit(load("digits", "train").images[:200])
    scores = detector.scores(images)
    np.testing.assert_allclose(scores["A_distance"], np.abs(scores["distance"] - detector.mu_) / detector.sigma_)


# Adversarial


def _alad(n, x, z):
    code, made = n.E(x), n.G(z)
    fake = n.D_xz(made, z) + n.D_xx(torch.cat([x, n.G(code)], dim=1)) + n.D_zz(z, n.E(made))
    return fake, n.D_xz(x, code) + n.D_xx(torch.cat([x, x], dim=1)) + n.D_zz(z, z)


def _waic(n, x, z):
    return sum(D(G(z)) for G, D in zip(n.G, n.D)), sum(D(x) for D in n.D)


# Trainer, its settings beside STAGES, its optimisers of what draws and of what judges, and what the latter say (n,) of drawn
# and of normal images, from networks, images and codes.
GAMES = {
    "alad": (alad.ALADTrainer, dict(nz=4), "EG", "D", _alad),
    "anogan": (anogan.AnoGANTrainer, dict(nz=4), "G", "D", lambda n, x, z: (n.D(n.G(z)), n.D(x))),
    "skipganomaly": (
        skipganomaly.SkipGANomalyTrainer,
        dict(weight_pixels=0.0, weight_features=0.0),
        "G",
        "D",
        lambda n, x, z: (n.D(n.G(x)), n.D(x)),
    ),
    "fencegan": (
        fencegan.FenceGANTrainer,
        dict(nz=4, alpha=0.99, beta=0.0, gamma=1.0, pretraining=0.0, lr_critic=1e-3),
        "G",
        "D",
        lambda n, x, z: (n["D"](n["G"](z)), n["D"](x)),
    ),
    "waic": (waic.WAICTrainer, dict(nz=4, members=2, n_critic=1, cross_entropy=0.0), "G", "D", _waic),
}


def play(kind, changes, frozen, look, x, step=0):
    """What `look` finds in the networks before and after some steps that leave the optimiser `frozen` out."""
    trainer = kind(kind.Settings(**STAGES | dict(lr=1e-3, lr_schedule="constant") | changes), CPU)
    trainer.optimisers[frozen].register_step_pre_hook(lambda optimiser, *_: optimiser.zero_grad())
    trainer.total, trainer.step, found = 20, step, []
    for steps in (0, 15):
        for _ in range(steps):
            trainer.update(x)
        with torch.no_grad():
            found.append(look(trainer.networks))
    return found


@pytest.mark.parametrize("name", GAMES)
def test_who_draws_and_who_judges_pull_in_opposite_directions(name, x):
    kind, changes, draws, judges, judged = GAMES[name]
    z = torch.randn(len(x), 4)
    for frozen, sign in ((judges, 1), (draws, -1)):
        both = play(kind, changes, frozen, lambda networks: judged(networks, x, z), x)
        before, after = ((drawn - normal).mean().item() for drawn, normal in both)
        assert sign * (after - before) > 0.05, (frozen, before, after)
        if name == "alad" and frozen == judges:
            assert both[1][1].mean() < both[0][1].mean(), "E takes part: its codes of normal images are to look drawn"
        if frozen == draws and kind is not waic.WAICTrainer:  # whose values have no zero
            drawn, normal = both[1]
            assert drawn.mean() < 0 < normal.mean(), "they are logits"


def test_waic_s_critics_learn_normal_from_drawn_by_cross_entropy_too(x):
    z = torch.randn(len(x), 4)
    _, (drawn, normal) = play(waic.WAICTrainer, dict(nz=4, members=2), "G", lambda n: _waic(n, x, z), x, step=19)
    assert drawn.mean() < 0 < normal.mean()


def test_fence_gan_s_dispersion_drives_generated_images_apart(x):
    z, changes = torch.randn(len(x), 4), dict(nz=4, beta=1000.0, pretraining=0.0)
    before, after = play(fencegan.FenceGANTrainer, changes, "D", lambda n: n["G"](z).std(dim=0).mean(), x)
    assert after > 1.1 * before


def test_alad_s_score(x):
    networks = alad.Networks(alad.ALADSettings(channels=1, nz=5, width=4)).eval()
    with torch.no_grad():
        f = networks.D_xx.features
        expected = (f(torch.cat([x, x], 1)) - f(torch.cat([x, networks.G(networks.E(x))], 1))).abs().sum(1)
        torch.testing.assert_close(networks.feature_distance(x), expected)


def test_skip_ganomaly_s_score(x):
    networks = skipganomaly.Networks(skipganomaly.SkipGANomalySettings(channels=1, width=4)).eval()
    with torch.no_grad():
        x_hat, f = networks.G(x), networks.D.features
        pixels = ((x - x_hat) ** 2).numpy().mean(axis=(1, 2, 3))
        features = ((f(x) - f(x_hat)) ** 2).numpy().mean(axis=1)
        np.testing.assert_allclose(networks.errors(x).numpy(), 0.9 * pixels + 0.1 * features, rtol=1e-4)


def test_anogan_finds_what_its_generator_draws(images):
    settings = anogan.AnoGANSettings(channels=1, nz=4, width=4, inversion_steps=150, inversion_lr=0.05)
    networks = anogan.Networks(settings).eval().requires_grad_(False)
    with torch.no_grad():
        drawn = anogan.to_images(networks.G(3 * torch.randn(3, 4)))
    few = settings.replace(inversion_steps=1)
    found, pictures = anogan.invert(networks, settings, drawn, CPU)
    assert (found < 0.9 * anogan.invert(networks, few, drawn, CPU)[0]).all() and pictures.shape == drawn.shape
    assert (found < anogan.invert(networks, settings, images, CPU)[0].min()).all()
    alone = anogan.invert(networks, settings, drawn[1:2], CPU)[0]
    np.testing.assert_allclose(alone, found[1:2], rtol=1e-2)


def test_fence_gan_s_dispersion_and_score(x):
    flat = x.flatten(1).numpy()
    expected = 1 / np.linalg.norm(flat - flat.mean(axis=0), axis=1).mean()
    assert fencegan.dispersion(x).item() == pytest.approx(expected, rel=1e-5)
    detector = fencegan.FenceGANDetector(fencegan.FenceGANSettings(channels=1, nz=4, width=4), device="cpu")
    detector.use_weights(fencegan.Critic(32, 1, 4, norm=False).state_dict())
    with torch.no_grad():
        probability = detector.network_(x).sigmoid().double().numpy()
    order = np.argsort(detector.values((x.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5).round().astype(np.uint8)))
    np.testing.assert_array_equal(order, np.argsort(1 - probability))


def test_waic_is_mean_minus_variance(x):
    members = waic.critics(waic.WAICSettings(channels=1, width=4, members=4)).eval()
    with torch.no_grad():
        logits = np.stack([critic(x).double().numpy() for critic in members])
        expected = -(logits.mean(axis=0) - logits.var(axis=0))
        np.testing.assert_allclose(waic.waic(members, x).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_gan_stage_ends_and_cross_entropy_begins():
    settings = waic.WAICSettings(
        channels=1, fit="pad", members=2, nz=4, width=4, n_critic=1, batch_size=16, epochs=100, max_steps=6, cross_entropy=0.5
    )
    trainer = waic.WAICTrainer(settings, CPU)
    from ama_core.training.loop import train

    moved, before = [], None
    for event in train(trainer, load("digits", "train").images[:64], log_every=1):
        if event.kind == "progress":
            now = torch.cat([p.detach().flatten() for p in trainer.networks.G.parameters()])
            moved.append(before is None or not torch.equal(now, before))
            before = now.clone()
    assert moved == [True] * 3 + [False] * 3, "generators stand still while the critics learn real from generated"
