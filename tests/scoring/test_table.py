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

from ama_core import AMADetector
from ama_core.data import load
from ama_core.errors import ConfigError, DataError
from ama_core.scoring import table as streaming


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
    meta = json.loads((tmp_path / "out.csv.meta.json").read_text())
    assert meta["complete"] and meta["rows"] == 679 and meta["bytes"] == (tmp_path / "out.csv").stat().st_size
    assert (meta["model"], meta["alpha"], meta["score"]) == (str(tiny_bundle), 0.05, "T")
    assert [given["path"] for given in meta["inputs"]] == list(map(str, sources))

    assert score(sources, "out.jsonl").rows == len(rows)
    columns = ["path", "index", "R", "A", "log_A", "M", "T", "C", "p_value", "anomalous", "error"]
    for row, line in zip(rows, rows_of(tmp_path / "out.jsonl"), strict=True):
        assert (row["path"], int(row["index"])) == (line["path"], line["index"]) and list(line) == columns == list(row)
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


def test_a_ctrl_c_between_a_row_and_its_count_loses_no_row(score, sources, tmp_path, monkeypatch):
    score(sources, "whole.csv")
    add = streaming.Summary.add

    def interrupted(summary, row):
        if summary.rows == 300:
            raise KeyboardInterrupt
        add(summary, row)

    monkeypatch.setattr(streaming.Summary, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(sources, "out.csv")
    monkeypatch.setattr(streaming.Summary, "add", add)
    assert score(sources, "out.csv", resume=True).rows == 679
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


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
    with pytest.raises(ConfigError, match="other inputs"):
        score(sources[:1], resume=True)
    (tmp_path / "in" / "000.png").unlink()
    with pytest.raises(DataError, match="changed"):
        score(sources, resume=True)
    begin()
    for foreign in ("{}", "[" * 100_000, ""):
        (tmp_path / "out.csv.meta.json").write_text(foreign)
        with pytest.raises(ConfigError, match="cannot be continued"):
            score(sources, resume=True)
    with pytest.raises(ConfigError, match="csv or"):
        score(sources, "out.txt")


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_by_command(tiny_bundle, tmp_path, digits, stop):
    images = np.tile(digits.images, (8, 1, 1, 1))
    np.savez_compressed(tmp_path / "many.npz", images=images)
    out, beside = tmp_path / "out.csv", tmp_path / "out.csv.meta.json"
    words = ["-m", "ama_core", "score", tiny_bundle, tmp_path / "many.npz", "--out", out, "--quiet", "--device", "cpu"]
    command = [sys.executable, *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (beside.exists() and json.loads(beside.read_text())["rows"]) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(stop)
    _, err = process.communicate(timeout=100)
    if stop == signal.SIGTERM:
        assert process.returncode == 130 and "Continue with --resume" in err and "Traceback" not in err
    assert not json.loads(beside.read_text())["complete"], "it was done before it could be killed"
    ended = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=200)
    rows = rows_of(out)
    assert ended.returncode == 0 and f"{len(images):,} rows" in ended.stderr and json.loads(beside.read_text())["complete"]
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


def test_by_command(call, tiny_bundle, sources, tmp_path):
    out = tmp_path / "t.csv"
    code, printed, err = call("score", tiny_bundle, *sources, "--out", out, "--device", "cpu")
    assert code == 0 and printed == "" and "679 rows" in err and "4 could not be scored" in err and "bad.png" in err
    code, _, err = call("score", tiny_bundle, *sources, "--out", out)
    assert code == 2 and "--resume" in err
    code, _, err = call("score", tiny_bundle, *sources, "--resume")
    assert code == 2 and "--out" in err
    code, _, err = call("score", tiny_bundle, tmp_path / "nowhere", "--out", tmp_path / "u.csv")
    assert code == 2 and "does not exist" in err


@pytest.fixture
def formulas(tmp_path, digits, monkeypatch):
    """A working folder with files named as formulas, and one whose name is no text."""
    folder = tmp_path / "formulas"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = ["=1+1.png", "@SUM(A1).png", "+2.png", "-3.png", "\udcff.png", "a\r=1+1.png", "plain.png"]
    for name, image in zip(names, digits.images):
        Image.fromarray(image[..., 0]).save(tmp_path / "one.png")
        os.rename(tmp_path / "one.png", os.fsencode(name))
    return names


def test_no_cell_begins_a_formula(call, tiny_bundle, formulas, tmp_path, monkeypatch):
    words = ("score", tiny_bundle, "--device", "cpu", "--quiet")
    spelled = [name.replace("\udcff", r"\udcff").replace("\r", r"\r") for name in formulas]
    expected = [f"'{name}" if name[0] in "=@+-" else name for name in spelled]
    code, out, _ = call(*words, "--", *formulas)
    assert code == 0 and [row["path"] for row in csv.DictReader(out.splitlines())] == expected
    code, out, _ = call(*words, "--json", "--", *formulas)
    assert [json.loads(line)["path"] for line in out.splitlines()] == formulas

    for name in ("t.csv", "t.jsonl"):
        table = tmp_path / name
        assert call(*words, "--out", table, "--", *formulas)[0] == 0
        whole, before = table.read_bytes(), rows_of(table)
        if name == "t.csv":
            assert [row["path"] for row in rows_of(table)] == expected
        meta = table.with_name(f"{name}.meta.json")
        cut = whole.index(b"\n", whole.index(b"SUM")) + 1  # killed after the second row
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"rows": 2, "bytes": cut, "complete": False}))
        assert call(*words, "--out", table, "--resume", "--", *formulas)[0] == 0
        again = table.read_bytes()
        assert again[:cut] == whole[:cut] and again.count(b"\n") == whole.count(b"\n")
        # Scored without the first two, which a kill never parts within a batch: its last bits may differ.
        assert rows_of(table)[2]["path"] == (expected if name == "t.csv" else formulas)[2]
        assert float(rows_of(table)[2]["R"]) == pytest.approx(float(before[2]["R"]), rel=1e-5)


