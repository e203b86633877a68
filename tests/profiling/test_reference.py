"""The plain reference and the product compute the same: otherwise a ratio of their speeds would mean nothing."""

import numpy as np
import pytest
import torch

from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.profiling.reference import Reference, Shortcuts
from ama_core.training.loop import train

CPU = torch.device("cpu")
ALL = Shortcuts(cached=True, joined=True, channels_last=True, fused=True, resampled=True)


@pytest.fixture
def config(tiny_config):
    return tiny_config.replace(
        n_critic=2,
        lambda_inter=0.2,
        lambda_gp=10.0,
        gp_fraction=0.5,
        inter_fraction=0.5,
        warmup=0.0,
        atypical="outward",
        precision="fp32",
        batch_size=12,
        max_steps=50,
        lr_schedule="constant",
        lr=1e-6,  # Adam's first steps are signs of gradients: next to none, so that no rounding error becomes a whole step
    )


@pytest.fixture
def images(config):
    size = (36, config.image_size, config.image_size, config.channels)
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def settle(networks):
    """The critic's power iterations, of which each way of calling does another number, at their end."""
    width = networks.config.channels * (2 if networks.config.reconstruction == "mirrored" else 1)
    x = torch.zeros(1, width, networks.config.image_size, networks.config.image_size)
    with torch.no_grad():
        for _ in range(300):
            networks.D(x)


def gradients(config, images, shortcuts, steps=1):
    """Last gradients of the product's first steps, and of the reference's on the same batches."""
    state, reference = AMATrainer(config, CPU), Reference(config, CPU, shortcuts)
    for networks in (state.networks, reference.networks):
        settle(networks)
    scale = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    order = np.random.default_rng([config.seed, 0]).permutation(len(images))
    events = train(state, images, log_every=1, sample_every=10**6)
    for step in range(steps):
        batch = scale[order[step * config.batch_size :][: config.batch_size - reference.n_negatives]]
        assert next(events).kind == "progress"
        reference.step(batch.contiguous(memory_format=reference.layout))
    return [{name: p.grad for name, p in n.named_parameters()} for n in (state.networks, reference.networks)]


def assert_same(first, second):
    assert first.keys() == second.keys()
    whole = torch.cat([g.flatten() for g in first.values()]).norm()
    for name, gradient in first.items():
        assert gradient.norm() > 0 or name.endswith("bias"), name
        assert (gradient - second[name]).norm() <= 1e-2 * gradient.norm() + 1e-6 * whole, name


@pytest.mark.parametrize("reconstruction", ["mirrored", "plain"])
def test_with_all_shortcuts_it_is_the_product(config, images, reconstruction):
    config = config.replace(reconstruction=reconstruction)
    assert_same(*gradients(config, images, ALL, steps=2))


@pytest.mark.parametrize("without", ["cached", "joined", "channels_last", "fused", "resampled"])
def test_every_shortcut_leaves_the_mathematics_alone(config, images, without):
    # Without negatives: those are decoded with batch statistics that every further call of G moves.
    config = config.replace(atypical="none")
    shortcuts = Shortcuts(**{**vars(ALL), without: False})
    assert_same(*gradients(config, images, shortcuts))


def test_the_reference_as_it_is_timed(config, images):
    assert_same(*gradients(config.replace(atypical="none"), images, Shortcuts()))


def test_another_loss_is_noticed(config, images):
    product, _ = gradients(config, images, ALL)
    _, reference = gradients(config.replace(lambda_inter=0.4), images, ALL)
    with pytest.raises(AssertionError):
        assert_same(product, reference)


def test_the_loader_gives_whole_batches_for_ever(config, images):
    reference = Reference(config, CPU)
    batches = reference.loader(images)
    for _ in range(8):
        batch = next(batches)
        assert batch.shape == (config.batch_size - reference.n_negatives, config.channels, 32, 32)
        assert -1 <= batch.min() < -0.9 and 0.9 < batch.max() <= 1
