"""Scoring any number of images: the same rows whatever happens on the way, and constant memory."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import psutil
import pytest
from PIL import Image
from test_cli import call  # noqa: F401 (a fixture)

from ama_core import AMADetector, streaming
from ama_core.errors import ConfigError, DataError


@pytest.fixture
def sources(tmp_path, digits):
    """A folder, a zip and an .npz file with 45 + 30 + 600 digits and four files that are none."""
    folder = tmp_path / "in" / "deeper"
    folder.mkdir(parents=True)
    for i in range(45):
        Image.fromarray(digits.images[i, ..., 0]).save((folder if i % 2 else folder.parent) / f"{i:03}.png")
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for i in range(45, 75):
            name = tmp_path / "one.png"
            Image.fromarray(digits.images[i, ..., 0]).save(name)
            archive.write(name, f"{i}.png")
        archive.writestr("cut.png", name.read_bytes()[:60])
        name.unlink()
    np.savez(tmp_path / "c.npz", images=digits.images[100:700])
    (tmp_path / "d.npz").write_bytes(b"no archive")
    return [tmp_path / "in", tmp_path / "b.zip", tmp_path / "c.npz", tmp_path / "d.npz"]


@pytest.fixture
def score(tiny_bundle, tmp_path):
    detector = AMADetector.load(tiny_bundle, device="cpu")

    def run(sources, name="out.csv", **more):
        return streaming.score_to_file(detector, tiny_bundle, sources, tmp_path / name, 0.05, **more)

    return run


def rows_of(file):
    with open(file, newline="") as lines:
        return list(map(json.loads, lines)) if file.suffix == ".jsonl" else list(csv.DictReader(lines))


def test_every_image_has_its_row_and_its_score(score, sources, tmp_path, tiny_bundle, digits):
    summary = score(sources)
    rows = rows_of(tmp_path / "out.csv")
    assert summary.rows == len(rows) == 45 + 2 + 31 + 600 + 1 and summary.unreadable == 4 == len(summary.errors)
    scored = [row for row in rows if not row["error"]]
    assert summary.flagged == sum(row["anomalous"] == "True" for row in scored)
    expected = AMADetector.load(tiny_bundle, device="cpu").scores(digits.images[100:700])
    assert np.array_equal([float(row["R"]) for row in scored[-600:]], expected["R"])
    assert np.array_equal([float(row["p_value"]) for row in scored[-600:]], expected["p_T"])
    assert [row["path"].rsplit("/", 1)[-1] for row in rows if row["error"]] == ["bad.png", "notes.txt", "cut.png", "d.npz"]
    assert not (tmp_path / ".out.csv.progress").exists()

    assert score(sources, "out.jsonl").rows == len(rows)
    for row, line in zip(rows, rows_of(tmp_path / "out.jsonl"), strict=True):
        assert (row["path"], int(row["index"])) == (line["path"], line["index"]) and list(line) == list(streaming.COLUMNS)
        assert row["R"] == ("" if line["R"] is None else repr(line["R"]))


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_table_is_continued_exactly(score, sources, tmp_path, monkeypatch, name, stop_after):
    monkeypatch.setattr(streaming, "SAVE_SECONDS", 0.0)
    score(sources, f"whole-{name}")
    whole = (tmp_path / f"whole-{name}").read_bytes()
    batches = []

    def interrupt(summary):
        batches.append(summary.rows)
        if len(batches) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(sources, name, progress=interrupt)
    out = tmp_path / name
    assert 0 < out.stat().st_size < len(whole)
    with open(out, "ab") as file:  # what a killed process wrote and did not vouch for
        file.write(b'{"half a li')
    seen = []
    fill = streaming._fill
    monkeypatch.setattr(streaming, "_fill", lambda d, rows, images, a: seen.append(len(rows)) or fill(d, rows, images, a))
    summary = score(sources, name, resume=True)
    assert out.read_bytes() == whole and summary.rows == 679 and summary.unreadable == 4
    assert sum(seen) == 679 - 256 * stop_after  # nothing was scored twice
    again = score(sources, name, resume=True)
    assert again == summary and out.read_bytes() == whole  # complete: nothing to do


def test_what_cannot_be_continued_is_refused(score, sources, tmp_path, monkeypatch):
    def stop(summary):
        raise KeyboardInterrupt

    def begin():
        (tmp_path / "out.csv").unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            score(sources, progress=stop)

    begin()
    with pytest.raises(ConfigError, match="--resume"):
        score(sources)
    with pytest.raises(ConfigError, match="another sources"):
        score(sources[:1], resume=True)
    (tmp_path / "in" / "000.png").unlink()
    with pytest.raises(DataError, match="changed"):
        score(sources, resume=True)
    begin()
    (tmp_path / ".out.csv.progress").write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        score(sources, resume=True)
    with pytest.raises(ConfigError, match="csv or"):
        score(sources, "out.txt")


def test_killed_in_the_middle_by_command(tiny_bundle, tmp_path, digits):
    images = np.tile(digits.images, (8, 1, 1, 1))
    np.savez_compressed(tmp_path / "many.npz", images=images)
    out, beside = tmp_path / "out.csv", tmp_path / ".out.csv.progress"
    words = ["-m", "ama_core", "score", tiny_bundle, tmp_path / "many.npz", "--out", out, "--quiet", "--device", "cpu"]
    command = [sys.executable, *map(str, words)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 200
    while not (beside.exists() and json.loads(beside.read_text())["rows"]) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert beside.exists(), "it was done before it could be killed"
    ended = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=200)
    rows = rows_of(out)
    assert ended.returncode == 0 and f"{len(images):,} rows" in ended.stderr and not beside.exists()
    assert [int(row["index"]) for row in rows] == list(range(len(images)))
    assert [row["R"] for row in rows[: len(digits)]] == [row["R"] for row in rows[len(digits) : 2 * len(digits)]]


def test_memory_does_not_grow_with_the_images(tiny_bundle, tmp_path):
    """A compressed array that would fill 1.2 GB is streamed in a small part of that."""
    n, side = 3000, 640
    archive = zipfile.ZipFile(tmp_path / "big.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("images.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (n, side, side)})
        image = bytes(side * side)
        for _ in range(n):
            member.write(image)
    detector = AMADetector.load(tiny_bundle, device="cpu")
    peaks = []
    process = psutil.Process(os.getpid())
    for i, row in enumerate(streaming.score_rows(detector, [tmp_path / "big.npz"], 0.05)):
        assert not row["error"]
        if i % 256 == 0:
            peaks.append(process.memory_info().rss)
    assert i == n - 1 and max(peaks) - peaks[0] < 250 * 2**20


def test_by_command(call, tiny_bundle, sources, tmp_path):  # noqa: F811
    out = tmp_path / "t.csv"
    code, printed, err = call("score", tiny_bundle, *sources, "--out", out, "--device", "cpu")
    assert code == 0 and printed == "" and "679 rows" in err and "4 could not be scored" in err and "bad.png" in err
    code, _, err = call("score", tiny_bundle, *sources, "--out", out)
    assert code == 2 and "--resume" in err
    code, _, err = call("score", tiny_bundle, *sources, "--resume")
    assert code == 2 and "--out" in err
    code, _, err = call("score", tiny_bundle, tmp_path / "nowhere", "--out", tmp_path / "u.csv")
    assert code == 2 and "does not exist" in err
