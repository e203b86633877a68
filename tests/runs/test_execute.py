"""Run folders: from the asking to the bundle; stopped, resumed, failed and watched."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ama_core import AMADetector
from ama_core.cli.main import main
from ama_core.data import hold_out, load
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.errors import BundleError, ConfigError, DataError, TrainingDiverged
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import detection_metrics
from ama_core.evaluation.simple import read_simple
from ama_core.runs import execute as runs
from ama_core.runs import queue
from ama_core.runs.execute import RunStopped, execute
from ama_core.runs.folder import CHECKPOINT, Run, list_runs, read_watched
from ama_core.runs.spec import RunSpec, check, command_line, config_for, suited_to_few
from ama_core.storage.bundle import read_results, read_scores
from tests.runs.reading import (
    is_running,
    list_watched,
    list_watched_pictures,
    read_curves,
    read_log,
    read_metrics,
    read_status,
    skip_asked,
)

CPU = torch.device("cpu")


@pytest.fixture
def spec(tiny_config) -> RunSpec:
    return RunSpec("digits", tiny_config.replace(max_steps=6), measure=False)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def set_status(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "status.json").write_text(json.dumps(changes))


# From the asking to the bundle


def test_a_finished_run_is_a_bundle(tiny_run):
    status = read_status(tiny_run)
    assert status["state"] == "finished" and status["step"] == status["total_steps"] == 12
    detector = AMADetector.load(tiny_run, device=CPU)
    normal = detector.info_["normal"]
    assert (normal["name"], normal["source"], normal["label"], normal["n"]) == ("digits", "digits", None, 1297)
    assert normal["fingerprint"] == load("digits", "train").fingerprint
    assert {(s.name, s.split) for s in read_scores(tiny_run)} >= {("digits", "train"), ("digits", "test"), ("textures", "test")}
    assert [row["ood"] for row in read_results(tiny_run)["results"]] == ["gradients", "textures"]
    assert RunSpec.read(tiny_run).config == detector.config


def test_its_events_and_pictures(tiny_run):
    events = read_metrics(tiny_run)
    assert [e["kind"] for e in events][-2:] == ["checkpoint", "done"]
    progress = [e for e in events if e["kind"] == "progress"]
    assert progress[-1]["step"] == 12 and {"loss_critic", "z_ratio", "eta_s", "images_per_s"} <= progress[-1].keys()
    with Image.open(tiny_run / "samples" / "step-0000012.png") as picture:
        assert picture.size == (8 * 32, 2 * 32)
        top = np.asarray(picture)[:32]
    np.testing.assert_array_equal(top[:, :32], next(iter(training_images(tiny_run)))[..., 0])


def training_images(run):
    from ama_core.data import hold_out

    config = RunSpec.read(run).config
    images = load("digits", "train").images
    return images[hold_out(len(images), config.calibration_fraction, config.seed).train]


def test_the_spec_round_trips(tiny_config, tmp_path):
    spec = RunSpec("photos", tiny_config, 1, anomalies="flat", validate_ood="noise", select="validated", measure=False)
    (tmp_path / "run.json").write_text(spec.to_json())
    assert RunSpec.read(tmp_path) == spec


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "digits"}', '{"dataset": "digits", "config": []}', "\xff"])
def test_a_damaged_spec(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match="run folder"):
        RunSpec.read(tmp_path)


def test_config_for_suits_the_data_set():
    assert (config_for("digits", "tiny").channels, config_for("digits", "tiny").fit) == (1, "pad")
    assert (config_for("photos", "tiny").channels, config_for("photos", "tiny").fit) == (3, "crop")
    assert config_for("photos", "tiny", channels="1").channels == 1
    assert config_for("/my/folder", "paper").channels == 3


def test_a_used_folder_is_refused_and_left_alone(spec, tmp_path):
    (tmp_path / "holiday.txt").write_text("sun")
    with pytest.raises(ConfigError, match="not empty"):
        execute(tmp_path, spec, device=CPU)
    assert [file.name for file in tmp_path.iterdir()] == ["holiday.txt"]


def test_one_class_validation_and_real_anomalies(tiny_config, tmp_path):
    config = tiny_config.replace(max_steps=6)
    spec = RunSpec("digits", config, one_class=4, anomalies="flat", validate_ood="textures", select="validated", measure=False)
    detector = execute(tmp_path / "r", spec, device=CPU)
    n = int((load("digits", "train").labels == 4).sum())
    normal, training = detector.info_["normal"], detector.info_["training"]
    assert (normal["label"], normal["n"], normal["anomalies"], normal["validation_ood"]) == (4, n, "flat", "textures")
    validated = [e["auroc_A"] for e in read_metrics(tmp_path / "r") if e["kind"] == "validation"]
    assert training["select"] == "validated" and training["validated_auroc_A"] == max(validated)


def test_an_own_folder_as_normal_set(tiny_config, tmp_path, rng):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(60):
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(pictures / f"{i:02}.png")
    config = tiny_config.replace(max_steps=2, batch_size=8)
    detector = execute(tmp_path / "r", RunSpec(str(pictures), config, measure=False), device=CPU)
    assert detector.info_["normal"]["source"] == str(pictures) and detector.info_["normal"]["n"] == 48  # 80 % of 60


# Stopping and resuming


def test_stop_and_resume_equal_no_interruption(spec, tmp_path):
    execute(tmp_path / "whole", spec, device=CPU)

    def stop(event):
        if event.step == 3:
            Run(tmp_path / "parts").request_stop()

    with pytest.raises(RunStopped, match="step 3.*--resume"):
        execute(tmp_path / "parts", spec, device=CPU, on_event=stop)
    assert read_status(tmp_path / "parts")["state"] == "stopped"
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    execute(tmp_path / "parts", spec, resume=True, device=CPU)
    assert read_status(tmp_path / "parts")["state"] == "finished"

    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    with np.load(tmp_path / "whole" / "calibration.npz") as a, np.load(tmp_path / "parts" / "calibration.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a)
    steps = [e["step"] for e in read_metrics(tmp_path / "parts")]
    assert steps == sorted(steps) and steps[-1] == 6


def test_the_recorded_command_trains_the_same_again(spec, tmp_path):
    """Also that of a run which was stopped, resumed, and begun by the app's worker."""

    def stop(event):
        if event.step == 3:
            Run(tmp_path / "run").request_stop()

    with pytest.raises(RunStopped):
        execute(tmp_path / "run", spec, device=CPU, on_event=stop)
    assert main(["train", "digits", "--out", str(tmp_path / "run"), "--resume", "--device", "cpu", "--quiet"]) == 0
    program, *words = shlex.split(AMADetector.load(tmp_path / "run", device=CPU).info_["training"]["command"])
    assert program == "python" and words[:2] == ["-m", "ama_core"] and "--resume" not in words
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main([*words[2:], "--device", "cpu"]) == 0
    run, again = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert run.keys() == again.keys() and all(torch.equal(run[name], again[name]) for name in run)