def test_a_table_belongs_to_one_model_rate_score_and_list_of_images(call, score, sources, tiny_bundle, tmp_path):
    score(sources[:1])
    table = tmp_path / "out.csv"
    whole = table.read_bytes()
    words = ("--out", table, "--resume", "--quiet", "--device", "cpu")
    for model, given, more, said in (
        ("digits", sources[:1], (), "other model ("),
        (tiny_bundle, sources[:1], ("--alpha", "0.5"), "other alpha ("),
        (tiny_bundle, sources[:1], ("--by", "M"), "other score ("),
        (tiny_bundle, sources[1:2], (), "other inputs ("),
        ("digits", sources[:2], ("--alpha", "0.5"), "other model and other alpha and other inputs ("),
    ):
        code, out, err = call("score", model, *given, *words, *more)
        assert code == 2 and out == "" and said in err and "alpha 0.05" in err and len(err.splitlines()) == 1
        assert table.read_bytes() == whole
    np.savez(tmp_path / "c.npz", images=np.zeros((3, 32, 32, 1), np.uint8))
    score(sources[2:3], "c.csv")
    np.savez(tmp_path / "c.npz", images=np.ones((4, 32, 32, 1), np.uint8))  # another file of that name
    with pytest.raises(ConfigError, match="other inputs"):
        score(sources[2:3], "c.csv", resume=True)
    with open(table, "a") as file:
        file.write("mine\n")
    with pytest.raises(ConfigError, match="something else has added"):  # nothing of it is cut off
        score(sources[:1], resume=True)
    assert table.read_bytes() == whole + b"mine\n"


