"""The confirmation of the combined score: statistics against NumPy, scaling by medians, the rule on made figures."""

import json

import numpy as np
import pytest
import skimage.data
import torch

from ama_core.data import hold_out, load
from ama_core.detectors.ama import inference
from benchmarks import combined as study
from tests.detectors.ama.test_scores import ledoit_wolf, mahalanobis


@pytest.fixture(scope="module")
def parts(tiny_detector, digits):
    """Training images, the normals that M and T were fitted on, further held-out ones, and other images."""
    split = hold_out(len(digits), tiny_detector.settings.calibration_fraction, tiny_detector.settings.seed)
    train, held_out, more = (tiny_detector.prepared(digits.images[part]) for part in split)
    return train[:200], held_out, more, tiny_detector.prepared(load("textures", "test").images[:30])


@pytest.fixture(scope="module")
def score(tiny_detector, parts):
    return study.Scorer(tiny_detector, parts[0], parts[1])


def by_hand(detector, images) -> tuple[np.ndarray, np.ndarray]:
    """f(x, x) and the concatenated block means, from what hooks see while the engine computes features."""
    seen: list[np.ndarray] = []
    blocks = [module for module in detector.networks_.D.blocks if not isinstance(module, torch.nn.ReLU)]
    hooks = [block.register_forward_hook(lambda *call: seen.append(call[2].numpy().mean(axis=(2, 3)))) for block in blocks]
    f = np.concatenate([inference.features(detector.networks_, images[i : i + 1]) for i in range(len(images))])
    for hook in hooks:
        hook.remove()
    return f, np.array(seen).reshape(len(images), -1)


def test_the_statistics_are_the_critics(tiny_detector, parts):
    found = study.look(tiny_detector.networks_, parts[3])
    f, blocks = by_hand(tiny_detector, parts[3])
    assert blocks.shape == (30, 4 * tiny_detector.settings.width_critic)
    np.testing.assert_allclose(found.f, f, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.blocks, blocks, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.z, tiny_detector.encode(parts[3]), rtol=1e-4, atol=1e-6)


def test_f_is_fitted_on_held_out_normals_and_i_on_training_images(tiny_detector, parts, score):
    train, held_out, _, others = parts
    found = score(others)
    f, blocks = by_hand(tiny_detector, others)
    expected = mahalanobis(f.astype(float), *ledoit_wolf(by_hand(tiny_detector, held_out)[0].astype(float)))
    np.testing.assert_allclose(found["F"], expected, rtol=1e-2)
    expected = mahalanobis(blocks.astype(float), *ledoit_wolf(by_hand(tiny_detector, train)[1].astype(float)))
    np.testing.assert_allclose(found["I"], expected, rtol=1e-2)


def test_neighbours_are_of_the_training_codes(tiny_detector, parts, score):
    train, _, _, others = parts
    apart = np.linalg.norm(tiny_detector.encode(others)[:, None] - tiny_detector.encode(train)[None], axis=2)
    np.testing.assert_allclose(score(others)["kNN"], np.sort(apart, axis=1)[:, :5].mean(axis=1), rtol=1e-3)


def test_the_published_scores_are_the_engines(tiny_detector, parts, score):
    found, engine = score(parts[3]), tiny_detector.anomaly_scores(tiny_detector.raw_scores(parts[3]))
    assert set(found) == set(study.SCORES)
    for name in ("R", "A", "M", "T"):
        np.testing.assert_array_equal(found[name], engine[name])


def test_combinations_are_scaled_by_medians_of_held_out_normals(parts, score):
    of_held_out, found = score(parts[1]), score(parts[3])
    for name, other in (("C", "I"), ("C_F", "F")):
        expected = (found["T"] / np.median(of_held_out["T"])) ** 2 + (found[other] / np.median(of_held_out[other])) ** 2
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    np.testing.assert_allclose(study.combined(np.array([2.0, 3]), np.array([5.0, 0]), 2.0, 10.0), [1.25, 2.25])


def test_a_model_is_measured_against_every_set(tiny_detector, digits, score):
    others = [load(name, "test").take(np.arange(40)) for name in ("noise", "textures")]
    found = study.measured(tiny_detector, study.Task(digits, load("digits", "test"), iter(others)))
    assert list(found["sets"]) == ["noise", "textures"]
    normal = score.detector.scores(load("digits", "test").images)["T"]
    noise = score.detector.scores(others[0].images)["T"]
    exact = np.mean((noise[:, None] > normal) + 0.5 * (noise[:, None] == normal))
    assert found["sets"]["noise"]["auroc"]["T"] == pytest.approx(exact, abs=1e-5)
    assert found["normal"]["n"] == 500 and found["sets"]["noise"]["n"] == 40
    assert found["medians"]["T"] > 0
    assert json.loads(json.dumps(found)) == found


# The images


