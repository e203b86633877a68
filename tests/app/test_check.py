"""The pages Check images and Reconstructions without a browser, and what stands behind the first: reading and judging files."""

import base64
import io
import json
import re
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector, Config
from ama_core.analysis.neighbours import read_neighbours, write_neighbours
from ama_core.data import decode_image, label_of, load, prepare
from ama_core.data.decode import SUFFIXES
from ama_core.data.pictures import thumbnail
from ama_core.detectors.ama.scores import SCORES, anomaly_scores
from ama_core.detectors.conformal import DRIFT_LEAST
from ama_core.detectors.registry import detector_class
from ama_core.evaluation.simple import read_simple
from ama_core.scoring.check import CHUNK, check_files, concerns
from ama_core.scoring.localise import find_localiser
from ama_core.scoring.outlines import Outlines
from ama_core.storage.bundle import read_scores
from tests.common import APP, checked, html, png, words


@pytest.fixture(scope="module")
def detector(check_models) -> AMADetector:
    return AMADetector.load(check_models / "digits", device="cpu")


def table_rows(at: AppTest) -> list[str]:
    """The rows of the table of pictures."""
    return next(e.proto.body for e in at.get("html") if "ama-table" in e.proto.body).split("<tr>")[2:]


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


# Reading and judging files


