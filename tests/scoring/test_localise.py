"""Maps of places: the arithmetic against NumPy, false alarms on unseen normal images, storage, and who has none."""

import numpy as np
import pytest

from ama_core import AMADetector, load_detector
from ama_core.data import ImageSet
from ama_core.detectors.base import Examination
from ama_core.detectors.nearest import NearestDetector
from ama_core.detectors.pca import PCADetector
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.runs import measuring
from ama_core.scoring import localise
from ama_core.scoring.localise import (
    PRIOR,
    Standard,
    find_localiser,
    fit_localiser,
    held_out_images,
    raw_maps,
    read_localiser,
    write_localiser,
)
from ama_core.storage.bundle import PRETRAINED


@pytest.fixture(scope="module")
def pca(digits):
    """PCA of a few digits: a detector that reconstructs and does not localise."""
    return PCADetector(PCADetector.Settings(channels=1, calibration_fraction=0.5)).fit(digits.images[:300])


def test_pixel_map_is_the_mean_absolute_difference_of_the_channels(rng):
    images, drawn = rng.integers(0, 256, (2, 3, 4, 4, 3), np.uint8)
    found = raw_maps(Examination(images, {}, reconstructions=drawn))
    assert set(found) == {"pixel"}
    expected = np.abs(images.astype(int) - drawn.astype(int)).sum(axis=3) / 3
    np.testing.assert_allclose(found["pixel"], expected, rtol=1e-6)


def test_standard_against_numpy(rng):
    maps = rng.gamma(2.0, rng.uniform(0.5, 3, (5, 5)), (40, 5, 5))
    standard = Standard.fit(maps)
    variance = ((maps - maps.mean(axis=0)) ** 2).sum(axis=0) / 40
    sd = np.sqrt((40 * variance + PRIOR * variance.sum() / 25) / (40 + PRIOR))
    np.testing.assert_allclose(standard.mean, maps.sum(axis=0) / 40, rtol=1e-5)
    np.testing.assert_allclose(standard.sd, sd, rtol=1e-5)
    largest = [max(((one - maps.mean(axis=0)) / sd).ravel()) for one in maps]
    assert standard.typical == pytest.approx(float(np.median(largest)), rel=1e-4)
    np.testing.assert_allclose(standard.of(maps[:2]), (maps[:2] - maps.mean(axis=0)) / sd, rtol=1e-3, atol=1e-4)


def test_a_place_that_never_differs_is_no_infinite_surprise(rng):
    maps = rng.uniform(0, 1, (20, 4, 4))
    maps[:, 0] = 0.0
    standard = Standard.fit(maps)
    pooled = maps.var(axis=0).mean()
    np.testing.assert_allclose(standard.sd[0], np.sqrt(PRIOR * pooled / (20 + PRIOR)), rtol=1e-5)
    flat = Standard.fit(np.zeros((5, 4, 4)))
    assert np.isfinite(flat.of(np.zeros((1, 4, 4)))).all() and flat.typical == 1.0


