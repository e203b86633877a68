"""Several people at once in real browsers: a bounded run of `benchmarks/sessions.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="needs Chromium")
def test_sessions_at_once_see_their_own_uploads_and_settings():
    command = [sys.executable, "benchmarks/sessions.py", "--sessions", "3", "--rounds", "2", "--files", "4", "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-1000:]
    found = json.loads(ended.stdout)
    assert found["uploads"] == 3 * 2 * 4 and not found["errors"] and not found["cross_talk"]
    assert found["upload_s"]["n"] == 6 and found["page_s"]["n"] == 12
