"""A practitioner's own photos, from a first look to a shared model, at three image sizes."""

import io
import json
import re
import weakref
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ama_core import AMADetector
from ama_core.data import inspect, inspection
from ama_core.errors import BundleError
from ama_core.runs import queue
from ama_core.runs.spec import RunSpec
from ama_core.scoring.check import check_files
from ama_core.scoring.report import html_report
from ama_core.storage.bundle import FILES, zip_bundle
from tests.app.test_train import page
from tests.common import words
from tests.runs.reading import read_metrics

SETTINGS = dict(
    max_steps=6,
    nz=8,
    width_encoder=8,
    width_generator=8,
    width_critic=8,
    batch_size=8,
    n_critic=1,
    precision="fp32",
    fit="crop",
)


def photo(rng, bad: bool = False) -> Image.Image:
    """A round product on a bench, 160×120; a bad one has a scratch."""
    picture = Image.fromarray(rng.integers(90, 110, (120, 160, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(picture)
    x, y = rng.integers(60, 100), rng.integers(50, 70)
    draw.ellipse((x - 40, y - 40, x + 40, y + 40), fill=tuple(int(v) for v in rng.integers(140, 220, 3)))
    if bad:
        draw.line((x - 35, y - 30, x + 35, y + 30), fill="black", width=9)
    return picture


@pytest.fixture
def shop(tmp_path, rng):
    """`good` (40 photos, one twice, and a cut one), `bad` (12), `new` (24, a smaller one, and one with a hostile name)."""
    for name, n in (("good", 40), ("bad", 12), ("new", 24)):
        (tmp_path / name).mkdir()
        for i in range(n):
            photo(rng, name == "bad").save(tmp_path / name / f"{i:02}.png")
    (tmp_path / "good" / "copy.png").write_bytes((tmp_path / "good" / "03.png").read_bytes())
    (tmp_path / "good" / "cut.png").write_bytes((tmp_path / "good" / "04.png").read_bytes()[:500])
    photo(rng).resize((80, 60)).save(tmp_path / "new" / "small.jpg")
    photo(rng).save(tmp_path / "new" / "<b>&.png")
    return tmp_path


def test_a_first_look_finds_what_is_wrong(shop, call):
    found = inspect(shop / "good")
    assert (found.n, found.grey, found.sizes) == (41, 0, {(160, 120): 41})
    assert found.duplicates == (("03.png", "copy.png"),) and [name for name, _ in found.refused] == ["cut.png"]
    with Image.open(shop / "good" / "07.png") as picture:
        picture.convert("L").save(shop / "good" / "grey.jpg", quality=80)
    found = inspect(shop / "good", against=shop / "good")
    assert found.grey == 1 and ("07.png", "grey.jpg") in found.near and ("03.png", "copy.png") not in found.near
    assert {(name, name) for name in ("00.png", "39.png")} <= set(found.shared)
    code, out, _ = call("inspect", shop / "good", "--quiet")
    for said in (
        "42 readable images",
        "160×120",
        "1 exact duplicate,",
        "cut.png",
        "Grey and colour are mixed",
        "look the same",
    ):
        assert code == 0 and said in out, said
    code, out, _ = call("inspect", shop / "good", "--json", "--quiet")
    assert code == 0 and json.loads(out)["sizes"] == [{"width": 160, "height": 120, "n": 42}]
    (shop / "good" / "sub").mkdir()
    (shop / "good" / "sub" / "cut.png").write_bytes((shop / "good" / "cut.png").read_bytes())
    assert "2 files left out, such as cut.png" in call("inspect", shop / "good", "--quiet")[1], (
        "one reason, though it names the file"
    )
    for n, content in enumerate((b"", b"text", b"GIF89a", b"\x89PNG\r\n\x1a\n")):
        (shop / "good" / f"x{n}.png").write_bytes(content)
    (shop / "good" / "notes.txt").write_text("x")
    (shop / "good" / "huge.ppm").write_bytes(b"P6 60000 60000 255\n")
    _, out, _ = call("inspect", shop / "good", "--quiet")
    told = sum(int(n) for n in re.findall(r"^(\d+) (?:files?|more) left out", out, re.MULTILINE))
    assert told == 8 and "left out for other reasons" in out, "every file is counted, those of one reason together"
    code, _, err = call("inspect", shop / "nowhere", "--quiet")
    assert code == 2 and "does not exist" in err


def test_train_and_test_subfolders_are_compared(shop, rng):
    for split, names in (("train", range(5)), ("test", range(4, 8))):
        (shop / "own" / split).mkdir(parents=True)
        for i in names:
            (shop / "own" / split / f"{i}.png").write_bytes((shop / "good" / f"{i:02}.png").read_bytes())
    found = inspect(shop / "own")
    assert found.n == 5 and ("4.png", "4.png") in found.shared and "the test proves nothing" in " ".join(found.sentences())


def test_the_test_images_are_looked_at_one_by_one_and_too_many_are_said(shop, monkeypatch):
    alive, most = [], []
    original = inspection.iter_images

    def counted(sources):
        for item in original(sources):
            alive.append(weakref.ref(item.image)) if item.image is not None else None
            most.append(sum(one() is not None for one in alive))
            yield item
            del item

    monkeypatch.setattr(inspection, "iter_images", counted)
    found = inspect(shop / "good", against=shop / "good")
    assert found.compared_with_test and found.shared and max(most) <= 3, "whole images are not kept"
    monkeypatch.setattr(inspection, "MAX_COMPARED", 41)
    assert inspect(shop / "good", against=shop / "good").compared_with_test
    (shop / "more").mkdir()
    for i, file in enumerate([*(shop / "good").iterdir(), shop / "good" / "00.png"]):
        (shop / "more" / f"{i}{file.suffix}").write_bytes(file.read_bytes())
    found = inspect(shop / "good", against=shop / "more")
    assert not found.compared_with_test and not found.shared
    assert "whether training images are among them was not looked for" in " ".join(found.sentences())


def test_pictures_without_structure_are_not_called_alike(tmp_path, rng):
    for i in range(4):
        Image.new("RGB", (50, 50), tuple(int(v) for v in rng.integers(0, 255, 3))).save(tmp_path / f"{i}.png")
    found = inspect(tmp_path)
    assert found.n == 4 and not found.near and not found.duplicates


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_whole_story_by_command(shop, call, size):
    model = shop / "model"
    words = [word for pair in (SETTINGS | {"image_size": size}).items() for word in ("--set", "=".join(map(str, pair)))]
    code, _, err = call(
        "train",
        shop / "good",
        "--out",
        model,
        *words,
        "--anomalies",
        shop / "bad",
        "--validate-ood",
        shop / "bad",
        "--no-measure",
        "--quiet",
        "--device",
        "cpu",
    )
    assert code == 0, err
    detector = AMADetector.load(model, device="cpu")
    assert detector.config.image_size == size and detector.info_["normal"]["anomalies"] == str(shop / "bad")
    assert any("auroc_A" in event for event in read_metrics(model))
    with Image.open(shop / "new" / "00.png") as picture:  # cropped and reduced as in training
        assert detector.prepared(np.asarray(picture)[None]).shape == (1, size, size, 3)

    code, out, err = call("evaluate", model, "--ood", shop / "bad", "--full", "--json", "--device", "cpu", "--quiet")
    assert code == 0 and 0 <= json.loads(out)["results"][0]["scores"]["R"]["auroc"] <= 1, err
    code, _, err = call("score", model, shop / "new", "--out", shop / "new.csv", "--alpha", "0.2", "--device", "cpu", "--quiet")
    assert code == 0 and "26 rows" in err
    code, _, err = call(
        "report", model, shop / "new", "--out", shop / "new.html", "--alpha", "0.2", "--device", "cpu", "--quiet"
    )
    assert code == 0 and "26 images" in err and (shop / "new.html").stat().st_size > 10_000
    code, _, err = call("share", model, "--out", shop / "model.zip")
    assert code == 0
    with zipfile.ZipFile(shop / "model.zip") as archive:
        archive.extractall(shop / "theirs")
    theirs = AMADetector.load(shop / "theirs" / "model", device="cpu")
    images = np.stack([np.asarray(Image.open(shop / "bad" / f"{i:02}.png")) for i in range(3)])
    assert np.array_equal(theirs.scores(images)["R"], detector.scores(images)["R"])


def test_a_shared_model_is_its_bundle_alone(tiny_run, tmp_path):
    with zipfile.ZipFile(io.BytesIO(zip_bundle(tiny_run))) as archive:
        assert {name.split("/")[1] for name in archive.namelist()} <= set(FILES) and len(archive.namelist()) >= 5
    with pytest.raises(BundleError):
        zip_bundle(tmp_path)


def test_the_report_needs_nothing_else_and_runs_nothing(shop, tiny_bundle):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    (shop / "new" / "bad.png").write_bytes(b"no image")
    found = check_files(detector, [shop / "new"], 100)
    html = html_report(detector, "<script>alert(1)</script>", found, 0.05)
    assert "<script" not in html and "<b>&" not in html and "&lt;b&gt;&amp;.png" in html and "bad.png" in html
    assert not re.search(r"(?:src|href)=\"(?!data:image/png;base64,)", html) and "default-src 'none'" in html
    assert html.count("<img ") == len(found) == 26
    flagged = int((found.examined.scores["p_T"] <= 0.05).sum())
    assert html.count('<tr class="flagged">') == flagged and f"{flagged:,} of 26 images are flagged" in html
    assert "these images differ from the calibration images" in html  # photos, to a model of digits
    nothing = html_report(detector, "x", check_files(detector, [("a.png", b"x")], 5), 0.05)
    assert "No image could be scored" in nothing and "a.png" in nothing


def test_the_check_page_offers_the_report(open_page):
    at = open_page("check")
    assert not at.exception and any(button.proto.label == "Report (HTML)" for button in at.get("download_button"))


def test_the_form_looks_at_own_images_and_takes_own_anomalies(shop, folder, monkeypatch):
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    monkeypatch.setenv("AMA_DATA_ROOTS", str(shop))
    at = page(data="my own images")
    at.text_input(key="train-path").set_value(str(shop / "good")).run()
    at.toggle(key="train-inspect").set_value(True).run()
    assert not at.exception and "1 exact duplicate," in words(at) and "41 readable images" in words(at)
    at.text_input(key="train-anomalies-path").set_value(str(shop / "bad"))
    at.text_input(key="train-validate-path").set_value("/etc").run()
    assert "outside the folders" in words(at)
    at.text_input(key="train-validate-path").set_value(str(shop / "bad"))
    at.text_input(key="train-name-0").set_value("shop").run()
    next(button for button in at.button if button.label == "Train").click().run()
    assert not at.exception and not at.error
    spec = RunSpec.read(folder / "shop")
    assert spec.anomalies == spec.validate_ood == str(shop / "bad") and spec.dataset == str(shop / "good")


def test_the_form_sees_what_was_cleaned_in_a_subfolder(shop, folder, monkeypatch):
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    monkeypatch.setenv("AMA_DATA_ROOTS", str(shop))
    place = shop / "sorted" / "train"
    place.parent.mkdir()
    (shop / "good").rename(place)
    at = page(data="my own images")
    at.text_input(key="train-path").set_value(str(place.parent)).run()
    at.toggle(key="train-inspect").set_value(True).run()
    assert not at.exception and "1 exact duplicate," in words(at) and "steps on 42 images" in words(at)
    (place / "copy.png").unlink()
    at.run()
    assert not at.exception and "exact duplicate," not in words(at) and "41 images" in words(at)
    (place / "cut.png").write_bytes((place / "03.png").read_bytes())
    at.run()
    assert not at.exception and "1 exact duplicate," in words(at), "written in place"
