"""A shared machine: the public mode, the folders that may be read, and the server's defaults."""

import os
import shutil
import tomllib
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ama_core.errors import DataError
from ama_core.runs import queue
from ama_core.runs.folder import RUNS_VARIABLE, list_runs
from tests.common import APP, ROOT, SAMPLES, html, words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of runs with an interrupted one; no worker may start."""
    shutil.copytree(SAMPLES / "run-v1", tmp_path / "runs" / "mine")
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    monkeypatch.syspath_prepend(str(APP))
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    return tmp_path / "runs"


def page(name: str, *, routed: bool = False, **address) -> AppTest:
    """A page by itself, or with `routed` as the app opens it, which pages with links need."""
    at = AppTest.from_file(APP / "main.py" if routed else APP / "views" / f"{name}.py", default_timeout=60)
    if routed:
        at.switch_page(f"views/{name}.py")
    for key, value in address.items():
        at.query_params[key] = value
    return at.run()


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_a_public_server_neither_trains_nor_shows_runs(folder, monkeypatch, value):
    monkeypatch.setenv("AMA_PUBLIC", value)
    at = page("train")
    assert not at.exception and "public server" in at.info[0].value
    assert not at.button and not at.text_input and not at.get("file_uploader") and "mine" not in words(at)


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_private_one_does(folder, monkeypatch, value):
    monkeypatch.setenv("AMA_PUBLIC", value)
    at = page("train")
    assert not at.exception and {"Train", "Resume", "Yes, delete mine"} <= {button.label for button in at.button}


@pytest.mark.parametrize("public", [True, False])
def test_the_benchmark_page_queues_nothing_in_public(folder, monkeypatch, public):
    monkeypatch.setenv("AMA_PUBLIC", str(int(public)))
    monkeypatch.setenv("AMA_MODELS_DIR", str(folder / "none"))
    at = page("benchmark", cell="fashionmnist → omniglot")
    assert not at.exception
    assert ("Queue this training here" in [button.label for button in at.button]) is not public
    assert (str(folder) in "\n".join(code.value for code in at.code)) is not public


def test_messages_name_no_folder_in_public(folder, monkeypatch):
    import access

    message = (
        "/srv/models/a/config.json is damaged: /home/me/x. Copy '/srv/models/a b/c.npz' again, at 3/4 of it, "
        "from https://example.org/a/b, to (/data)."
    )
    assert access.without_paths(message) == message and access.shown(Path("/srv/models/a")) == "/srv/models/a"
    monkeypatch.setenv("AMA_PUBLIC", "1")
    assert "/srv" not in (said := access.without_paths(message)) and "/home" not in said and "3/4" in said
    assert "https://example.org/a/b" in said and "(data)" in said
    assert said.startswith("config.json is damaged") and access.shown(Path("/srv/models/a")) == "a"
    (folder / "mine" / "config.json").write_text("{")
    at = page("check", model="mine")
    assert at.error and str(folder) not in words(at)


def test_typed_paths_stay_in_allowed_folders(folder, monkeypatch, tmp_path):
    import access

    inside, outside = tmp_path / "in", tmp_path / "out"
    for place in (inside, outside):
        place.mkdir()
    (inside / "link").symlink_to(outside)
    monkeypatch.setenv("AMA_DATA_ROOTS", os.pathsep.join([str(inside), str(tmp_path / "other")]))
    assert access.allowed(f" {inside}/a/../b ") == inside / "b" and access.allowed(str(folder / "mine")) == folder / "mine"
    for typed in (outside, f"{inside}/../out", inside / "link", "/etc/passwd", f"{inside}-beside", "a\0b", "~nobody-here/x"):
        with pytest.raises(DataError):
            access.allowed(str(typed))
    monkeypatch.delenv("AMA_DATA_ROOTS")
    assert access.allowed("~/pictures") == (Path.home() / "pictures").resolve()
    with pytest.raises(DataError, match="AMA_DATA_ROOTS"):
        access.allowed("/etc")


def test_the_form_says_so_and_queues_nothing(folder, monkeypatch):
    at = page("train", data="my own images")
    at.text_input(key="train-path").set_value("/etc").run()
    assert not at.exception and "outside the folders" in at.error[0].value.replace("\\", "")
    next(button for button in at.button if button.label == "Train").click().run()
    assert list(list_runs(folder)) == ["mine"] and at.text_input(key="train-path").value == "/etc"


def test_server_defaults(monkeypatch):
    """As Streamlit itself reads the file."""
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert settings["server"] == {"address": "127.0.0.1", "maxUploadSize": 50, "enableXsrfProtection": True}
    assert settings["client"]["showErrorDetails"] == "none" and settings["browser"]["gatherUsageStats"] is False
    monkeypatch.chdir(ROOT)
    from streamlit import config

    options = config.get_config_options(force_reparse=True)
    assert options["server.address"].value == "127.0.0.1" and options["server.maxUploadSize"].value == 50
    assert options["server.enableXsrfProtection"].value is True and options["server.enableCORS"].value is True


@pytest.fixture
def no_sets(tmp_path, monkeypatch):
    """A public server with a copy of two models that come with the app, and no images of the sets they were measured on."""
    place = tmp_path / "srv"
    for name in ("fashionmnist", "fashionmnist-plain"):
        shutil.copytree(ROOT / "pretrained" / name, place / "models" / name)
    monkeypatch.setenv("AMA_PUBLIC", "1")
    monkeypatch.setenv("AMA_MODELS_DIR", str(place / "models"))
    monkeypatch.setenv(RUNS_VARIABLE, str(place / "runs"))
    monkeypatch.setenv("AMA_DATA_DIR", str(place / "data"))
    monkeypatch.syspath_prepend(str(APP))
    return place


@pytest.mark.parametrize(
    "name, address, clicked",
    [
        ("lesson", {"step": "Hope", "against": "mnist"}, None),
        ("lesson", {"step": "Surprise", "against": "mnist"}, None),
        ("lesson", {"step": "Threshold", "against": "mnist"}, None),
        ("densities", {"ood": ["mnist"], "at": "10"}, None),
        ("shell", {"of": "test"}, None),
        ("shell", {}, ("shell-scores", ["test", 0])),
        ("simplex", {}, None),
        ("check", {"sample": "0"}, None),
        ("compare", {"against": "mnist"}, ("compare", ["mnist", 0])),
    ],
)
def test_without_the_sets_no_page_names_a_folder_of_a_public_server(no_sets, monkeypatch, name, address, clicked):
    import controls

    if clicked:  # a chart, and one of its points
        draw = controls.chart
        monkeypatch.setattr(
            controls,
            "chart",
            lambda *given, **more: [clicked[1]] if draw(*given, **more) is not None and given[2].startswith(clicked[0]) else [],
        )
    at = page(name, routed=True, **{"model": "fashionmnist"} | address)
    said = everything(at)
    assert not at.exception and " is not in data. Get it with " in said, "the page says why images are missing"
    assert str(no_sets) not in said


@pytest.mark.parametrize("name", ["reconstructions", "compare", "benchmark", "check", "shell", "densities", "about", "lesson"])
def test_with_damaged_models_no_page_names_a_folder_of_a_public_server(no_sets, name):
    for file in ("model.safetensors", "calibration.npz"):
        (no_sets / "models" / "fashionmnist" / file).write_bytes(b"damaged")
    (no_sets / "models" / "fashionmnist-plain" / "config.json").write_text("{")
    at = page(name, routed=True, model="fashionmnist")
    said = everything(at)
    assert not at.exception and (at.error or at.warning) and "damaged" in said and str(no_sets) not in said


def test_a_counterpart_that_is_damaged_is_said_without_its_folder(no_sets):
    (no_sets / "models" / "fashionmnist-plain" / "config.json").write_text("{")
    at = page("reconstructions", routed=True, model="fashionmnist")
    assert not at.exception and "damaged" in at.error[0].value and str(no_sets) not in everything(at)


def test_without_any_image_the_step_cause_and_the_saved_lesson_name_no_folder(no_sets, monkeypatch):
    import cache
    import controls

    def missing(*_, **__):
        raise DataError(f"MNIST (test) is not in {no_sets / 'data'}. Get it with *this*.")

    monkeypatch.setattr(cache, "stored_pictures", missing)
    said = everything(page("lesson", routed=True, model="fashionmnist", step="Cause"))
    assert "No images to change" in said and "is not in data. Get it with *this*." in said and str(no_sets) not in said

    from lesson import save
    from lesson.case import case_of

    folder = cache.models()["fashionmnist"]
    case = case_of(controls.View("fashionmnist", folder, cache.detector(folder), "T", 0.05), "mnist")
    said = save.document({"Cause": case})
    assert "left out: MNIST (test) is not in data. Get it with *this*." in said and str(no_sets) not in said


def everything(at: AppTest) -> str:
    """What a page says in text, code, tables and HTML."""
    tables = [table.value.to_csv() for table in at.dataframe]
    return "\n".join([words(at), html(at), *(code.value for code in at.code), *tables])
