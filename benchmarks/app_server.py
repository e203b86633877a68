"""A fresh server of the app on a free port of this computer, and Chromium to look at it: for benchmarks and browser tests."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--use-gl=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
]
DRAWN = """ms => {
    const app = document.querySelector('[data-testid="stApp"]');
    const busy = !app || app.dataset.testScriptState === "running"
        || document.querySelector('[data-testid="stStatusWidget"], [data-testid="stSkeleton"]');
    if (busy) window.quietSince = null; else window.quietSince ??= Date.now();
    return !busy && Date.now() - window.quietSince > ms;
}"""  # for wait_for_function: the page is drawn, and no script has run for so many milliseconds
PATIENCE = 120  # seconds: a fresh server imports PyTorch first, and the machine may be busy


@contextmanager
def app_server(log: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address and the process of a running app, which ends with the block; what it prints goes to the file `log`.

    Raises RuntimeError where it does not come up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.headless", "true", "--server.port", str(port)]
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The server did not come up:\n{log.read_text()}")
            time.sleep(0.25)
        yield address, process
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
    except OSError:
        return False
    return True
