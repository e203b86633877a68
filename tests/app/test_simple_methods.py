"""What would something simpler do? On the page of a finished run and in Check: compared, stopped, kept, refused in words."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core import load_detector
from ama_core.detectors.registry import detector_class
from ama_core.evaluation.recommendation import CLOSE
from ama_core.runs import comparing, queue
from ama_core.runs.folder import list_runs
from tests.common import APP, REPEATED_IN_CI, words
from tests.runs.own import make_shop, moved_shop

START, STOPS, TITLE = "Compare with simple methods", {"Stop comparing", "Cancel saving"}, "What would something simpler do?"
PATIENCE = 300

pytestmark = REPEATED_IN_CI


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("place") / "shop")


@pytest.fixture
def shop(place, tmp_path, monkeypatch) -> Path:
    """A copy of it, as the app's folder of runs."""
    moved_shop(place, tmp_path / "shop")
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path / "shop" / "runs"))
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    monkeypatch.syspath_prepend(str(APP))
    return tmp_path / "shop"


def page(name: str, **address) -> AppTest:
    at = AppTest.from_file(APP / "main.py", default_timeout=PATIENCE)
    at.switch_page(f"views/{name}.py")
    for key, value in address.items():
        at.query_params[key] = value
    return at.run()


def labels(at: AppTest) -> list[str]:
    return [button.label for button in at.button]


def press(at: AppTest, label: str) -> AppTest:
    return next(button for button in at.button if button.label == label).click().run()


def use(name: str) -> str:
    """What the button is called that keeps a detector."""
    return f"Use {detector_class(name).title.split(',')[0]} in Check"


def waited(at: AppTest) -> AppTest:
    """The page once the comparison, or the keeping of a detector, has ended."""
    end = time.time() + PATIENCE
    while STOPS & set(labels(at)) and time.time() < end:
        time.sleep(0.2)
        at.run()
    assert not STOPS & set(labels(at)) and not at.exception
    return at


def table(at: AppTest):
    return next((found.value for found in at.dataframe if "95 % interval" in found.value), None)


def test_a_finished_run_is_compared_and_one_detector_goes_into_check(shop):
    at = page("train", run="mine")
    assert not at.exception and TITLE in words(at) and table(at) is None
    at = waited(press(at, START))
    found, detectors = comparing.compare_model(load_detector(shop / "runs" / "mine", device="cpu"))
    shown = table(at).set_index("Detector")
    assert len(shown) == len(found.detectors) == 5
    for one in found.detectors:
        row = shown.loc[f"This model: {one.title}" if one.name == "ama" else one.title]
        assert row["AUROC"] == pytest.approx(one.auroc) and row["95 % interval"] == f"{one.low:.3f} to {one.high:.3f}"
        assert row["Found at α = 5 %"] == pytest.approx(100 * one.detected)
        assert row["False alarms"] == pytest.approx(100 * one.false_alarms) and row["ms an image"] > 0
    said = words(at)
    assert "24 normal images that no detector was trained on, against 15 bad images (bad)" in said
    # Of several that do as well, the one that was fitted fastest, which another fit may tell otherwise.
    best = [one for one in found.detectors if found.detectors[0].auroc - one.auroc <= CLOSE]
    recommended = next(one.name for one in best if f"Recommended: {one.title}" in said)
    assert "synthetic defects" not in said and at.selectbox(key="simpler-use-mine").value == recommended

    other = next(one.name for one in found.detectors if one.name not in ("ama", recommended))
    at.selectbox(key="simpler-use-mine").select(other).run()
    at = waited(press(at, use(other)))
    assert not at.exception and not at.error
    assert at.title[0].value == "Check images" and at.selectbox(key="model").value == f"mine-{other}"
    kept = load_detector(shop / "runs" / f"mine-{other}", device="cpu")
    bad = str(shop / "bad")
    np.testing.assert_array_equal(kept.p_value(bad), detectors[other].p_value(bad))
    assert "It was measured against no other images" not in words(at)

    at = page("train", run="mine")  # the result is still there; kept once, it is not kept again
    at.selectbox(key="simpler-use-mine").select(other).run()
    press(at, use(other))
    assert set(list_runs(shop / "runs")) == {"mine", f"mine-{other}"}
    assert not at.exception and START in labels(page("train", run=f"mine-{other}"))
    at = page("train", run="mine")
    at.selectbox(key="simpler-use-mine").select("ama").run()
    at = press(at, "Use this model in Check")
    assert at.title[0].value == "Check images" and at.selectbox(key="model").value == "mine"
    assert at.segmented_control(key="score").value == "C", "what it was judged by"
    assert set(list_runs(shop / "runs")) == {"mine", f"mine-{other}"}


