"""A practitioner's photographs, and a model of a few steps that was trained on them."""

import shutil
from pathlib import Path

import numpy as np

from ama_core.detectors.registry import detector_class
from ama_core.runs.execute import execute
from ama_core.runs.spec import RunSpec
from tests.app.test_own_data import SETTINGS, photo


def make_shop(folder: Path) -> Path:
    """In `folder`: `good` (120 photographs), `bad` (15), and `runs/mine`, an AMA of the good ones that names the bad ones."""
    rng = np.random.default_rng(0)
    for name, n in (("good", 120), ("bad", 15)):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            photo(rng, name == "bad").save(folder / name / f"{i:03}.png")
    config = detector_class("ama").Settings(**SETTINGS, calibration_fraction=0.4, seed=3)
    spec = RunSpec(str(folder / "good"), config, watch=str(folder / "bad"), measure=False)
    execute(folder / "runs" / "mine", spec, device="cpu")
    return folder


def moved_shop(shop: Path, to: Path) -> Path:
    """A copy of it that names its own images."""
    shutil.copytree(shop, to)
    for name in ("config.json", "run.json"):
        file = to / "runs" / "mine" / name
        file.write_text(file.read_text().replace(str(shop), str(to)))
    return to
