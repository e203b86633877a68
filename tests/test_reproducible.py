"""The same command, seed and versions give the same model; a bundle says where it comes from, and can be held to its scores."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ama_core import __version__, load_detector
from ama_core.evaluation import protocol as evaluation
from ama_core.storage.bundle import list_bundles, read_info, read_scores
from tests.cli.test_commands import SETTINGS

BUNDLES = list_bundles()


def trained(folder, seed: int) -> dict[str, str]:
    """Train by command in a process of its own; the SHA-256 of what came out."""
    command = [sys.executable, "-m", "ama_core", "train", "digits", "--out", folder, *SETTINGS, "--set", f"seed={seed}"]
    subprocess.run([*map(str, command), "--no-measure", "--quiet", "--device", "cpu"], check=True, timeout=300)
    files = ("model.safetensors", "calibration.npz", "checkpoint.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def test_same_command_same_weights_in_two_processes(tmp_path):
    first, again, other = trained(tmp_path / "a", 3), trained(tmp_path / "b", 3), trained(tmp_path / "c", 4)
    assert first["model.safetensors"] == again["model.safetensors"] != other["model.safetensors"]
    with np.load(tmp_path / "a" / "calibration.npz") as one, np.load(tmp_path / "b" / "calibration.npz") as two:
        assert all(np.array_equal(one[name], two[name]) for name in one.files)
    header = read_info(tmp_path / "a")
    training, normal = header["training"], header["normal"]
    assert header["config"]["seed"] == 3 and len(normal["fingerprint"]) == 16 and normal["n"] == 1297
    assert training["command"].startswith("python -m ama_core train digits") and "seed=3" in training["command"]
    assert set(training["versions"]) == {"python", "torch", "numpy", "ama_core"}
    assert training["versions"]["ama_core"] == __version__


def test_commit_is_of_the_engine(tmp_path, monkeypatch):
    """Files beside the engine do not make its commit a dirty one; a change in it does."""
    import ama_core.provenance as module

    def git(*words):
        options = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", *options, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    engine = tmp_path / "ama_core"
    engine.mkdir()
    (engine / "detector.py").write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    monkeypatch.setattr(module, "__file__", str(engine / "detector.py"))
    (tmp_path / "notes.txt").write_text("a result")
    assert module.commit() == git("rev-parse", "--short", "HEAD")
    (engine / "detector.py").write_text("changed")
    assert module.commit().endswith("-dirty")


def test_commit_of_a_copy_is_what_the_environment_says(tmp_path, monkeypatch):
    import ama_core.provenance as module

    (tmp_path / "ama_core").mkdir()
    (tmp_path / "ama_core" / "provenance.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "ama_core" / "provenance.py"))
    monkeypatch.delenv("AMA_COMMIT", raising=False)
    assert module.commit() is None
    monkeypatch.setenv("AMA_COMMIT", "abc1234")
    assert module.commit() == "abc1234"
    for words in (["init"], ["commit", "--allow-empty", "-m", "x"]):
        own = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *own, *words], check=True, capture_output=True)
    assert module.commit() == "abc1234", "installed below somebody else's checkout, whose commit is not ours"


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_bundles_still_give_their_stored_scores(name):
    stored = [sample for sample in read_scores(BUNDLES[name]) if sample.name in ("digits", "photos", "noise", "flat")]
    rows = evaluation.verify(load_detector(BUNDLES[name], device="cpu"), stored, n=16)
    assert len(rows) >= 4 and all(row["agrees"] and row["n"] == 16 for row in rows), rows


def test_verify_tells_another_model_apart(call, tiny_bundle, tmp_path):
    code, out, _ = call("info", tiny_bundle, "--verify", "--json", "--quiet")
    rows = json.loads(out)
    assert code == 0 and {row["name"] for row in rows} == {"digits", "gradients", "textures"}
    assert all(row["agrees"] and row["n"] == 64 and row["difference"] < 1e-6 for row in rows)

    changed = tmp_path / "changed"
    shutil.copytree(tiny_bundle, changed)
    weights = load_file(changed / "model.safetensors")
    kernel = next(name for name, t in weights.items() if name.startswith("D.") and t.ndim == 4)
    weights[kernel] = weights[kernel] * 1.01
    save_file(weights, changed / "model.safetensors")
    code, out, err = call("info", changed, "--verify", "--quiet")
    assert code == 2 and "DIFFERS" in out and "does not give the scores stored with it" in err

    (changed / "scores.npz").unlink()
    code, _, err = call("info", changed, "--verify")
    assert code == 2 and "ama_core measure" in err
