"""What R depends on: measured on a real model, stored with it, and read back or refused in a sentence."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ama_core import AMADetector
from ama_core.analysis.response import (
    CHANGES,
    Response,
    SetFacts,
    correlation,
    measure_response,
    read_response,
    set_facts,
)
from ama_core.data import load
from ama_core.detectors.lossless_length import lossless_length
from ama_core.errors import BundleError
from ama_core.storage.bundle import FILES, PRETRAINED, list_bundles, read_info, read_scores, zip_bundle


def test_a_run_measures_it_and_a_shared_model_keeps_it(tiny_bundle, tmp_path):
    found = read_response(tiny_bundle)
    detector = AMADetector.load(tiny_bundle)
    images = load("digits", "test").images
    scores = {s.name: s.scores["R"] for s in read_scores(tiny_bundle) if s.split == "test"}
    assert found.normal == "digits" and found.n == len(images) == 500 and set(found.sets) == set(scores)
    assert found.r == pytest.approx(np.median(scores["digits"]), rel=1e-3)
    for name, change in CHANGES.items():
        assert found.changed[name] == pytest.approx(np.median(detector.scores(change(images))["R"]), rel=1e-3)
    facts = found.sets["digits"]
    assert facts.deviation == pytest.approx(np.median(images.std(axis=(1, 2, 3))))
    expected = np.corrcoef(np.log(scores["digits"].astype(float)), lossless_length(images))[0, 1]
    assert facts.correlation("length") == pytest.approx(expected, abs=1e-6)
    (tmp_path / "model.zip").write_bytes(zip_bundle(tiny_bundle))
    shutil.unpack_archive(tmp_path / "model.zip", tmp_path)
    assert read_response(tmp_path / tiny_bundle.name) == found and "response.json" in FILES


def test_the_changes_do_what_they_are_called(rng):
    image = rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    after = {name: change(image).astype(float) for name, change in CHANGES.items()}
    grey = np.asarray(Image.fromarray(image[0]).convert("L"), float).mean()
    np.testing.assert_allclose(after["contrast × 0.5"], (image + grey) / 2, atol=1.01)
    np.testing.assert_allclose(after["brightness × 0.3"], 0.3 * image.astype(float), atol=1.01)
    dot = np.zeros((1, 32, 32, 1), np.uint8)
    dot[0, 16, 16] = 255
    spread = CHANGES["blur of 2 px"](dot)[0, :, :, 0].astype(float)
    assert spread.argmax() == 16 * 32 + 16 and spread.max() == pytest.approx(255 / (2 * np.pi * 2**2), rel=0.2)


def test_images_that_do_not_vary_have_no_correlation():
    flat = np.full((4, 8, 8, 1), 7, np.uint8)
    facts = set_facts(flat, np.arange(1.0, 5.0))
    assert facts.correlation("deviation") is None and facts.correlation("length") is None and facts.deviation == 0
    assert correlation(np.arange(3.0), -np.arange(3.0)) == pytest.approx(-1)


@pytest.mark.parametrize(
    "r, there, here, expected",
    [
        (0.5, 10, 5, "low"),
        (0.5, 10, 20, "high"),
        (-0.5, 10, 20, "low"),
        (-0.5, 10, 5, "high"),
        (0.1, 10, 5, "weak"),
        (0.5, 10, 10.5, "alike"),
        (None, 10, 5, None),
    ],
)
def test_what_is_to_be_expected_follows_from_both_measurements(r, there, here, expected):
    own, other = SetFacts(9, 1.0, there, 1.0, r, None), SetFacts(9, 1.0, here, 1.0, 0.9, None)
    assert Response("own", 9, 1.0, {}, {"own": own, "other": other}).expected("other", "deviation") == expected


def test_where_the_normal_images_are_not_here_nothing_is_measured(tiny_bundle):
    detector = AMADetector.load(tiny_bundle)
    others = [s for s in read_scores(tiny_bundle) if s.name != "digits"]
    assert measure_response(detector, others) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"sets": 3}',
        '{"sets": {"a": {}}}',
        "[" * 100_000,
        '{"normal": "a", "n": 1, "r": 1, "changed": {}, "sets": {}}',
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, content):
    assert read_response(tmp_path) is None
    (tmp_path / "response.json").write_text(content)
    with pytest.raises(BundleError, match="response.json is damaged"):
        read_response(tmp_path)


def test_figures_that_are_no_numbers_are_refused(tiny_bundle, tmp_path):
    stored = json.loads((tiny_bundle / "response.json").read_text())
    for wrong in (float("nan"), "3", [], None):
        (tmp_path / "response.json").write_text(json.dumps(stored | {"changed": {"contrast × 0.5": wrong}}))
        with pytest.raises(BundleError, match="damaged"):
            read_response(tmp_path)


@pytest.mark.parametrize(
    "name", [n for n in list_bundles(PRETRAINED) if read_info(PRETRAINED / n).get("detector", "ama") == "ama"]
)
def test_every_bundled_ama_has_it(name):
    found = read_response(PRETRAINED / name)
    assert set(found.changed) == set(CHANGES) and found.normal in found.sets and len(found.sets) == 14