def test_a_foreign_table_is_neither_continued_nor_replaced(call, sources, tiny_bundle, tmp_path):
    table = tmp_path / "foreign.csv"
    table.write_text("name,price\nhammer,3\n")
    words = ("score", tiny_bundle, *sources[:1], "--out", table, "--quiet", "--device", "cpu")
    for more in ((), ("--resume",), ("--resume", "--force")):
        code, _, err = call(*words, *more)
        assert code == 2 and len(err.splitlines()) == 1 and table.read_text() == "name,price\nhammer,3\n"
    assert call(*words, "--force")[0] == 0 and len(rows_of(table)) == 47
    table.write_text("name,price\nhammer,3\n")  # beside it lies now what the old one belonged to
    code, _, err = call(*words, "--resume")
    assert code == 2 and "damaged" in err
    (tmp_path / "u.csv.meta.json").write_text("mine")
    code, _, err = call("score", tiny_bundle, *sources[:1], "--out", tmp_path / "u.csv")
    assert code == 2 and "u.csv.meta.json" in err and (tmp_path / "u.csv.meta.json").read_text() == "mine"


def test_what_is_killed_before_its_first_row_is_no_complete_table(score, sources, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    left = {}

    def die(*_):
        left.update({file.name: file.read_bytes() for file in tmp_path.glob("out.csv*")})  # what a SIGKILL here would leave
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "score_unread", die)
        with pytest.raises(Killed):
            score(sources[:1])
    assert set(left) == {"out.csv", "out.csv.meta.json"}
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
    assert score(sources[:1], resume=True).rows == 47 == len(rows_of(tmp_path / "out.csv"))


def test_a_table_among_the_images_is_none_of_them(score, sources, tmp_path):
    assert score(sources[:1], "in/out.csv").rows == 47
    whole = (tmp_path / "in" / "out.csv").read_bytes()
    assert score(sources[:1], "in/out.csv", resume=True).rows == 47 and (tmp_path / "in" / "out.csv").read_bytes() == whole
    assert score(sources[:1], "in/out.csv", force=True).rows == 47


def test_a_table_that_is_a_device_is_refused(score, sources, tmp_path):
    (tmp_path / "full.csv").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("full.csv", "pipe.csv"):
        for more in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(ConfigError, match="pipe or device"):
                score(sources[:1], name, **more)


def test_the_sample_of_a_table_is_bounded_and_fair(monkeypatch):
    monkeypatch.setattr(streaming, "SAMPLED", 500)
    sample = streaming.Sample(("R", "log_A", "M", "T"))
    for i in range(20_000):
        sample.add({"R": i, "log_A": str(-i), "M": 0.5, "T": 2})
    kept = sample.scores()
    assert len(kept["R"]) == 500 == len(set(kept["R"])) and np.array_equal(kept["R"], -kept["log_A"])
    assert abs(kept["R"].mean() / 20_000 - 0.5) < 0.05 and set(kept["T"]) == {2.0}
    assert len(streaming.Sample(("R",)).scores()["R"]) == 0


def test_drift_of_a_whole_table_is_said(call, tiny_bundle, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(streaming, "SAVE_SECONDS", 0.0)
    np.savez(tmp_path / "same.npz", images=load("digits", "test").images[:400])
    np.savez(tmp_path / "other.npz", images=255 - digits.images[:300])
    np.savez(tmp_path / "few.npz", images=255 - digits.images[:19])
    words = ("score", tiny_bundle, "--quiet", "--device", "cpu")
    drifted = "Taken together, these images differ from the calibration images"
    assert drifted not in call(*words, tmp_path / "same.npz")[2] and drifted not in call(*words, tmp_path / "few.npz")[2]
    code, out, err = call(*words, tmp_path / "other.npz")
    assert code == 0 and drifted in err and drifted not in out
    table = tmp_path / "t.csv"
    assert drifted in call(*words, tmp_path / "other.npz", "--out", table)[2]
    assert drifted in call(*words, tmp_path / "other.npz", "--out", table, "--resume")[2]  # of rows written before
