"""The protocol: AUROC, AUPRC and FPR95 by their definitions, who is tested against whom, and the contract of the result."""

import copy
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ama_core import AMADetector
from ama_core.data import load, load_any
from ama_core.detectors.ama.scores import SCORES, anomaly_scores
from ama_core.errors import DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import detection_metrics
from ama_core.evaluation.protocol import evaluate
from ama_core.storage.bundle import StoredScores


def auroc_by_pairs(normal, anomalous) -> float:
    """The part of pairs in which the anomaly scores higher; a tie counts half."""
    wins = [(a > n) + 0.5 * (a == n) for n, a in itertools.product(normal, anomalous)]
    return sum(wins) / len(wins)


def fpr95_by_definition(normal, anomalous) -> float:
    """The fewest false alarms of any threshold that catches 95 % of the anomalies."""
    rates = []
    for threshold in {*normal, *anomalous}:
        if sum(a >= threshold for a in anomalous) >= 0.95 * len(anomalous) - 1e-9:
            rates.append(sum(n >= threshold for n in normal) / len(normal))
    return min(rates)


def auprc_by_definition(normal, anomalous) -> float:
    """Sum over thresholds, from the highest down, of (recall step) x precision."""
    total, recall = 0.0, 0.0
    for threshold in sorted({*normal, *anomalous}, reverse=True):
        hits, alarms = sum(a >= threshold for a in anomalous), sum(n >= threshold for n in normal)
        total += (hits / len(anomalous) - recall) * hits / (hits + alarms)
        recall = hits / len(anomalous)
    return total


def test_fpr95_looks_at_every_threshold():
    """Twenty ties of equal size lie on one straight line of the ROC: the point at 95 % must not be thinned out of it."""
    scores = np.repeat(np.arange(20.0), 5)
    assert detection_metrics(scores, scores)["fpr95"] == pytest.approx(0.95)


tied = st.lists(st.integers(0, 12).map(float), min_size=1, max_size=30)


@given(tied, tied)
def test_metrics_by_their_definitions(normal, anomalous):
    found = detection_metrics(np.array(normal), np.array(anomalous))
    assert set(found) == {"auroc", "auprc", "fpr95"}
    assert found["auroc"] == pytest.approx(auroc_by_pairs(normal, anomalous))
    assert found["auprc"] == pytest.approx(auprc_by_definition(normal, anomalous))
    assert found["fpr95"] == pytest.approx(fpr95_by_definition(normal, anomalous))


def test_metrics_of_known_cases():
    low, high = np.arange(10.0), np.arange(10.0) + 100
    assert detection_metrics(low, high) == pytest.approx({"auroc": 1.0, "auprc": 1.0, "fpr95": 0.0})
    blind = {"auroc": 0.5, "auprc": 0.25, "fpr95": 1.0}  # AUPRC is the prevalence
    assert detection_metrics(np.zeros(30), np.zeros(10)) == pytest.approx(blind)
    assert detection_metrics(high, low)["auroc"] == 0  # below chance stays below chance


# The protocol, on a trained model


CONTRACT = {"model", "normal", "seed", "results"}


def with_info(detector: AMADetector, **changes) -> AMADetector:
    d = copy.copy(detector)
    d.info_ = {**detector.info_, "normal": {**detector.info_["normal"], **changes}}
    return d


@pytest.fixture(scope="module")
def found(tiny_detector):
    return evaluate(tiny_detector, ["textures", "flat"], model="m", seed=5)


def test_the_contract(found):
    assert set(found) == CONTRACT and (found["model"], found["normal"], found["seed"]) == ("m", "digits", 5)
    assert [row["ood"] for row in found["results"]] == ["textures", "flat"]
    for row in found["results"]:
        assert set(row) == {"ood", "n_normal", "n_ood", "scores"}
        assert tuple(row["scores"]) == SCORES
        for metrics in row["scores"].values():
            assert set(metrics) == {"auroc", "auprc", "fpr95"}
            assert all(type(v) is float and 0 <= v <= 1 for v in metrics.values())
    assert json.loads(json.dumps(found)) == found


def test_a_fifth_of_the_normals_number_is_drawn(found):
    for row in found["results"]:
        assert (row["n_normal"], row["n_ood"]) == (500, 100)


def test_the_seed_decides_the_draw(tiny_detector, found):
    again = evaluate(tiny_detector, ["textures"], model="m", seed=5)["results"][0]
    assert again == found["results"][0]
    other = evaluate(tiny_detector, ["textures"], seed=6)["results"][0]
    assert other["scores"] != again["scores"] and other["n_ood"] == 100


def test_full_is_the_whole_test_split_and_by_hand(tiny_detector):
    row = evaluate(tiny_detector, ["gradients"], full=True)["results"][0]
    ood = load("gradients", "test").images
    assert row["n_ood"] == len(ood)
    normal = anomaly_scores(tiny_detector.scores(load("digits", "test").images))
    anomalous = anomaly_scores(tiny_detector.scores(ood))
    for name in SCORES:
        # Rank-sum form of the AUROC, ties by mid-ranks.
        both = np.concatenate([normal[name], anomalous[name]])
        ranks = (both[:, None] > np.sort(both)[None, :]).sum(1) + 0.5 * ((both[:, None] == both[None, :]).sum(1) + 1)
        n, m = len(normal[name]), len(ood)
        expected = (ranks[n:].sum() - m * (m + 1) / 2) / (n * m)
        assert row["scores"][name]["auroc"] == pytest.approx(expected, abs=1e-6), name


