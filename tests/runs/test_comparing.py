"""A model of one's own images beside simple methods: the same images and figures as by command, and one kept as a run."""

import json
import shutil

import numpy as np
import pytest

from ama_core import load_detector
from ama_core.analysis.model_card import read_card
from ama_core.data import hold_out, load_any
from ama_core.detectors.registry import detector_class
from ama_core.errors import ConfigError, DataError
from ama_core.evaluation.protocol import flagged_fractions
from ama_core.evaluation.recommendation import compare
from ama_core.evaluation.simple import COMMON
from ama_core.runs import comparing, measuring
from ama_core.runs.comparing import (
    beside_model,
    compare_model,
    keep,
    keep_beside,
    model_inputs,
    own_detectors,
    own_inputs,
    own_normal,
)
from ama_core.runs.folder import Run, list_runs
from ama_core.storage.bundle import read_results, read_scores
from tests.app.test_own_data import photo
from tests.runs.own import make_shop, moved_shop

NUMBERS = ("auroc", "low", "high", "detected", "false_alarms")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("place") / "shop")


@pytest.fixture
def shop(place, tmp_path):
    """The same, to change."""
    return moved_shop(place, tmp_path / "shop")


def mine(shop):
    return load_detector(shop / "runs" / "mine", device="cpu")


def by_command(call, shop, model, *against) -> dict:
    settings = [word for name in COMMON for word in ("--set", f"{name}={getattr(model.settings, name)}")]
    names = ",".join(comparing.SIMPLE)
    code, out, err = call("compare", shop / "good", *against, "--detectors", names, *settings, "--json", "--quiet")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("against", [True, False])
def test_a_detector_that_is_kept_has_the_figures_it_was_compared_by(shop, tmp_path, against):
    good, bad = str(shop / "good"), str(shop / "bad") if against else None
    detectors = own_detectors(good, ["pixel_mean"], device="cpu", verbose=False)
    inputs = own_inputs(good, bad, detectors["pixel_mean"])
    (compared,) = compare(inputs.train, inputs.normal, inputs.anomalous, detectors, made=inputs.made).detectors
    keep(detectors["pixel_mean"], own_normal(good, inputs.train, bad), tmp_path / "kept", inputs)
    kept, stored = load_detector(tmp_path / "kept", device="cpu"), read_scores(tmp_path / "kept")
    results = read_results(tmp_path / "kept")["results"]
    if not against:
        assert results == [] and [s.name for s in stored] == [kept.normal.name]
        return
    assert [(row["ood"], row["n_normal"], row["n_ood"]) for row in results] == [(bad, 24, 15)] and kept.normal.watch == bad
    assert "(anomalies: all test images of the set)" in read_card(tmp_path / "kept")
    assert results[0]["scores"][compared.score]["auroc"] == pytest.approx(compared.auroc)
    assert flagged_fractions(kept, stored, compared.score, compared.alpha) == pytest.approx(
        {kept.normal.name: compared.false_alarms, bad: compared.detected}
    )


def test_the_figures_are_those_of_the_command(place, call):
    model = mine(place)
    before = model.anomaly_scores(model.scores(str(place / "bad")))
    found, detectors = compare_model(model)
    asked = by_command(call, place, model, "--against", place / "bad")
    ours = {one.name: one for one in found.detectors}
    assert set(ours) == {"ama", *comparing.SIMPLE} == set(detectors) and not found.made and found.against == str(place / "bad")
    for theirs in asked["detectors"]:
        assert [getattr(ours[theirs["name"]], key) for key in NUMBERS] == [theirs[key] for key in NUMBERS]
    assert (found.n_normal, found.n_anomalous) == (asked["n_normal"], asked["n_anomalous"]) == (24, 15)
    assert ours["ama"].seconds_train == model.info_["training"]["seconds"]
    assert (ours["ama"].score, detectors["ama"].by, model.by) == ("C", "C", "T"), "judged by C; the model itself is untouched"
    np.testing.assert_array_equal(ours["ama"].anomalous, before["C"])
    np.testing.assert_array_equal(model.anomaly_score(str(place / "bad")), before["T"])
    assert {len(one.calibration_scores_) for one in detectors.values()} == {19}