def test_from_check_at_the_readers_rate(shop):
    at = page("check", model="mine", alpha="0.2")
    assert TITLE in [expander.label for expander in at.expander]
    at = waited(press(at, START))
    assert "Found at α = 20 %" in table(at) and "mine-nearest" not in list_runs(shop / "runs")
    at.selectbox(key="simpler-use-mine").select("nearest").run()
    at = waited(press(at, use("nearest")))
    assert not at.exception and at.selectbox(key="model").value == "mine-nearest"
    assert at.select_slider(key="alpha").value == 0.2 and at.segmented_control(key="score").value == "distance"


def test_it_can_be_stopped_and_begun_again(shop, monkeypatch):
    def endless(model, chosen, progress, tick):
        progress("Nearest neighbours", "training")
        while True:
            time.sleep(0.05)
            tick(0.5)

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "compare_model", endless)
        at = press(page("train", run="mine"), START)
        assert "Stop comparing" in labels(at) and START not in labels(at)
        at = waited(press(at, "Stop comparing"))
    assert "was stopped" in words(at) and table(at) is None
    at = waited(press(at, START))
    assert table(at) is not None and "was stopped" not in words(at)


def test_what_cannot_be_kept_is_said_and_leaves_nothing_behind(shop, monkeypatch):
    at = waited(press(page("train", run="mine"), START))
    at.selectbox(key="simpler-use-mine").select("pca").run()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(comparing.measuring, "measure_run", full)
        at = waited(press(at, use("pca")))
    assert at.title[0].value == "Train" and "No space left" in words(at) and table(at) is not None

    def endless(detector, path, progress):
        while True:
            time.sleep(0.05)
            progress(1, 2, "bad")

    with monkeypatch.context() as patch:
        patch.setattr(comparing.measuring, "measure_run", endless)
        at = press(at, use("pca"))
        at = waited(press(at, "Cancel saving"))
    assert at.title[0].value == "Train" and "It was not saved" in words(at)
    assert [path.name for path in (shop / "runs").iterdir() if path.is_dir()] == ["mine"]


def test_made_defects_are_named(shop):
    shutil.rmtree(shop / "bad")
    at = waited(press(page("train", run="mine"), START))
    assert "24 synthetic defects" in words(at) and "are not on this computer" in words(at)


def test_images_that_are_gone_are_said_in_words(shop):
    (shop / "good").rename(shop / "elsewhere")
    at = waited(press(page("train", run="mine"), START))
    assert any("no longer in" in error.value for error in at.error) and START in labels(at) and table(at) is None
    assert TITLE not in [expander.label for expander in page("check", model="mine").expander]


def test_a_defect_of_ours_is_no_traceback(shop, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(comparing, "compare_model", broken)
    at = waited(press(page("train", run="mine"), START))
    assert any("defect" in error.value for error in at.error) and "broken" not in words(at) and "broken" in caplog.text


def test_not_of_the_catalogs_sets_and_not_on_a_public_server(shop, open_page, monkeypatch):
    assert START not in labels(open_page("check"))
    monkeypatch.setenv("AMA_MODELS_DIR", str(shop / "none"))
    assert START in labels(page("check", model="mine"))
    monkeypatch.setenv("AMA_PUBLIC", "1")
    at = page("check", model="mine")
    assert not at.exception and START not in labels(at) and TITLE not in [expander.label for expander in at.expander]
