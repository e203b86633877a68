"""Outlines: where a place of the model's square lies on the photograph, what is drawn, and which files are written."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from ama_core import AMADetector
from ama_core.cli.main import main
from ama_core.data import frame, iter_unread, prepare
from ama_core.errors import ConfigError, DataError
from ama_core.scoring.check import check_files, originals
from ama_core.scoring.localise import find_localiser
from ama_core.scoring.outlines import LINE, Outlines, file_name, is_outline, outline, png, segments, write_outlines


def enclosed(found) -> tuple[float, float, float, float]:
    """The box around lines."""
    x0, y0, x1, y1 = np.array(found).T
    return min(x0), min(y0), max(x1), max(y1)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(32, 32), (200, 100), (90, 300), (28, 26), (17, 12), (31, 20)])
def test_a_bright_block_is_outlined_where_it_lies_on_the_photograph(fit, shape):
    """Prepared and mapped back, a block comes to lie on itself, within one of the model's pixels."""
    height, width = shape
    image = np.zeros((height, width, 1), np.uint8)
    top, left = int(0.45 * height), int(0.4 * width)
    bottom, right = top + max(2, height // 5), left + max(2, width // 5)
    image[top:bottom, left:right] = 255
    seen = prepare(image[None], size=32, channels=1, fit=fit)[0][0, ..., 0]
    found = enclosed(segments(seen > 127, height, width, fit))
    x0, y0, x1, y1 = frame(height, width, size=32, fit=fit)
    across, down = (x1 - x0) / 32, (y1 - y0) / 32
    np.testing.assert_array_less(np.abs(np.array(found) - (left, top, right, bottom)), np.array([across, down] * 2) + 1e-9)


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_the_frame_against_what_prepare_shows(fit):
    """A ramp along each axis tells where every column and row of the square comes from."""
    height, width = 240, 400
    for axis in (0, 1):
        ramp = np.linspace(0, 250, (height, width)[axis], dtype=np.float64)
        image = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None], (height, width)).astype(np.uint8)[..., None]
        seen = prepare(image[None], size=32, channels=1, fit=fit)[0][0, ..., 0].astype(float)
        along = seen[:, 16] if axis == 0 else seen[16]
        start, end = (frame(height, width, size=32, fit=fit)[i] for i in ((1, 3) if axis == 0 else (0, 2)))
        centres = start + (end - start) * (np.arange(32) + 0.5) / 32
        inside = (centres > 0) & (centres < len(ramp))
        expected = np.interp(centres - 0.5, np.arange(len(ramp)), ramp)
        np.testing.assert_allclose(along[inside][1:-1], expected[inside][1:-1], atol=3)
        assert (along[~inside] == 0).all()


def test_edges_between_marked_places_are_none_and_runs_are_one_line():
    marks = np.zeros((8, 8), bool)
    marks[2:4, 3:6] = True
    assert sorted(segments(marks, 80, 80, "stretch")) == sorted(
        [(30, 20, 60, 20), (30, 40, 60, 40), (30, 20, 30, 40), (60, 20, 60, 40)]
    )
    assert segments(np.zeros((8, 8), bool), 80, 80, "stretch") == []


def test_marks_in_black_bars_are_left_out():
    marks = np.zeros((8, 8), bool)
    marks[0, 4] = marks[7, 4] = True  # above and below an image twice as wide as it is high
    assert segments(marks, 40, 80, "pad") == []
    marks[:] = True
    assert enclosed(segments(marks, 40, 80, "pad")) == (0, 0, 80, 40)


def test_a_large_photograph_keeps_its_size_and_a_small_one_is_enlarged(rng):
    marks = np.zeros((32, 32), bool)
    marks[8:16, 8:16] = True
    large = rng.integers(0, 100, (600, 900, 3), np.uint8)
    drawn = outline(large, marks, "stretch")
    assert drawn.shape == large.shape
    changed = (drawn != large).any(axis=2)
    assert (drawn[150, 300] == LINE).all() and not changed[200:250, 300:380].any() and not changed[320:].any()
    small = outline(rng.integers(0, 256, (32, 32, 1), np.uint8), marks, "pad")
    assert small.shape == (384, 384, 3)
    np.testing.assert_array_equal(outline(large, np.zeros((32, 32), bool), "pad"), large)


@pytest.mark.parametrize(
    "path, name",
    [
        ("a/b/ü ber.png", "000007-ber.png.png"),
        ("x.zip/../../etc/passwd", "000007-passwd.png"),
        ("...", "000007-image.png"),
        ("=cmd|' /C calc'!A0.jpg", "000007-C_calc_A0.jpg.png"),
        ("C:\\photos\\one.jpg", "000007-one.jpg.png"),
        ("n" * 300 + ".jpg", f"000007-{'n' * 80}.png"),
    ],
)
def test_names_are_safe(path, name):
    assert file_name(7, path) == name


def test_a_row_of_an_archive_has_its_number_in_its_name():
    assert file_name(12, "set.npz", 3) == "000012-set.npz-3.png"


