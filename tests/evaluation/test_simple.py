"""What simple methods find of the sets of a model: fitted as on their own, stored, and read again."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from ama_core.data import load
from ama_core.detectors.registry import detector_class
from ama_core.errors import BundleError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import larger_by_chance
from ama_core.evaluation.simple import METHODS, SimpleFigures, finds_more, measure_simple, read_simple, write_simple


@pytest.fixture(scope="module")
def figures(tiny_detector) -> SimpleFigures:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "available_sets", lambda: ["digits", "textures"])
        return measure_simple(tiny_detector)


def test_they_are_the_methods_of_the_registry_on_the_same_images(figures, tiny_detector):
    assert set(figures.p) == set(METHODS) and all(set(sets) == {"digits", "textures"} for sets in figures.p.values())
    kind = detector_class("pixel_mean")
    alone = kind(kind.Settings(channels=1, fit="pad"), verbose=False).fit(load("digits", "train").images)
    np.testing.assert_allclose(figures.p["pixel_mean"]["digits"], alone.p_value(load("digits", "test").images))
    assert figures.calibrated["pixel_mean"] == len(tiny_detector.held_out_scores_["T"])


def test_they_are_calibrated_on_normal_images(figures):
    for method in METHODS:
        assert figures.flagged(method, "digits", 0.2) < 0.35, method
    assert figures.flagged("nearest", "textures", 0.05) > 0.9
    assert figures.flagged("nearest", "svhn", 0.05) is None and figures.flagged("unknown", "digits", 0.05) is None


def test_what_no_calibration_can_reach_is_not_called_zero(figures):
    n = figures.calibrated["nearest"]
    assert figures.flagged("nearest", "textures", 0.9 / (n + 1)) is None
    assert figures.flagged("nearest", "textures", 1 / (n + 1)) is not None


def made(rng, finds: float, sets=13, n=500) -> SimpleFigures:
    """Figures of every method, which flags this fraction of the images of each set, but for the drawing of them, at 0.05."""
    p = {m: {f"set{i}": np.where(rng.random(n) < finds, 0.01, 0.9) for i in range(sets)} for m in METHODS}
    return SimpleFigures(p, dict.fromkeys(METHODS, 1000))


def test_chance_alone_finds_more_on_no_set(rng):
    """Everything finds 60 % of every set; without a test the best of four methods was said to find more on most of them."""
    said = []
    for _ in range(100):
        found = {f"set{i}": rng.binomial(2000, 0.6) / 2000 for i in range(13)}
        said.append(finds_more(found, dict.fromkeys(found, 2000), made(rng, 0.6), 0.05))
    assert sum(more.method is not None for more in said) <= 10  # of 100, at a level of 5 %
    assert {more.compared for more in said} == {13}


def test_what_finds_more_is_named_with_its_sets(rng):
    found = {f"set{i}": 0.6 for i in range(13)} | {"set3": 0.99, "never measured": 0.0}
    figures = made(rng, 0.6)
    better = {name: np.full(500, 0.01) for name in ("set3", "set5", "set7")}  # of set3 by no more than chance
    figures = replace(figures, p={**figures.p, "pca": {**figures.p["pca"], **better}})
    more = finds_more(found, dict.fromkeys(found, 2000), figures, 0.05)
    assert (more.method, more.sets, more.compared) == ("pca", ("set5", "set7"), 13)
    assert finds_more(found, dict.fromkeys(found, 2000), figures, 1e-4).compared == 0  # out of reach for every method
    assert finds_more(found, dict.fromkeys(found, 2), figures, 0.05).method is None, "two images of each set tell nothing"


def test_the_chance_of_a_larger_rate_by_its_definition():
    """Of all ways to place 7 hits among 4 and 6 images, those with 4 or more among the 4."""
    ways = [comb(4, k) * comb(6, 7 - k) for k in range(1, 5)]
    assert larger_by_chance(4, 4, 3, 6) == pytest.approx(ways[-1] / sum(ways))
    assert larger_by_chance(0, 4, 6, 6) == 1


def test_they_survive_a_file(figures, tmp_path):
    assert read_simple(tmp_path) is None
    write_simple(tmp_path, figures)
    found = read_simple(tmp_path)
    assert found.calibrated == figures.calibrated
    for method, sets in figures.p.items():
        for name, values in sets.items():
            np.testing.assert_allclose(found.p[method][name], values, rtol=1e-6)
            for alpha in (0.05, 2 / (figures.calibrated[method] + 1)):
                assert found.flagged(method, name, alpha) == figures.flagged(method, name, alpha)


def test_a_damaged_file_is_a_sentence(figures, tmp_path):
    write_simple(tmp_path, replace(figures, p={"pca": {"digits": np.array([0.5, 1.7])}}, calibrated={"pca": 3}))
    with pytest.raises(BundleError, match="between 0 and 1"):
        read_simple(tmp_path)
    (tmp_path / "simple.npz").write_bytes(b"no array")
    with pytest.raises(BundleError, match="simple.npz"):
        read_simple(tmp_path)


def test_flagged_fractions_are_counted_from_the_stored_scores(tiny_detector, monkeypatch):
    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "textures"])
    stored = list(evaluation.measure_each(tiny_detector))
    found = evaluation.flagged_fractions(tiny_detector, stored, "M", 0.1)
    assert set(found) == {"digits", "textures"}
    p = tiny_detector.scores(load("textures", "test").images)["p_M"]
    assert found["textures"] == pytest.approx(np.mean(p <= 0.1), abs=1e-3)
