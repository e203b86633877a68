"""Every page with detectors other than AMA, one of them of 40 lines and outside the engine: it is drawn, or says why not."""

import dataclasses
import inspect
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core.data import load
from ama_core.detectors import registry
from ama_core.evaluation import protocol as evaluation
from ama_core.runs import execute as runs
from ama_core.runs import queue
from ama_core.runs.folder import runs_dir
from ama_core.runs.spec import RunSpec
from ama_core.storage.bundle import read_scores
from tests import forty_lines
from tests.common import APP, ROOT, checked
from tests.runs.reading import read_log, read_status

PAGES = ("lesson", "densities", "reconstructions", "shell", "simplex", "train", "check", "compare", "benchmark", "about")
FORTY = "forty=tests.forty_lines:FortyLines"
SMALL = {
    "forty": {},
    "nearest": {},
    "pca": {"components": 8},
    "pixel_mean": {},
    "autoencoder": dict(
        nz=8, width_encoder=8, width_generator=8, batch_size=16, epochs=1000, max_steps=12, lr=1e-3, precision="fp32"
    ),
}
NEEDS_SCORES = "gives the scores R, A, M and T"
RECONSTRUCT = ("pca", "autoencoder")  # these reconstruct images, and turn them into codes and back
PATIENCE = 600  # seconds; only a very busy machine needs more than a few


def spec_of(name: str) -> RunSpec:
    settings = registry.detector_class(name).Settings.from_dict({"channels": 1, "fit": "pad", **SMALL[name]})
    return RunSpec("digits", settings, detector=name)


@pytest.fixture(scope="module", autouse=True)
def known():
    """The detector of 40 lines is known to this process and to those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.VARIABLE, FORTY)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.syspath_prepend(str(APP))
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory, known, tiny_bundle) -> Path:
    """A finished and measured run of each of these detectors, and `ama`."""
    folder = tmp_path_factory.mktemp("detectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])
        for name in SMALL:
            runs.execute(folder / name, spec_of(name), device="cpu")
    (folder / "ama").symlink_to(tiny_bundle)
    return folder


@pytest.fixture
def open_page(models, monkeypatch, tmp_path):
    """Opens a page through the router with what its address says: open_page("check", model="pca")."""
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(queue, "ensure_worker", lambda folder: None)

    def open_(page: str, folder: Path = models, **address) -> AppTest:
        monkeypatch.setenv("AMA_MODELS_DIR", str(folder))
        at = AppTest.from_file(APP / "main.py", default_timeout=120)
        at.query_params.update(address)
        at.switch_page(f"views/{page}.py").run()
        assert not at.exception, at.exception[0].value
        return at

    return open_


def words(at: AppTest) -> str:
    """Everything that a page says in text, without Markdown's escapes."""
    kinds = (at.title, at.markdown, at.caption, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind).replace("\\", "")


def needed(page: str, name: str) -> str | None:
    """What a page says that it needs and this detector lacks; None where it can be drawn."""
    reconstructs = name in RECONSTRUCT
    if page == "lesson":
        return NEEDS_SCORES if reconstructs else f"reconstructs images and {NEEDS_SCORES}"
    if page == "reconstructions":
        return None if reconstructs else "reconstructs images"
    if page in ("shell", "simplex"):
        codes = "" if name in RECONSTRUCT else "turns images into codes, turns codes into images, "
        return f"{codes}has a critic that compares two images and gives the score R"
    return None


def test_it_has_at_most_forty_lines():
    assert len(inspect.getsource(forty_lines).splitlines()) <= 40


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_or_says_what_it_needs(open_page, page, name):
    at = open_page(page, model=name)
    said, title = words(at), registry.detector_class(name).title
    assert not at.error
    need = needed(page, name)
    if need is None:
        assert "needs a model that" not in said
        assert page in ("train", "compare", "benchmark") or f"Model **{name}**" in said
        return
    assert f"This page needs a model that {need}; **{name}** ({title}) does not. Choose one that does:" in said
    assert len(at.title) == 1 and not at.get("plotly_chart")


@pytest.mark.parametrize("page", ["lesson", "reconstructions", "shell", "simplex"])
def test_the_models_that_can_are_offered_and_lead_on(open_page, page):
    at = open_page(page, model="forty")
    able = ["ama", *(RECONSTRUCT if page == "reconstructions" else ())]
    assert sorted(at.selectbox(key="model").options) == sorted(able) and at.selectbox(key="model").value is None
    assert sorted(b.key for b in at.button if b.key and b.key.startswith("able-")) == sorted(f"able-{name}" for name in able)
    at.button(key="able-ama").click().run()
    assert not at.exception and "Model **ama**" in words(at) and sorted(at.selectbox(key="model").options) == sorted(able)