def test_maps_and_thresholds_of_ama_against_numpy(tiny_bundle, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    first, second, new = digits.images[:60], digits.images[60:120], digits.images[120:125]
    localiser = fit_localiser(detector, first, second)
    assert localiser.names == ("pixel", "critic", "combined")

    def maps(images):
        critic = detector.maps(images)
        difference = np.abs(images.astype(float) - detector.reconstruct(images))[..., 0]
        return {"pixel": difference, "critic": np.kron(critic, np.ones((1, 32 // critic.shape[1], 32 // critic.shape[1])))}

    def z(images):
        of_first, found = maps(first), {}
        for name, values in maps(images).items():
            var = of_first[name].var(axis=0)
            sd = np.sqrt((60 * var + PRIOR * var.mean()) / (60 + PRIOR))
            found[name] = (values - of_first[name].mean(axis=0)) / sd
        return found

    typical = {name: np.median(values.max(axis=(1, 2))) for name, values in z(first).items()}
    expected, calibration = (
        found | {"combined": found["pixel"] / typical["pixel"] + found["critic"] / typical["critic"]}
        for found in (z(new), z(second))
    )
    found = localiser.maps(detector.examine(new))
    for name in localiser.names:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=2e-3)
        largest = np.sort(calibration[name].max(axis=(1, 2)))
        # p <= 0.05 of n = 60: 1 + #{>= s} <= 3.05, so at most two of the calibration maxima reach s
        assert localiser.threshold(name, 0.05) == pytest.approx(largest[-3], rel=2e-3)
        np.testing.assert_array_equal(localiser.marks(name, found[name], 0.05), found[name] > localiser.threshold(name, 0.05))
    with pytest.raises(ConfigError, match="no map 'other'.*pixel, critic, combined"):
        localiser.threshold("other", 0.05)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.3])
def test_at_most_alpha_of_unseen_normal_images_get_a_mark(pca, alpha):
    """Over many draws of the calibration, the mean fraction of marked normal images: alpha, less what rounding takes."""
    rng = np.random.default_rng(5)
    base = rng.uniform(40, 200, (32, 32))

    def normal(n):
        noise = rng.normal(0, rng.uniform(2, 20, (n, 1, 1)), (n, 32, 32))
        return np.clip(base + noise, 0, 255).astype(np.uint8)[..., None]

    rates = []
    for _ in range(30):
        localiser = fit_localiser(pca, normal(40), normal(99))
        found = localiser.maps(pca.examine(normal(100)))["pixel"]
        rates.append(localiser.marks("pixel", found, alpha).any(axis=(1, 2)).mean())
    spread = np.std(rates) / np.sqrt(len(rates))
    assert alpha - 4 * spread - 0.001 <= np.mean(rates) <= alpha + 4 * spread


def test_marks_lie_on_what_was_painted(pca, digits):
    images = digits.images[300:320].copy()
    images[:, 2:6, 2:6] = 255
    localiser = fit_localiser(pca, *held_out_images(pca, digits.images[:300]))
    marks = localiser.marks("pixel", localiser.maps(pca.examine(images))["pixel"], 0.05)
    assert localiser.names == ("pixel",) and localiser.default == "pixel"
    assert marks[:, 2:6, 2:6].any(axis=(1, 2)).mean() > 0.9
    assert marks[:, 2:6, 2:6].mean() > 10 * marks[:, 16:].mean()


def test_too_small_a_rate_marks_nothing(pca, digits):
    localiser = fit_localiser(pca, digits.images[:20], digits.images[20:30])
    maps = localiser.maps(pca.examine(255 - digits.images[:3]))["pixel"]
    assert "1/11 = 0.0909" in localiser.reach_warning(0.05)
    assert localiser.threshold("pixel", 0.05) == np.inf and not localiser.marks("pixel", maps, 0.05).any()
    assert localiser.marks("pixel", maps, 0.1).any()


def test_held_out_images_are_those_of_the_training(digits):
    detector = PCADetector(PCADetector.Settings(channels=1, calibration_fraction=0.2)).fit(digits.images[:200])
    statistics, calibration = held_out_images(detector, digits.images[:200])
    assert len(statistics) == len(calibration) == 20
    expected = detector.anomaly_score(calibration)
    np.testing.assert_allclose(np.sort(expected), np.sort(detector.calibration_scores_), rtol=1e-6)


def test_stored_maps_are_read_again_and_only_of_the_same_training(tmp_path, tiny_bundle, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    localiser = fit_localiser(detector, digits.images[:30], digits.images[30:60])
    assert read_localiser(tmp_path, detector) is None
    write_localiser(tmp_path, localiser, detector)
    again = read_localiser(tmp_path, detector)
    assert again.names == localiser.names
    for name in localiser.names:
        assert again.threshold(name, 0.1) == localiser.threshold(name, 0.1)
    found, expected = (each.maps(detector.examine(digits.images[:2])) for each in (again, localiser))
    np.testing.assert_array_equal(found["combined"], expected["combined"])
    detector.held_out_scores_ = {name: values + 1 for name, values in detector.held_out_scores_.items()}
    assert read_localiser(tmp_path, detector) is None  # the folder holds another training now


def test_damaged_maps_are_refused_in_a_sentence(tmp_path, tiny_bundle, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    localiser = fit_localiser(detector, digits.images[:30], digits.images[30:60])
    bad = Standard(localiser.standards["pixel"].mean[:5], localiser.standards["pixel"].sd, 1.0)
    write_localiser(tmp_path, localise.Localiser({"pixel": bad}, {"pixel": localiser.maxima["pixel"]}), detector)
    with pytest.raises(BundleError, match=r"where.npz is damaged.*shape"):
        read_localiser(tmp_path, detector)
    (tmp_path / "where.npz").write_bytes(b"PK nonsense")
    with pytest.raises(BundleError, match="where.npz is damaged"):
        find_localiser(detector, tmp_path)


def test_an_old_bundle_gets_its_maps_from_its_training_images_or_says_that_they_are_missing(tmp_path, digits, rng):
    """A bundle without where.npz, as all were before."""
    images = rng.integers(0, 256, (60, 32, 32, 1), np.uint8)
    source = tmp_path / "own.npz"
    np.savez(source, images=images)
    detector = PCADetector(PCADetector.Settings(channels=1, calibration_fraction=0.3)).fit(str(source))
    detector.save(tmp_path / "model")
    loaded = load_detector(tmp_path / "model", device="cpu")
    localiser = find_localiser(loaded, tmp_path / "model")
    assert len(localiser.maxima["pixel"]) == len(loaded.calibration_scores_)
    np.savez(source, images=255 - images)
    with pytest.raises(DataError, match="are not those that it was trained on"):
        find_localiser(loaded, tmp_path / "model")
    source.unlink()
    with pytest.raises(DataError, match=r"no where\.npz.*ama_core measure.*not available here"):
        find_localiser(loaded, tmp_path / "model")


def test_measuring_stores_the_maps(tmp_path, digits):
    source = tmp_path / "own.npz"
    np.savez(source, images=digits.images[:120])
    detector = PCADetector(PCADetector.Settings(channels=1, calibration_fraction=0.3)).fit(str(source))
    detector.save(tmp_path / "model")
    measuring.measure_run(detector, tmp_path / "model")
    source.unlink()  # from here on only what is stored helps
    assert find_localiser(load_detector(tmp_path / "model"), tmp_path / "model").names == ("pixel",)


def test_a_detector_of_whole_images_says_so(digits, tmp_path):
    detector = NearestDetector(NearestDetector.Settings(channels=1)).fit(digits.images[:100])
    with pytest.raises(ConfigError, match="cannot localise anomalies"):
        find_localiser(detector, tmp_path)


@pytest.mark.parametrize("name", ["photos", "digits"])
def test_bundled_models_carry_their_maps(name):
    """And a fraction of unseen normal images near alpha gets a mark."""
    from ama_core.data import load

    detector = load_detector(name, device="cpu")
    localiser = read_localiser(PRETRAINED / name, detector)
    test: ImageSet = load(name, "test")
    found = localiser.maps(detector.examine(test.images[:300]))
    rate = localiser.marks("pixel", found["pixel"], 0.1).any(axis=(1, 2)).mean()
    assert 0.03 < rate < 0.2
