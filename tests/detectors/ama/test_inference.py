"""One forward pass: what it says of an image must not depend on the company the image is in."""

import numpy as np
import pytest
import torch

from ama_core.detectors.ama import inference
from ama_core.detectors.ama.scores import r_score
from ama_core.tensors import BATCH, to_images, to_tensor


@pytest.fixture(scope="module")
def networks(tiny_detector):
    return tiny_detector.networks_


@pytest.fixture(scope="module")
def images(digits):
    return digits.images[:24]


def assert_same(a, b, tolerance=1e-5):
    for name, values in vars(a).items():
        other = getattr(b, name)
        scale = np.abs(other).max() + 1e-12
        np.testing.assert_allclose(values, other, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def test_statistics_by_hand(networks, images):
    """Straight from the definitions, image values scaled to [-1, 1]."""
    with torch.no_grad():
        x = torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)
        z = networks.E(x)
        x_hat = networks.G(z)
        f = [networks.D.feature_map(torch.cat([x, y], 1)).sum((2, 3)).numpy() for y in (x, x_hat)]
        d = [networks.D(torch.cat([x, y], 1)).numpy() for y in (x, x_hat)]
        outputs = [torch.cat([x, x], 1)]
        for block in list(networks.D.blocks)[:-1]:
            outputs.append(block(outputs[-1]))
        block_means = np.concatenate([h.numpy().mean(axis=(2, 3)) for h in outputs[1:]], axis=1)
    found = inference.statistics(networks, images)
    np.testing.assert_allclose(found.block_means, block_means, rtol=1e-4, atol=1e-4 * np.abs(block_means).max())
    tolerance = dict(rtol=1e-4, atol=1e-4 * np.abs(f[0]).max())
    np.testing.assert_allclose(found.difference, f[0] - f[1], **tolerance)
    np.testing.assert_allclose(found.d_real, d[0], **tolerance)
    np.testing.assert_allclose(found.d_recon, d[1], **tolerance)
    np.testing.assert_allclose(found.pixel_l1, (x - x_hat).abs().numpy().mean(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found.z_norm, np.sqrt((z.numpy() ** 2).sum(axis=1)), rtol=1e-4)
    assert len(found) == len(images) and all(v.dtype == np.float32 for v in vars(found).values())


def test_batch_equals_single(networks, images):
    together = inference.statistics(networks, images[:8])
    for i in range(8):
        assert_same(inference.statistics(networks, images[i : i + 1]), together[i : i + 1])


def test_deterministic(networks, images):
    first, second = (inference.statistics(networks, images) for _ in range(2))
    assert_same(first, second, tolerance=0)


def test_shuffling_changes_nothing(networks, images, rng):
    order = rng.permutation(len(images))
    assert_same(inference.statistics(networks, images[order]), inference.statistics(networks, images)[order])


@pytest.mark.parametrize("chunk", [1, 7, 24, 25])
def test_chunks(networks, images, monkeypatch, chunk):
    whole = inference.statistics(networks, images)
    codes, copies = inference.encode(networks, images), inference.reconstruct(networks, images)
    maps = inference.examine(networks, images).maps
    monkeypatch.setattr(inference, "BATCH", chunk)
    done = []
    assert_same(inference.statistics(networks, images, progress=lambda i, n: done.append((i, n))), whole)
    assert done[-1] == (24, 24) and len(done) == -(-24 // chunk)
    np.testing.assert_allclose(inference.encode(networks, images), codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(inference.examine(networks, images).maps, maps, rtol=1e-3, atol=1e-4 * maps.max())
    assert len(inference.features(networks, images)) == 24
    assert np.abs(inference.reconstruct(networks, images).astype(int) - copies.astype(int)).max() <= 1
    assert inference.decode(networks, codes).shape == copies.shape


def test_across_the_real_batch_boundary(networks, digits):
    n = BATCH + 3
    whole = inference.statistics(networks, digits.images[:n])
    assert len(whole) == n
    assert_same(inference.statistics(networks, digits.images[n - 5 : n]), whole[n - 5 :])


def test_networks_left_in_training_mode_are_put_right(networks, images):
    expected = inference.statistics(networks, images)
    before = {name: t.clone() for name, t in networks.state_dict().items()}
    networks.train()
    assert_same(inference.statistics(networks, images), expected, tolerance=0)
    assert not networks.training
    assert all(torch.equal(before[name], t) for name, t in networks.state_dict().items())


def test_decode_of_encode_is_the_reconstruction(networks, images):
    codes = inference.encode(networks, images)
    assert codes.dtype == np.float32 and codes.shape == (24, 8)
    found = inference.decode(networks, codes)
    assert found.dtype == np.uint8 and found.shape == images.shape
    assert np.abs(found.astype(int) - inference.reconstruct(networks, images).astype(int)).max() <= 1


def test_pixel_values_survive_the_way_there_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = to_tensor(every, torch.device("cpu"))
    assert x.shape == (1, 1, 16, 16) and x.min() == -1 and x.max() == 1
    np.testing.assert_array_equal(to_images(x), every)
    rgb = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_images(to_tensor(rgb, torch.device("cpu"))), rgb)
    assert to_images(torch.tensor([[[[-9.0, 9.0]]]])).ravel().tolist() == [0, 255]


def test_critic_maps_sum_to_r(networks, images):
    seen = inference.examine(networks, images)
    r = r_score(inference.statistics(networks, images).difference)
    assert seen.maps.shape == (24, 8, 8) and seen.maps.dtype == np.float32
    np.testing.assert_allclose(seen.maps.astype(np.float64).sum(axis=(1, 2)), r, rtol=1e-4, atol=1e-4 * r.max())


def test_critic_maps_by_hand(networks, images):
    """From the two feature maps: each channel's difference at a place counts with the sign of that channel's sum."""
    with torch.no_grad():
        x = to_tensor(images, torch.device("cpu"))
        real, recon = (networks.D.feature_map(torch.cat([x, y], 1)).numpy() for y in (x, networks.reconstruct(x)))
    delta = (real - recon).astype(np.float64)
    by_hand = np.zeros((24, 8, 8))
    for i, c in np.ndindex(delta.shape[:2]):
        by_hand[i] += (1 if delta[i, c].sum() > 0 else -1) * delta[i, c]
    seen = inference.examine(networks, images)
    np.testing.assert_allclose(seen.maps, by_hand, rtol=1e-2, atol=2e-3 * np.abs(by_hand).max())
    np.testing.assert_allclose(seen.features, real.sum(axis=(2, 3)), rtol=1e-4, atol=1e-4)


def test_one_pass_says_what_the_single_functions_say(networks, images):
    seen = inference.examine(networks, images)
    assert_same(seen.statistics, inference.statistics(networks, images), tolerance=0)
    np.testing.assert_array_equal(seen.reconstructions, inference.reconstruct(networks, images))
    np.testing.assert_allclose(seen.features, inference.features(networks, images), rtol=1e-6)
    one = inference.examine(networks, images[3:4])
    assert_same(one.statistics, seen.statistics[3:4])
    np.testing.assert_allclose(one.maps, seen.maps[3:4], rtol=1e-3, atol=1e-4 * np.abs(seen.maps).max())