@pytest.mark.parametrize("page", ["lesson", "reconstructions", "shell", "simplex"])
def test_without_any_model_that_can_a_page_says_how_to_train_one(open_page, models, tmp_path, page):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "forty").symlink_to(models / "forty")
    at = open_page(page, tmp_path / "few")
    assert "None of the models here does" in words(at) and "ama_core train" in at.code[0].value and not at.error


@pytest.mark.parametrize("name", SMALL)
def test_check_gives_verdicts(open_page, models, name):
    at = open_page("check", model=name, n="4", alpha="0.1")
    detector = registry.load_detector(models / name)
    by = detector.decides
    expected = detector.scores(load("digits", "test").images[:4])
    table = checked(at)
    np.testing.assert_allclose(np.sort(table[f"p by {by}"]), np.sort(expected[f"p_{by}"]), rtol=1e-3)
    verdicts = table["Verdict at α = 10 %"]
    assert [v.startswith("Flagged") for v in verdicts] == list(table[f"p by {by}"] <= 0.1)
    assert at.metric[0].label == detector.SCORES[0].name and at.metric[1].value == f"{table[f'p by {by}'][0]:.4f}"
    said = words(at)
    assert detector.SCORES[0].meaning.split(",")[0].strip(".") in said and "R above" not in table
    assert ("the model sees them" in said) == ("features" in detector.can())
    drawn = next(e.proto.body for e in at.get("html") if "ama-figures" in e.proto.body)
    assert drawn.count("<figure>") == (4 if "reconstruct" in detector.can() else 2)


@pytest.mark.parametrize("name", SMALL)
def test_densities_show_its_scores_and_their_figures(open_page, models, name):
    at = open_page("densities", model=name, ood="textures", cuts="true")
    kind = registry.detector_class(name)
    assert at.button_group(key="axis").options == [score.name for score in kind.SCORES]
    stored = {(s.name, s.split): s.scores[kind.decides] for s in read_scores(models / name)}
    traces = {trace.get("name") for trace in json.loads(at.get("plotly_chart")[0].proto.spec)["data"]}
    assert {"train", "test", "textures", f"{kind.decides} flags right of this (α = 5 %)"} <= traces
    assert f"Procedural textures {np.median(stored['textures', 'test']):.3g}" in words(at)
    table = at.table[0].value
    assert list(table["Set"]) == ["Procedural textures"] and {score.name for score in kind.SCORES} < set(table)
    assert not [column for column in table if "paper" in column]
    assert f"{kind.decides} has an AUROC of " in words(at)


def test_densities_without_stored_scores_show_the_held_out_images(open_page, models, tmp_path):
    shutil.copytree(models / "forty", tmp_path / "few" / "forty")
    (tmp_path / "few" / "forty" / "scores.npz").unlink()
    at = open_page("densities", tmp_path / "few", model="forty")
    assert not at.error and any("held-out normal images" in info.value for info in at.info) and len(at.get("plotly_chart")) == 1


@pytest.mark.parametrize("part", ["Architecture", "Equations", "Settings", "Calibration", "Card"])
@pytest.mark.parametrize("name", ["forty", "autoencoder"])
def test_about_tells_what_there_is_to_tell(open_page, name, part):
    at = open_page("about", model=name, part=part)
    kind = registry.detector_class(name)
    assert not at.error
    if part == "Architecture":
        assert kind.title in words(at) and f"class {kind.__name__}" in at.code[0].value and len(at.dataframe[0].value)
    if part == "Equations":
        assert at.latex[0].value.strip("$\n ") == kind.SCORES[0].equation and "def raw_scores" in at.code[0].value
    if part == "Settings":
        assert len(at.table[0].value) == len(dataclasses.fields(kind.Settings))
    if part == "Calibration":
        assert len(at.get("plotly_chart")) == 1 and f"{kind.decides} " in words(at)


def test_about_looks_for_the_code_of_a_class_once(open_page, monkeypatch):
    open_page("about", model="forty", part="Architecture")

    def look_again(thing):
        raise AssertionError(f"{thing} is looked for again")

    monkeypatch.setattr(sys.modules["cache"], "getsourcelines", look_again)
    at = open_page("about", model="forty", part="Architecture")
    assert not at.error and not at.exception and "class " in at.code[0].value


