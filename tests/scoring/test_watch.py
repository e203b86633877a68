"""Files as they come: each is scored once, when it is whole, and again when it changes."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image

from ama_core import AMADetector
from ama_core.errors import DataError
from ama_core.scoring.table import score_rows
from ama_core.scoring.watch import watch_rows
from tests.common import REPEATED_IN_CI

pytestmark = REPEATED_IN_CI


class Ended(Exception):
    pass


@pytest.fixture
def detector(tiny_bundle):
    return AMADetector.load(tiny_bundle, device="cpu")


def png(digits, i, path):
    Image.fromarray(digits.images[i, ..., 0]).save(path, "PNG")


def rows_of(detector, folder, *looks):
    """The rows that come up while `looks`, called one after the other between two looks, change the folder."""
    waiting = list(looks)

    def wait(seconds):
        if not waiting:
            raise Ended
        waiting.pop(0)()

    rows = []
    with pytest.raises(Ended):
        for row in watch_rows(detector, [folder], 0.05, wait=wait):
            rows.append((os.path.basename(row["path"]), row["error"], row["T"]))
    return rows


def nothing():
    pass


def test_each_file_is_scored_once_and_when_it_is_whole(detector, digits, tmp_path):
    png(digits, 0, tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()

    def begin():
        (tmp_path / "b.png").write_bytes(whole[:100])

    def finish():
        (tmp_path / "b.png").write_bytes(whole)

    rows = rows_of(detector, tmp_path, nothing, begin, finish, nothing, nothing, nothing)
    assert [(name, error) for name, error, _ in rows] == [("a.png", None), ("b.png", None)]
    (expected,) = [row["T"] for row in score_rows(detector, [tmp_path / "a.png"], 0.05)]
    assert all(t == pytest.approx(expected) for _, _, t in rows)


def test_a_changed_file_is_scored_again_and_a_bad_one_costs_its_row_alone(detector, digits, tmp_path):
    png(digits, 0, tmp_path / "a.png")

    def change():
        png(digits, 1, tmp_path / "a.png")
        os.utime(tmp_path / "a.png", ns=(1, 1))
        (tmp_path / "c.png").write_text("no image")

    rows = rows_of(detector, tmp_path, nothing, change, nothing, (tmp_path / "a.png").unlink, nothing)
    assert [name for name, _, _ in rows] == ["a.png", "a.png", "c.png"]
    assert rows[0][2] != rows[1][2] and rows[2][1]


def test_links_to_folders_are_not_followed(detector, digits, tmp_path):
    folder = tmp_path / "in"
    for place in (folder, tmp_path / "full", tmp_path / "empty"):
        place.mkdir()
    for place in (folder, tmp_path / "full"):
        png(digits, 0, place / "a.png")
    for name, target in (("around", "in"), ("empty", "empty"), ("full", "full"), ("none", "no")):
        (folder / name).symlink_to(tmp_path / target)

    def add():
        png(digits, 1, tmp_path / "full" / "b.png")

    rows = rows_of(detector, folder, nothing, add, nothing)
    expected = [row for row in score_rows(detector, [folder], 0.05) if not row["path"].endswith("none")]
    assert [(name, error) for name, error, _ in rows] == [(os.path.basename(row["path"]), row["error"]) for row in expected]
    assert [name for name, _, _ in rows] == ["a.png", "around", "empty", "full"]


def test_it_ends_after_the_row_in_which_it_is_asked_to(detector, digits, tmp_path):
    for i in range(3):
        png(digits, i, tmp_path / f"{i}.png")
    rows, looks = [], []
    for row in watch_rows(detector, [tmp_path], 0.05, wait=looks.append, stop_requested=lambda: len(rows) == 2):
        rows.append(os.path.basename(row["path"]))
    assert rows == ["0.png", "1.png"] and len(looks) == 1
    assert list(watch_rows(detector, [tmp_path], 0.05, wait=looks.append, stop_requested=lambda: len(looks) == 5)), "three rows"
    assert len(looks) == 5


def test_a_path_that_is_not_there_is_said(detector, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        next(watch_rows(detector, [tmp_path / "none"], 0.05))


def test_by_command_until_it_is_stopped(call, tiny_bundle, digits, tmp_path):
    (tmp_path / "in").mkdir()
    png(digits, 0, tmp_path / "in" / "0.png")
    command = [
        sys.executable,
        "-m",
        "ama_core",
        "score",
        str(tiny_bundle),
        str(tmp_path / "in"),
        "--watch",
        "--json",
        "--quiet",
    ]
    # A shell that starts the tests in the background has Ctrl-C ignored, and so would its children.
    default = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, default)
    limit = threading.Timer(120, process.kill)  # of a row that does not come, for which readline would wait
    limit.start()
    try:
        first = json.loads(process.stdout.readline())
        png(digits, 1, tmp_path / "in" / "1.png")
        second = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        limit.cancel()
        process.kill()
    assert first["path"].endswith("0.png") and second["path"].endswith("1.png")
    assert process.returncode == 0 and "2 rows" in err and "Traceback" not in err
    code, _, err = call("score", tiny_bundle, tmp_path / "in", "--watch", "--out", tmp_path / "t.csv")
    assert code == 2 and "> FILE" in err