def test_a_signal_stops_it_too_and_handlers_are_put_back(spec, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def stop(event):
        if event.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStopped):
        execute(tmp_path / "r", spec, device=CPU, on_event=stop)
    assert read_status(tmp_path / "r")["state"] == "stopped" and read_status(tmp_path / "r")["step"] == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_resumed_run_keeps_to_what_was_asked_first(spec, tmp_path):
    def stop(event):
        Run(tmp_path / "r").request_stop()

    with pytest.raises(RunStopped):
        execute(tmp_path / "r", spec, device=CPU, on_event=stop)
    with pytest.raises(ConfigError, match="digits"):
        execute(tmp_path / "r", RunSpec("photos", spec.config), resume=True, device=CPU)
    other = RunSpec("digits", spec.config.replace(max_steps=99), measure=False)
    detector = execute(tmp_path / "r", other, resume=True, device=CPU)
    assert detector.config == spec.config


def test_a_run_is_not_resumed_on_other_images(spec, tmp_path, digits):
    file, run = tmp_path / "mine.npz", Run(tmp_path / "r")
    np.savez(file, images=digits.images[:200])
    spec = replace(spec, dataset=str(file))

    def stop(event):
        if event.step == 2:
            run.request_stop()

    with pytest.raises(RunStopped):
        execute(run.path, spec, device=CPU, on_event=stop)
    np.savez(file, images=digits.images[200:400])
    with pytest.raises(DataError, match="not those that the run in .* began with: start a new run"):
        execute(run.path, spec, resume=True, device=CPU)
    np.savez(file, images=digits.images[:200])
    assert execute(run.path, spec, resume=True, device=CPU).info_["training"]["steps"] == 6