def test_crops_of_a_photograph_are_divided_by_place(monkeypatch):
    """A photograph whose pixels say their column: training crops end before the last quarter, test crops begin there."""
    columns = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
    monkeypatch.setattr(skimage.data, "brick", lambda: columns)
    train, test = study.crops("brick", "train").images, study.crops("brick", "test").images
    assert train.shape == (600, 32, 32, 1) and test.shape == (1000, 32, 32, 1)
    assert train.max() <= columns[0, 383] and test.min() >= columns[0, 384]


def test_no_test_crop_is_both_normal_and_painted():
    given = study.task(study.Job("grass"))
    painted = next(given.others)
    assert (len(given.test), len(painted), painted.name) == (500, 500, "made defects")
    original = study.crops("grass", "test").images
    np.testing.assert_array_equal(given.test.images, original[:500])
    changed = (painted.images != original[500:]).any(axis=(1, 2, 3))
    assert changed.mean() > 0.95
    assert [next(given.others).name for _ in range(2)] == ["brick", "gravel"]


def test_signs_to_train_on_are_not_tested(real_data):
    real_data("gtsrb-test")
    given = study.task(study.Job("gtsrb", 2))
    assert (len(given.train), len(given.test)) == (500, 250)
    assert set(given.train.labels) == set(given.test.labels) == {2}
    everything = load("gtsrb", "test")
    both = np.concatenate([given.train.images, given.test.images])
    as_bytes = sorted(image.tobytes() for image in both)
    assert as_bytes == sorted(image.tobytes() for image in everything.images[everything.labels == 2])
    rest = next(given.others)
    assert rest.name == "rest" and 2 not in rest.labels


def test_seed_0_of_every_normal_set_comes_first():
    seeds = [job.seed for job in study.jobs()]
    assert seeds == sorted(seeds)
    assert len({job.name for job in study.jobs()}) == len(seeds) == 13


# The rule


def made(gain: float, models: int = 8, pairs: int = 10) -> dict[str, dict[str, float]]:
    return {f"model{i}": {f"set{j}": gain for j in range(pairs)} for i in range(models)}


def test_a_clear_gain_is_confirmed():
    found = study.verdict(made(0.03), 4)
    assert found.words == "confirmed, on 8 models"
    assert (found.better, found.worse, found.pairs) == (80, 0, 80)
    assert found.mean == pytest.approx(0.03) and found.low == pytest.approx(0.03)


def test_one_pair_that_loses_much_refutes_it():
    gains = made(0.03)
    gains["model3"]["set2"] = -0.021
    found = study.verdict(gains, 4)
    assert found.failed == (3,) and found.where == "model3 against set2" and found.worst == -0.021
    gains["model3"]["set2"] = -0.019
    assert not study.verdict(gains, 4).failed


def test_three_times_as_many_pairs_must_gain():
    gains = made(0.03, pairs=4)
    for of in gains.values():
        of["set0"] = -0.003
    assert not study.verdict(gains, 4).failed  # 24 against 8
    gains["model0"]["set1"] = 0.002  # no more than the margin: counts for neither
    found = study.verdict(gains, 4)
    assert (found.better, found.worse, found.failed) == (23, 8, (1,))


def test_nothing_gained_is_not_confirmed():
    assert study.verdict(made(0.0), 4).failed == (1, 2)


def test_the_interval_is_over_models_not_pairs():
    """One model of eight gains on all of its thousand pairs: pairs alone would make that certain."""
    gains = made(0.0, models=7, pairs=10) | {"lucky": {f"set{j}": 0.08 for j in range(1000)}}
    found = study.verdict(gains, 4)
    assert found.mean == pytest.approx(0.01)
    assert found.low == 0.0 and found.failed == (2,)


def test_the_interval_agrees_with_the_normal_approximation(rng):
    means = rng.normal(1, 2, 400)
    low, high = study.bootstrap(means)
    half = 1.96 * means.std() / np.sqrt(400)
    assert low == pytest.approx(means.mean() - half, abs=0.03) and high == pytest.approx(means.mean() + half, abs=0.03)


@pytest.mark.parametrize("models, sets", [(5, 4), (8, 2)])
def test_too_little_is_not_decided(models, sets):
    assert "not decided" in study.verdict(made(0.03, models=models), sets).words


def test_the_report_has_verdicts_models_and_pairs(tmp_path):
    aurocs = dict.fromkeys(study.SCORES, 0.9) | {"C": 0.95, "kNN": 0.5}
    for job in study.jobs():
        stored = {"name": job.name, "job": vars(job), "sets": {"noise": {"n": 9, "auroc": aurocs}}}
        (tmp_path / f"{job.name}.json").write_text(json.dumps(stored))
    stored = study.read(tmp_path)
    assert [model["name"] for model in stored] == [job.name for job in study.jobs()]
    text = study.report(stored, pairs=True)
    assert "| C | 13, 0 of 13 | +0.0500 (+0.0500 to +0.0500) |" in text and "confirmed, on 13 models" in text
    assert "| kNN | 0, 13 of 13 |" in text and "not confirmed (condition 1, 2, 3 fails)" in text
    assert text.count("| noise |") == 13
