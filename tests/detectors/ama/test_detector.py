"""The detector contract, on a really trained model: scikit-learn's words must agree with each other."""

import numpy as np
import pytest
import torch

from ama_core import AMADetector, AnomalyDetector, Config
from ama_core.data import hold_out, load
from ama_core.detectors.ama.scores import SCORES, anomaly_scores, r_score
from ama_core.detectors.conformal import conformal_p_value
from ama_core.errors import ConfigError, DataError, NotFittedError, TrainingDiverged
from ama_core.evaluation.metrics import false_alarm_band


@pytest.fixture(scope="module")
def images(digits):
    return digits.images[:40]


@pytest.fixture(params=SCORES)
def detector(request, tiny_detector):
    """The trained model, deciding by each score in turn."""
    d = AMADetector(tiny_detector.config, score=request.param, device="cpu")
    vars(d).update({name: value for name, value in vars(tiny_detector).items() if name.endswith("_") or name[0] == "_"})
    return d


def test_it_is_an_anomaly_detector(tiny_detector):
    assert isinstance(tiny_detector, AnomalyDetector)


def test_scores_of_one_pass(tiny_detector, images):
    scores = tiny_detector.scores(images)
    assert set(scores) == {*SCORES, "log_A", "z_norm", "pixel_l1", *(f"p_{name}" for name in SCORES)}
    for name, values in scores.items():
        assert values.shape == (40,) and values.dtype == np.float64 and np.isfinite(values).all(), name
    turned = anomaly_scores(scores)
    for name in SCORES:
        calibration = tiny_detector.calibration_.scores[name]
        expected = [(1 + (calibration >= s).sum()) / (len(calibration) + 1) for s in turned[name]]
        np.testing.assert_allclose(scores[f"p_{name}"], expected)


def test_the_words_agree(detector, images):
    anomaly = detector.anomaly_score(images)
    np.testing.assert_array_equal(anomaly, anomaly_scores(detector.scores(images))[detector.score])
    np.testing.assert_array_equal(detector.score_samples(images), -anomaly)
    p = detector.p_value(images)
    np.testing.assert_array_equal(p, conformal_p_value(anomaly, detector.calibration_scores_))
    np.testing.assert_array_equal(p, detector.scores(images)[f"p_{detector.score}"])
    for alpha in (0.02, 0.05, 0.3, 0.5):
        flagged = detector.predict(images, alpha) == -1
        np.testing.assert_array_equal(flagged, p <= alpha)
        np.testing.assert_array_equal(flagged, detector.decision_function(images, alpha) < 0)
    assert set(np.unique(detector.predict(images, 0.5))) == {-1, 1}
    # More normal is higher, and lowers no other word.
    order = np.argsort(anomaly)
    assert (np.diff(detector.score_samples(images)[order]) <= 0).all() and (np.diff(p[order]) <= 0).all()


def test_default_false_alarm_rate(tiny_detector, images):
    assert tiny_detector.false_alarm_rate == tiny_detector.config.false_alarm_rate == 0.05
    np.testing.assert_array_equal(tiny_detector.predict(images), tiny_detector.predict(images, 0.05))


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2, float("nan")])
def test_impossible_false_alarm_rates(tiny_detector, images, alpha):
    with pytest.raises(DataError, match="false-alarm"):
        tiny_detector.predict(images, alpha)


def test_the_paper_s_scores(tiny_detector, images):
    scores = tiny_detector.scores(images)
    np.testing.assert_array_equal(tiny_detector.r_score(images), scores["R"])
    np.testing.assert_array_equal(tiny_detector.a_score(images), scores["A"])


def test_batch_equals_single_and_shuffling_permutes(tiny_detector, images, rng):
    together = tiny_detector.scores(images)
    order = rng.permutation(len(images))
    shuffled = tiny_detector.scores(images[order])
    for name in ("R", "log_A", "M", "T", "C", "z_norm", "pixel_l1"):
        np.testing.assert_allclose(shuffled[name], together[name][order], rtol=1e-4, atol=1e-5)
        singly = [tiny_detector.scores(images[i : i + 1])[name][0] for i in range(3)]
        np.testing.assert_allclose(singly, together[name][:3], rtol=1e-4, atol=1e-5)


