"""What several tests share: the digits, a tiny configuration, and one quickly trained model in two forms.

Everything runs on the CPU, and no test sees the data sets that happen to lie on this machine.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small networks, and one process a core (pytest-xdist)

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from ama_core import AMADetector, Config
from ama_core.cli.main import main
from ama_core.data import ImageSet, load
from ama_core.evaluation import protocol as evaluation
from ama_core.runs.execute import execute
from ama_core.runs.spec import RunSpec
from tests.common import CPU, REAL_DATA, TINY

# A machine that is shared may hold up any example. In CI the examples are the same each time, so that a failure repeats.
settings.register_profile("ama", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ)
settings.load_profile("ama")


@pytest.fixture(scope="session", autouse=True)
def no_prepared_data(tmp_path_factory):
    """An empty data directory: only built-in and procedural sets are available."""
    before = os.environ.get("AMA_DATA_DIR")
    os.environ["AMA_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))
    yield
    if before is None:
        del os.environ["AMA_DATA_DIR"]
    else:
        os.environ["AMA_DATA_DIR"] = before


@pytest.fixture
def real_data(monkeypatch):
    """Call it with the prepared files that a test needs: they are available to this test, or it skips with the reason."""

    def need(*stems: str) -> Path:
        missing = [stem for stem in stems if not (REAL_DATA / f"{stem}.npz").is_file()]
        if missing:
            pytest.skip(f"needs {', '.join(missing)} in AMA_DATA_DIR (here: {REAL_DATA})")
        monkeypatch.setenv("AMA_DATA_DIR", str(REAL_DATA))
        return REAL_DATA

    return need


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def digits() -> ImageSet:
    """1,297 training digits, uint8 (N, 32, 32, 1)."""
    return load("digits", "train")


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return Config(**TINY)


@pytest.fixture(scope="session")
def tiny_detector(digits, tiny_config) -> AMADetector:
    """A real detector after a few steps of training; do not change it."""
    detector = AMADetector(tiny_config, device=CPU).fit(digits.images)
    detector.info_["normal"] = {"name": "digits", "source": "digits", "label": None, "n": len(digits)}
    return detector


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_config) -> Path:
    """A finished run folder with the stored scores and results of a few sets; read only, copy it to change it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])
        patch.setitem(sys.modules, "umap", None)  # compiling it would take half a minute
        execute(folder, RunSpec("digits", tiny_config), device=CPU)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run) -> Path:
    """The same folder, seen as a bundle."""
    return tiny_run


@pytest.fixture
def call(capsys):
    """Run a command in this process; returns its exit code, standard output and standard error."""

    def run(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:  # argparse
            code = exit.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
