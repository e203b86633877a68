"""The queue of runs: order, one at a time, pausing, killed processes, deleting; and the time that is predicted."""

import io
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ama_core.data import load_any
from ama_core.detectors.registry import detector_class
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.runs import execute as runs
from ama_core.runs import processes, queue, timing
from ama_core.runs.folder import CHECKPOINT, CURVE_POINTS, Run, list_runs
from ama_core.runs.spec import RunSpec, check, command_line, config_for
from ama_core.runs.status import State, Status
from ama_core.training.loop import Event
from tests.common import REPEATED_IN_CI, png
from tests.runs.reading import is_running, read_curves, read_log, read_metrics, read_status, stop_asked, write_status

pytestmark = REPEATED_IN_CI
PATIENCE = 900  # seconds; only a very busy machine needs more than a few


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of runs, whose worker is only started by hand."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(queue, "ensure_worker", lambda folder: None)
    return tmp_path


@pytest.fixture
def spec(tiny_config):
    return RunSpec("digits", tiny_config.replace(max_steps=3), measure=False)


def test_a_curve_must_not_be_called_as_a_field_is():
    running = Status(State.RUNNING)
    assert Status.from_dict(running.after(Event("progress", 1, 2, {"loss": 0.5})).to_dict()).values == {"loss": 0.5}
    with pytest.raises(ConfigError, match="'error'.*rename"):
        running.after(Event("progress", 1, 2, {"error": 0.5}))


def state(run):
    return read_status(run)["state"]


def wait_until(condition):
    end = time.time() + PATIENCE
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)


