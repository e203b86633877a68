"""The step about other detectors: what it says follows from their figures, whichever they are."""

import json
import shutil

import pytest

from ama_core.data import load
from ama_core.detectors import registry
from ama_core.evaluation import protocol as evaluation
from ama_core.runs.execute import execute
from ama_core.runs.spec import RunSpec
from ama_core.storage.bundle import read_results, write_results
from tests.app.lesson.common import taken
from tests.common import words

SMALL = {
    "pixelcnn": dict(filters=4, blocks=1, batch_size=16, max_steps=6),
    "deepsvdd": dict(width=4, dim=8, batch_size=16, max_steps=6),
}


@pytest.fixture(scope="module")
def others(tmp_path_factory, tiny_bundle):
    """`ama`, `pixelcnn` and `deepsvdd`, all trained on digits and measured against two sets."""
    folder = tmp_path_factory.mktemp("others")
    shutil.copytree(tiny_bundle, folder / "digits", ignore=shutil.ignore_patterns("samples", "checkpoint*"))
    load("digits", "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])
        for name, values in SMALL.items():
            settings = registry.detector_class(name).Settings
            config = settings.from_dict({"channels": 1, "fit": "pad", "precision": "fp32", **values})
            execute(folder / name, RunSpec("digits", config, detector=name), device="cpu")
    return folder


def tell(folder, figures: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Model -> set -> AUROC of its raw score and of the two-sided one."""
    for name, sets in figures.items():
        results = read_results(folder / name)
        for row in results["results"]:
            scores = list(row["scores"].values())
            for values, auroc in zip(scores, sets[row["ood"]]):
                values["auroc"] = auroc
        write_results(folder / name, results)


@pytest.fixture
def told(others, tmp_path, monkeypatch):
    shutil.copytree(others, tmp_path / "models")

    def tell_(**figures):
        tell(tmp_path / "models", figures)
        monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path / "models"))

    return tell_


def test_it_shows_the_set_that_fools_most_and_what_two_sides_mend(told, open_page, tmp_path, monkeypatch):
    told(
        digits={"gradients": (0.9, 0.9), "textures": (0.3, 0.8)},
        pixelcnn={"gradients": (0.1, 0.9), "textures": (0.2, 0.9)},
        deepsvdd={"gradients": (0.8, 0.9), "textures": (0.9, 0.6)},
    )
    at = open_page("lesson", step="Others")
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path / "models"))
    at.run()
    said = words(at)
    assert "Generated textures" in said or "textures" in said.lower()
    assert "the set that fools the most of them, 2 of the 3 raw scores" in said
    line = taken(at)
    assert "2 of 3 raw scores" in line and "PixelCNN++ likelihood" in line and "AMA" in line
    assert "raises the AUROC of 2 of them" in line and "lowers the AUROC of Deep SVDD" in line
    chart = json.loads(at.get("plotly_chart")[0].proto.spec)
    raw = next(trace for trace in chart["data"] if trace.get("name") == "raw score")
    assert len(raw["text"]) == 3 and "PixelCNN" in raw["text"][0]  # the most fooled first


def test_where_none_is_fooled_it_says_so(told, open_page, tmp_path, monkeypatch):
    fine = {"gradients": (0.9, 0.9), "textures": (0.48, 0.8)}  # near chance: not clearly more normal
    told(digits=fine, pixelcnn=fine, deepsvdd=fine)
    at = open_page("lesson", step="Others")
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path / "models"))
    assert "On no measured set" in taken(at.run())
    assert "**Procedural textures**: no set fools any of these raw scores" in words(at) and "the most of them" not in words(at)


def test_without_other_detectors_it_says_how_to_train_some(open_page):
    at = open_page("lesson", step="Others")
    assert "No other detectors are here" in taken(at) and "--detector deepsvdd" in at.code[0].value
