"""A small model with stored scores for the lesson and the page about the model, and pages opened on it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.evaluation.protocol import known_aurocs
from ama_core.storage.bundle import read_results, read_scores, write_scores
from tests.app.lesson.common import with_aurocs
from tests.common import APP


@pytest.fixture(scope="session")
def lesson_models(tmp_path_factory, tiny_bundle) -> Path:
    """`digits` as measured, `bare` without stored scores, and `elsewhere` whose OOD images are not here."""
    folder = tmp_path_factory.mktemp("lesson")
    for name in ("digits", "bare", "elsewhere"):
        shutil.copytree(tiny_bundle, folder / name, ignore=shutil.ignore_patterns("samples", "checkpoint*"))
    (folder / "bare" / "scores.npz").unlink()
    stored = read_scores(tiny_bundle)
    away = [replace(s, name="gtsrb") if s.name == "gradients" else s for s in stored if s.name != "textures"]
    write_scores(folder / "elsewhere", away)
    return folder


@pytest.fixture
def open_page(lesson_models, monkeypatch):
    """Opens a page with what its address says: open_page("lesson", step="Band")."""
    monkeypatch.setenv("AMA_MODELS_DIR", str(lesson_models))
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, **address) -> AppTest:
        at = AppTest.from_file(APP / "main.py", default_timeout=120)
        at.query_params.update({"model": "digits", **address})
        at.switch_page(f"views/{page}.py").run()
        assert not at.exception, at.exception[0].value
        return at

    return open_


@pytest.fixture(scope="session")
def measured(lesson_models):
    """The calibration of `digits`, and its stored scores by set."""
    stored = {s.name: s for s in read_scores(lesson_models / "digits") if s.split == "test"}
    return AMADetector.load(lesson_models / "digits", device="cpu").calibration_, stored


@pytest.fixture(scope="session")
def aurocs(lesson_models) -> dict[str, dict[str, float]]:
    """What every page says of `digits`: the figures of the protocol."""
    results = {row["ood"]: row for row in read_results(lesson_models / "digits")["results"]}
    return known_aurocs(AMADetector.load(lesson_models / "digits"), results, read_scores(lesson_models / "digits"))


@pytest.fixture
def told(lesson_models, tmp_path, monkeypatch):
    """A copy of `digits` whose figures may be changed: told({"textures": {"R": 0.3}})."""
    shutil.copytree(lesson_models / "digits", tmp_path / "digits")
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    return lambda changes: with_aurocs(tmp_path / "digits", changes)
