"""Runs never lose work: killed at random instants, on a disk that fills at any write, by two processes, across versions.

`benchmarks/faults.py` does the same at length.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from ama_core import AMADetector
from ama_core.data import load
from ama_core.detectors import base as detector
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.runs import execute as runs
from ama_core.runs import measuring
from ama_core.runs.folder import LOCK, RUNS_VARIABLE, Run
from ama_core.runs.spec import RunSpec
from ama_core.storage import files
from ama_core.storage.bundle import VERSION as BUNDLE_VERSION
from ama_core.storage.bundle import read_bundle
from ama_core.training.loop import EARLY_STEPS
from tests.common import SAMPLES
from tests.runs.reading import read_metrics, read_status

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture
def faults(monkeypatch):
    """The benchmark as a module; what it changes in the engine is put back."""
    from benchmarks import faults as module

    monkeypatch.setattr(detector, "train", detector.train)
    monkeypatch.setattr(evaluation, "available_sets", evaluation.available_sets)
    monkeypatch.setitem(sys.modules, "umap", None)
    return module


@pytest.fixture
def quick(faults) -> RunSpec:
    """A run of a few steps without measuring."""
    return RunSpec("digits", replace(faults.CONFIG, max_steps=12), measure=False)


@forks
def test_killed_at_random_instants_and_resumed(faults, quick, tmp_path):
    os.waitpid(faults.fork(tmp_path / "undisturbed", quick, resume=False), 0)
    met = faults.kill_often(tmp_path / "killed", quick, kills=6, seed=1, seconds=1.5)
    assert sum(met.values()) == 6
    for folder in (tmp_path / "killed").iterdir():
        faults.compare(folder, tmp_path / "undisturbed")


def test_a_full_disk_at_every_write_in_turn(faults, quick, tmp_path):
    faults.be_quick()
    short = replace(quick, config=replace(quick.config, max_steps=2))
    runs.execute(tmp_path / "undisturbed", short, device="cpu")
    writes = faults.fill_disk_at_every_write(tmp_path / "full", short, tmp_path / "undisturbed")
    assert writes > 15
    status = json.loads((tmp_path / "full" / "5" / "status.json").read_text())
    assert status["state"] == "finished" and "error" not in status


def test_a_full_disk_is_said_in_words(call, faults, tmp_path):
    with faults.FullDisk(8):
        code, _, err = call("train", "digits", "--out", tmp_path / "run", "--set", "max_steps=2", "--quiet", "--device", "cpu")
    assert code == 2 and "No space left" in err and "Traceback" not in err
    assert read_status(tmp_path / "run")["state"] in ("interrupted", "failed")


def test_half_written_files_of_a_killed_process_are_removed(quick, tmp_path):
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "run.json").write_text(quick.to_json())
    left = [folder / ".checkpoint.safetensors.abc.part", folder / "samples" / ".step-1.png.abc.part"]
    for file in left:
        file.write_bytes(b"half")
    runs.execute(folder, quick, resume=True, device="cpu")
    assert not any(file.exists() for file in left)


def test_two_processes_on_one_run_folder(quick, tmp_path):
    """Of four that start together one works, the others say so; the run is as if it had been alone."""
    spec = replace(quick, config=replace(quick.config, max_steps=300))
    command = [sys.executable, "-m", "ama_core", "train", "digits", "--out", tmp_path / "run", "--spec", spec.to_json()]
    processes = [subprocess.Popen([*map(str, command), "--quiet"], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    messages = [process.communicate(timeout=300)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2, 2], messages
    assert all("already training" in m or "not empty" in m for m, code in zip(messages, codes, strict=True) if code)
    steps = [event["step"] for event in read_metrics(tmp_path / "run") if event["kind"] == "progress"]
    assert steps == [*EARLY_STEPS, *range(25, 301, 25)]
    assert read_status(tmp_path / "run")["state"] == "finished"


def test_a_lock_ends_with_its_holder(quick, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    code = """import sys, time; from ama_core.storage import files
f = open(sys.argv[1], 'a'); print(files.lock(f)); time.sleep(100)"""
    holder = subprocess.Popen(
        [sys.executable, "-uc", code, str(folder / LOCK)], stdout=subprocess.PIPE, text=True, cwd=SAMPLES.parent.parent
    )
    assert holder.stdout.readline() == "True\n"
    with pytest.raises(ConfigError, match="already training"):
        runs.execute(folder, quick, device="cpu")
    holder.kill()
    holder.wait()
    runs.execute(folder, quick, device="cpu")
    with open(folder / LOCK, "a") as free:
        assert files.lock(free)


def test_a_run_is_not_continued_on_other_images(faults, tmp_path, digits):
    faults.be_quick()
    np.savez(tmp_path / "own.npz", images=digits.images[:200])
    spec = RunSpec(str(tmp_path / "own.npz"), replace(faults.CONFIG, max_steps=6), measure=False)

    def stop(event):
        if event.step == 4:
            Run(tmp_path / "run").request_stop()

    with pytest.raises(runs.RunStopped):
        runs.execute(tmp_path / "run", spec, device="cpu", on_event=stop)
    np.savez(tmp_path / "own.npz", images=digits.images[200:400])
    with pytest.raises(DataError, match="not those"):
        runs.execute(tmp_path / "run", spec, resume=True, device="cpu")
    np.savez(tmp_path / "own.npz", images=digits.images[:200])
    runs.execute(tmp_path / "run", spec, resume=True, device="cpu")


def test_a_run_that_is_measured_can_be_stopped(quick, tmp_path, monkeypatch):
    def measure_run(model, folder, progress):
        Run(folder).request_stop()
        progress(1, 2, "flat")
        raise AssertionError("it went on")

    monkeypatch.setattr(measuring, "measure_run", measure_run)
    with pytest.raises(runs.RunStopped, match="measuring"):
        runs.execute(tmp_path / "run", replace(quick, measure=True), device="cpu")
    assert read_status(tmp_path / "run")["state"] == "stopped"
    AMADetector.load(tmp_path / "run")  # it is trained


def test_bundles_of_the_first_version_keep_loading_and_scoring():
    images = load("digits", "test").images[:16]
    found = AMADetector.load(SAMPLES / "bundle-v1", device="cpu").scores(images)
    with np.load(SAMPLES / "bundle-v1" / "expected.npz") as expected:
        for name in expected.files:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-3)


@pytest.mark.parametrize("with_version", [True, False], ids=["version 1", "before versions"])
def test_runs_of_the_first_version_keep_resuming(tmp_path, with_version):
    folder = tmp_path / "run"
    shutil.copytree(SAMPLES / "run-v1", folder)
    spec = json.loads((folder / "run.json").read_text())
    assert spec.pop("version") == 1
    if not with_version:
        (folder / "run.json").write_text(json.dumps(spec))
    assert read_status(folder)["state"] == "stopped"
    runs.execute(folder, RunSpec.read(folder), resume=True, device="cpu")
    assert [e["step"] for e in read_metrics(folder) if e["kind"] == "progress"][:3] == [1, 2, 3]
    found, expected = (load_file(place / "model.safetensors") for place in (folder, SAMPLES / "bundle-v1"))
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name].float().numpy(), tensor.float().numpy(), rtol=0.05, atol=0.01, err_msg=name)


def test_newer_versions_are_refused_in_words(tmp_path):
    for name, file, read, newer in (
        ("bundle-v1", "config.json", read_bundle, BUNDLE_VERSION + 1),
        ("run-v1", "run.json", RunSpec.read, 2),
    ):
        folder = tmp_path / name
        shutil.copytree(SAMPLES / name, folder)
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | {"version": newer}))
        with pytest.raises(BundleError, match=f"version {newer}.*update AMA Explorer"):
            read(folder)


def test_the_app_shows_what_happened_and_offers_to_resume(tmp_path, monkeypatch):
    from streamlit.testing.v1 import AppTest

    folder = tmp_path / "killed"
    shutil.copytree(SAMPLES / "run-v1", folder)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running", "pid": 2**22 + 1, "heartbeat": time.time()}))
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path))
    monkeypatch.syspath_prepend(str(SAMPLES.parent.parent / "app"))
    page = AppTest.from_file(str(SAMPLES.parent.parent / "app" / "views" / "train.py"), default_timeout=120).run()
    assert not page.exception
    assert any("interrupted" in text.value and "last checkpoint" in text.value for text in page.markdown)
    assert any(button.label == "Resume" for button in page.button)