def test_a_set_is_watched_by_its_training_images(spec, tmp_path, monkeypatch):
    """What is tested in the end is not what was looked at all along."""
    asked, load_any = [], runs.load_any

    def load_spied(name, split, **more):
        asked.append((name, split))
        return load_any(name, split, **more)

    monkeypatch.setattr(runs, "load_any", load_spied)
    execute(tmp_path / "r", replace(spec, watch="textures", config=spec.config.replace(max_steps=1)), device=CPU)
    assert asked == [("digits", "train"), ("textures", "train")]


def test_a_damaged_checkpoint_is_not_resumed(spec, tmp_path):
    def stop(event):
        Run(tmp_path / "r").request_stop()

    with pytest.raises(RunStopped):
        execute(tmp_path / "r", spec, device=CPU, on_event=stop)
    file = tmp_path / "r" / CHECKPOINT
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BundleError, match="checkpoint"):
        execute(tmp_path / "r", spec, resume=True, device=CPU)


def test_nothing_to_resume(spec, tmp_path):
    with pytest.raises(BundleError, match="leave --resume out"):
        execute(tmp_path / "r", spec, resume=True, device=CPU)


# Failing


def test_a_failed_run_says_why(spec, tmp_path):
    def explode(event):
        raise ZeroDivisionError("soup")

    with pytest.raises(ZeroDivisionError):
        execute(tmp_path / "r", spec, device=CPU, on_event=explode)
    status = read_status(tmp_path / "r")
    assert status["state"] == "failed" and status["error"] == "ZeroDivisionError: soup"


def test_a_diverged_run_keeps_its_checkpoint(spec, tmp_path, monkeypatch):
    from ama_core.training import loop as training

    monkeypatch.setattr(training, "LOSS_LIMIT", 0.0)
    with pytest.raises(TrainingDiverged):
        execute(tmp_path / "r", spec, device=CPU)
    status = read_status(tmp_path / "r")
    assert status["state"] == "failed" and "diverged" in status["error"] and "lr" in status["error"]