def test_twice_is_the_same(tiny_detector, images):
    first, second = (tiny_detector.scores(images) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_uint8_and_float_tensors_give_the_same(tiny_detector, images):
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    as_array, as_tensor = tiny_detector.scores(images), tiny_detector.scores(tensor)
    for name in as_array:
        np.testing.assert_array_equal(as_array[name], as_tensor[name])


def test_other_sizes_and_colours_are_prepared(tiny_detector, images):
    colour = np.repeat(images, 3, axis=3)
    np.testing.assert_allclose(tiny_detector.r_score(colour), tiny_detector.r_score(images), rtol=1e-5)
    padded = images[:, 2:30, 2:30]  # 28x28, as MNIST comes
    expected = np.zeros_like(images)
    expected[:, 2:30, 2:30] = padded
    np.testing.assert_allclose(tiny_detector.r_score(padded), tiny_detector.r_score(expected), rtol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((0, 32, 32, 1), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((1, 32, 32, 2), np.uint8),
        np.zeros((1, 32, 32, 4), np.uint8),
        np.zeros((1, 32, 32, 1), np.int64),
        np.full((1, 32, 32, 1), None, object),
        torch.full((1, 1, 32, 32), float("nan")),
        torch.full((1, 1, 32, 32), 1.5),
        torch.full((1, 1, 32, 32), -0.5),
        torch.zeros(1, 5, 32, 32),
        "no such data set",
        None,
    ],
    ids=lambda bad: f"{type(bad).__name__}-{getattr(bad, 'dtype', '')}-{tuple(getattr(bad, 'shape', ()))}",
)
def test_bad_images_say_so(tiny_detector, bad):
    for call in (tiny_detector.scores, tiny_detector.predict, tiny_detector.reconstruct, tiny_detector.encode):
        with pytest.raises(DataError):
            call(bad)


def test_encode_decode_reconstruct(tiny_detector, images):
    z = tiny_detector.encode(images)
    assert z.shape == (40, 8) and z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), tiny_detector.scores(images)["z_norm"], rtol=1e-4)
    copies = tiny_detector.reconstruct(images)
    assert copies.shape == images.shape and copies.dtype == np.uint8
    assert np.abs(tiny_detector.decode(z).astype(int) - copies.astype(int)).max() <= 1
    assert tiny_detector.maps(images).shape == (40, 8, 8)


@pytest.mark.parametrize("z", [np.zeros(8), np.zeros((1, 7)), np.zeros((0, 8)), np.full((1, 8), np.nan)])
def test_bad_codes(tiny_detector, z):
    with pytest.raises(DataError, match="Codes"):
        tiny_detector.decode(z)


