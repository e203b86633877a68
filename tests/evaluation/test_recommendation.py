"""Detectors on the same images: DeLong's covariance against its definition, and which detector is recommended, and why."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from ama_core import load_detector
from ama_core.data import ImageSet, load
from ama_core.detectors.registry import detector_class
from ama_core.errors import DataError
from ama_core.evaluation.metrics import auroc_interval
from ama_core.evaluation.recommendation import Compared, at_rate, compare, delong, recommend, surely_better
from ama_core.storage.bundle import read_results
from tests.app.test_own_data import photo


def compared(name, normal, anomalous, seconds=1.0) -> Compared:
    auroc = float(delong([normal], [anomalous])[0][0])
    interval = auroc_interval(auroc, len(normal), len(anomalous))
    return Compared(name, name.title(), "s", auroc, *interval, 0.5, 0.05, 0.05, seconds, 1.0, normal, anomalous)


def ranked(*found):
    return sorted(found, key=lambda one: -one.auroc)


def test_delong_against_its_definition(rng):
    normal = [rng.integers(0, 6, 30).astype(float), rng.normal(size=30)]  # with ties, and without
    anomalous = [rng.integers(2, 8, 12).astype(float), rng.normal(0.7, 1, 12)]
    psi = [(y[:, None] > x[None]) + 0.5 * (y[:, None] == x[None]) for x, y in zip(normal, anomalous)]  # (m, n) each
    v10, v01 = [p.mean(axis=1) for p in psi], [p.mean(axis=0) for p in psi]
    expected = np.cov(v10) / 12 + np.cov(v01) / 30
    aurocs, covariance = delong(normal, anomalous)
    np.testing.assert_allclose(aurocs, [p.mean() for p in psi])
    np.testing.assert_allclose(covariance, expected)


def test_delong_covers_what_drawing_again_gives(rng):
    """The standard error of a difference is that of many independent drawings."""

    def draw():
        shared_n, shared_a = rng.normal(size=80), rng.normal(1, 1, 40)
        normal = [shared_n + 0.5 * rng.normal(size=80), shared_n + rng.normal(size=80)]
        anomalous = [shared_a + 0.5 * rng.normal(size=40), shared_a + rng.normal(size=40)]
        return delong(normal, anomalous)

    found = [draw() for _ in range(400)]
    differences = [aurocs[0] - aurocs[1] for aurocs, _ in found]
    predicted = np.mean([c[0, 0] + c[1, 1] - 2 * c[0, 1] for _, c in found]) ** 0.5
    assert 0.9 < np.std(differences) / predicted < 1.1


def test_a_clear_difference_is_no_chance_and_a_small_one_may_be(rng):
    normal, anomalous = rng.normal(size=60), rng.normal(3, 1, 40)
    good, poor = compared("good", normal, anomalous), compared("poor", rng.normal(size=60), rng.normal(size=40))
    assert surely_better(good, poor) and not surely_better(poor, good)
    name, reason, significant = recommend(ranked(poor, good))
    assert name == "good" and significant and "40 anomalous images" in reason
    assert "larger than chance explains (DeLong's test, 95 %)" in reason
    near = compared("near", normal, np.where(np.arange(40) == 7, anomalous.min() - 0.01, anomalous), seconds=500.0)
    name, reason, significant = recommend(ranked(good, near, poor))
    assert name == "good" and not significant and "may be due to chance" in reason and "Near" in reason and "Poor" not in reason


def test_of_equals_the_faster_is_taken_and_not_a_clearly_poorer_one(rng):
    normal, anomalous = rng.normal(size=30), rng.normal(1.5, 1, 15)
    slow, fast = compared("slow", normal, anomalous, 300.0), compared("fast", normal, anomalous, 2.0)
    assert recommend([slow, fast])[0] == "fast"
    worse = compared("worse", normal, anomalous - 0.5, 0.1)
    assert slow.auroc - worse.auroc > 0.01 and recommend(ranked(slow, fast, worse))[0] == "fast"


def test_few_images_tell_nothing_and_made_defects_are_named(rng):
    one = compared("one", rng.normal(size=30), rng.normal(4, 1, 3))
    other = compared("other", rng.normal(size=30), rng.normal(size=3))
    _, reason, significant = recommend(ranked(one, other), made=True)
    assert not significant and reason.startswith("Not enough images to tell") and "synthetic defects" in reason.lower()


@pytest.mark.parametrize(
    "n, m, shift, said",
    [
        (8000, 2000, 0.0, "Nothing here tells them apart"),
        (8000, 2000, -1.0, "is worse than chance"),
        (30, 12, 0.0, "Not enough images to tell"),
        (60, 40, -1.0, "is worse than chance"),  # fewer images are enough to see that
        (8000, 2000, 0.07, "finds most"),  # little, but there
        (4, 3000, -9.0, "Not enough images to tell"),
    ],
)
def test_no_better_than_chance_is_told_from_too_few_images(n, m, shift, said):
    """Scores in even steps, so that the AUROC is what the shift makes it, with its own interval."""
    normal, anomalous = norm.ppf((np.arange(n) + 0.5) / n), norm.ppf((np.arange(m) + 0.5) / m) + shift
    first, worse = compared("first", normal, anomalous), compared("worse", normal, anomalous - 3.0)
    for detectors in ((first, worse), (first,)):
        _, reason, significant = recommend(detectors)
        assert said in reason or (said == "finds most" and "is the only one" in reason)
        assert ("Add more" in reason) == said.startswith("Not enough") and significant == (
            said == "finds most" and len(detectors) > 1
        )


def test_detectors_see_the_same_images():
    train, normal = load("digits", "train").take(np.arange(300)), load("digits", "test").take(np.arange(60))
    anomalous = load("textures", "test").take(np.arange(30))
    anomalous = ImageSet("grey", "test", anomalous.images[..., :1], anomalous.labels)
    detectors = {}
    for name in ("pca", "pixel_mean"):
        kind = detector_class(name)
        detectors[name] = kind(kind.Settings(channels=1, calibration_fraction=0.3), verbose=False)
    found = compare(train, normal, anomalous, detectors, alpha=0.1)
    assert [one.auroc for one in found.detectors] == sorted((one.auroc for one in found.detectors), reverse=True)
    for one in found.detectors:
        fitted = detectors[one.name]
        p = fitted.p_value(anomalous.images)
        assert one.detected == pytest.approx((p <= 0.1).mean()) and len(one.normal) == 60 and one.low <= one.auroc <= one.high
        np.testing.assert_allclose(one.anomalous, fitted.anomaly_score(anomalous.images))
    with pytest.raises(DataError, match="no detector"):
        compare(train, normal, anomalous, {})


def test_a_fitted_one_is_tested_as_it_is_beside_unfitted_ones(monkeypatch):
    train, normal = load("digits", "train").take(np.arange(300)), load("digits", "test").take(np.arange(60))
    anomalous = ImageSet("grey", "test", load("textures", "test").images[:30, ..., :1], np.zeros(30, np.int64))

    def made(name):
        kind = detector_class(name)
        return kind(kind.Settings(channels=1, calibration_fraction=0.3), verbose=False)

    alone = compare(train, normal, anomalous, {"pca": made("pca"), "pixel_mean": made("pixel_mean")})
    mine, other = made("pca").fit(train), made("pixel_mean")
    mine.info_["training"]["seconds"] = 321.0
    monkeypatch.setattr(mine, "fit", None)  # whoever fits it again fails
    steps, parts = [], []
    found = compare(
        train,
        normal,
        anomalous,
        {"pixel_mean": other},
        fitted={"mine": mine},
        progress=lambda *step: steps.append(step),
        tick=parts.append,
    )
    both = {one.name: one for one in found.detectors}
    assert both["mine"].seconds_train == 321.0 and both["pixel_mean"].seconds_train < 100 and found.against == "grey"
    for name, one in {one.name: one for one in alone.detectors}.items():
        again = both["mine" if name == "pca" else name]
        assert (again.auroc, again.low, again.high, again.detected) == (one.auroc, one.low, one.high, one.detected)
    assert steps == [(mine.title, "scoring"), (other.title, "training"), (other.title, "scoring")]
    assert all(0 <= part <= 1 for part in parts)
    with pytest.raises(DataError, match="called 'mine'"):
        compare(train, normal, anomalous, {"mine": other}, fitted={"mine": mine})
    del mine.info_["training"]
    (only,) = compare(train, normal, anomalous, {}, fitted={"mine": mine}).detectors
    assert only.seconds_train == np.inf

    detectors = {"mine": mine, "pixel_mean": other}
    strict, loose = (at_rate(found, detectors, alpha) for alpha in (0.05, 0.5))
    assert strict == found and loose.recommended == found.recommended
    for one in loose.detectors:
        assert one.detected == (detectors[one.name].p_value(anomalous.images) <= 0.5).mean() and one.alpha == 0.5
        assert one.false_alarms == (detectors[one.name].p_value(normal.images) <= 0.5).mean() > 0.2


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("shop")
    for name, n in (("good", 110), ("bad", 12)):
        (folder / name).mkdir()
        for i in range(n):
            photo(rng, name == "bad").save(folder / name / f"{i:02}.png")
    return folder


def test_by_command(call, shop, tmp_path):
    words = ("--detectors", "nearest,pca", "--quiet", "--device", "cpu")
    code, out, _ = call("compare", shop / "good", "--against", shop / "bad", *words, "--json", "--out", tmp_path / "kept")
    found = json.loads(out)
    assert code == 0 and found["recommended"] in ("nearest", "pca") and found["n_anomalous"] == 12 and found["n_normal"] == 22
    assert {"name", "auroc", "low", "high", "detected", "alpha", "seconds_train", "ms_per_image"} <= set(found["detectors"][0])
    assert found["recommended"] in {one["name"] for one in found["detectors"]} and not found["synthetic_defects"]
    kept = load_detector(tmp_path / "kept")
    assert kept.name == found["recommended"] and kept.normal.source == str((shop / "good").resolve())
    assert len(kept.calibration_scores_) >= 19  # alpha = 0.05 can be reached
    (row,) = read_results(tmp_path / "kept")["results"]
    assert row["ood"] == str(shop / "bad") and row["scores"][kept.by]["auroc"] == pytest.approx(found["detectors"][0]["auroc"])
    assert call("evaluate", tmp_path / "kept", "--ood", shop / "bad", "--json", "--quiet")[0] == 0
    code, out, _ = call("compare", shop / "good", *words)
    assert code == 0 and "synthetic defects" in out and "Recommended: " in out


@pytest.mark.parametrize(
    "more, said",
    [
        (("--detectors", "pca,none"), "no detector 'none'"),
        (("--detectors", ","), "names none"),
        (("--alpha", "2"), "between 0 and 1"),
        (("--set", "nothing=1"), "nothing"),
        (("--against", "{good}"), "lie among"),
    ],
)
def test_what_cannot_be_compared_is_said(call, shop, more, said):
    words = [word.format(good=shop / "good") for word in more]
    chosen = () if "--detectors" in words else ("--detectors", "pca")
    code, out, err = call("compare", shop / "good", "--quiet", *chosen, *words)
    assert code == 2 and said in err and err.count("\n") == 1 and not out


def test_a_command_as_inspect_suggests_it_can_be_run(call, shop, tmp_path):
    code, out, _ = call("inspect", shop / "good", "--json", "--quiet", "--alpha", "0.1")
    suggested = json.loads(out)["suggested"]
    assert code == 0 and suggested["smallest_alpha"] <= 0.1 and suggested["settings"]["fit"] == "stretch"
    words = suggested["command"].split()
    assert words[:4] == ["python", "-m", "ama_core", "train"]
    words[words.index("--out") + 1] = str(tmp_path / "run")
    assert words[words.index("--preset") + 1] == "fast64"  # AMA's: the photographs are larger than 64 pixels
    words[words.index("--preset") + 1] = "tiny"
    assert call(*words[3:], "--detector", "pixel_mean", "--no-measure", "--quiet")[0] == 0
    kept = load_detector(tmp_path / "run")
    assert 1 / (len(kept.calibration_scores_) + 1) == pytest.approx(suggested["smallest_alpha"])


def test_a_rate_above_a_half(call, shop):
    words = (shop / "good", "--quiet", "--alpha", "0.6")
    _, out, _ = call("inspect", *words, "--json")
    assert detector_class("ama").Settings.preset("tiny", **json.loads(out)["suggested"]["settings"]).false_alarm_rate == 0.6
    assert call("compare", *words, "--detectors", "pixel_mean")[0] == 0


def test_several_paths_are_looked_at_together(call, shop, tmp_path):
    Image.new("L", (20, 20)).save(tmp_path / "small.png")
    code, out, _ = call("inspect", shop / "good", shop / "bad", tmp_path / "small.png", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0 and found["n"] == 123 and found["grey"] == 1
    assert found["suggested"]["command"] is None, "settings of all of them are no command for the first"
    code, out, _ = call("inspect", shop / "good", shop / "bad", "--quiet")
    assert code == 0 and "put them into one folder" in out and "ama_core train" not in out
