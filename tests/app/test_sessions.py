"""Several people at once in real browsers, a bounded run of `benchmarks/sessions.py`; and many uploads."""

import gc
import io
import json
import subprocess
import sys

import numpy as np
import psutil
import pytest
from PIL import Image
from streamlit import config
from streamlit.runtime.scriptrunner.script_cache import ScriptCache

from ama_core import AMADetector
from ama_core.scoring.check import check_files
from benchmarks.app_server import CHROMIUM
from tests.common import ROOT


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found on PATH")
def test_sessions_at_once_see_their_own_uploads_and_settings():
    command = [sys.executable, "benchmarks/sessions.py", "--sessions", "3", "--rounds", "2", "--files", "4", "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-1000:]
    found = json.loads(ended.stdout)
    assert found["uploads"] == 3 * 2 * 4 and not found["errors"] and not found["cross_talk"]
    assert found["upload_s"]["n"] == 6 and found["page_s"]["n"] == 12


def test_pages_start_without_parsing_their_source(monkeypatch):
    """ast.parse in two threads at once fails at times on Python 3.11: whoever opened a page beside another saw an error."""
    monkeypatch.chdir(ROOT)
    config.get_config_options(force_reparse=True)
    parsed = []
    with monkeypatch.context() as patch:
        patch.setattr("streamlit.runtime.scriptrunner.magic.add_magic", lambda code, path: parsed.append(path) or code)
        for script in [ROOT / "app" / "main.py", *sorted((ROOT / "app" / "views").glob("*.py"))]:
            assert ScriptCache().get_bytecode(str(script)).co_filename == str(script)
    assert not parsed


def test_memory_is_flat_over_a_thousand_uploads(tiny_bundle, rng):
    detector, resident = AMADetector.load(tiny_bundle, device="cpu"), []
    for i in range(1000):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(file, "PNG")
        assert len(check_files(detector, [(f"{i}.png", file.getvalue())], limit=10)) == 1
        if i in (200, 999):
            gc.collect()
            resident.append(psutil.Process().memory_info().rss)
    assert resident[1] - resident[0] < 30 * 2**20
