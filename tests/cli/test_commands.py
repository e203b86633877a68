"""The command line, end to end: what it prints, and how it fails."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ama_core import AMADetector, __version__, load_detector
from ama_core.data import catalog, load, overlapping
from ama_core.detectors import registry
from ama_core.detectors.ama.scores import SCORES
from ama_core.detectors.base import NormalData
from ama_core.evaluation import protocol as evaluation
from ama_core.runs import measuring, timing
from ama_core.runs.comparing import own_detectors
from ama_core.storage.bundle import read_info
from ama_core.storage.files import lock
from tests.common import save_pngs

SETTINGS = [
    word
    for setting in (
        "max_steps=3",
        "nz=8",
        "width_encoder=8",
        "width_generator=8",
        "width_critic=8",
        "batch_size=16",
        "precision=fp32",
    )
    for word in ("--set", setting)
]
CONTRACT = ("path", "index", "R", "A", "log_A", "M", "T", "C", "p_value", "anomalous", "error")


@pytest.fixture
def pictures(tmp_path, digits):
    """Three digits as PNG, one file that is none, and one that was cut off."""
    folder = save_pngs(tmp_path / "pictures", digits.images[:3])
    whole = io.BytesIO()
    Image.fromarray(load("photos", "test").images[0]).resize((200, 200)).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[:600])
    (folder / "z.png").write_text("no image")
    return folder


def test_version_as_a_module():
    result = subprocess.run([sys.executable, "-m", "ama_core", "--version"], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0 and result.stdout.strip() == __version__ and not result.stderr


def test_datasets(call):
    code, out, _ = call("datasets", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and set(rows) == set(catalog())
    assert rows["digits"]["available"] == ["train", "test"] and rows["mnist"]["available"] == []
    code, out, _ = call("datasets")
    assert code == 0 and all(name in out for name in catalog()) and "download (about" in out


def test_train_info_and_resume(call, tmp_path):
    out_dir = tmp_path / "m"
    code, out, err = call("train", "digits", "--out", out_dir, "--preset", "tiny", *SETTINGS, "--no-measure", "--device", "cpu")
    assert code == 0 and out == "" and "is ready" in err
    detector = AMADetector.load(out_dir)
    assert (detector.config.nz, detector.config.channels, detector.config.reg) == (8, 1, "hinge")
    assert detector.info_["training"]["steps"] == 3

    code, out, err = call("info", out_dir, "--json")
    header = json.loads(out)
    assert code == 0 and header["normal"]["name"] == "digits" and header["config"]["nz"] == 8 and header["results"] is None
    code, out, _ = call("info", out_dir)
    assert code == 0 and "digits" in out and "width_critic" in out

    code, _, err = call("train", "digits", "--out", out_dir, *SETTINGS)
    assert code == 2 and "not empty" in err
    code, _, _ = call("train", "digits", "--out", out_dir, "--resume", "--no-measure", "--quiet", "--device", "cpu")
    assert code == 0


def test_info_shows_results(call, tiny_bundle):
    code, out, _ = call("info", tiny_bundle)
    assert code == 0 and "textures" in out and "AUROC" in out
    assert "None" not in out and "{" not in out and f"numpy {np.__version__}" in out


def check_rows(rows, detector, pictures, digits):
    """Five files in order; the readable ones scored as the library does."""
    assert [row["path"].split("/")[-1] for row in rows] == ["0.png", "1.png", "2.png", "cut.jpg", "z.png"]
    expected = detector.scores(digits.images[:3])
    for i, row in enumerate(rows[:3]):
        assert row["error"] is None and row["index"] == 0
        for name in ("R", "A", "log_A", "M", "T"):
            assert row[name] == pytest.approx(expected[name][i], rel=1e-4)
        assert row["p_value"] == pytest.approx(expected["p_T"][i])
        assert row["anomalous"] is bool(row["p_value"] <= 0.05)
    for row in rows[3:]:
        assert row["error"] and all(row[name] is None for name in CONTRACT[2:-1])


def test_score_as_json(call, tiny_bundle, pictures, digits):
    code, out, _ = call("score", tiny_bundle, pictures, "--json", "--device", "cpu")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(tuple(row) == CONTRACT for row in rows)
    check_rows(rows, AMADetector.load(tiny_bundle, device="cpu"), pictures, digits)


def test_score_as_csv(call, tiny_bundle, pictures, digits):
    code, out, _ = call("score", tiny_bundle, pictures, "--quiet", "--device", "cpu")
    assert code == 0 and out.splitlines()[0] == ",".join(CONTRACT)
    kinds = {"path": str, "error": str, "index": int, "anomalous": {"True": True, "False": False}.get}
    rows = [
        {key: kinds.get(key, float)(value) if value else None for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(out))
    ]
    check_rows(rows, AMADetector.load(tiny_bundle, device="cpu"), pictures, digits)


def test_score_by_and_alpha(call, tiny_bundle, pictures, digits):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    for by in SCORES:
        code, out, _ = call("score", tiny_bundle, pictures / "1.png", "--json", "--by", by, "--alpha", "0.5", "--quiet")
        (row,) = map(json.loads, out.splitlines())
        assert code == 0 and row["anomalous"] is (row["p_value"] <= 0.5)
        assert row["p_value"] == pytest.approx(detector.scores(digits.images[1:2])[f"p_{by}"][0])


def test_without_alpha_the_models_own_rate_decides(call, tiny_bundle, pictures, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_bundle, model)
    info = json.loads((model / "config.json").read_text())
    info["config"]["false_alarm_rate"] = 0.5
    (model / "config.json").write_text(json.dumps(info))
    flagged = {}
    for name, words in (("own", (model,)), ("asked", (tiny_bundle, "--alpha", "0.5")), ("usual", (tiny_bundle,))):
        _, out, _ = call("score", *words, pictures, "--json", "--quiet", "--device", "cpu")
        flagged[name] = [row["anomalous"] for row in map(json.loads, out.splitlines())]
    assert flagged["own"] == flagged["asked"] != flagged["usual"]


def test_score_arrays_one_row_an_image(call, tiny_bundle, tmp_path, digits):
    np.savez(tmp_path / "some.npz", images=digits.images[:4])
    code, out, _ = call("score", tiny_bundle, tmp_path / "some.npz", "--json", "--quiet")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["index"] for row in rows] == [0, 1, 2, 3]


def test_score_a_colour_photograph_with_a_grey_model(call, tiny_bundle, tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    code, out, _ = call("score", tiny_bundle, tmp_path / "p.png", "--json", "--quiet")
    row = json.loads(out)
    assert code == 0 and row["error"] is None and row["R"] > 0


def test_evaluate_as_json(call, tiny_bundle):
    code, out, _ = call("evaluate", tiny_bundle, "--ood", "flat", "textures", "--json", "--seed", "3", "--device", "cpu")
    assert code == 0 and len(out.splitlines()) == 1
    found = json.loads(out)
    assert list(found) == ["model", "normal", "seed", "results"]
    assert (found["model"], found["normal"], found["seed"]) == (str(tiny_bundle), "digits", 3)
    for row, name in zip(found["results"], ("flat", "textures")):
        assert list(row) == ["ood", "n_normal", "n_ood", "scores"]
        assert (row["ood"], row["n_normal"], row["n_ood"]) == (name, 500, 100)
        assert list(row["scores"]) == ["R", "A", "M", "T", "C"]
        assert all(set(metrics) == {"auroc", "auprc", "fpr95"} for metrics in row["scores"].values())


def test_a_folder_that_is_evaluated_says_what_was_left_out_and_what_was_drawn(call, tiny_bundle, tmp_path, rng):
    for i in range(150):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    code, _, err = call("evaluate", tiny_bundle, "--ood", tmp_path)
    assert code == 0 and "1 file left out: cut.png" in err and "100 of the 150 images" in err and "--full" in err
    code, _, err = call("evaluate", tiny_bundle, "--ood", tmp_path, "--full")
    assert code == 0 and "were drawn" not in err


def test_evaluate_looks_for_its_sets_before_it_scores(call, tiny_bundle, monkeypatch):
    monkeypatch.setattr(evaluation, "measure", None)  # scoring fails
    for missing in ("nope", "svhn"):
        code, _, err = call("evaluate", tiny_bundle, "--ood", "digits", missing)
        assert code == 2 and missing in err.lower()


def test_words_that_a_command_does_not_know_lead_to_its_help(call):
    code, _, err = call("compare", "good", "--detectors", "pca", "nearest")
    assert code == 2 and err == "ama_core: unrecognized arguments: nearest. See: python -m ama_core compare --help\n"


def test_training_says_at_once_that_its_rate_is_out_of_reach(call, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(measuring, "measure_run", lambda detector, folder, progress: progress(1, 2, "digits"))
    (tmp_path / "good").mkdir()
    for i in range(60):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "good" / f"{i}.png")
    words = ("train", tmp_path / "good", "--detector", "pixel_mean", "--set")
    _, _, err = call(*words, "false_alarm_rate=0.01", "--out", tmp_path / "a")
    assert err.index("nothing can be flagged") < err.index("Trained."), "before it is measured"
    assert "At a false-alarm rate of 0.01 nothing can be flagged" in err and "about 396 training images instead of 48" in err
    _, _, err = call(*words, "false_alarm_rate=0.2", "--out", tmp_path / "b", "--no-measure")
    assert "nothing can be flagged" not in err


def test_evaluate_as_a_table(call, tiny_bundle):
    code, out, _ = call("evaluate", tiny_bundle, "--ood", "flat", "--full", "--quiet")
    assert code == 0 and "AUROC" in out and "2,000" in out and len(out.splitlines()) == 4
    assert out.splitlines()[3].count(" to ") == 5  # an interval for each score


def test_measure(call, tiny_bundle, tmp_path, monkeypatch):
    from ama_core.evaluation import protocol as evaluation
    from ama_core.storage.bundle import read_results, read_scores

    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "flat"])
    monkeypatch.setitem(sys.modules, "umap", None)  # compiling it would take half a minute
    shutil.copytree(tiny_bundle, tmp_path / "b")
    for name in ("scores.npz", "results.json"):
        (tmp_path / "b" / name).unlink()
    code, out, _ = call("measure", tmp_path / "b", "--quiet", "--seed", "2")
    assert code == 0 and "flat" in out
    assert read_results(tmp_path / "b")["seed"] == 2
    assert {s.name for s in read_scores(tmp_path / "b")} == {"digits", "flat"}
    with np.load(tmp_path / "b" / "calibration.npz") as found:
        earlier = {name: array for name, array in found.items() if name != "scores.C" and not name.startswith("gaussian_i")}
    np.savez(tmp_path / "b" / "calibration.npz", **earlier)  # as before there was C
    assert (
        call("measure", tmp_path / "b", "--quiet")[0] == 0 and "C" not in read_results(tmp_path / "b")["results"][0]["scores"]
    )
    code, out, _ = call("measure", tmp_path / "b", "--calibrate", "--quiet")
    assert code == 0 and "C" in read_results(tmp_path / "b")["results"][0]["scores"]
    assert AMADetector.load(tmp_path / "b", score="C").by == "C"


# Bad input


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def assert_one_clear_line(result, *mentions):
    code, out, err = result
    assert code == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert "Traceback" not in err and all(str(m) in err for m in mentions)


def test_unknown_model(call, tmp_path):
    for command in (("info", "atlantis"), ("score", "atlantis", tmp_path), ("evaluate", "atlantis", "--ood", "flat")):
        assert_one_clear_line(call(*command), "atlantis")


def test_unknown_data_set(call, tiny_bundle, tmp_path):
    assert_one_clear_line(call("train", "atlantis", "--out", tmp_path / "m"), "atlantis")
    assert_one_clear_line(call("evaluate", tiny_bundle, "--ood", "atlantis", "--quiet"), "atlantis")
    assert_one_clear_line(call("datasets", "--download", "atlantis"), "atlantis")


@pytest.mark.parametrize("setting, mention", [("nz=many", "nz"), ("nz", "KEY=VALUE"), ("colour=3", "colour"), ("lr=-1", "lr")])
def test_bad_settings(call, tmp_path, setting, mention):
    assert_one_clear_line(call("train", "digits", "--out", tmp_path / "m", "--set", setting), mention)
    assert not (tmp_path / "m").exists()


def test_missing_path(call, tiny_bundle, tmp_path):
    assert_one_clear_line(call("score", tiny_bundle, tmp_path / "nowhere.png", "--quiet"), "nowhere.png")
    assert_one_clear_line(call("train", tmp_path / "nowhere", "--out", tmp_path / "m"), "nowhere")


def test_missing_path_without_quiet(call, tiny_bundle, tmp_path):
    assert_one_clear_line(call("score", tiny_bundle, tmp_path / "nowhere.png"), "nowhere.png")


def test_empty_folder(call, tiny_bundle, tmp_path, empty):
    assert_one_clear_line(call("score", tiny_bundle, empty, "--quiet"), "empty")
    assert_one_clear_line(call("evaluate", tiny_bundle, "--ood", empty, "--quiet"), "empty")
    assert_one_clear_line(call("train", empty, "--out", tmp_path / "m"), "empty")


def test_damaged_bundle(call, tiny_bundle, tmp_path, pictures):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    file = tmp_path / "b" / "calibration.npz"
    file.write_bytes(file.read_bytes()[:500])
    assert_one_clear_line(call("score", tmp_path / "b", pictures), "calibration.npz")


@pytest.mark.parametrize("alpha", ["0", "1", "-1", "1.5", "nan", "many"])
def test_impossible_alpha(call, tiny_bundle, pictures, tmp_path, alpha):
    for words in (
        ("score", tiny_bundle, pictures),
        ("report", tiny_bundle, pictures, "--out", tmp_path / "report.html"),
        ("inspect", pictures),
        ("compare", pictures),
    ):
        assert_one_clear_line(call(*words, "--alpha", alpha), "--alpha")


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:x"])
def test_unknown_device(call, tiny_bundle, pictures, device):
    assert_one_clear_line(call("score", tiny_bundle, pictures, "--device", device), device)


USAGE = ([], ["fly"], ["train", "digits"], ["score", "m"], ["train", "digits", "--preset", "huge"], ["bench", "--seed"])


@pytest.mark.parametrize("command", USAGE)
def test_misuse_is_one_line(call, command):
    assert_one_clear_line(call(*command), "--help")


def test_a_name_taken_by_mistake_can_be_used_again(call, tmp_path):
    """A run that never began leaves nothing behind that refuses the next one."""
    assert call("train", "digtis", "--out", tmp_path / "m")[0] == 2
    words = ("train", "digits", "--out", tmp_path / "m", *SETTINGS, "--no-measure", "--quiet", "--device", "cpu")
    assert call(*words)[0] == 0


# Outputs


@pytest.mark.parametrize("command", ["report", "share", "score"])
def test_what_others_wrote_is_not_overwritten(call, tiny_bundle, pictures, tmp_path, command):
    out = tmp_path / {"report": "r.html", "share": "s.zip", "score": "t.csv"}[command]
    words = (command, tiny_bundle, *(() if command == "share" else (pictures, "--quiet", "--device", "cpu")), "--out")
    out.write_text("mine")
    assert_one_clear_line(call(*words, out), out, "--force")
    assert out.read_text() == "mine"
    assert call(*words, out, "--force")[0] == 0 and out.stat().st_size > 100
    if command != "score":  # a table is continued or replaced, never by mistake
        assert call(*words, out)[0] == 0
    for name in ("folder", "null"):
        place = (tmp_path / "null").with_suffix(out.suffix) if name == "null" else tmp_path / f"folder{out.suffix}"
        place.symlink_to("/dev/null") if name == "null" else place.mkdir()
        assert_one_clear_line(call(*words, place, "--force"), place)
    assert_one_clear_line(call(*words, ""), "path is empty")


def links(place, photo):
    """Every way in which a photo can be named as the output."""
    place.mkdir()
    for kind in (".html", ".csv"):
        (place / f"soft{kind}").symlink_to(photo)
        (place / f"hard{kind}").hardlink_to(photo)
    (place / "way").symlink_to(photo.parent)
    return [photo, place / "way" / photo.name, *(place / f"{how}.html" for how in ("soft", "hard"))]


def test_an_input_is_never_overwritten(call, tiny_bundle, pictures, tmp_path):
    photo = pictures / "0.png"
    whole = photo.read_bytes()
    ways = links(tmp_path / "ways", photo)
    for given in (photo, pictures, tmp_path / "ways" / "way", tmp_path / "ways" / "soft.html"):
        for out in ways:
            for force in ((), ("--force",)):
                assert_one_clear_line(call("report", tiny_bundle, given, "--out", out, *force), "one of the files to be read")
        for how in ("soft", "hard"):
            for more in ((), ("--force",), ("--resume",)):
                out = tmp_path / "ways" / f"{how}.csv"
                assert_one_clear_line(call("score", tiny_bundle, given, "--out", out, *more), "one of the files to be read")
    assert photo.read_bytes() == whole
    shutil.copytree(tiny_bundle, tmp_path / "m")
    for command in (("share",), ("report", photo)):
        for name in ("config.json", "model.safetensors"):
            result = call(command[0], tmp_path / "m", *command[1:], "--out", tmp_path / "m" / name, "--force")
            assert_one_clear_line(result, "one of the files to be read")
    AMADetector.load(tmp_path / "m")


def test_a_report_among_the_images_is_written_again(call, tiny_bundle, pictures):
    for _ in range(2):
        assert call("report", tiny_bundle, pictures, "--out", pictures / "r.html", "--quiet", "--device", "cpu")[0] == 0


# What cannot be


def test_a_rate_that_cannot_be_reached_is_said(call, tiny_bundle, pictures, tmp_path):
    n = len(AMADetector.load(tiny_bundle).calibration_.scores["T"])
    words = (tiny_bundle, pictures, "--quiet", "--device", "cpu", "--alpha")
    said = f"with {n} calibration images no p-value is below 1/{n + 1}"
    for rate in ("0.001", f"{0.999 / (n + 1)}"):
        code, _, err = call("score", *words, rate)
        assert code == 0 and "nothing can be flagged" in err and said in err
    assert "999 calibration images" in call("score", *words, "0.001")[2]
    for rate in (repr(1 / (n + 1)), "0.05"):
        assert "nothing can be flagged" not in call("score", *words, rate)[2]
    code, _, err = call("report", *words, "0.001", "--out", tmp_path / "r.html")
    report = (tmp_path / "r.html").read_text()
    assert code == 0 and said in err and said in report and "cannot be decided" in report and "would be" not in report


@pytest.mark.parametrize("most", ["0", "-1"])
def test_a_report_of_no_image_is_refused(call, tiny_bundle, pictures, tmp_path, most):
    result = call("report", tiny_bundle, pictures, "--out", tmp_path / "r.html", "--limit", most)
    assert_one_clear_line(result, "--limit")
    assert not (tmp_path / "r.html").exists()


def test_negative_seeds_and_counts(call, tiny_bundle):
    assert_one_clear_line(call("evaluate", tiny_bundle, "--ood", "flat", "--seed=-1"), "--seed -1")
    assert_one_clear_line(call("measure", tiny_bundle, "--seed=-1"), "--seed -1")
    assert_one_clear_line(call("benchmark", "table1", "--seeds", "0", "--list"), "--seeds")
    assert_one_clear_line(call("benchmark", "table1", "--jobs", "-1", "--list"), "--jobs")


def test_an_empty_path_is_not_the_current_folder(call, tiny_bundle, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    out = tmp_path / "m"
    for words in (
        ("score", tiny_bundle, ""),
        ("report", tiny_bundle, "", "--out", tmp_path / "r.html"),
        ("inspect", ""),
        ("inspect", pictures, "--against", ""),
        ("train", "", "--out", out),
        ("train", pictures, "--out", ""),
        ("train", pictures, "--out", out, "--anomalies", ""),
        ("train", pictures, "--out", out, "--validate-ood", ""),
        ("evaluate", tiny_bundle, "--ood", ""),
        ("score", tiny_bundle, pictures, "--out", ""),
    ):
        assert_one_clear_line(call(*words), "path is empty")
    monkeypatch.chdir(tiny_bundle)
    assert_one_clear_line(call("info", ""), "no model")
    assert not out.exists()


def test_nothing_readable_is_an_error(call, tiny_bundle, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("a.txt", "b.png"):
        (folder / name).write_text("no image")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (-1, 32, 32, 3)})
    with zipfile.ZipFile(tmp_path / "negative.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(5 * 32 * 32 * 3))
    for source in (folder, folder / "b.png", tmp_path / "negative.npz"):
        for more in ((), ("--json",), ("--out", tmp_path / f"{source.name}.csv")):
            code, out, err = call("score", tiny_bundle, source, "--quiet", *more)
            assert code == 2 and "No image could be scored" in err.splitlines()[-1] and "Traceback" not in err
        assert out == "" and "error" in (tmp_path / f"{source.name}.csv").read_text()
        result = call("report", tiny_bundle, source, "--out", tmp_path / "r.html")
        assert_one_clear_line(result, "No image could be scored")
        assert not (tmp_path / "r.html").exists()
    result = call("score", tiny_bundle, tmp_path / "nowhere", "--out", tmp_path / "n.csv")
    assert_one_clear_line(result, "does not exist")
    assert not (tmp_path / "n.csv").exists()  # nor is anything left behind


def test_the_current_folder_is_called_by_its_name(call, digits, tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    save_pngs(pictures, digits.images[:30])
    monkeypatch.chdir(pictures)
    words = ("--detector", "pixel_mean", "--no-measure", "--quiet", "--set", "image_size=32")
    for source in (".", pictures.parent / "somewhere" / ".." / pictures.name / "deeper" / ".."):
        (pictures / "deeper").mkdir(exist_ok=True)
        (pictures.parent / "somewhere").mkdir(exist_ok=True)
        out = tmp_path / f"m{len(str(source))}"
        assert call("train", source, "--out", out, *words)[0] == 0
        assert NormalData.of(read_info(out)).name == pictures.name


def test_normal_images_are_no_anomalies(call, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(pictures)
    (pictures / "deeper").mkdir()
    divided = tmp_path / "divided"
    for name in ("train", "test", "bad"):
        shutil.copytree(pictures, divided / name)
    for normal, others in (
        (pictures, (pictures, f"{pictures}/", "pictures/../pictures", "link", tmp_path, pictures / "deeper")),
        (pictures / "0.png", (pictures,)),
        (divided, (divided, divided / "train", divided / "test")),
        ("digits", ("digits",)),
    ):
        for other in others:
            for option in ("--anomalies", "--validate-ood"):
                for more in ((), ("--download",)):
                    result = call("train", normal, "--out", tmp_path / "m", option, other, *more, *SETTINGS)
                    assert_one_clear_line(result, option, "normal images")
    assert not (tmp_path / "m").exists()
    assert not overlapping(divided, divided / "bad") and not overlapping("digits", pictures)


def test_names_that_two_sets_would_share_are_refused(call, pictures, tmp_path, monkeypatch):
    own = shutil.copytree(pictures, tmp_path / "noise")
    shutil.copytree(pictures, tmp_path / "elsewhere" / "parts")
    shutil.copytree(pictures, tmp_path / "parts")
    monkeypatch.chdir(tmp_path)
    for normal, other in ((own, "noise"), (tmp_path / "elsewhere" / "parts", "parts")):
        result = call("train", normal, "--out", tmp_path / "m", "--watch", other, *SETTINGS)
        assert_one_clear_line(result, "could not be told apart", "--watch")
    assert not (tmp_path / "m").exists()


@pytest.fixture
def thirty(tmp_path, digits):
    return save_pngs(tmp_path / "thirty", digits.images[:30])


def test_a_small_folder_is_trained_on_with_settings_that_suit_it(call, tmp_path, thirty):
    code, _, err = call("train", thirty, "--out", tmp_path / "m", "--no-measure", "--quiet", "--set", "max_steps=2")
    assert code == 0 and "calibration_fraction=0.5, batch_size=6" in err
    config = AMADetector.load(tmp_path / "m", device="cpu").settings
    assert (config.calibration_fraction, config.batch_size) == (0.5, 6)
    given = (
        "train",
        thirty,
        "--out",
        tmp_path / "n",
        "--no-measure",
        "--quiet",
        "--set",
        "max_steps=2",
        "--set",
        "batch_size=9",
    )
    code, _, err = call(*given)
    assert code == 0 and AMADetector.load(tmp_path / "n", device="cpu").settings.batch_size == 9


def test_what_failed_at_once_may_be_begun_again(call, tmp_path, thirty):
    words = ("train", thirty, "--out", tmp_path / "m", "--no-measure", "--quiet", "--set", "max_steps=2")
    for wrong in (("--device", "cuda:99"), ("--set", "batch_size=64")):
        code, _, err = call(*words, *wrong)
        assert code == 2 and "Traceback" not in err
    assert "--set batch_size=6" in err
    code, _, err = call(*words)
    assert code == 0
    assert_one_clear_line(call(*words, "--set", "batch_size=6", "--set", "calibration_fraction=0.5"), "not empty")


@pytest.mark.parametrize(
    "changed, said",
    [
        (("--set", "max_steps=9"), "max_steps=2, not 9"),
        (("--preset", "small"), "not "),
        (("--detector", "nearest"), "--detector ama, not nearest"),
        (("--one-class", "3"), "without --one-class, not 3"),
        (("--watch", "noise"), "without --watch, not noise"),
    ],
)
def test_a_run_goes_on_as_it_began(call, tmp_path, thirty, changed, said):
    words = ("train", thirty, "--out", tmp_path / "m", "--no-measure", "--quiet")
    assert call(*words, "--set", "max_steps=2")[0] == 0
    assert_one_clear_line(call(*words, "--resume", *changed), said)
    assert call(*words, "--resume")[0] == call(*words, "--resume", "--preset", "tiny", "--set", "max_steps=2")[0] == 0
    assert_one_clear_line(call("train", thirty, "--out", tmp_path / "none", "--resume"), "leave --resume out")


def test_links_are_named_and_not_followed(call, tiny_bundle, pictures, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "a").symlink_to(pictures)
    (folder / "b.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "c.png").symlink_to(pictures / "0.png")
    code, out, _ = call("score", tiny_bundle, folder, "--json", "--quiet")
    errors = {Path(row["path"]).name: row["error"] for row in map(json.loads, out.splitlines())}
    assert code == 0 and errors.pop("c.png") is None
    assert "not followed" in errors["a"] and "nowhere" in errors["b.png"]


def test_a_table_has_one_writer(call, tiny_bundle, pictures, tmp_path):
    out = tmp_path / "t.csv"
    words = ("score", tiny_bundle, pictures, "--out", out, "--quiet")
    assert call(*words)[0] == 0
    before = out.read_bytes()
    with open(out, "ab") as held:
        assert lock(held)
        for how in ("--resume", "--force"):
            assert_one_clear_line(call(*words, how), "Another process is writing")
    assert out.read_bytes() == before
    assert call(*words, "--force")[0] == 0 and out.read_bytes() == before
    assert_one_clear_line(call(*words[:3], "--out", tmp_path / "no" / "t.csv"), "does not exist: make it")


def test_a_model_is_calibrated_on_images_of_another_camera(call, tiny_bundle, tmp_path, digits):
    for kind, chosen in (("good", slice(0, 60)), ("new", slice(60, 260))):
        save_pngs(tmp_path / kind, digits.images[chosen] // 2 + 60)  # brighter, with less contrast
    words = (tmp_path / "good", "--out", tmp_path / "m", "--quiet", "--alpha", "0.1")
    before = np.mean(AMADetector.load(tiny_bundle, device="cpu").p_value(tmp_path / "good") <= 0.1)
    assert before > 0.5
    code, out, err = call("calibrate", tiny_bundle, *words)
    assert code == 0 and f" {before:.1%} of these 60 images were flagged" in out and "Warning" not in err
    assert "from 60 other normal images, good" in (tmp_path / "m" / "README.md").read_text()
    flagged = []
    for model in (tiny_bundle, tmp_path / "m"):
        _, out, _ = call("score", model, tmp_path / "new", "--alpha", "0.1", "--json", "--quiet")
        flagged.append(np.mean([json.loads(line)["anomalous"] for line in out.splitlines()]))
    assert flagged[0] > 0.5 and flagged[1] < 0.2
    _, out, err = call("calibrate", tiny_bundle, tmp_path / "good", "--out", tmp_path / "n", "--quiet", "--alpha", "0.001")
    assert "nothing could be flagged before." in out and "now are" not in out and "nothing can be flagged" in err
    words_of = ("--quiet", "--out", tmp_path / "p")
    assert call("train", tmp_path / "good", "--detector", "pixel_mean", "--no-measure", *words_of)[0] == 0
    for source, warns in ((tmp_path / "good", True), (tmp_path / "new", False), ("digits", False)):
        _, _, err = call("calibrate", tmp_path / "p", source, "--out", tmp_path / f"of-{Path(source).name}", "--quiet")
        assert ("It was trained on images of" in err) == warns, source
    found = evaluation.evaluate(load_detector(tmp_path / "p"), ["noise"], normal=tmp_path / "good")
    assert "leave `normal` out" in found["notes"][0]
    assert_one_clear_line(call("measure", tmp_path / "m", "--calibrate", "--quiet"), "which --calibrate would replace")
    assert_one_clear_line(call("calibrate", tiny_bundle, *words), "name a new folder")
    assert_one_clear_line(call("calibrate", tiny_bundle, tmp_path / "no", "--out", tmp_path / "k"), "nor an existing path")


def test_a_report_says_in_plain_digits_how_many_normal_images_would_be_flagged(call, tiny_bundle, tmp_path, digits):
    np.savez(tmp_path / "many.npz", images=digits.images[:125])
    words = ("report", tiny_bundle, tmp_path / "many.npz", "--out", tmp_path / "r.html", "--alpha", "0.8", "--quiet")
    assert call(*words)[0] == 0
    assert "of the same number of normal images, about 100 would be" in " ".join((tmp_path / "r.html").read_text().split())


def test_a_report_says_what_it_left_out(call, tiny_bundle, pictures, tmp_path):
    code, _, err = call("report", tiny_bundle, pictures, "--out", tmp_path / "r.html", "--limit", "2", "--quiet")
    assert code == 0 and "only the first 2 images" in err and "--limit 4" in err
    assert "Only the first 2 readable images are here" in (tmp_path / "r.html").read_text()


def test_a_run_folder_that_is_a_file(call, tmp_path):
    (tmp_path / "f").write_text("mine")
    assert_one_clear_line(call("train", "digits", "--out", tmp_path / "f"), "is a file")


@pytest.mark.parametrize("out", [(), ("--out", "t.csv")])
def test_a_pipe_is_not_waited_for(tiny_bundle, tmp_path, out):
    os.mkfifo(tmp_path / "fifo.png")
    words = [sys.executable, "-m", "ama_core", "score", str(tiny_bundle), "fifo.png", "--device", "cpu", *out]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ended.returncode == 2 and "not a regular file" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("changes", [{"normal": None}, {"training": "x"}, {"config": 3}, "["], ids=str)
def test_info_on_a_damaged_header(call, tiny_bundle, tmp_path, changes):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    file = tmp_path / "b" / "config.json"
    file.write_text("[" * 100_000 if changes == "[" else json.dumps(json.loads(file.read_text()) | changes))
    for more in ((), ("--json",), ("--verify",)):
        assert_one_clear_line(call("info", tmp_path / "b", *more), "config.json")


def test_info_on_damaged_results(call, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    file = tmp_path / "b" / "results.json"
    for text in ('{"results":[{"ood":"<b>","scores":3}]}', "[" * 100_000, "[]"):
        file.write_text(text)
        for more in ((), ("--json",)):
            assert_one_clear_line(call("info", tmp_path / "b", *more), "results.json")
    file.write_text('{"results": []}')
    assert call("info", tmp_path / "b")[0] == 0


def test_names_that_are_no_text(call, tiny_bundle, tmp_path, digits):
    """Of the image files, of their folder, of the model and of what is written: bytes that are no UTF-8."""
    folder = tmp_path / "bilder\udce4"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(digits.images[i, ..., 0]).save(tmp_path / "one.png")
        os.rename(tmp_path / "one.png", folder / f"{i}\udcff.png")
    (folder / "cut\udcff.png").write_bytes(b"no image")
    model = tmp_path / "modell\udcfc"
    words = ("--quiet", "--device", "cpu")
    fast = [*SETTINGS, "--set", "channels=1"]
    code, _, err = call("train", folder, "--out", model, *fast, "--no-measure", *words)
    assert code == 0, err
    assert "bilder" in (model / "README.md").read_text() and "bilder" in (model / "log.txt").read_text()
    code, out, err = call("score", model, folder, *words)
    assert code == 0 and len(out.splitlines()) == 42 and r"cut\udcff.png" in err
    code, out, _ = call("score", model, folder, "--json", *words)
    assert [json.loads(line)["path"] for line in out.splitlines()][0] == str(folder / "0\udcff.png")
    code, _, err = call("report", model, folder, "--out", tmp_path / "bericht\udcff.html", *words)
    assert code == 0 and r"cut\udcff.png" in (tmp_path / "bericht\udcff.html").read_text()
    assert call("share", model, "--out", tmp_path / "s.zip")[0] == 0
    assert call("inspect", folder, *words[:1])[0] == 0 and call("info", model)[0] == 0
    assert call("evaluate", model, "--ood", folder, "--full", *words)[0] == 0


def test_detectors_are_listed_with_what_a_step_costs_here(call, tmp_path, monkeypatch):
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path))

    def listed() -> dict[str, dict]:
        code, out, _ = call("detectors", "--json")
        assert code == 0
        return {row["name"]: row for row in json.loads(out)}

    rows = listed()
    assert set(rows) == set(registry.names())
    assert all({"title", "reference", "can", "scores"} <= set(row) for row in rows.values())
    assert rows["ama"]["seconds_per_step"] is None and not rows["pca"]["trains"]
    timed = timing.measure(registry.detector_class("autoencoder").Settings.preset("tiny"), tmp_path)
    assert listed()["autoencoder"]["seconds_per_step"] == timed.seconds > 0
    code, out, _ = call("detectors")
    assert code == 0 and timed.how in out and "--time" in out


def test_options_that_would_be_ignored_are_refused(call, tmp_path):
    code, _, err = call("benchmark", "table1", "--report", "--results", tmp_path)
    assert code == 2 and "leave the tables out" in err and not list(tmp_path.iterdir())
    (tmp_path / "in").mkdir()
    code, _, err = call("score", "digits", tmp_path / "in", "--out", tmp_path / "t.csv", "--json")
    assert code == 2 and ".jsonl" in err and not (tmp_path / "t.csv").exists()


def test_a_preset_of_one_detector_leaves_the_others_theirs(digits, tmp_path):
    np.savez(tmp_path / "good.npz", images=digits.images[:60])
    found = own_detectors(str(tmp_path / "good.npz"), ("nearest", "ama"), preset="fast64", device="cpu")
    assert found["ama"].settings.image_size == 64 and found["nearest"].settings.image_size == found["ama"].settings.image_size