def test_files_and_archives_become_findings(detector, digits):
    good = [png(image) for image in digits.images[:3]]
    archive = zipped({"a/one.png": good[1], "notes.txt": b"hello", "cut.png": good[2][:60], "two.png": good[2]})
    steps = []
    found = check_files(
        detector, [("first.png", good[0]), ("more.zip", archive), ("bad.zip", b"PK no")], 9, lambda *step: steps.append(step)
    )
    assert found.names == ("first.png", "more.zip/a/one.png", "more.zip/two.png") and len(found) == 3
    assert [name for name, _ in found.refused] == ["more.zip/cut.png", "more.zip/notes.txt", "bad.zip"]
    assert (
        "damaged" in found.refused[0][1] and "not an image" in found.refused[1][1] and "not a readable" in found.refused[2][1]
    )
    assert not found.more and found.concerns == ((), (), ()) and found.notes == ((), (), ())
    alone = detector.scores(digits.images[:3])
    for name in alone:
        np.testing.assert_allclose(found.examined.scores[name], alone[name], rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.array_equal(found.examined.reconstructions, detector.reconstruct(digits.images[:3]))


def test_nothing_readable_and_too_many(detector, digits):
    assert check_files(detector, [("a.png", b"")], 5).examined is None
    archive = zipped({f"{i:03}.png": png(digits.images[i]) for i in range(CHUNK + 8)})
    steps = []
    found = check_files(detector, [("all.zip", archive)], CHUNK + 2, lambda *step: steps.append(step))
    assert len(found) == len(found.examined.images) == CHUNK + 2 and found.more
    assert steps == [(CHUNK, CHUNK + 2)]
    assert not check_files(detector, [("all.zip", archive)], CHUNK + 8).more


@pytest.mark.parametrize(
    "shape, fit, channels, said",
    [
        ((32, 32, 3), "crop", 3, []),
        ((64, 48, 3), "crop", 3, []),
        ((28, 28, 1), "pad", 1, []),
        ((600, 640, 3), "crop", 3, ["reduced 19-fold"]),
        ((8, 8, 3), "pad", 3, ["enlarged 4-fold"]),
        ((60, 40, 3), "crop", 3, ["cut away"]),
        ((40, 60, 3), "pad", 3, ["black bars"]),
        ((40, 60, 3), "stretch", 3, ["stretched"]),
        ((32, 32, 1), "crop", 3, ["grey"]),
        ((10, 400, 1), "pad", 3, ["reduced", "black bars", "grey"]),
    ],
)
def test_what_may_cause_a_score_is_named(shape, fit, channels, said):
    found = concerns(shape, Config(channels=channels, fit=fit).input)
    assert len(found) == len(said) and all(word in sentence for word, sentence in zip(said, found))


def test_thumbnails_keep_small_images_and_reduce_large_ones(rng):
    small, large = (rng.integers(0, 256, size, dtype=np.uint8) for size in ((40, 20, 1), (400, 300, 3)))
    assert np.array_equal(thumbnail(small), small) and thumbnail(large).shape == (192, 144, 3)


# Check images


def test_an_upload_shows_the_scores_of_the_detector(open_page, detector, rng):
    data = png(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    at = open_page("check", score="M", alpha="0.1")
    at.file_uploader[0].upload("mine_[1].png", data, "image/png").run()
    assert not at.exception and not at.error

    c = detector.config
    image, notes = prepare([decode_image(data)[0]], size=c.image_size, channels=c.channels, fit=c.fit)
    scores = {name: value[0] for name, value in detector.scores(image).items()}
    assert at.metric[0].value == f"{scores['R']:.4g}"
    assert at.metric[1].value == f"{scores['p_M']:.4f}"
    table = at.table[0].value.set_index("Score")
    assert [table.loc[name, "Value"] for name in SCORES] == [f"{scores[name]:.4g}" for name in SCORES]
    assert [table.loc[name, "p-value"] for name in SCORES] == [f"{scores[f'p_{name}']:.4f}" for name in SCORES]
    row = checked(at).iloc[0]
    assert row["Name"] == "mine_[1].png" and row["p by M"] == pytest.approx(scores["p_M"])
    assert row["R above"] == pytest.approx(100 * np.mean(detector.calibration_.train_r < scores["R"]))
    assert row["Verdict at α = 10 %"].startswith("Flagged" if scores["p_M"] <= 0.1 else "Not flagged")
    said = words(at)
    assert ("Flagged as anomalous" in said) == bool(scores["p_M"] <= 0.1)
    assert "converted to grey" in said and all(part in said for part in notes)
    assert html(at).count("<figure>") == 5 + 1 + 5  # given, seen, reconstruction, two maps; marked places; the nearest five


def test_places_are_outlined_on_the_photograph_by_each_map(open_page, detector, check_models, digits):
    """The picture on the page is what the engine draws of the file as it was given, at its full size."""
    photograph = np.repeat(np.repeat(digits.images[3], 20, axis=0), 20, axis=1)[: 30 * 20]
    photograph[40:140, 40:140] = 255
    at = open_page("check", alpha="0.1")
    at.file_uploader[0].upload("large.png", png(photograph), "image/png").run()
    assert not at.exception and not at.error
    localiser = find_localiser(detector, check_models / "digits")
    for name in ("pixel", "critic", "combined"):
        if name != "pixel":
            at.selectbox(key="map").set_value(name).run()
        drawn, marked = Outlines(detector, localiser, name, 0.1).draw(photograph)
        body = next(e.proto.body for e in at.get("html") if "ama-photograph" in e.proto.body)
        source = re.search(r"base64,([^\"]+)", body).group(1)
        with Image.open(io.BytesIO(base64.b64decode(source))) as shown:
            assert shown.size == (640, 600)
            assert np.abs(np.asarray(shown).astype(int) - drawn).mean() < 3  # JPEG
        assert ("No place stands out" in words(at)) != marked and localiser.maxima[name].size
    assert "Outlined are places that stand out from what normal images show there, by the difference" in words(at)


def test_a_model_whose_places_cannot_be_judged_says_so(open_page, check_models, tmp_path):
    """No where.npz, as in older bundles, and training images that are not on this computer."""
    shutil.copytree(check_models / "digits", tmp_path / "digits")
    (tmp_path / "digits" / "where.npz").unlink(missing_ok=True)
    file = tmp_path / "digits" / "config.json"
    header = json.loads(file.read_text())
    header["normal"]["fingerprint"] = "of others"
    file.write_text(json.dumps(header))
    at = open_page("check", models=tmp_path)
    assert not at.exception and "Places cannot be marked with this model" in words(at)
    assert "ama-photograph" not in html(at)


def test_samples_are_a_table_with_the_most_anomalous_first(open_page, detector):
    at = open_page("check", sample="3", n="6", score="R")
    table = checked(at)
    scores = anomaly_scores(detector.scores(load("digits", "test").images[3:9]))["R"]
    assert list(table["Name"]) == [f"#{3 + i} of normal test images" for i in np.argsort(-scores, kind="stable")]
    assert np.allclose(table["R"], np.sort(scores)[::-1], rtol=1e-3)
    assert at.subheader[0].value.replace("\\", "") == table["Name"][0]
    assert f"of {6} images are flagged" in words(at)
    assert len(checked(open_page("check", sample="499", n="6"))) == 1


def test_bad_files_are_sentences_and_good_ones_still_shown(open_page, digits):
    at = open_page("check")
    good = png(digits.images[0])
    at.file_uploader[0].set_value(
        [
            ("text.png", b"hello", "image/png"),
            ("cut.png", good[: len(good) // 2], "image/png"),
            ("empty.png", b"", "image/png"),
            ("good.png", good, "image/png"),
            ("a.zip", zipped({"x.txt": b"", "in.png": good}), "application/zip"),
        ]
    ).run()
    assert not at.exception
    refused = at.error[0].value.replace("\\", "")
    assert refused.count("could not be scored") == 3  # text.png and empty.png are refused alike
    assert "text.png" in refused and "not an image" in refused and "a.zip/x.txt" in refused
    assert set(checked(at)["Name"]) == {"good.png", "a.zip/in.png"} and len(at.metric) == 2

    next(button for button in at.button if "Reset" in button.label).click().run()
    assert not at.exception and not at.error and not at.file_uploader[0].value
    assert "checked" not in at.session_state


def test_only_bad_files_leave_a_page_that_says_so(open_page):
    at = open_page("check")
    at.file_uploader[0].set_value([("bad.zip", b"no zip", "application/zip")]).run()
    assert not at.exception and "not a readable .zip" in at.error[0].value.replace("\\", "") and checked(at) is None


def test_too_many_images_point_to_the_command(open_page, digits, monkeypatch):
    at = open_page("check")
    import cache

    monkeypatch.setattr(cache, "MAX_CHECKED", 2)
    at.file_uploader[0].set_value([(f"{i}.png", png(digits.images[i]), "image/png") for i in range(3)]).run()
    assert len(checked(at)) == 2
    assert "first 2 images" in words(at) and "python -m ama_core score digits" in words(at)


def test_uploads_stay_with_their_session(open_page, digits):
    at = open_page("check")
    at.file_uploader[0].set_value([("mine.png", png(digits.images[0]), "image/png")]).run()
    first = at.session_state["checked"]
    at.select_slider(key="alpha").set_value(0.2).run()
    assert at.session_state["checked"] is first  # another threshold scores nothing anew
    assert "checked" not in open_page("check").session_state


def test_what_may_itself_cause_the_score_is_a_warning(open_page, rng):
    at = open_page("check")
    at.file_uploader[0].set_value([("large.png", png(rng.integers(0, 256, (700, 300, 3), np.uint8)), "image/png")]).run()
    said = "\n".join(warning.value for warning in at.warning)
    assert "reduced 22-fold" in said and "black bars" in said and "may cause the score" in said


def test_the_camera_is_asked_for_on_demand_alone(open_page, digits):
    at = open_page("check", **{"camera-on-0": "true"})  # a link cannot
    assert not at.get("camera_input")
    at.toggle[0].set_value(True).run()
    assert at.get("camera_input") and not at.exception


def test_a_table_for_a_spreadsheet_holds_no_formula(open_page):
    open_page("check")
    import controls

    columns = {"file": ["=cmd|' /C calc'!A0", "@x.png", "+1.png", "-2.png", "plain, with comma.png"], "R": [1.5, -2.0, 3, 4, 5]}
    back = pd.read_csv(io.StringIO(controls.safe_csv(columns)))
    assert list(back["file"]) == [f"'{name}" for name in columns["file"][:4]] + columns["file"][4:]
    assert list(back["R"]) == columns["R"]


def test_what_is_downloaded_flags_what_the_page_flags(open_page, detector, digits, monkeypatch):
    """A test of a page presses no download button: what it would give is made here."""
    import streamlit

    made = {}
    button = streamlit.download_button

    def keep(label, data, *rest, **more):
        made[label] = data
        return button(label, data, *rest, **more)

    monkeypatch.setattr(streamlit, "download_button", keep)
    at = open_page("check", score="T", alpha="0.2")
    at.file_uploader[0].set_value([(f"{i}.png", png(digits.images[i]), "image/png") for i in range(16)]).run()
    assert not at.exception
    p = detector.scores(digits.images[:16])["p_T"]
    flagged = p <= 0.2
    assert 0 < flagged.sum() < 8, "so that the other way round is another number"
    table = pd.read_csv(io.StringIO(made["The whole table (CSV)"]())).set_index("file")
    assert [bool(table.loc[f"{i}.png", "flagged_by_T_at_0.2"]) for i in range(16)] == flagged.tolist()
    report = made["Report (HTML)"]()
    assert report.count('<tr class="flagged">') == flagged.sum() and report.count('<tr class="passed">') == (~flagged).sum()


def test_the_nearest_training_images_are_named_and_shown(open_page, detector, check_models, digits):
    at = open_page("check", sample="5", n="1")
    stored = read_neighbours(check_models / "digits")
    positions, distances = stored.nearest(detector.features(load("digits", "test").images[5:6]), 5)
    shown = html(at)
    for position, distance in zip(positions[0], distances[0]):
        index = stored.index[position]
        assert f"{digits.labels[index]} #{index}: distance {distance:.2g}" in shown
    said = words(at)
    assert "nearest 5 of 1,167 training images" in said and f"at {distances[0, 0] / stored.typical:.1f} times" in said


def test_missing_neighbours_and_missing_images_say_what_to_do(open_page, check_models, tmp_path):
    said = words(open_page("check", model="digits-plain"))
    assert "python -m ama_core measure" in said and "digits-plain" in said

    shutil.copytree(check_models / "digits", tmp_path / "digits")
    write_neighbours(tmp_path / "digits", replace(read_neighbours(tmp_path / "digits"), n_total=9000))
    at = open_page("check", models=tmp_path)
    assert not at.exception and "pictures cannot be shown" in words(at) and ": distance" in words(at)

    (tmp_path / "digits" / "neighbours.npz").write_bytes(b"damaged")
    at = open_page("check", models=tmp_path)
    assert not at.exception and "neighbours.npz is damaged" in at.error[0].value and at.metric


def test_a_page_begins_with_the_models_own_rate(open_page, check_models, tmp_path):
    shutil.copytree(check_models / "digits", tmp_path / "digits")
    info = json.loads((tmp_path / "digits" / "config.json").read_text())
    info["config"]["false_alarm_rate"] = 0.03
    (tmp_path / "digits" / "config.json").write_text(json.dumps(info))
    at = open_page("check", models=tmp_path)
    assert not at.exception and at.select_slider(key="alpha").value == 0.03 and "α of 3 %" in words(at)
    assert open_page("check", models=tmp_path, alpha="0.1").select_slider(key="alpha").value == 0.1


def test_a_false_alarm_rate_below_the_smallest_p_value_is_told(open_page):
    assert "nothing can be flagged" in open_page("check", alpha="0.001").warning[0].value


def test_where_nothing_can_be_flagged_no_image_is_called_normal(open_page, digits, detector):
    n = len(detector.held_out_scores_["T"])
    at = open_page("check", alpha="0.001")
    at.file_uploader[0].set_value([("mine.png", png(digits.images[0]), "image/png")]).run()
    assert not at.exception and not at.success
    (panel,) = [info.value for info in at.info if "**Cannot be decided** at a false-alarm rate" in info.value]
    assert f"{n} calibration images are too few" in panel and f"1/{n + 1} = " in at.warning[0].value
    said = words(at)
    assert "cannot be decided" in said and "would be" not in said and "Not flagged" not in said
    assert checked(at)["Verdict at α = 0.1 %"][0].startswith("Cannot be decided")
    assert set(at.table[0].value["At α = 0.1 %"]) == {"cannot be decided"}
    assert "Cannot be decided" not in words(at.select_slider(key="alpha").set_value(0.2).run())


def test_how_many_normal_images_would_be_flagged_is_said_in_plain_digits(open_page, digits):
    archive = zipped({f"{i}.png": png(digits.images[i]) for i in range(500)})
    at = open_page("check", alpha="0.2")
    at.file_uploader[0].set_value([("many.zip", archive, "application/zip")]).run()
    assert "of the same number of normal images, about 100 would be." in words(at)


def test_files_are_still_there_after_a_visit_to_another_page(open_page, digits):
    at = open_page("check")
    at.file_uploader[0].set_value([(f"m_{i}.png", png(digits.images[i]), "image/png") for i in range(5)]).run()
    for _ in range(2):  # also after a second visit, on which nothing was given
        at.switch_page("views/simplex.py").run()
        at.switch_page("views/check.py").run()
        assert not at.exception and set(checked(at)["Name"]) == {f"m_{i}.png" for i in range(5)}
        assert "5 files from before: m_0.png, m_1.png, m_2.png and 2 more." in words(at)
    at.file_uploader[0].set_value([("new.png", png(digits.images[5]), "image/png")]).run()
    assert len(checked(at)) == 6 and "5 files from before" in words(at)
    at.button(key="remove-before").click().run()
    assert set(checked(at)["Name"]) == {"new.png"} and "from before" not in words(at)
    at.switch_page("views/simplex.py").run()
    at.switch_page("views/check.py").run()
    assert set(checked(at)["Name"]) == {"new.png"} and "1 file from before: new.png." in words(at)
    next(button for button in at.button if "Reset" in button.label).click().run()
    assert "from before" not in words(at) and "new.png" not in set(checked(at)["Name"])


def test_every_format_that_is_read_can_be_uploaded(open_page, rng):
    at = open_page("check")
    assert {kind.lstrip(".") for kind in at.file_uploader[0].proto.type} >= {s.lstrip(".") for s in SUFFIXES} | {"zip"}
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(buffer, "PPM")
    at.file_uploader[0].upload("scan.ppm", buffer.getvalue(), "image/x-portable-pixmap").run()
    assert set(checked(at)["Name"]) == {"scan.ppm"} and not at.error


def test_more_than_a_session_keeps_is_said_to_be_forgotten(open_page):
    at = open_page("check")
    at.file_uploader[0].set_value([("large.tif", b"II" + bytes(101 << 20), "image/tiff")]).run()
    assert "forgotten when you leave this page" in words(at)
    at.switch_page("views/simplex.py").run()
    at.switch_page("views/check.py").run()
    assert "from before" not in words(at)


# What an address may hold


@pytest.mark.parametrize("value", ["1e999", "-1e999", "nan", "1e300", "-5", "2.5", "9" * 400, "9" * 5000, "one", ""])
@pytest.mark.parametrize(
    "page, names", [("check", ("sample", "n", "alpha")), ("reconstructions", ("page", "alpha")), ("simplex", ("na", "wa"))]
)
def test_an_address_with_any_number_opens_its_page(open_page, page, names, value):
    for name in names:
        at = open_page(page, **{name: value})
        assert not at.exception and not at.error, (name, value)


def test_whole_numbers_stay_whole(open_page):
    at = open_page("check", sample="3", n="4")
    assert at.number_input(key="sample").value == 3 and len(checked(at)) == 4


# Tables that are downloaded, by the page's buttons or by the menu of the table itself


def test_no_cell_of_the_check_tables_begins_a_formula(open_page, digits):
    names = ["=1+1.png", "@SUM(A1).png", "+x.png", "-x.png", "\tx.png", "＝x.png", "fine.png"]
    at = open_page("check")
    at.file_uploader[0].set_value([(name, png(digits.images[i]), "image/png") for i, name in enumerate(names)]).run()
    assert not at.exception
    shown = list(checked(at)["Name"])
    assert sorted(shown) == sorted(f"'{name}" for name in names[:-1]) + ["fine.png"]


def test_no_cell_of_the_download_of_a_chart_begins_a_formula(open_page):
    open_page("check")
    import controls

    frame = pd.DataFrame({"=set": ["=1+1", "digits"], "R": [-1.0, 2.0], "error": [None, "-"], "flagged": [True, None]})
    assert controls.safe_csv(frame) == "'=set,R,error,flagged\n'=1+1,-1.0,,True\ndigits,2.0,'-,\n"
    assert controls.safe_csv({"file": ["b\r=1+1.png"]}) == "file\nb\\r=1+1.png\n"


def upload(at, images):
    given = []
    for i, image in enumerate(images):
        given.append((f"{i}.png", png(image), "image/png"))
    return at.get("file_uploader")[0].set_value(given).run()


def test_the_page_says_that_a_batch_has_drifted(open_page, digits, rng):
    noise = rng.integers(0, 256, (DRIFT_LEAST, 32, 32), dtype=np.uint8)
    at = upload(open_page("check"), noise)
    assert not at.exception and "these images differ from the calibration images" in words(at)
    assert "differ from the calibration images" not in words(upload(open_page("check"), noise[1:]))  # too few to tell
    assert "differ from the calibration images" not in words(upload(open_page("check"), digits.images[:40]))


NAME = "<img src=x onerror=alert(1)>.png"


def test_names_are_shown_as_text(open_page):
    picture = png(np.full((32, 32), 90, np.uint8))
    at = open_page("check")
    at.get("file_uploader")[0].set_value([(NAME, picture, "image/png"), (f"no{NAME}", b"x", "image/png")]).run()
    assert not at.exception and "could not be scored" in words(at)
    for element in at.get("html"):
        assert "<img src=x" not in element.proto.body
    for kind in (at.markdown, at.subheader, at.error, at.caption):
        for element in kind:
            assert not re.search(r"(?<!\\)<img src=x", element.value)  # Markdown shows what follows a backslash as it is
            assert not getattr(element.proto, "allow_html", False)


# Whether the model can be trusted


def panel(at: AppTest) -> pd.DataFrame:
    """The table of what is flagged of each set."""
    return next(table.value for table in at.dataframe if "Set" in table.value).set_index("Set")


def test_what_is_found_of_each_set_stands_beside_what_simple_methods_find(open_page, detector, check_models):
    at = open_page("check", score="M", alpha="0.1")
    stored = {s.name: s for s in read_scores(check_models / "digits") if s.split == "test"}
    found = {name: 100 * np.mean(detector.with_p_values(s.scores)["p_M"] <= 0.1) for name, s in stored.items()}
    simple, shown = read_simple(check_models / "digits"), panel(at)
    own = "normal test images: false alarms"
    titles = {own if name == "digits" else label_of(name): name for name in stored}
    assert set(shown.index) == set(titles) and len(titles) == 3
    for title, name in titles.items():
        assert shown.loc[title, "digits by M"] == pytest.approx(found[name])
        for method in ("pixel_mean", "nearest"):
            assert shown.loc[title, detector_class(method).title] == pytest.approx(100 * simple.flagged(method, name, 0.1))
    said = words(at)
    assert (
        "At a false-alarm rate of 10 %, M finds at least half of the images of" in said and "2 sets it was measured on" in said
    )
    assert html(at).count('alt="a normal training image"') == 9 and "It takes these as normal" in said


@pytest.mark.parametrize(
    "found, said",
    [
        ((0.999999, 0.9), "of all 2 sets it was measured on, from 90 % of Procedural textures to 99.99 % of Colour gradients."),
        ((1.0, 1.0), "of all 2 sets it was measured on: 100 % of each."),
        ((1.0, 0.2), "of 1 of the 2 sets it was measured on: 100 % of Colour gradients; it misses most of Procedural textures"),
        ((0.3, 0.2), "of none of the 2 sets it was measured on; it misses most of"),
    ],
)
def test_what_is_found_is_said_without_repeating_itself(open_page, monkeypatch, found, said):
    monkeypatch.syspath_prepend(str(APP))
    import cache

    sets = dict(zip(("gradients", "textures"), found))
    monkeypatch.setattr(cache, "flagged", lambda *_: {"digits": 0.05, **sets})
    at = open_page("check")
    assert not at.exception and said.replace("Colour gradients", label_of("gradients")).replace(
        "Procedural textures", label_of("textures")
    ) in words(at).replace("**", "")


@pytest.mark.parametrize(
    "short, said",
    [
        (0.0, "No simple method finds more on any of the 2 sets that it was measured on"),
        (0.01, "No simple method finds more on any of the 2 sets that it was measured on"),  # as chance has it
        (0.6, "Something simpler finds more on 2 of 2, by more than chance explains"),
    ],
)
def test_something_simpler_finds_more_where_chance_does_not_explain_it(open_page, check_models, monkeypatch, short, said):
    """The model finds as much as the best simple method of each set, or less by `short`."""
    monkeypatch.syspath_prepend(str(APP))
    import cache

    simple = read_simple(check_models / "digits")
    most = {name: max(simple.flagged(method, name, 0.1) for method in simple.p) for name in ("gradients", "textures")}
    assert min(most.values()) > 0.6
    monkeypatch.setattr(cache, "flagged", lambda *_: {"digits": 0.1} | {name: rate - short for name, rate in most.items()})
    assert said in words(open_page("check", alpha="0.1")).replace("**", "")


@pytest.mark.parametrize("own, warns", [(0.1, False), (0.22, False), (0.3, True), (0.0, True)])
def test_false_alarms_that_chance_does_not_explain_are_a_warning(open_page, monkeypatch, own, warns):
    monkeypatch.syspath_prepend(str(APP))
    import cache

    monkeypatch.setattr(cache, "flagged", lambda *_: {"digits": own, "textures": 0.9})
    at = open_page("check", alpha="0.1")  # 999 of 1,000 calibrations by so few images keep to 1 to 25 %
    warned = [warning.value for warning in at.warning if "of its own normal test images" in warning.value]
    assert len(warned) == warns and words(at).count("of its own normal test images") == 1
    assert not warns or ("chance explains" in warned[0] and ("more false alarms" in warned[0]) == (own > 0.1))


def test_folders_with_one_name_are_told_apart(open_page):
    open_page("check")
    import controls

    found = controls.titles_of(["/a/bad", "/b/bad", "mnist", "/c/b/bad", "/data/test", "bad"], ["test"])
    assert list(found.values()) == ["bad", "bad (b)", "MNIST", "bad (b) (2)", "test (data)", "bad (2)"]


def test_training_images_that_come_later_are_shown(open_page, check_models, tmp_path, rng):
    shutil.copytree(check_models / "digits", tmp_path / "models" / "digits")
    header = json.loads((tmp_path / "models" / "digits" / "config.json").read_text())
    header["normal"]["source"] = str(tmp_path / "mine")
    (tmp_path / "models" / "digits" / "config.json").write_text(json.dumps(header))
    assert "as the model reconstructs them" in words(open_page("check", models=tmp_path / "models"))
    (tmp_path / "mine").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "mine" / f"{i}.png")
    assert "as the model reconstructs them" not in words(open_page("check", models=tmp_path / "models"))


def test_a_model_without_its_images_or_any_measurement_says_so(open_page, check_models, tmp_path):
    said = words(open_page("check", model="digits-plain"))
    assert "It was measured against no other images" in said and "python -m ama_core measure" in said
    shutil.copytree(check_models / "digits", tmp_path / "digits")
    (tmp_path / "digits" / "simple.npz").unlink()
    header = json.loads((tmp_path / "digits" / "config.json").read_text())
    header["normal"]["source"] = str(tmp_path / "gone")
    (tmp_path / "digits" / "config.json").write_text(json.dumps(header))
    at = open_page("check", models=tmp_path, set="textures", sample_set="textures")
    assert not at.exception
    said = words(at)
    assert "as the model reconstructs them from stored codes" in said and "simple methods find was not measured" in said
    assert html(at).count('alt="what the model makes of a normal training image"') == 9
    (tmp_path / "digits" / "latents.npz").unlink()
    assert "They are not on this computer" in words(open_page("check", models=tmp_path))


def test_where_r_disagrees_a_sentence_says_how_and_leads_to_the_lesson(open_page, detector):
    images = load("digits", "test").images[:24]
    scores = detector.scores(images)
    alpha = 0.2
    flags = {by: scores[f"p_{by}"] <= alpha for by in ("R", "A", "T")}
    apart = (flags["R"] != flags["A"]) | (flags["R"] != flags["T"])
    assert apart.any() and not apart.all(), "the sample shows both"
    at = open_page("check", n="24", alpha=str(alpha), score="T")
    assert f"On {apart.sum()} of the 24 R disagrees with A or T" in words(at)
    first = int(np.argmax(scores["T"]))  # shown at first
    for i in (first, int(np.flatnonzero(apart)[0]), int(np.flatnonzero(~apart)[0])):
        at = open_page("check", n="1", sample=str(i), alpha=str(alpha), score="T")
        assert ("R disagrees." in words(at)) == apart[i], i
        links = [link.proto.label for link in at.get("page_link")]
        assert ("Why a raw score can be wrong: the lesson" in links) == apart[i]
        if apart[i]:
            sentence = next(info.value for info in at.info if "R disagrees." in info.value)
            below = np.mean(detector.calibration_.train_r < scores["R"][i])
            assert ("*more* normal" in sentence) == (not flags["R"][i] and below < 0.5)


def test_checked_images_can_be_trained_on(open_page, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path / "runs"))
    at = open_page("check")
    assert "train-on" not in [button.key for button in at.button], "samples are no images of one's own"
    files = [(f"{i}.png", png(digits.images[i]), "image/png") for i in range(12)]
    at.file_uploader[0].set_value([*files, ("no.png", b"text", "image/png")]).run()
    at.button(key="train-on").click().run()
    assert not at.exception and not at.error and at.title[0].value == "Train"
    (kept,) = (tmp_path / "runs" / "uploads").iterdir()
    assert at.selectbox(key="data").value == "my own images" and at.text_input(key="train-path").value == str(kept.resolve())
    assert len(list(kept.iterdir())) == 12 and (kept / "0001-0.png").read_bytes() == files[0][1]
    assert "10 images are for training" in words(at)
    at.switch_page("views/check.py").run()
    at.switch_page("views/train.py").run()
    assert at.text_input(key="train-path").value == str(kept.resolve()), "it survives another page"


def test_a_public_server_keeps_no_images(open_page, digits, monkeypatch):
    monkeypatch.setenv("AMA_PUBLIC", "1")
    at = open_page("check")
    at.file_uploader[0].set_value([("a.png", png(digits.images[0]), "image/png")]).run()
    assert not at.exception and "train-on" not in [button.key for button in at.button]