def test_made_defects_stand_in_and_are_called_so(shop, call):
    shutil.rmtree(shop / "bad")
    found, _ = compare_model(mine(shop))
    assert found.made and "Synthetic defects stand in" in found.reason and found.against == "synthetic defects"
    asked = by_command(call, shop, mine(shop))
    ours = {one.name: one for one in found.detectors}
    for theirs in asked["detectors"]:
        assert [getattr(ours[theirs["name"]], key) for key in NUMBERS] == [theirs[key] for key in NUMBERS]


def test_images_that_are_gone_or_changed_are_said(shop):
    model = mine(shop)
    photo(np.random.default_rng(9)).save(shop / "good" / "one-more.png")
    with pytest.raises(DataError, match="not those that this model was trained on"):
        compare_model(model)
    (shop / "good").rename(shop / "elsewhere")
    with pytest.raises(DataError, match="no longer in"):
        compare_model(model)
    model.info_["normal"] = {"name": "digits", "source": "digits"}
    with pytest.raises(DataError, match="does not say which images of your own"):
        compare_model(model)


def test_what_the_weights_were_chosen_by_is_not_tested(place):
    model = mine(place)
    model.info_["normal"] = model.info_["normal"] | {"watch": None, "validation_ood": str(place / "bad")}
    inputs, every = model_inputs(model), load_any(place / "bad", "ood", **vars(model.settings.input))
    assert 0 < len(inputs.anomalous) < len(every) == 15


def test_an_autoencoder_fits_few_images_and_the_models_own_kind_is_left_out(place):
    model = mine(place)
    (other,) = beside_model(model, ("ama", "autoencoder")).values()
    assert other.settings.batch_size <= 58 and other.settings.calibration_fraction == 0.4 and other.settings.seed == 3
    large = model.settings.replace(image_size=64)
    model.config = large
    (other,) = beside_model(model, ("autoencoder",)).values()
    assert other.settings.fold == 2 and other.settings.image_size == 64


def test_by_command_few_images_fill_the_batches_unless_their_size_is_asked_for(place):
    for name, detector in own_detectors(str(place / "good"), ("ama", "autoencoder", "nearest"), device="cpu").items():
        settings = detector.settings
        left = len(hold_out(96, settings.calibration_fraction).train)  # of 120, 24 are kept for testing
        if name != "nearest":
            assert settings.batch_size == left // 2 < 64, name
    (asked,) = own_detectors(str(place / "good"), ("ama",), changes={"batch_size": 40}, device="cpu").values()
    assert asked.settings.batch_size == 40
    (many,) = own_detectors("digits", ("ama",), device="cpu").values()
    assert many.settings.batch_size == 64


def test_one_is_kept_as_a_finished_run_and_nothing_is_replaced(shop, monkeypatch):
    model, runs = mine(shop), shop / "runs"
    _, detectors = compare_model(model, ("nearest",))
    first = keep_beside(model, detectors["nearest"], runs, "mine-nearest")
    written = {file: file.read_bytes() for file in first.iterdir()}
    second = keep_beside(model, detectors["nearest"], runs, "mine-nearest")
    assert (first.name, second.name) == ("mine-nearest", "mine-nearest-2") and first.parent == runs
    assert {file: file.read_bytes() for file in written} == written
    kept = load_detector(first, device="cpu")
    np.testing.assert_array_equal(kept.p_value(str(shop / "bad")), detectors["nearest"].p_value(str(shop / "bad")))
    assert kept.normal.source == str(shop / "good") and kept.normal.watch == str(shop / "bad")
    assert Run(first).status().state == "finished" and Run(first).spec().detector == "nearest"
    assert {"mine", "mine-nearest", "mine-nearest-2"} == set(list_runs(runs))
    results = json.loads((first / "results.json").read_text())
    assert [row["ood"] for row in results["results"]] == [str(shop / "bad")]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(measuring, "measure_run", full)
    with pytest.raises(ConfigError, match="No space left"):
        keep_beside(model, detectors["nearest"], runs, "mine-nearest")
    assert {"mine", "mine-nearest", "mine-nearest-2"} == {path.name for path in runs.iterdir() if path.is_dir()}


def test_what_is_fitted_without_steps_says_how_long_that_took(digits):
    kind = detector_class("pca")
    fitted = kind(kind.Settings(channels=1), verbose=False).fit(digits.images[:600])
    assert 0 <= fitted.info_["training"]["seconds"] < 60 and fitted.info_["training"]["steps"] == 0