def test_the_normal_set_against_itself_is_chance(tiny_detector):
    row = evaluate(tiny_detector, ["digits"], full=True)["results"][0]
    for metrics in row["scores"].values():
        assert metrics["auroc"] == pytest.approx(0.5, abs=1e-9)


def test_one_class_against_the_rest(tiny_detector):
    """Table 2: every test image is used, those of the class as normal."""
    detector = with_info(tiny_detector, label=3)
    found = evaluate(detector, ["rest", "flat"])
    labels = load("digits", "test").labels
    n = int((labels == 3).sum())
    assert found["normal"] == "digits:3"
    assert [(row["n_normal"], row["n_ood"]) for row in found["results"]] == [(n, 500 - n), (n, round(0.2 * n))]
    scores = tiny_detector.scores(load("digits", "test").images)["R"]
    expected = auroc_by_pairs(scores[labels == 3], scores[labels != 3])
    assert found["results"][0]["scores"]["R"]["auroc"] == pytest.approx(expected, abs=1e-6)


def test_rest_needs_a_one_class_model(tiny_detector):
    with pytest.raises(DataError, match="one-class"):
        evaluate(tiny_detector, ["rest"])


def test_arrays_are_taken_as_sets_are(tiny_detector, rng):
    normal, noise = load("digits", "test").images[:60], rng.integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)
    found = evaluate(tiny_detector, [noise, normal[:5]], normal=normal, full=True)["results"]
    assert [(row["ood"], row["n_normal"], row["n_ood"]) for row in found] == [("images 1", 60, 9), ("images 2", 60, 5)]
    raw = [tiny_detector.scores(images)["R"] for images in (normal, noise)]
    assert found[0]["scores"]["R"]["auroc"] == pytest.approx(auroc_by_pairs(*raw))


