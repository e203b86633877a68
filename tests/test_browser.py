"""The app in a real browser: the server is started, an image uploaded, its score read. Skipped where Chromium is missing."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ama_core import AMADetector
from ama_core.data import load

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--no-sandbox --use-gl=swiftshader --enable-unsafe-swiftshader --disable-background-networking --no-first-run"
TIMEOUT = 180_000  # ms; a fresh server imports PyTorch first, and the machine may be busy with a training


@pytest.fixture(scope="module")
def server(tiny_bundle, tmp_path_factory):
    """The address of a running app that knows one model, `digits`."""
    models = tmp_path_factory.mktemp("browser-models")
    shutil.copytree(tiny_bundle, models / "digits")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.headless", "true", "--server.port", str(port)]
    log = models / "server.log"
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env={**os.environ, "AMA_MODELS_DIR": str(models)})
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found on PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.set_default_timeout(TIMEOUT)
    yield page
    page.close()


def assert_sound(page) -> None:
    """No exception on the page, and nothing wider than a phone."""
    assert page.locator('[data-testid="stException"]').count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_an_upload_is_scored(server, page, tiny_bundle):
    image = load("digits", "test").images[7]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., 0])).save(file, "PNG")
    page.goto(f"{server}/check?score=R")
    page.locator('input[type="file"]').set_input_files(
        [{"name": "seven.png", "mimeType": "image/png", "buffer": file.getvalue()},
         {"name": "bad.png", "mimeType": "image/png", "buffer": b"no image"}]
    )  # fmt: skip
    page.get_by_role("heading", name="seven.png").wait_for()
    page.get_by_text("could not be scored").wait_for()
    scores = AMADetector.load(tiny_bundle).scores(image[None])
    shown = page.locator('[data-testid="stMetricValue"]').all_inner_texts()
    assert float(shown[0]) == pytest.approx(scores["R"][0], rel=1e-3)
    assert float(shown[1]) == pytest.approx(scores["p_R"][0], abs=1e-4)
    assert_sound(page)


def test_a_row_of_the_table_is_chosen_by_mouse_and_by_keyboard(server, page, tiny_bundle):
    images = load("digits", "test").images[:4]
    scores = AMADetector.load(tiny_bundle).scores(images)["R"]
    names = [f"{i}.png" for i in np.argsort(-scores, kind="stable")]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(image[..., 0])).save(file, "PNG")
            archive.writestr(f"{i}.png", file.getvalue())
    page.goto(f"{server}/check?score=R")
    page.locator('input[type="file"]').set_input_files(
        [{"name": "all.zip", "mimeType": "application/zip", "buffer": content.getvalue()}]
    )
    page.get_by_role("heading", name=f"all.zip/{names[0]}").wait_for()
    page.get_by_text("most similar training images").wait_for()
    page.get_by_text("What these numbers mean").wait_for()  # nothing moves any more
    table = page.locator('[data-testid="stDataFrame"]')
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.click(box["x"] + 15, box["y"] + 40 + 52 + 20)
    page.get_by_role("heading", name=f"all.zip/{names[1]}").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.get_by_role("heading", name=f"all.zip/{names[2]}").wait_for()
    assert_sound(page)


@pytest.mark.parametrize("path", ["densities?ood=textures", "reconstructions?set=gradients"])
def test_a_link_opens_its_view_on_a_phone(server, page, path):
    page.goto(f"{server}/{path}")
    page.get_by_text("What these numbers mean").wait_for()
    page.locator("[data-testid='stPlotlyChart'] svg.main-svg, .ama-table img").first.wait_for()
    assert path in page.url
    assert_sound(page)