def test_not_fitted(tmp_path, images):
    d = AMADetector(Config(channels=1))
    calls = [
        d.anomaly_score,
        d.score_samples,
        d.p_value,
        d.predict,
        d.decision_function,
        d.scores,
        d.r_score,
        d.a_score,
        d.encode,
        d.reconstruct,
        d.maps,
        d.statistics,
    ]
    for call in calls:
        with pytest.raises(NotFittedError, match="fit"):
            call(images)
    with pytest.raises(NotFittedError):
        d.decode(np.zeros((1, 128)))
    with pytest.raises(NotFittedError):
        d.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_unknown_score():
    """As scikit-learn has it, said when it is first used, and not when it is set."""
    with pytest.raises(ConfigError, match="score"):
        AMADetector(score="Q").fit(np.zeros((20, 32, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match="score"):
        AMADetector.load("digits", score="Q")


@pytest.mark.parametrize("seed", [0, 5])
def test_calibration_images_were_never_trained_on(digits, images, tiny_config, monkeypatch, seed):
    """mu and sigma come from training images, M's statistics and the p-values from two further disjoint parts; what is looked
    at while training is none of those that p-values come from.
    """
    from ama_core.detectors import base as module

    seen = {"scored": []}
    original = AMADetector.fit_statistics, AMADetector.raw_scores

    def spy_train(state, images, *, validation, watch, **options):
        seen.update(trained=images, validated=validation.normals, watched=watch.normals)
        return iter(())

    def spy_fit(self, train, held_out):
        seen.update(train=train, statistics=held_out)
        return original[0](self, train, held_out)

    def spy_scores(self, images, progress=None):
        seen["scored"].append(images)
        return original[1](self, images, progress)

    monkeypatch.setattr(module, "train", spy_train)
    monkeypatch.setattr(AMADetector, "fit_statistics", spy_fit)
    monkeypatch.setattr(AMADetector, "raw_scores", spy_scores)
    parts = hold_out(len(digits), 0.1, seed)
    fitted = AMADetector(tiny_config.replace(seed=seed), device="cpu")
    fitted.fit(digits.images, validation_anomalies=255 - images, watched=255 - images)
    for name, part in (("trained", parts.train), ("validated", parts.statistics), ("watched", parts.statistics)):
        np.testing.assert_array_equal(seen[name], digits.images[part], err_msg=name)
    for again in (lambda: None, lambda: fitted.calibrate(digits.images)):
        again()
        np.testing.assert_array_equal(seen.pop("train"), digits.images[parts.train])
        np.testing.assert_array_equal(seen.pop("statistics"), digits.images[parts.statistics])
        np.testing.assert_array_equal(seen["scored"].pop(), digits.images[parts.calibration])
        assert not seen["scored"] and len(fitted.calibration_scores_) == len(parts.calibration)


def test_which_images_each_statistic_is_of(tiny_detector, digits):
    parts = hold_out(len(digits), 0.1, tiny_detector.config.seed)
    of_train, held_out = (tiny_detector.statistics(digits.images[part]) for part in (parts.train, parts.statistics))
    c = tiny_detector.calibration_
    np.testing.assert_allclose(c.train_r, r_score(of_train.difference))
    assert (c.mu, c.sigma) == pytest.approx((c.train_r.mean(), c.train_r.std()))
    np.testing.assert_allclose(c.gaussian_m.mean, held_out.difference.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(c.combination.gaussian_i.mean, of_train.block_means.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_fit_says_how_it_was_done(tiny_detector):
    training = tiny_detector.info_["training"]
    assert training["n_train"] == 1167 and training["steps"] == tiny_detector.config.max_steps
    assert training["precision"] == "fp32" and training["select"] == "last"
    assert training["versions"]["torch"] == torch.__version__


def test_too_few_images_to_calibrate(tiny_config, images):
    with pytest.raises(DataError, match="not enough for calibration"):
        AMADetector(tiny_config, device="cpu").fit(images[:5])


def test_the_false_alarm_rate_on_new_normal_images(tiny_detector):
    """Real digits that were in no split of the training: alpha, as exactly as calibration on 65 images allows."""
    scores = tiny_detector.scores(load("digits", "test").images)
    low, high = false_alarm_band(0.2, 500, 65, level=0.9999)
    for name in SCORES:
        assert low <= (scores[f"p_{name}"] <= 0.2).mean() <= high, name


def test_ranking_survives_a_rate_that_can_flag_nothing(detector, images, rng):
    """The tiny model has 65 calibration images: at alpha = 0.001 nothing can be flagged, and that is said."""
    noise = rng.integers(0, 256, (10, 32, 32, 1), dtype=np.uint8)
    both = np.concatenate([images, noise])
    with pytest.warns(UserWarning, match="0.001 nothing can be flagged.*0.0152"):
        decision = detector.decision_function(both, 0.001)
    assert np.isfinite(decision).all() and (decision > 0).all()
    anomaly = detector.anomaly_score(both)
    np.testing.assert_array_equal(np.argsort(decision, kind="stable"), np.argsort(-anomaly, kind="stable"))
    with pytest.warns(UserWarning):
        assert (detector.predict(both, 0.001) == 1).all()


@pytest.mark.parametrize("select", ["validate", "validated"])
def test_which_weights_are_kept_is_checked_before_the_first_step(tiny_config, digits, select):
    events = []
    with pytest.raises(ConfigError, match="last or validated|validation_anomalies"):
        AMADetector(tiny_config, device="cpu").fit(digits.images[:100], select=select, on_event=events.append)
    assert not events


def test_weights_whose_scores_are_not_finite_are_said_to_have_diverged(tiny_detector, digits, tmp_path):
    tiny_detector.save(tmp_path / "m")
    broken = AMADetector.load(tmp_path / "m", device="cpu")
    with torch.no_grad():
        next(broken.networks_.E.parameters()).mul_(float("nan"))
    with pytest.raises(TrainingDiverged, match="Lower lr"):
        broken.calibrate(digits.images)
