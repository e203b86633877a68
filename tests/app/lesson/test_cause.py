"""The step of the lesson in which the reader changes an image: what is said of it is what the model says."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.analysis.probe import SEARCHED
from ama_core.data import load
from ama_core.data.changes import Change
from ama_core.storage.bundle import read_scores, write_scores
from tests.app.lesson.common import taken
from tests.common import words


def probed(at: AppTest) -> tuple[np.ndarray, str]:
    """The table of R, A, T before and after, and the sentence above it."""
    (sentence,) = [m.value for m in at.markdown if m.value.startswith(("R **", "R hardly", "Nothing is changed"))]
    return at.table[0].value, sentence


def image_of_lesson(measured, number: int) -> np.ndarray:
    """The normal test image with this number: the images stand evenly along R."""
    ranked = np.argsort(measured[1]["digits"].scores["R"], kind="stable")
    return load("digits", "test").images[ranked[np.linspace(0, len(ranked) - 1, 8).astype(int)[number]]]


def test_a_change_moves_the_scores_the_tick_and_the_sentence(open_page, measured, lesson_models):
    detector = AMADetector.load(lesson_models / "digits", device="cpu")
    image = image_of_lesson(measured, 2)[None]
    at = open_page("lesson", step="Cause", image="2")
    assert probed(at)[1].startswith("Nothing is changed yet")
    before = float(detector.scores(image)["R"][0])
    for change in (Change(contrast=0.5), Change(brightness=0.25, blur=1.0), Change(noise=0.3), Change(contrast=2.0)):
        for key in ("contrast", "brightness", "blur", "noise"):
            at.slider(key=key).set_value(getattr(change, key))
        at = at.run()
        assert not at.exception
        scores = detector.scores(change(image))
        after, p = float(scores["R"][0]), float(scores["p_T"][0])
        table, sentence = probed(at)
        assert table["R"][0].startswith(f"{before:.3g} ") and table["R"][1].startswith(f"{after:.3g} ")
        assert f"p {p:.3f}" in table["T"][1] and ("**flagged**" in table["T"][1]) == (p <= 0.05)
        ratio = after / before
        assert sentence.startswith("R **fell**" if ratio < 0.97 else "R **rose**" if ratio > 1.03 else "R hardly moved")
        data = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
        assert [t["x"][0] for t in data if t["name"].startswith("changed")] == [pytest.approx(after, rel=1e-4)]


def test_presets_set_the_sliders_and_the_address_restores_them(open_page):
    at = open_page("lesson", step="Cause")
    at = at.button(key="preset-Dark").click().run()
    assert (at.slider(key="brightness").value, at.slider(key="contrast").value) == (0.3, 1.0)
    at = at.button(key="preset-As it is").click().run()
    assert at.slider(key="brightness").value == 1.0 and probed(at)[1].startswith("Nothing")
    linked = open_page("lesson", step="Cause", brightness="0.3", blur="1.5", image="4")
    assert linked.slider(key="blur").value == 1.5 and linked.slider(key="brightness").value == 0.3


def test_the_lowest_r_is_the_lowest_of_those_tried(open_page, measured, lesson_models):
    detector = AMADetector.load(lesson_models / "digits", device="cpu")
    image = image_of_lesson(measured, 1)[None]
    at = open_page("lesson", step="Cause").button(key="preset-Lowest R").click().run()
    lowest = min(float(detector.scores(change(image))["R"][0]) for change in SEARCHED)
    assert not at.exception and probed(at)[0]["R"][1].startswith(f"{lowest:.3g} ")


@pytest.mark.parametrize(
    "r, said",
    [
        ((1.0, 1.02), "R falls for 0 and rises for 0: for this model most of the changes hardly move R"),
        ((1.5, 2.0), "R falls for 0 and rises for 4: for this model the changes make images look more unusual to R"),
        ((1.5, 0.5), "R falls for 2: R measures more than how unusual an image is"),
    ],
)
def test_what_the_presets_do_is_concluded_from_what_they_did(open_page, monkeypatch, r, said):
    open_page("lesson", step="Cause")  # puts the app's modules on the path
    from lesson import cause

    moved = {str(i): np.full(2, value) for i, value in enumerate(r)}
    monkeypatch.setattr(cause, "r_of_presets", lambda case: (np.ones(2), moved))
    assert said in cause.take_away(None)


def test_without_the_models_own_images_others_are_changed(lesson_models, tmp_path, open_page, monkeypatch):
    stored = read_scores(lesson_models / "digits")
    for name, kept in (("other", lambda s: s.name != "textures"), ("none", lambda s: s.name == "digits")):
        shutil.copytree(lesson_models / "digits", tmp_path / name)
        header = json.loads((tmp_path / name / "config.json").read_text())
        header["normal"] |= {"name": "cifar10", "source": "cifar10"}
        (tmp_path / name / "config.json").write_text(json.dumps(header))
        sets = [replace(s, name="cifar10") if s.name == "digits" else s for s in stored if kept(s)]
        sets += [replace(s, name="gtsrb") for s in stored if s.name == "textures"]
        write_scores(tmp_path / name, sets)
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    at = open_page("lesson", model="other", step="Cause")
    assert "are not on this computer, so these are Colour gradients, which the model has never seen" in words(at)
    assert probed(at)[1].startswith("Nothing")
    at = open_page("lesson", model="none", step="Cause")
    assert "No images to change are on this computer" in words(at) and not at.slider and taken(at)