def as_running(run, process):
    mark = processes.process_mark(process.pid)
    write_status(run, {"state": "running", "pid": process.pid, "mark": mark, "submitted": 1.0})


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_killed_workers_lock_is_free_and_runs_go_one_after_the_other(folder, spec, monkeypatch):
    code = """import json, sys, time; begun = time.time(); time.sleep(0.3)
json.dump({"state": "finished", "begun": begun, "ended": time.time()}, open(sys.argv[1], "w"))"""

    def start(run, *_, **__):  # a process that trains nothing, and writes down when it was there
        return subprocess.Popen([sys.executable, "-c", code, str(run / "status.json")])

    monkeypatch.setattr(runs, "start", start)
    first, second = queue.submit(folder, "b-first", spec), queue.submit(folder, "a-second", spec)
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(600)",
            str(folder / ".worker.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert held.stdout.readline()
    queue.work(folder)  # another worker lives
    assert [state(run) for run in (first, second)] == ["queued", "queued"]
    held.kill()
    held.wait()

    queue.work(folder)
    assert [state(run) for run in (first, second)] == ["finished", "finished"]
    assert read_status(second)["begun"] >= read_status(first)["ended"]


def test_pause_kill_and_resume_of_a_real_run(folder, tiny_config):
    run = queue.submit(folder, "long", RunSpec("digits", tiny_config.replace(max_steps=150), measure=False))
    worker = threading.Thread(target=queue.work, args=[folder])

    def going():
        status = read_status(run)
        return status["state"] == "running" and status.get("device") and status["pid"] != os.getpid()

    worker.start()
    wait_until(going)
    queue.stop(run, pause=True)
    wait_until(lambda: state(run) == "paused")
    worker.join(PATIENCE)
    assert (run / CHECKPOINT).exists() and 0 < read_status(run)["step"] < 150

    queue.resume(run)
    assert state(run) == "queued"
    worker = threading.Thread(target=queue.work, args=[folder])
    worker.start()
    wait_until(going)
    os.kill(read_status(run)["pid"], signal.SIGKILL)
    wait_until(lambda: state(run) == "interrupted")
    worker.join(PATIENCE)

    queue.resume(run)
    queue.work(folder)
    assert state(run) == "finished" and "finished" in read_log(run)
    steps = [event["step"] for event in read_metrics(run) if event["kind"] == "progress"]
    assert steps == sorted(set(steps)) and steps[-1] == 150


def test_paused_keeps_its_place_and_stopped_goes_to_the_end(folder, spec):
    a, b, c = (queue.submit(folder, name, spec) for name in "abc")
    queue.stop(a, pause=True)
    queue.stop(b)
    assert queue.waiting(folder) == [c] and (state(a), state(b)) == ("paused", "stopped")
    queue.resume(b)
    queue.resume(a)
    assert queue.waiting(folder) == [a, c, b]
    with pytest.raises(ConfigError, match="nothing to resume"):
        queue.resume(a)


def test_a_disk_that_cannot_be_used_is_said_in_words(spec, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for refused in (
        lambda folder: queue.submit(folder, "run", spec),
        lambda folder: queue.save_upload(folder, "a.zip", b"PK"),
    ):
        with pytest.raises(ConfigError, match="file/runs, cannot be used: Not a directory"):
            refused(tmp_path / "file" / "runs")


def test_a_damaged_run_fails_with_its_reason(folder, spec):
    run = queue.submit(folder, "broken", spec)
    (run / "run.json").write_text('{"dataset": 3}')
    queue.work(folder)
    assert state(run) == "failed" and "not a run folder that can be resumed" in read_status(run)["error"]


@pytest.mark.parametrize(
    ("ending", "stop", "expected"),
    [("exit 3", False, "failed"), ("kill -9 $$", False, "interrupted"), ("exit 130", True, "stopped")],
)
def test_a_process_that_ends_before_it_begins(folder, spec, monkeypatch, ending, stop, expected):
    run = queue.submit(folder, "run", spec)

    def start(run, *_, **__):
        if stop:
            Run(run).request_stop()  # as `queue.stop` does in another process
        return subprocess.Popen(["sh", "-c", ending])

    monkeypatch.setattr(runs, "start", start)
    queue.work(folder)
    assert state(run) == expected
    assert ("error" in read_status(run)) != stop


def test_a_running_run_is_waited_for_even_without_its_worker(folder, spec, sleeper):
    orphan, queued = queue.submit(folder, "orphan", spec), queue.submit(folder, "queued", spec)
    as_running(orphan, sleeper)
    worker = threading.Thread(target=queue.work, args=[folder])
    worker.start()
    time.sleep(2 * processes.POLL_SECONDS)
    assert worker.is_alive() and state(queued) == "queued"
    queue.stop(queued)
    worker.join(PATIENCE)
    assert not worker.is_alive()


def test_neither_a_zombie_nor_a_reused_process_id_counts_as_running(folder, spec):
    run = queue.submit(folder, "run", spec)
    process = subprocess.Popen(["sleep", "600"])
    as_running(run, process)
    assert is_running(run) and state(run) == "running"
    write_status(run, read_status(run) | {"mark": "someone else's"})
    assert state(run) == "interrupted"
    as_running(run, process)
    process.kill()
    wait_until(lambda: not is_running(run))  # a zombie: nobody has waited for it
    assert state(run) == "interrupted"
    process.wait()


def test_stop_reaches_a_running_run_once_and_tells_the_rest(folder, spec, sleeper):
    run = queue.submit(folder, "run", spec)
    as_running(run, sleeper)
    queue.stop(run, pause=True)
    assert stop_asked(run) == "pause"
    queue.stop(run)
    assert stop_asked(run) == "stop"
    write_status(run, {"state": "finished"})
    with pytest.raises(ConfigError, match="only a run that is queued or running"):
        queue.stop(run)


def test_delete_takes_only_idle_run_folders(folder, spec, sleeper, tmp_path_factory):
    run = queue.submit(folder, "run", spec)
    as_running(run, sleeper)
    with pytest.raises(ConfigError, match="stop it before"):
        queue.delete(run)
    write_status(run, {"state": "stopped"})
    other = tmp_path_factory.mktemp("precious")
    (other / "run.json").write_text("{}")
    (folder / "link").symlink_to(other)
    (folder / "uploads").mkdir()
    for wrong in (folder / "link", folder / "uploads", folder / "run" / "..", folder / "nothing", folder):
        with pytest.raises(BundleError, match="not a run folder"):
            queue.delete(wrong)
    queue.delete(run)
    assert not run.exists() and (other / "run.json").exists()


def test_a_run_of_another_machine_on_a_shared_disk_is_known_by_its_lock_and_its_heartbeat(folder, spec):
    run = queue.submit(folder, "run", spec)
    lately, long_ago = time.time() - 5, time.time() - 3600
    dead = {"pid": 2**22 + 1, "mark": "of a process that this machine does not have"}

    def write(heartbeat, host):
        (run / "status.json").write_text(json.dumps({"state": "running", "heartbeat": heartbeat, "host": host, **dead}))

    write(lately, platform.node())
    assert state(run) == "interrupted"
    write(lately, "elsewhere")  # claimed by a worker there, and not locked yet
    assert state(run) == "running" and is_running(run)
    code = f"""import sys, time
from ama_core.runs.folder import Run
from pathlib import Path
with Run(Path({str(run)!r})).held(claimed=True):
    print("held", flush=True)
    time.sleep(600)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            write(long_ago, "elsewhere")  # long at one event
            assert state(run) == "running"
            with pytest.raises(ConfigError, match="stop it before"):
                queue.delete(run)
            write(long_ago, platform.node())
            assert state(run) == "interrupted", "here process ids tell"
        finally:
            holder.kill()
    write(long_ago, "elsewhere")
    assert state(run) == "interrupted"
    (run / "status.json").write_text(
        json.dumps({"state": "running", "heartbeat": time.time() - 5, "host": "elsewhere", **dead})
    )
    with Run(run).held():
        pass  # its machine has just died: it goes on here at once
    write(long_ago, "elsewhere")
    queue.delete(run)
    assert not run.exists()


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "a/b", "-dash", "ü", "x" * 65, "uploads", "Taken"])
def test_bad_names_are_refused(folder, spec, name):
    queue.submit(folder, "taken", spec)
    with pytest.raises(ConfigError, match="called"):
        queue.submit(folder, name, spec)
    assert list(list_runs(folder)) == ["taken"]


def test_free_names_are_free_and_valid(folder, spec):
    assert queue.free_name(folder, "my set/α tiny") == "my-set-tiny"
    queue.submit(folder, "digits-tiny", spec)
    wish = queue.free_name(folder, "digits-tiny")
    queue.check_name(folder, wish)
    assert wish == "digits-tiny-2"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"dataset": "mnist"}, DataError, "--download mnist"),
        ({"dataset": "/no/such/folder"}, DataError, "nor an existing path"),
        ({"one_class": 10}, ConfigError, "classes 0 to 9"),
        ({"select": "validated"}, ConfigError, "validation anomalies"),
        ({"validate_ood": "svhn"}, DataError, "SVHN"),
    ],
)
def test_what_cannot_be_carried_out_is_said_before_it_is_queued(folder, spec, changes, error, words):
    with pytest.raises(error, match=words):
        queue.submit(folder, "run", RunSpec(**{**vars(spec), **changes}))
    assert not list_runs(folder)


def test_a_folder_without_an_image_is_refused(folder, spec, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    (own / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no readable image"):
        check(RunSpec(str(own), spec.config))
    Image.new("L", (40, 30)).save(own / "a.png")
    check(RunSpec(str(own), spec.config))


def test_uploads_are_kept_inside_under_harmless_names(folder, spec):
    picture, archive = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", picture.getvalue())
    saved = queue.save_upload(folder, "../../my <b>set.ZIP", archive.getvalue())
    assert saved.parent == folder / "uploads" and saved.read_bytes() == archive.getvalue()
    assert queue.save_upload(folder, "../../my <b>set.ZIP", archive.getvalue()) == saved
    check(RunSpec(str(saved), spec.config))
    with pytest.raises(DataError, match="neither"):
        queue.save_upload(folder, "evil.py", b"")


def test_curves_are_thinned_and_keep_their_ends(tmp_path):
    lines = [{"kind": "progress", "step": i, "total_steps": 2000, "wasserstein": i / 2} for i in range(1, 2001)]
    lines.insert(5, {"kind": "validation", "step": 5, "total_steps": 2000, "auroc_A": 0.5})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = read_curves(tmp_path)
    steps, values = curves["wasserstein"]
    assert len(steps) == CURVE_POINTS and (steps[0], steps[-1], values[-1]) == (1, 2000, 1000.0)
    assert np.array_equal(values, np.array(steps) / 2) and curves["auroc_A"] == ([5], [0.5])


def test_pace_is_measured_once_and_known_afterwards(tmp_path, tiny_config):
    assert timing.known(tiny_config, tmp_path) is None
    measured = timing.measure(tiny_config, tmp_path)
    assert 0 < measured.seconds < 60
    assert timing.known(tiny_config.replace(seed=7, max_steps=50, lr=1e-4), tmp_path) == measured
    for costs_the_same in ({"lr_fall": 0.25}, {"lambda_drift": 0.01}):
        drift = tiny_config.replace(lambda_drift=0.001)
        assert timing._key(drift.replace(**costs_the_same), "here") == timing._key(drift, "here"), costs_the_same
    assert timing.known(tiny_config.replace(width_critic=16), tmp_path) is None
    assert measured.whole_run(tiny_config, 1000) == pytest.approx(12 * measured.seconds)
    two_epochs = tiny_config.replace(max_steps=0, epochs=2)
    assert measured.whole_run(two_epochs, 1000) == pytest.approx(2 * (900 // 16) * measured.seconds)
    file = tmp_path / timing.FILE
    file.write_text(json.dumps({key: {"seconds": 1} for key in json.loads(file.read_text())}))
    assert timing.known(tiny_config, tmp_path) is None, "damaged: it is timed again"


@pytest.mark.parametrize(
    "name, changes, first",
    [
        ("deepsvdd", {"pretraining": 0.4}, 0.4),
        ("deepsvdd", {"pretraining": 0.0}, 0.0),
        ("fencegan", {"pretraining": 0.1}, 0.1),
        ("waic", {"cross_entropy": 0.25}, 0.75),
        ("waic", {"cross_entropy": 0.0}, 1.0),
        ("autoencoder", {}, 1.0),
    ],
)
@pytest.mark.parametrize("steps", [1, 3])
def test_stages_count_by_their_part_of_a_training(monkeypatch, name, changes, first, steps):
    """By a clock that a step of the first stage moves by 1 s, a later one by 0.25 s."""
    kind, now = detector_class(name), [0.0]

    def update(trainer, x):
        now[0] += 1.0 if trainer.step < first * trainer.total else 0.25
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(kind.trainer_class, "update", update)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    config = kind.Settings.preset("tiny", batch_size=8, **changes)
    assert timing._seconds_per_step(config, torch.device("cpu"), steps) == pytest.approx(first + 0.25 * (1 - first))


def test_pace_of_a_finished_run_is_its_own(tiny_run, tiny_config):
    found = timing.known(tiny_config.replace(seed=3), tiny_run.parent)
    facts = json.loads((tiny_run / "config.json").read_text())["training"]
    assert found.seconds == pytest.approx(facts["seconds"] / facts["steps"]) and "tiny" in found.how


def test_steps_of_a_run_and_too_few_images_for_one(tiny_config):
    assert timing.run_steps(tiny_config, 1000) == 12
    assert timing.run_steps(tiny_config.replace(max_steps=0, epochs=2), 1000) == 2 * (900 // 16)
    with pytest.raises(DataError, match="9 training images do not fill one batch of 16"):
        timing.run_steps(tiny_config.replace(calibration_fraction=0.2), 11)
    with pytest.raises(DataError, match="10% of 3 training images are not enough for calibration"):
        timing.run_steps(tiny_config, 3)


def test_images_of_a_run_are_counted(tmp_path, tiny_config):
    for name in ("train/a.png", "train/b/c.png", "test/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert timing.n_images(RunSpec(str(tmp_path), tiny_config)) == 2
    with pytest.raises(DataError, match="too few to divide"):
        timing.n_images(RunSpec(str(tmp_path / "train"), tiny_config))
    assert timing.n_images(RunSpec("digits", tiny_config)) == 1297
    assert 100 < timing.n_images(RunSpec("digits", tiny_config, one_class=3)) < 150


@pytest.mark.parametrize("within", ["", "train"])
def test_as_many_images_are_counted_as_a_run_reads(tmp_path, tiny_config, within):
    picture = png(np.zeros((8, 8), np.uint8))
    place = tmp_path / "mine" / within
    for name in ("a.png", "b/c.png", ".thumbnails/a.png", "b/._c.png", "b/notes.txt"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"notes" if name.endswith("txt") else picture)
    with zipfile.ZipFile(place / "more.zip", "w") as archive:
        for name in (*(f"{i}.png" for i in range(7)), "__MACOSX/0.png", "readme.txt"):
            archive.writestr(name, picture)
    np.savez(place / "rest.npz", images=np.zeros((4, 8, 8), np.uint8))
    for source in (tmp_path / "mine", place / "more.zip", place / "rest.npz"):
        read = load_any(source, "train")
        assert timing.n_images(RunSpec(str(source), tiny_config)) == len(read) > 0
    assert len(load_any(tmp_path / "mine", "train")) == (13 if within else 10)
    (place / "broken.zip").write_bytes(b"broken")
    with pytest.raises(DataError, match="broken.zip"):
        timing.n_images(RunSpec(str(place / "broken.zip"), tiny_config))


def test_the_command_line_says_the_same(tiny_config):
    spec = RunSpec("digits", config_for("digits", "tiny", nz=48), one_class=3, validate_ood="textures", measure=False)
    words = command_line(spec, "runs/a", "tiny").split()
    assert words[:5] == ["python", "-m", "ama_core", "train", "digits"] and "nz=48" in words
    for option, value in {"--one-class": "3", "--validate-ood": "textures", "--out": "runs/a"}.items():
        assert words[words.index(option) + 1] == value
    assert words.count("--set") == 1 and "--no-measure" in words


def test_where_nothing_can_be_locked_no_state_is_changed(folder, spec, monkeypatch):
    monkeypatch.setattr(queue, "lock", lambda file, wait=False: False)
    with pytest.raises(ConfigError, match="cannot be locked"):
        queue.submit(folder, "one", spec)