def test_a_warning_is_in_the_status_and_once_in_the_log(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(AMATrainer, "warning", lambda self, images: "Values drift." if self.step > 1 else "")
    execute(tmp_path / "r", spec, device=CPU)
    assert read_status(tmp_path / "r")["warning"] == "Values drift."
    assert Run(tmp_path / "r").read_log().count("step 2: Values drift.") == 1 == Run(tmp_path / "r").read_log().count("Values")


def test_an_unknown_data_set_fails_with_a_message(spec, tmp_path):
    with pytest.raises(DataError, match="atlantis"):
        execute(tmp_path / "r", RunSpec("atlantis", spec.config), device=CPU)


# Watching


def test_a_dead_process_is_an_interrupted_run(tmp_path):
    for state in ("running", "measuring"):
        set_status(tmp_path / "r", state=state, pid=dead_pid())
        assert read_status(tmp_path / "r")["state"] == "interrupted" and not is_running(tmp_path / "r")
    for state in ("finished", "stopped", "failed"):
        set_status(tmp_path / "r", state=state, pid=dead_pid())
        assert read_status(tmp_path / "r")["state"] == state


def test_a_living_process_is_a_running_one_and_keeps_others_out(spec, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        set_status(tmp_path / "r", state="running", pid=process.pid)
        (tmp_path / "r" / "run.json").write_text(spec.to_json())
        assert is_running(tmp_path / "r") and read_status(tmp_path / "r")["state"] == "running"
        with pytest.raises(ConfigError, match="already training"):
            execute(tmp_path / "r", spec, resume=True, device=CPU)
    finally:
        process.communicate()
    assert read_status(tmp_path / "r")["state"] == "interrupted"


@pytest.mark.parametrize("text", ["", "{", None])
def test_no_status(tmp_path, text):
    if text is not None:
        (tmp_path / "status.json").write_text(text)
    with pytest.raises(BundleError, match="run folder"):
        read_status(tmp_path)
    assert not is_running(tmp_path)


def test_half_a_line_of_metrics_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "progress", "step": 1}\n{"kind": "progress", "st')
    assert read_metrics(tmp_path) == [{"kind": "progress", "step": 1}]
    assert read_metrics(tmp_path / "nowhere") == []


def test_list_runs_is_newest_first(tmp_path):
    for name in ("old", "new", "middle"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        os.utime(tmp_path / name / "run.json", (0, {"old": 1, "middle": 2, "new": 3}[name]))
    (tmp_path / "no run").mkdir()
    assert list(list_runs(tmp_path)) == ["new", "middle", "old"]


def test_list_runs_passes_over_one_that_is_deleted_meanwhile(tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    glob = Path.glob

    def deleting(self, pattern):
        found = list(glob(self, pattern))
        shutil.rmtree(tmp_path / "two")
        return found

    monkeypatch.setattr(Path, "glob", deleting)
    assert sorted(list_runs(tmp_path)) == ["one", "three"]


def test_launch_in_a_process_of_its_own(spec, tmp_path):
    """As the app does: launched, watched through its files, finished; then the same folder will not be launched anew."""
    process = runs.start(tmp_path / "r", spec)
    assert process.pid != os.getpid()
    deadline, status = time.monotonic() + 240, {}
    while time.monotonic() < deadline and status.get("state") not in ("finished", "failed", "interrupted"):
        time.sleep(0.3)
        try:
            status = read_status(tmp_path / "r")
        except BundleError:
            continue
    assert status.get("state") == "finished", status
    assert AMADetector.load(tmp_path / "r", device=CPU).config == spec.config


# Looking on, and skipping


def test_a_watched_run_is_the_same_run_and_keeps_what_was_seen(spec, tmp_path):
    execute(tmp_path / "quiet", spec, device=CPU)

    def stop(event):
        if event.step == 3:
            Run(tmp_path / "watched").request_stop()

    watched = replace(spec, watch="textures")
    with pytest.raises(RunStopped):
        execute(tmp_path / "watched", watched, device=CPU, on_event=stop)
    assert list(list_watched(tmp_path / "watched")) == [1, 2]
    execute(tmp_path / "watched", watched, resume=True, device=CPU)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("quiet", "watched"))
    assert all(torch.equal(one[name], two[name]) for name in one)

    steps, aurocs = read_curves(tmp_path / "watched")["watched_R"]
    assert steps == [1, 2, 5, 6] == list(list_watched(tmp_path / "watched"))
    normal, others = read_watched(list_watched(tmp_path / "watched")[6])["R"]
    assert len(normal) == 65 and len(others) == 200  # half of the held-out images, and no more than 200
    assert aurocs[-1] == pytest.approx(detection_metrics(normal, others)["auroc"], abs=1e-6)
    with Image.open(list_watched_pictures(tmp_path / "watched")[1]) as picture:
        assert picture.size == (8 * 32, 2 * 32)
    normal = AMADetector.load(tmp_path / "watched", device=CPU).normal
    assert normal.watch == "textures" and "watch" not in json.loads((tmp_path / "quiet" / "config.json").read_text())["normal"]


def test_only_a_watched_run_says_so_in_its_file(spec):
    assert "watch" not in json.loads(spec.to_json())
    watched = replace(spec, watch="textures")
    assert RunSpec.from_json(watched.to_json()) == watched
    assert "--watch textures" in command_line(watched, "out", "tiny")
    with pytest.raises(ConfigError, match="--watch digits"):
        check(replace(spec, watch="digits"))


def test_what_is_not_measured_yet_can_be_skipped(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])

    def skip(done, total, name):
        if name == "gradients":
            Run(tmp_path / "r").request_skip()

    execute(tmp_path / "r", replace(spec, measure=True), device=CPU, on_progress=skip)
    assert read_status(tmp_path / "r")["state"] == "finished" and not skip_asked(tmp_path / "r")
    assert [(s.name, s.split) for s in read_scores(tmp_path / "r")] == [("digits", "train"), ("digits", "test")]
    assert not (tmp_path / "r" / "results.json").exists() and "left out, as asked" in read_log(tmp_path / "r")


def test_own_images_are_measured_against_what_was_named_alone(tiny_config, tmp_path, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # compiling it would take half a minute
    for name, n, low in (("good", 60, 0), ("bad", 9, 200)):
        (tmp_path / name).mkdir()
        for i in range(n):
            image = rng.integers(low, low + 50, (20, 24), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{i:02}.png")
    config = tiny_config.replace(max_steps=2, batch_size=8)
    bad = str(tmp_path / "bad")
    seen = []
    statuses = lambda *_: seen.append(json.loads((tmp_path / "r" / "status.json").read_text()))  # noqa: E731
    detector = execute(tmp_path / "r", RunSpec(str(tmp_path / "good"), config, watch=bad), device=CPU, on_progress=statuses)
    assert evaluation.available_others(detector) == [bad]
    assert {(s.name, s.split, s.n) for s in read_scores(tmp_path / "r")} == {
        ("good", "train", 48),
        ("good", "test", 12),
        (bad, "test", 9),
    }
    assert [(row["ood"], row["n_ood"]) for row in read_results(tmp_path / "r")["results"]] == [(bad, 2)]
    assert {name for sets in read_simple(tmp_path / "r").p.values() for name in sets} == {"good", bad}
    assert len(evaluation.stored_images(detector, read_scores(tmp_path / "r")[2])) == 9
    assert {s["measured_sets"] for s in seen} == set(range(1 + seen[0]["sets_to_measure"]))
    assert {(s["set_number"], s["sets"]) for s in seen if s.get("measuring") == bad} == {(2, 2)}


@pytest.mark.parametrize("n", [5, 6, 8, 12, 24, 60, 300, 50_000])
def test_settings_suit_few_images(n):
    config = config_for("/my/folder", "tiny")
    suited = suited_to_few(config, n)
    parts = hold_out(n, suited.calibration_fraction)
    assert suited.total_steps(len(parts.train)) == 700, "every batch is filled"
    assert 2 <= suited.k <= suited.batch_size - suited.n_negatives, "a mixture is of different images"
    assert suited_to_few(config.replace(negative_fraction=0.5), n).k >= 2
    reached = 1 / (len(parts.calibration) + 1)
    assert reached <= 0.05 or suited.calibration_fraction == 0.5
    assert (suited == config) == (n >= 400)


def test_images_are_kept_to_train_on(tmp_path, rng):
    def picture(kind, side):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, kind)
        return file.getvalue()

    jpeg, archive = picture("JPEG", 40), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../in side.png", picture("PNG", 20))
        file.writestr("notes.txt", "no image")
    files = [("../../evil name.JPG", jpeg), ("cut.png", picture("PNG", 30)[:50]), ("a.zip", archive.getvalue())]
    path, n = queue.save_images(tmp_path, files, 9)
    assert n == 2 and path.parent == (tmp_path / "uploads").resolve()
    assert sorted(file.name for file in path.iterdir()) == ["0001-evil-name.jpg", "0002-in-side.png"]
    assert (path / "0001-evil-name.jpg").read_bytes() == jpeg
    assert queue.save_images(tmp_path, files, 9) == (path, 2) and queue.save_images(tmp_path, files[::2], 1)[1] == 1
    renamed, n = queue.save_images(tmp_path, [("other name.jpg", jpeg), *files[1:]], 9)
    assert n == len(list(renamed.iterdir())) == 2 and renamed != path, "no image may lie there twice, under two names"
    with pytest.raises(DataError, match="readable"):
        queue.save_images(tmp_path, files[1:2], 9)
    assert len(list((tmp_path / "uploads").iterdir())) == 3, "no folder is left half-written"