def test_a_score_that_another_model_lacks_gives_way_to_its_own(open_page):
    at = open_page("check", model="ama", score="A", alpha="0.1")
    assert at.button_group(key="score").value == "A"
    at.selectbox(key="model").set_value("pca").run()
    assert not at.exception and at.button_group(key="score").value == registry.detector_class("pca").decides
    at.selectbox(key="model").set_value("ama").run()
    assert not at.exception and at.button_group(key="score").value in ("A", "T")
    assert at.select_slider(key="alpha").value == 0.1
    at = open_page("densities", model="nearest", score="A", axis="M")
    assert at.button_group(key="score").value == "distance" and at.button_group(key="axis").value == "distance"


def test_a_model_of_an_unknown_detector_is_a_sentence(open_page, models, monkeypatch):
    monkeypatch.setenv(registry.VARIABLE, "")
    at = open_page("check", model="forty")
    assert len(at.error) == 1 and "'forty'" in at.error[0].value


# Train


def choose_detector(at: AppTest, name: str) -> AppTest:
    at.selectbox(key="detector").set_value(registry.detector_class(name).title).run()
    assert not at.exception
    return at


def test_the_form_follows_the_detector(open_page):
    at = open_page("train", data="digits")
    assert at.selectbox(key="detector").options == [registry.detector_class(name).title for name in registry.names()]
    choose_detector(at, "forty")
    assert at.number_input(key="hp-power").value == 1.0 and "hp-nz" not in [box.key for box in at.number_input]
    assert at.selectbox(key="hp-channels").value == 1 and at.text_input(key="train-name-0").placeholder == "digits-forty"
    assert "preset" not in [box.key for box in at.selectbox] and "train-validate" not in [box.key for box in at.selectbox]
    assert "train-anomalies" not in [box.key for box in at.selectbox] and "Fitted in seconds on 1,297 images" in words(at)
    at.number_input(key="hp-power").set_value(2.0)
    next(b for b in at.button if b.label == "Train").click().run()
    assert not at.exception and not at.error
    spec = RunSpec.read(runs_dir() / "digits-forty")
    assert spec.detector == "forty" and spec.config.power == 2.0

    choose_detector(at, "autoencoder")
    assert at.number_input(key="hp-nz").value == 32 and at.selectbox(key="preset").value == "tiny"
    assert "train-anomalies" not in [box.key for box in at.selectbox]
    at.selectbox(key="train-validate").set_value("textures").run()
    assert "AUROC of L2" in at.selectbox(key="train-select").help
    next(b for b in at.button if b.label == "Train").click().run()
    spec = RunSpec.read(runs_dir() / "digits-autoencoder-tiny")
    assert spec.detector == "autoencoder" and spec.validate_ood == "textures"


def test_curves_are_those_that_the_trainer_declares(open_page, models, tmp_path):
    (tmp_path / "runs").mkdir()
    for name in ("autoencoder", "pca"):
        (tmp_path / "runs" / name).symlink_to(models / name)
    at = open_page("train", run="autoencoder")
    alts = [chart.proto.alt for chart in at.get("plotly_chart")]
    assert alts[0].startswith("Losses over the steps; newest: squared error ") and "critic" not in "".join(alts)
    offered = at.selectbox(key="value").options
    assert "squared error" in offered and "Wasserstein estimate" not in offered
    at = open_page("train", run="pca")
    assert not [chart for chart in at.get("plotly_chart") if chart.proto.alt.startswith("Losses")]
    assert at.dataframe[0].value.set_index("Run").loc["pca", "Progress"] == 1.0
    links = [link.proto.label for link in at.get("page_link")]
    assert {"Its score densities", "Its reconstructions", "Check images with it"} <= set(links)


def test_a_queued_run_of_it_finishes_in_a_process_of_its_own_and_is_a_model(monkeypatch, tmp_path):
    folder = tmp_path / "runs"
    monkeypatch.setenv("AMA_RUNS_DIR", str(folder))
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path / "none"))
    run = queue.submit(folder, "mine", spec_of("forty"))
    end = time.time() + PATIENCE
    while read_status(run)["state"] in ("queued", "running", "measuring") and time.time() < end:
        time.sleep(0.5)
    assert read_status(run)["state"] == "finished", read_log(run)
    at = AppTest.from_file(APP / "main.py", default_timeout=120)
    at.query_params["model"] = "mine"
    at.switch_page("views/check.py").run()
    assert not at.exception and not at.error and "Model **mine**" in words(at) and len(checked(at)) == 8
    assert sys.modules["tests.forty_lines"] is forty_lines