@pytest.fixture
def folder(tmp_path, digits):
    """Ten digits, one of them inverted, a text and a damaged file, and two more in a .zip."""
    found = tmp_path / "new"
    found.mkdir()
    for i in range(10):
        image = digits.images[i, ..., 0]
        Image.fromarray(255 - image if i == 4 else image).resize((90, 60)).save(found / f"{i}.png")
    (found / "5b.png").write_bytes(b"no image")
    with zipfile.ZipFile(found / "more.zip", "w") as archive:
        for i in (1, 2):
            archive.write(found / f"{i}.png", f"in/{i}.png")
    return found


@pytest.fixture
def outlines(tiny_bundle):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    return Outlines(detector, find_localiser(detector, tiny_bundle), "pixel", 0.1)


def test_chosen_images_alone_are_written_with_their_numbers(folder, tmp_path, outlines):
    chosen = [False] * 13
    chosen[1] = chosen[4] = chosen[12] = True  # the last of these in the archive
    written, unmarked = write_outlines(outlines, iter_unread([folder]), chosen, tmp_path / "maps")
    names = sorted(file.name for file in (tmp_path / "maps").iterdir())
    assert names == ["000001-1.png.png", "000004-4.png.png", "000012-2.png.png"] and written == 3
    with Image.open(tmp_path / "maps" / names[1]) as picture:
        assert picture.size == (360, 240) and LINE in {color for _, color in picture.getcolors(10**6)}
    assert unmarked < 3


def test_foreign_files_are_never_overwritten_or_removed(folder, tmp_path, outlines, rng):
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "000001-1.png.png").write_bytes(b"mine")
    (maps / "old.png").write_bytes(png(rng.integers(0, 256, (4, 4, 3), np.uint8)))
    assert is_outline(maps / "old.png") and not is_outline(maps / "000001-1.png.png")
    with pytest.raises(ConfigError, match="was not written by this command"):
        write_outlines(outlines, iter_unread([folder]), [False, True], maps)
    assert (maps / "000001-1.png.png").read_bytes() == b"mine" and not (maps / "old.png").exists()


def test_fewer_images_than_were_scored_are_an_error(folder, tmp_path, outlines):
    with pytest.raises(DataError, match="fewer images"):
        write_outlines(outlines, iter_unread([folder]), [False] * 30, tmp_path / "maps")


def test_originals_are_the_checked_images_at_full_size(folder, tiny_bundle):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    Image.new("L", (900, 500), 30).save(folder / "7b.png")
    checked = check_files(detector, [folder], 100)
    at = [i for i, name in enumerate(checked.names) if name.endswith(("7b.png", "more.zip/in/2.png"))]
    found = dict(originals([folder], checked, at))
    assert {i: image.shape for i, image in found.items()} == {at[0]: (500, 900, 1), at[1]: (60, 90, 1)}
    assert dict(originals([folder], checked, [])) == {}


def test_score_writes_maps_of_what_it_flags(folder, tmp_path, tiny_bundle, capsys):
    table, maps = tmp_path / "table.jsonl", tmp_path / "maps"
    command = ["score", str(tiny_bundle), str(folder), "--alpha", "0.2", "--quiet"]
    main([*command, "--out", str(table), "--maps", str(maps)])
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    flagged = {f"{i:06d}" for i, row in enumerate(rows) if row["anomalous"]}
    assert flagged and {file.name[:6] for file in maps.iterdir()} == flagged
    assert "flagged images by the map pixel" in capsys.readouterr().err
    assert main([*command, "--maps", str(maps)]) != 0
    assert "not empty" in capsys.readouterr().err
    main([*command, "--maps", str(maps), "--maps-of", "all", "--map", "critic", "--force"])
    assert len(list(maps.iterdir())) == 12  # of 13 rows one is unreadable


@pytest.mark.parametrize("place, said", [("new/maps", "is inside"), ("file", "is not a folder")])
def test_maps_in_impossible_places_are_refused(folder, tmp_path, tiny_bundle, capsys, place, said):
    (tmp_path / "file").write_text("x")
    assert main(["score", str(tiny_bundle), str(folder), "--maps", str(tmp_path / place), "--quiet"]) != 0
    assert said in capsys.readouterr().err


def test_maps_and_watch_are_refused_together(folder, tmp_path, tiny_bundle, capsys):
    assert main(["score", str(tiny_bundle), str(folder), "--maps", str(tmp_path / "maps"), "--watch"]) != 0
    assert "without --watch" in capsys.readouterr().err


def test_the_report_shows_flagged_photographs_with_their_outlines(folder, tmp_path, tiny_bundle):
    out = tmp_path / "report.html"
    main(["report", str(tiny_bundle), str(folder), "--alpha", "0.2", "--out", str(out), "--quiet"])
    text = out.read_text()
    assert text.count("<figure") == text.count('<tr class="flagged">') > 0
    assert "Outlined are places that stand out from what normal images show there, by the difference" in text
    assert "data:image/jpeg;base64," in text
