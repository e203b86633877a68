"""Models and pages that several tests of the app share."""

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ama_core.runs.execute import execute
from ama_core.runs.spec import RunSpec
from tests.common import APP


@pytest.fixture(scope="session")
def check_models(tmp_path_factory, tiny_bundle, tiny_config) -> Path:
    """`digits` with stored neighbours, `digits-plain` without."""
    folder = tmp_path_factory.mktemp("check-models")
    shutil.copytree(tiny_bundle, folder / "digits")
    plain = tiny_config.replace(reconstruction="plain", max_steps=3)
    execute(folder / "digits-plain", RunSpec("digits", plain, measure=False), device="cpu")
    return folder


@pytest.fixture
def open_page(check_models, monkeypatch):
    """Opens a page through the router with what its address says: open_page("check", sample="3")."""
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, /, models: Path = check_models, **address) -> AppTest:
        monkeypatch.setenv("AMA_MODELS_DIR", str(models))
        at = AppTest.from_file(APP / "main.py", default_timeout=60)
        at.switch_page(f"views/{page}.py")
        for key, value in {"model": "digits", **address}.items():
            at.query_params[key] = value
        return at.run()

    return open_


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "runs"