def test_files_of_one_s_own(tiny_detector, tmp_path, rng):
    images = rng.integers(0, 256, (120, 40, 36, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(images[:30]):
        Image.fromarray(image).save(folder / f"{i:03}.png")
    found = evaluate(tiny_detector, [str(tmp_path / "mine.npz"), str(folder)])["results"]
    assert [row["n_ood"] for row in found] == [100, 30]
    assert [row["ood"] for row in found] == [str(tmp_path / "mine.npz"), str(folder)]


@pytest.mark.parametrize("name", ["no_such_set", "/no/such/folder", "mnist"])
def test_what_is_not_there(tiny_detector, name):
    with pytest.raises(DataError, match=name.strip("/").split("/")[-1]):
        evaluate(tiny_detector, [name])


def test_validation_anomalies_are_never_tested(tiny_detector, tmp_path, rng, monkeypatch):
    file = tmp_path / "few.npz"
    images = rng.integers(0, 256, (150, 32, 32, 1), dtype=np.uint8)
    np.savez(file, images=images)
    detector = with_info(tiny_detector, validation_ood=str(file))
    chosen, excluded = evaluation.choose_validation_anomalies(str(file), detector.config.seed)
    assert len(chosen) == len(excluded) == 50
    tested = []
    original = evaluation.measure
    monkeypatch.setattr(evaluation, "measure", lambda d, s, p=None: (tested.append(s), original(d, s, p))[1])
    found = evaluate(detector, [str(file)], full=True)
    assert found["results"][0]["n_ood"] == 100
    assert len(found["notes"]) == 1 and "50 of the 150 images" in found["notes"][0] and "100 remain" in found["notes"][0]
    seen = {image.tobytes() for image in tested[-1].images}
    assert not seen & {image.tobytes() for image in chosen.images}
    # A set with a train split of its own loses nothing.
    detector = with_info(tiny_detector, validation_ood="flat")
    found = evaluate(detector, ["flat"], full=True)
    assert found["results"][0]["n_ood"] == len(load("flat", "test")) and "notes" not in found


def test_anomalies_of_the_training_are_never_tested(tiny_detector, tmp_path, rng):
    """Semi-supervised: of a source without splits only the part that was not trained on is tested."""
    file = tmp_path / "faults.npz"
    np.savez(file, images=rng.integers(0, 256, (100, 32, 32, 1), dtype=np.uint8))
    detector = with_info(tiny_detector, anomalies=str(file))
    found = evaluate(detector, [str(file)], full=True)
    assert found["results"][0]["n_ood"] == 20
    assert "20 images remain" in found["notes"][0]


def test_of_anomalies_of_one_source_none_is_trained_validated_and_tested_twice(tiny_detector, tmp_path, rng, monkeypatch):
    file, tested = tmp_path / "faults.npz", []
    np.savez(file, images=rng.integers(0, 256, (100, 32, 32, 1), dtype=np.uint8))
    detector = with_info(tiny_detector, anomalies=str(file), validation_ood=str(file))
    trained = load_any(str(file), "train").images
    validated, _ = evaluation.choose_validation_anomalies(str(file), detector.config.seed, str(file))
    original = evaluation.measure
    monkeypatch.setattr(evaluation, "measure", lambda d, s, p=None: (tested.append(s.images), original(d, s, p))[1])
    evaluate(detector, [str(file)], full=True)
    parts = [{image.tobytes() for image in images} for images in (trained, validated.images, tested[-1])]
    assert [len(part) for part in parts] == [80, 10, 10] and len(set.union(*parts)) == 100


@pytest.mark.parametrize("spelled", ["faults/", "./faults", "{}/faults", "link"])
def test_they_are_known_however_the_path_is_spelled(tiny_detector, tmp_path, rng, monkeypatch, spelled):
    (tmp_path / "faults").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "faults" / f"{i}.png")
    (tmp_path / "link").symlink_to(tmp_path / "faults")
    monkeypatch.chdir(tmp_path)
    other = spelled.format(tmp_path)
    trained_with = with_info(tiny_detector, anomalies="faults")
    found = evaluate(trained_with, [other], full=True)
    assert found["results"][0]["n_ood"] == 4 and "only its test split is evaluated" in found["notes"][0]
    validated = with_info(tiny_detector, validation_ood="faults")
    found = evaluate(validated, [other], full=True)
    assert found["results"][0]["n_ood"] == 10 and "are not tested" in found["notes"][0]


def test_stored_scores_are_without_the_validation_anomalies(tiny_detector, tmp_path, rng):
    file = tmp_path / "few.npz"
    np.savez(file, images=rng.integers(0, 256, (30, 32, 32, 1), dtype=np.uint8))
    detector = with_info(tiny_detector, source=str(tmp_path), name="own", validation_ood=str(file))
    images = evaluation.set_images(detector, str(file), "test", tested=True)
    chosen, _ = evaluation.choose_validation_anomalies(str(file), detector.config.seed)
    assert len(images) == 15 and not {i.tobytes() for i in images.images} & {i.tobytes() for i in chosen.images}
    assert len(evaluation.set_images(detector, str(file), "test")) == 30
    scores = detector.scores(images.images)
    stored = StoredScores(str(file), "test", scores, 0, 15)
    np.testing.assert_array_equal(evaluation.stored_images(detector, stored).images, images.images)
    # Scores of an earlier version, of all images, still find theirs.
    assert len(evaluation.stored_images(detector, StoredScores(str(file), "test", scores, 0, 30))) == 30


def test_a_model_that_does_not_know_its_normal_data(tiny_detector):
    unknown = copy.copy(tiny_detector)
    unknown.info_ = {"training": tiny_detector.info_["training"]}
    with pytest.raises(DataError, match="trained on"):
        evaluate(unknown, ["flat"])
    with pytest.raises(DataError, match="trained on"):
        list(evaluation.measure_each(unknown))


def test_progress(tiny_detector):
    calls = []
    evaluate(tiny_detector, ["flat"], progress=lambda *call: calls.append(call))
    assert {name for *_, name in calls} == {"digits", "flat"}
    assert [call for call in calls if call[0] == call[1]] == [(500, 500, "digits"), (100, 100, "flat")]


def test_what_is_available_is_measured(tiny_detector, monkeypatch):
    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "flat"])
    monkeypatch.setattr(evaluation, "STORED_SAMPLE", 60)
    stored = list(evaluation.measure_each(tiny_detector, seed=1))
    assert [(s.name, s.split, s.n, s.n_total) for s in stored] == [
        ("digits", "train", 60, 1297),
        ("digits", "test", 60, 500),
        ("flat", "test", 60, 2000),
    ]
    again = list(evaluation.measure_each(tiny_detector, seed=1))
    other = list(evaluation.measure_each(tiny_detector, seed=2))
    assert np.array_equal(stored[2].scores["R"], again[2].scores["R"])
    assert not np.array_equal(stored[2].scores["R"], other[2].scores["R"])


def test_a_one_class_model_keeps_the_scores_of_its_other_classes(tiny_detector, monkeypatch):
    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "flat"])
    detector = with_info(tiny_detector, label=3)
    stored = list(evaluation.measure_each(detector))
    test = load("digits", "test")
    own = int((test.labels == 3).sum())
    assert [(s.name, s.split, s.n_total) for s in stored[1:3]] == [("digits", "test", own), ("rest", "test", 500 - own)]
    behind = evaluation.stored_images(detector, stored[2])
    assert (behind.labels != 3).all()
    np.testing.assert_allclose(detector.scores(behind.images)["R"], stored[2].scores["R"], rtol=1e-4)
    row = evaluate(detector, ["rest"], full=True)["results"][0]
    assert evaluation.stored_aurocs(detector, stored)["rest"]["M"] == pytest.approx(row["scores"]["M"]["auroc"], abs=1e-6)


def test_only_sets_that_need_no_download_are_available():
    names = evaluation.available_sets()
    assert {"digits", "photos", "noise", "flat", "gradients", "textures", "house_numbers"} == set(names)
