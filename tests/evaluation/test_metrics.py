"""Confusion matrices, ROC, intervals and the calibration band: against brute force and against simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import binom, binomtest, norm

from ama_core import AMADetector, Config
from ama_core.data import ImageSet
from ama_core.detectors.ama.networks import Networks, count_parameters, summary
from ama_core.detectors.conformal import conformal_p_value
from ama_core.errors import DataError
from ama_core.evaluation.metrics import (
    _drawn_metrics,
    along,
    auroc_interval,
    best_threshold,
    bootstrap_errors,
    both_rules,
    confusion_at,
    confusion_outside,
    detection_metrics,
    false_alarm_band,
    false_alarm_curve,
    mean_and_sd,
    metric_intervals,
    more_than_false_alarms,
    nearest_the_cut,
    nearest_to,
    roc_points,
    round_step,
    threshold_places,
)
from ama_core.evaluation.protocol import STORED_SAMPLE, stored_aurocs, stored_images
from ama_core.storage.bundle import read_results, read_scores

SCORES = some.lists(some.integers(-5, 5), min_size=1, max_size=30)


@given(SCORES, SCORES, some.integers(-6, 6))
def test_a_threshold_counts_what_lies_above_it(normal, anomalous, cut):
    c = confusion_at(np.array(normal), np.array(anomalous), cut)
    hits, alarms = sum(a > cut for a in anomalous), sum(n > cut for n in normal)
    assert (c.hits, c.misses, c.false_alarms, c.passed) == (hits, len(anomalous) - hits, alarms, len(normal) - alarms)
    assert c.detection_rate == hits / len(anomalous) and c.false_alarm_rate == alarms / len(normal)
    assert np.isnan(c.precision) if hits + alarms == 0 else c.precision == hits / (hits + alarms)


@given(SCORES, SCORES, some.integers(-6, 6), some.integers(0, 6))
def test_a_band_counts_what_lies_outside_it(normal, anomalous, low, width):
    c = confusion_outside(np.array(normal), np.array(anomalous), low, low + width)
    assert c.hits == sum(a < low or a > low + width for a in anomalous)
    assert c.false_alarms == sum(n < low or n > low + width for n in normal)


@given(SCORES, SCORES)
def test_the_area_under_the_roc_points_is_the_auroc(normal, anomalous):
    x, y = roc_points(np.array(normal), np.array(anomalous))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1) and (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
    assert np.trapezoid(y, x) == pytest.approx(detection_metrics(np.array(normal), np.array(anomalous))["auroc"])


def test_every_threshold_lies_on_the_roc(rng):
    normal, anomalous = rng.normal(size=50), rng.normal(1, 1, size=40)
    x, y = roc_points(normal, anomalous)
    for cut in rng.normal(size=20):
        c = confusion_at(normal, anomalous, cut)
        point, starts, ends = (
            np.stack(p, axis=-1) for p in ((c.false_alarm_rate, c.detection_rate), (x[:-1], y[:-1]), (x[1:], y[1:]))
        )
        along = ends - starts  # the curve goes straight between its points, of which those on a line are left out
        t = np.clip(((point - starts) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12), 0, 1)
        assert np.linalg.norm(starts + t[:, None] * along - point, axis=1).min() < 1e-9


def test_the_interval_of_hanley_and_mcneil_as_printed():
    # Their Table I, "slightly different": A = 0.893, 58 normal and 51 abnormal, standard error 0.032: that of 83 of 93.
    exact = binomtest(83, 93).proportion_ci(0.95, method="exact")
    assert auroc_interval(0.893, 58, 51) == pytest.approx((exact.low, exact.high), abs=0.005)


def test_the_interval_covers_the_true_value_about_as_often_as_it_says(rng):
    true = 0.76025  # of two Gaussians one standard deviation apart
    covered = 0
    for _ in range(400):
        normal, anomalous = rng.normal(size=80), rng.normal(1, 1, size=60)
        low, high = auroc_interval((anomalous[:, None] > normal).mean(), 80, 60)
        covered += low <= true <= high
    assert 0.91 <= covered / 400 <= 0.99


@pytest.mark.parametrize("n, m", [(5, 5), (20, 10)])
@pytest.mark.parametrize("true", [0.7, 0.97])
def test_the_interval_of_few_images_covers_the_true_value(rng, n, m, true):
    shift, covered = 2**0.5 * norm.ppf(true), 0
    for _ in range(400):
        normal, anomalous = rng.normal(size=n), rng.normal(shift, 1, size=m)
        low, high = auroc_interval((anomalous[:, None] > normal).mean(), n, m)
        covered += low <= true <= high
    assert covered / 400 >= 0.94


@pytest.mark.parametrize("auroc, n", [(0.0, 5), (1.0, 5), (1.0, 400)])
def test_no_interval_is_certain(auroc, n):
    low, high = auroc_interval(auroc, n, n)
    assert high - low == pytest.approx(1 - 0.025 ** (1 / n)), "of n hits in n trials"


@pytest.mark.parametrize("auroc", [0.0, 0.5, 1.0])
def test_the_interval_stays_within_0_and_1_and_narrows(auroc):
    small, large = auroc_interval(auroc, 10, 10), auroc_interval(auroc, 1000, 1000)
    assert 0 <= small[0] <= auroc <= small[1] <= 1
    assert large[1] - large[0] <= small[1] - small[0]
    assert auroc_interval(auroc, 10, 10, level=0.5)[0] >= small[0]


@settings(max_examples=40)
@given(SCORES, SCORES)
def test_the_metrics_of_drawings_are_those_of_the_images_drawn(normal, anomalous):
    normal, anomalous, rng = np.array(normal, float), np.array(anomalous, float), np.random.default_rng(3)
    times = [rng.multinomial(7, np.full(len(v), 1 / len(v)), 4).astype(np.float32) for v in (normal, anomalous)]
    found = _drawn_metrics(normal, anomalous, *times)
    for b in range(4):
        drawn = [np.repeat(v, t[b].astype(int)) for v, t in zip((normal, anomalous), times)]
        expected = detection_metrics(*drawn)
        assert {metric: values[b] for metric, values in found.items()} == pytest.approx(expected, abs=1e-5)


def test_standard_errors_are_the_spread_over_new_draws_of_images(rng):
    """Against what the bootstrap stands for: other images, many times over."""

    def images(n, shift):
        return dict.fromkeys(("R", "M"), rng.normal(shift, 1, n))

    n, m = 400, 150
    draws = [detection_metrics(images(n, 0)["R"], images(m, 1.5)["R"]) for _ in range(300)]
    errors = bootstrap_errors(images(2000, 0), images(2000, 1.5), n, m)
    assert errors["R"] == errors["M"], "one drawing of images serves every score"
    for metric in ("auroc", "auprc", "fpr95"):
        assert errors["R"][metric] == pytest.approx(np.std([d[metric] for d in draws]), rel=0.25)


def test_intervals_lie_around_what_was_measured(tiny_bundle):
    stored = {s.name: s for s in read_scores(tiny_bundle) if s.split == "test"}
    row = next(row for row in read_results(tiny_bundle)["results"] if row["ood"] == "textures")
    found = metric_intervals(AMADetector(), row, stored["digits"], stored["textures"])
    assert found == metric_intervals(AMADetector(), row, stored["digits"], stored["textures"]), "seeded"
    for by, metrics in row["scores"].items():
        assert set(found[by]) == set(metrics)
        for metric, (low, high) in found[by].items():
            assert 0 <= low <= metrics[metric] <= high <= 1
    bare = metric_intervals(AMADetector(), row, stored["digits"], None)
    assert bare["T"] == {"auroc": auroc_interval(row["scores"]["T"]["auroc"], row["n_normal"], row["n_ood"])}


def test_mean_and_spread():
    assert mean_and_sd([0.5, 0.7, 0.9]) == pytest.approx((0.7, 0.2))
    assert mean_and_sd([0.5]) == (0.5, None)


@given(SCORES, some.integers(-6, 6), some.integers(1, 5))
def test_the_nearest_to_a_place(values, place, n):
    found = np.array(values)[nearest_to(np.array(values), place, n)]
    assert list(found) == sorted(found)
    assert sorted(abs(found - place)) == sorted(abs(v - place) for v in values)[:n]


@given(SCORES, some.integers(-6, 6), some.integers(1, 5))
def test_the_nearest_to_the_cut(values, cut, n):
    values = np.array(values)
    below, above = nearest_the_cut(values, cut, n)
    assert sorted(values[below], reverse=True) == sorted((v for v in values if v <= cut), reverse=True)[:n]
    assert list(values[above]) == sorted(v for v in values if v > cut)[:n]
    assert len({*below, *above}) == len(below) + len(above)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (12.3, 197.7), (0.0031, 0.0042), (1e4, 3.3e6)])
def test_a_step_is_round(low, high):
    step = round_step(low, high)
    assert 80 <= (high - low) / step <= 200 and f"{step:e}"[:8] in ("1.000000", "2.000000", "5.000000")


def test_false_alarms_are_the_part_of_p_values_up_to_alpha(rng):
    p, alphas = conformal_p_value(rng.normal(size=300), rng.normal(size=99)), np.array([0.01, 0.05, 0.1, 1.0])
    assert false_alarm_curve(p, alphas) == pytest.approx([(p <= a).mean() for a in alphas])


def test_more_than_false_alarms(rng):
    pairs = [(rng.normal(size=21), rng.normal(size=99)) for _ in range(1000)]  # normal images, and other held-out ones
    found = [more_than_false_alarms(conformal_p_value(values, held_out), 0.05, 99) for values, held_out in pairs]
    assert np.mean(found) < 0.04  # the upper side of a band of 95 %
    assert more_than_false_alarms(np.array([0.01] * 5 + [0.5] * 16), 0.05, 999)


def test_the_band_holds_sound_calibrations_and_not_others(rng):
    alphas, n_test, n = np.array([0.005, 0.05, 0.2]), 500, 99
    low, high = false_alarm_band(alphas, n_test, n)
    assert (low[0], high[0]) == (0, 0), "99 calibration images can flag nothing at 0.5 %"
    rates = np.stack(
        [false_alarm_curve(conformal_p_value(rng.normal(size=n_test), rng.normal(size=n)), alphas) for _ in range(400)]
    )
    inside = ((rates >= low) & (rates <= high)).mean(axis=0)
    assert inside[0] == 1 and (inside[1:] > 0.92).all() and (inside[1:] < 0.99).all()
    shifted = false_alarm_curve(conformal_p_value(rng.normal(1, 1, size=n_test), rng.normal(size=n)), alphas)
    assert shifted[1] > high[1]


def test_a_large_calibration_set_leaves_the_binomial_band():
    low, high = false_alarm_band(np.array([0.05]), 2000, 10**7)
    assert (low[0] * 2000, high[0] * 2000) == pytest.approx(binom.ppf([0.025, 0.975], 2000, 0.05), abs=1)


def test_stored_scores_lead_back_to_their_images(tiny_bundle, tiny_detector):
    for stored in read_scores(tiny_bundle):
        images = stored_images(tiny_detector, stored)
        assert isinstance(images, ImageSet) and len(images) == stored.n
        assert stored.n == min(stored.n_total, STORED_SAMPLE)
    of_another_split = replace(stored, n_split=stored.n_split + 1)
    by_an_earlier_version = replace(stored, index=None, n_split=None, n_total=stored.n_total + 1)
    for wrong in (of_another_split, by_an_earlier_version):
        with pytest.raises(DataError, match="cannot be told apart"):
            stored_images(tiny_detector, wrong)


def test_the_scores_of_stored_images_are_the_stored_ones(tiny_bundle):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    stored = next(s for s in read_scores(tiny_bundle) if s.name == "gradients")
    rows = [0, 17, stored.n - 1]
    again = detector.scores(stored_images(detector, stored).images[rows])
    assert again["R"] == pytest.approx(stored.scores["R"][rows], rel=1e-5)


def test_stored_aurocs_compare_with_the_normal_test_scores(tiny_bundle):
    stored, detector = read_scores(tiny_bundle), AMADetector.load(tiny_bundle)
    found = stored_aurocs(detector, stored)
    assert set(found) == {"gradients", "textures"}
    own = next(s for s in stored if (s.name, s.split) == ("digits", "test")).scores["R"]
    other = next(s for s in stored if s.name == "textures").scores["R"]
    wins = (other[:, None] > own[None]).mean() + 0.5 * (other[:, None] == own[None]).mean()
    assert found["textures"]["R"] == pytest.approx(wins)
    assert stored_aurocs(detector, [s for s in stored if s.name != "digits"]) == {} and stored_aurocs(detector, []) == {}


@pytest.mark.parametrize("changes", [{}, {"reconstruction": "plain", "channels": 1}, {"image_size": 64}])
def test_the_stages_of_the_networks_are_all_there(changes):
    config = Config(width_encoder=8, width_generator=8, width_critic=8, nz=16, **changes)
    networks = Networks(config).eval()
    stages = summary(networks)
    for name in "EGD":
        own = [s for s in stages if s.network == name]
        assert sum(s.parameters for s in own) == count_parameters(getattr(networks, name))
    shapes = {name: [s.shape for s in stages if s.network == name] for name in "EGD"}
    image = (config.channels, config.image_size, config.image_size)
    assert shapes["E"][0] == shapes["G"][-1] == image and shapes["E"][-1] == (16,)
    assert shapes["D"][0][0] == config.channels * (1 if config.reconstruction == "plain" else 2)
    assert shapes["D"][-2:] == [(8,), (1,)]


@given(SCORES, SCORES)
def test_no_threshold_gains_more_than_the_best_one(normal, anomalous):
    normal, anomalous = np.array(normal), np.array(anomalous)

    def gain(cut: float) -> float:
        counts = confusion_at(normal, anomalous, cut)
        return counts.detection_rate - counts.false_alarm_rate

    best = best_threshold(normal, anomalous)
    assert gain(best) == pytest.approx(max(0.0, *(gain(cut) for cut in (*normal, *anomalous))))
    if gain(best) <= 0:
        assert confusion_at(normal, anomalous, best).hits == 0, "then nothing is flagged"


@given(SCORES, some.integers(-6, 6), some.integers(-6, 6), some.integers(0, 6))
def test_both_rules_part_all_images(r, cut, low, width):
    found = both_rules(np.array(r), cut, low, low + width)
    assert sorted(np.concatenate(list(found.values()))) == list(range(len(r)))
    for name, rows in found.items():
        for i in rows:
            one, two = r[i] > cut, r[i] < low or r[i] > low + width
            assert name == {(True, True): "both", (False, True): "A", (True, False): "R", (False, False): "neither"}[one, two]
        assert list(np.array(r)[rows]) == sorted(np.array(r)[rows])


@pytest.mark.parametrize("log", [True, False])
def test_threshold_places_lie_evenly_on_the_axis(log):
    places = np.array(threshold_places(3.0, 900.0, log))
    steps = np.diff(np.log10(places) if log else places)
    assert places[0] == 3.0 and places[-1] == 900.0 and len(places) == 200 and steps.max() < 1.1 * steps.min()


def test_some_along_an_order():
    ranked = np.arange(100)
    assert list(along(ranked, 3)) == [0, 50, 99] and list(along(ranked[:2], 3)) == [0, 1] and len(along(ranked[:0], 3)) == 0
