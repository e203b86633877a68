"""The nearest training images: distances against plain NumPy, nothing held out among them, damaged files are sentences."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from ama_core import AMADetector
from ama_core.analysis import neighbours
from ama_core.analysis.neighbours import FILE, Neighbours
from ama_core.data import load
from ama_core.detectors.registry import detector_class
from ama_core.errors import BundleError, DataError
from ama_core.runs.spec import config_for


@pytest.fixture(scope="module")
def stored(tiny_bundle) -> Neighbours:
    found = neighbours.read_neighbours(tiny_bundle)
    assert found is not None
    return found


def test_measuring_a_run_stores_images_that_were_trained_on(stored, digits, tiny_config):
    """Held out are the first tenth of the seeded permutation."""
    assert len(stored) == 1167 and stored.n_total == len(digits) and stored.features.shape == (1167, tiny_config.width_critic)
    held_out = np.random.default_rng(tiny_config.seed).permutation(1297)[:130]
    assert not set(stored.index) & set(held_out) and len(set(stored.index)) == 1167
    assert np.array_equal(stored.labels, digits.labels[stored.index])


def test_features_are_standardised_critic_features(stored, tiny_bundle, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    features = detector.features(digits.images[stored.index])
    by_hand = (features - features.mean(axis=0)) / np.where(features.std(axis=0) > 0, features.std(axis=0), 1)
    np.testing.assert_allclose(stored.features, by_hand, rtol=2e-3, atol=5e-3)
    pairs = np.sqrt(((stored.features[:, None] - stored.features[None]) ** 2).sum(axis=2))
    np.fill_diagonal(pairs, np.inf)
    assert stored.typical == pytest.approx(np.median(pairs.min(axis=1)), rel=1e-3)


def test_nearest_by_hand(stored, tiny_bundle, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    test = load("digits", "test").images[:6]
    features = detector.features(test)
    positions, distances = stored.nearest(features, 5)
    assert positions.shape == distances.shape == (6, 5)
    for row, feature in enumerate(features):
        by_hand = np.sqrt(((stored.features - (feature - stored.mean) / stored.scale) ** 2).sum(axis=1))
        np.testing.assert_allclose(distances[row], np.sort(by_hand)[:5], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(by_hand[positions[row]], distances[row], rtol=1e-3, atol=1e-3)
    own, zero = stored.nearest(detector.features(digits.images[stored.index[7:8]]), 1)
    assert own[0, 0] == 7 and zero[0, 0] < 0.05
    np.testing.assert_array_equal(neighbours.neighbour_images(detector, stored)[7], digits.images[stored.index[7]])


def test_a_small_sample_gives_what_it_has(stored):
    few = replace(stored, features=stored.features[:3], index=stored.index[:3], labels=stored.labels[:3])
    assert few.nearest(stored.mean[None], 5)[0].shape == (1, 3)
    for wrong in (stored.mean, stored.mean[None, 1:], stored.mean[None] * np.nan):
        with pytest.raises(DataError, match="Features"):
            few.nearest(wrong)


def test_one_class_models_know_their_class_alone(tiny_bundle, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    detector.info_ = {"normal": {**detector.info_["normal"], "label": 3, "n": int((digits.labels == 3).sum())}}
    found = neighbours.measure_neighbours(detector)
    assert set(found.labels) == {3} and found.n_total == len(digits)


def test_the_seed_draws_and_the_limit_holds(tiny_bundle, monkeypatch):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    monkeypatch.setattr(neighbours, "MAX_TRAIN", 50)
    first, again, other = (neighbours.measure_neighbours(detector, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 50 and np.array_equal(first.index, again.index) and not np.array_equal(first.index, other.index)
    monkeypatch.setattr(neighbours, "MAX_BYTES", 2 * detector.config.width_critic * 10)
    assert len(neighbours.measure_neighbours(detector)) == 10


def test_other_training_images_are_refused(tiny_bundle, stored):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    with pytest.raises(DataError, match="not the 7 images used"):
        neighbours.neighbour_images(detector, replace(stored, n_total=7))
    detector.info_ = {"normal": {**detector.info_["normal"], "n": 5}}
    with pytest.raises(DataError, match="1,297 images here and had 5"):
        neighbours.measure_neighbours(detector)


def test_one_training_image_has_no_neighbour(tmp_path, rng):
    np.savez(tmp_path / "few.npz", images=rng.integers(0, 256, (4, 32, 32, 1), dtype=np.uint8))
    settings = config_for("digits", "tiny", "nearest", calibration_fraction=0.5)
    found = neighbours.measure_neighbours(detector_class("nearest")(settings, device="cpu").fit(str(tmp_path / "few.npz")))
    assert len(found) == 1 and found.typical == 0


def test_written_and_read_back(stored, tmp_path):
    assert neighbours.read_neighbours(tmp_path) is None
    neighbours.write_neighbours(tmp_path, stored)
    back = neighbours.read_neighbours(tmp_path)
    for name in ("features", "mean", "scale", "index", "labels", "n_total", "typical"):
        assert np.array_equal(getattr(back, name), getattr(stored, name)), name
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "harm",
    [
        dict(index=lambda s: s.index[:-1]),
        dict(index=lambda s: s.index - 10**6),
        dict(index=lambda s: s.index + 10**6),
        dict(labels=lambda s: s.labels[1:]),
        dict(mean=lambda s: s.mean[1:]),
        dict(scale=lambda s: s.scale * 0),
        dict(features=lambda s: s.features * np.nan),
        dict(features=lambda s: s.features[:0], index=lambda s: s.index[:0], labels=lambda s: s.labels[:0]),
        dict(typical=lambda s: float("nan")),
    ],
)
def test_parts_that_do_not_fit_are_a_damaged_file(stored, tmp_path, harm):
    neighbours.write_neighbours(tmp_path, replace(stored, **{name: change(stored) for name, change in harm.items()}))
    with pytest.raises(BundleError, match="is damaged.*ama_core measure"):
        neighbours.read_neighbours(tmp_path)


def test_bytes_that_are_no_archive_are_a_damaged_file(tiny_bundle, tmp_path):
    whole = (tiny_bundle / FILE).read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(BundleError, match="is damaged"):
            neighbours.read_neighbours(tmp_path)


def test_a_newer_version_says_so(tiny_bundle, tmp_path, monkeypatch):
    shutil.copy(tiny_bundle / FILE, tmp_path)
    monkeypatch.setattr(neighbours, "VERSION", 2)
    with pytest.raises(BundleError, match="version 1, this software reads version 2"):
        neighbours.read_neighbours(tmp_path)
