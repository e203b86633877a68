"""The first three pages, run as Streamlit runs them but without a browser, on a tiny model and its plain sibling."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from ama_core.runs.execute import execute
from ama_core.runs.spec import RunSpec
from tests.common import APP

PAGES = ("densities", "reconstructions", "check")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory, tiny_bundle, tiny_config) -> Path:
    """A folder with the models `digits` (measured) and `digits-plain` (not measured)."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_bundle, folder / "digits")
    plain = tiny_config.replace(reconstruction="plain", max_steps=3)
    execute(folder / "digits-plain", RunSpec("digits", plain, measure=False), device="cpu")
    return folder


@pytest.fixture
def open_page(models_dir, monkeypatch):
    """Opens a page with what its address says: open_page("check", sample="3")."""
    monkeypatch.setenv("AMA_MODELS_DIR", str(models_dir))
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, /, **address) -> AppTest:
        at = AppTest.from_file(APP / "main.py", default_timeout=60)
        at.switch_page(f"views/{page}.py")
        for key, value in address.items():
            at.query_params[key] = value
        return at.run()

    return open_


def words(at: AppTest) -> str:
    """Everything that a page says in text."""
    kinds = (at.title, at.markdown, at.caption, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("model", ["digits", "digits-plain"])
def test_a_page_opens_without_an_exception(open_page, page, model):
    at = open_page(page, model=model)
    assert not at.exception and not at.error
    assert f"Model **{model}**" in words(at)


@pytest.mark.parametrize("page", PAGES)
def test_without_a_model_a_page_says_how_to_train_one(open_page, page, tmp_path, monkeypatch):
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    at = open_page(page)
    assert not at.exception
    assert "no trained model" in at.info[0].value and "train photos" in at.code[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_damaged_model_is_a_sentence(open_page, page, models_dir, tmp_path, monkeypatch):
    shutil.copytree(models_dir / "digits", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not weights")
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    at = open_page(page)
    assert not at.exception
    assert "missing or damaged" in at.error[0].value


def test_an_unknown_model_in_the_address_is_told(open_page):
    at = open_page("densities", model="nowhere")
    assert "no model called nowhere" in at.warning[0].value and not at.exception


def test_the_router_leads_to_pages_that_exist(open_page, models_dir):
    at = AppTest.from_file(APP / "main.py", default_timeout=120).run()
    assert not at.exception
