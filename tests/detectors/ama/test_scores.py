"""All scores and conformal p-values against independent NumPy: nothing here calls scikit-learn or the code under test twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ama_core.detectors.ama.scores import (
    SCORES,
    Calibration,
    Gaussian,
    Statistics,
    anomaly_scores,
    log_a_score,
    r_score,
    t_vector,
)
from ama_core.detectors.conformal import conformal_p_value, conformal_threshold, smallest_alpha

WIDTH = 5


def statistics(rng, n: int, shift: float = 0.0) -> Statistics:
    mixing = np.array([[2.0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0.5, 0.3, 0, 0], [0, 0, 0, 4, 1], [0, 0, 0, 0, 1]])
    return Statistics(
        difference=(rng.normal(size=(n, WIDTH)) @ mixing + 1 + shift).astype(np.float32),
        d_real=rng.normal(2, 1, n).astype(np.float32),
        d_recon=rng.normal(1, 3, n).astype(np.float32),
        pixel_l1=rng.uniform(0.01, 0.4, n).astype(np.float32),
        z_norm=rng.uniform(2, 4, n).astype(np.float32),
        block_means=(rng.gamma(3.0, size=(n, 8)) + 0.3 * shift).astype(np.float32),
    )


def ledoit_wolf(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and shrunk covariance by the formulas of Ledoit and Wolf (2004): (1 - s) S + s m I."""
    n, p = x.shape
    mean = x.mean(axis=0)
    centred = x - mean
    s = centred.T @ centred / n
    m = np.trace(s) / p
    d2 = np.sum((s - m * np.eye(p)) ** 2)
    b2 = min(sum(np.sum((np.outer(row, row) - s) ** 2) for row in centred) / n**2, d2)
    return mean, (1 - b2 / d2) * s + b2 / d2 * m * np.eye(p)


def mahalanobis(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    return np.array([np.sqrt((row - mean) @ np.linalg.solve(covariance, row - mean)) for row in x])


@pytest.fixture
def parts(rng):
    return statistics(rng, 300), statistics(rng, 120), statistics(rng, 80), statistics(rng, 40, shift=2.0)


@pytest.fixture
def calibration(parts):
    return Calibration.fit(*parts[:3])


def test_r_is_the_l1_norm(rng):
    d = rng.normal(size=(6, 4)).astype(np.float32)
    expected = [sum(abs(float(v)) for v in row) for row in d]
    np.testing.assert_allclose(r_score(d), expected, rtol=1e-12)
    assert r_score(d).dtype == np.float64


def test_r_and_a_of_a_calibration(parts, calibration):
    r_train = np.abs(parts[0].difference.astype(np.float64)).sum(axis=1)
    assert calibration.mu == pytest.approx(r_train.mean(), rel=1e-12)
    assert calibration.sigma == pytest.approx(np.sqrt(np.mean((r_train - r_train.mean()) ** 2)), rel=1e-12)
    np.testing.assert_allclose(calibration.train_r, r_train)
    found = calibration.score(parts[3])
    r = np.abs(parts[3].difference.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(found["R"], r)
    density = norm.pdf(r, r_train.mean(), r_train.std())
    np.testing.assert_allclose(found["A"], density, rtol=1e-9)
    np.testing.assert_allclose(found["log_A"], np.log(density), rtol=1e-9)


def test_log_a_ranks_where_the_density_underflows():
    r = np.array([10.0, 10 + 39 * 2, 10 + 60 * 2, 10 - 80 * 2])
    log_a = log_a_score(r, 10.0, 2.0)
    assert (np.exp(log_a[1:]) == 0).all()
    assert (np.diff(log_a) < 0).all()
    np.testing.assert_allclose(log_a, norm.logpdf(r, 10, 2))


def test_m_is_the_shrunk_mahalanobis_distance_of_the_signed_difference(parts, calibration):
    _, held_out, _, new = parts
    mean, covariance = ledoit_wolf(held_out.difference.astype(np.float64))
    np.testing.assert_allclose(
        calibration.score(new)["M"], mahalanobis(new.difference.astype(np.float64), mean, covariance), rtol=1e-9
    )


def test_m_sees_the_sign_that_r_throws_away(calibration, parts):
    normal = parts[1]
    flipped = Statistics(**{**vars(normal), "difference": -normal.difference})
    np.testing.assert_allclose(calibration.score(flipped)["R"], calibration.score(normal)["R"])
    assert calibration.score(flipped)["M"].mean() > 1.2 * calibration.score(normal)["M"].mean()


def test_t_is_the_shrunk_mahalanobis_distance_of_six_robustly_scaled_statistics(parts, calibration):
    _, held_out, _, new = parts

    def t_by_hand(s: Statistics) -> np.ndarray:
        d = s.difference.astype(np.float64)
        m = mahalanobis(d, *ledoit_wolf(held_out.difference.astype(np.float64)))
        logs = [np.log(v.astype(np.float64)) for v in (np.abs(d).sum(axis=1), s.pixel_l1, s.z_norm)]
        return np.column_stack([*logs, s.d_real, s.d_recon, m])

    t = t_by_hand(held_out)
    iqr = np.quantile(t, 0.75, axis=0) - np.quantile(t, 0.25, axis=0)
    mean, covariance = ledoit_wolf(t / iqr)
    expected = mahalanobis(t_by_hand(new) / iqr, mean, covariance)
    np.testing.assert_allclose(calibration.score(new)["T"], expected, rtol=1e-6)
    found = t_vector(new, calibration.score(new)["M"])
    assert found.shape == (40, 6)
    np.testing.assert_allclose(found, t_by_hand(new), rtol=1e-6)


def test_t_does_not_depend_on_a_statistic_s_unit(parts):
    def rescaled(s):
        return Statistics(**{**vars(s), "d_recon": 1000 * s.d_recon, "z_norm": 7 * s.z_norm})

    plain = Calibration.fit(*parts[:3]).score(parts[3])["T"]
    np.testing.assert_allclose(Calibration.fit(*map(rescaled, parts[:3])).score(rescaled(parts[3]))["T"], plain, rtol=1e-4)


def test_c_adds_the_squares_of_t_and_of_the_block_means_distance_in_units_of_their_medians(parts, calibration):
    train, held_out, _, new = parts
    mean, covariance = ledoit_wolf(train.block_means.astype(np.float64))  # of training images, where M and T take held-out ones

    def i(s: Statistics) -> np.ndarray:
        return mahalanobis(s.block_means.astype(np.float64), mean, covariance)

    t, t_held_out = calibration.score(new)["T"], calibration.score(held_out)["T"]
    expected = (t / np.median(t_held_out)) ** 2 + (i(new) / np.median(i(held_out))) ** 2
    np.testing.assert_allclose(calibration.score(new)["C"], expected, rtol=1e-9)
    # Of a normal image in the middle of both it is 2; it sees what only the block means show.
    alone = Statistics(**{**vars(held_out), "block_means": held_out.block_means + 5})
    assert np.median(calibration.score(alone)["C"]) > 3 * np.median(calibration.score(held_out)["C"])
    np.testing.assert_array_equal(calibration.score(alone)["T"], t_held_out)


def test_a_calibration_from_before_c_gives_the_others(parts, calibration):
    earlier = replace(calibration, combination=None)
    scores, now = earlier.score(parts[3]), calibration.score(parts[3])
    assert set(now) - set(scores) == {"C"} and tuple(anomaly_scores(scores)) == ("R", "A", "M", "T")
    for name, values in scores.items():
        np.testing.assert_array_equal(values, now[name])


def test_degenerate_statistics_stay_finite(rng):
    """An autoencoder that copies exactly, a constant column, one dead feature."""
    s = statistics(rng, 50)
    s.difference[:, 2] = 0
    s.pixel_l1[:] = 0
    s.d_real[:] = 1
    found = Calibration.fit(s, s, s).score(s)
    assert all(np.isfinite(values).all() for values in found.values())
    zero = Statistics(**{**vars(s), "difference": np.zeros_like(s.difference)})
    found = Calibration.fit(zero, zero, zero).score(zero)
    assert all(np.isfinite(found[name]).all() for name in ("R", "log_A", "M", "T", "C"))


def test_gaussian_of_independent_unit_columns_is_the_euclidean_distance(rng):
    x = rng.normal(size=(20_000, 3))
    g = Gaussian.fit(x)
    new = rng.normal(size=(5, 3))
    np.testing.assert_allclose(g.mahalanobis(new), np.linalg.norm(new, axis=1), rtol=0.05, atol=0.05)
    assert g.mahalanobis(g.mean[None])[0] == 0


def test_anomaly_scores_grow_with_anomaly(parts, calibration):
    scores = {name: np.array(values) for name, values in calibration.score(parts[3]).items()}
    turned = anomaly_scores(scores)
    assert tuple(turned) == SCORES
    for name in ("R", "M", "T", "C"):
        np.testing.assert_array_equal(turned[name], scores[name])
    # Low A is anomalous: the order of -log A is that of |R - mu|.
    np.testing.assert_array_equal(np.argsort(turned["A"]), np.argsort(np.abs(scores["R"] - calibration.mu)))
    shifted, normal = turned, anomaly_scores(calibration.score(parts[2]))
    for name in SCORES:
        assert np.median(shifted[name]) > np.median(normal[name])


def test_a_is_two_sided(calibration):
    r = calibration.mu + calibration.sigma * np.array([-30, 0.1, 30])
    p = calibration.p_value({"R": r, "log_A": log_a_score(r, calibration.mu, calibration.sigma), "M": r, "T": r}, "A")
    n = len(calibration.scores["A"])
    assert p[0] == p[2] == 1 / (n + 1) < p[1]


small_floats = st.integers(-6, 6).map(lambda i: i / 2)  # many ties


@given(st.lists(small_floats, min_size=1, max_size=40), st.lists(small_floats, min_size=1, max_size=10))
def test_conformal_p_value_by_counting(calibration, scores):
    found = conformal_p_value(np.array(scores), np.array(calibration))
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert ((found > 0) & (found <= 1)).all()


@st.composite
def levels(draw):
    """A calibration size, and alpha: anything, or exactly a value that p can take."""
    calibration = draw(st.lists(small_floats, min_size=1, max_size=60))
    n = len(calibration)
    exact = st.integers(1, n).map(lambda k: k / (n + 1))
    free = st.floats(0.001, 0.999).filter(lambda a: abs(a * (n + 1) - round(a * (n + 1))) > 1e-6)
    return np.array(calibration), draw(st.one_of(exact, free, st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.3, 0.7])))


@settings(max_examples=300)
@given(levels(), st.lists(small_floats, min_size=1, max_size=10))
def test_beyond_the_threshold_exactly_where_p_is_at_most_alpha(level, scores):
    calibration, alpha = level
    scores = np.array(scores)
    threshold = conformal_threshold(calibration, alpha)
    np.testing.assert_array_equal(scores > threshold, conformal_p_value(scores, calibration) <= alpha)


def test_too_few_calibration_images_flag_nothing():
    assert conformal_threshold(np.arange(10.0), 0.05) == np.inf
    assert conformal_threshold(np.arange(19.0), 0.05) == 18.0  # 1 / 20 is reached beyond the largest


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("ties", [False, True])
def test_false_alarm_rate_of_exchangeable_scores(alpha, ties):
    """Over calibration *and* test draws: at most alpha, and not much less where there are no ties."""
    rng, trials, n = np.random.default_rng(5), 20_000, 39
    draws = rng.normal(size=(trials, n + 1))
    draws = np.round(draws) if ties else draws
    flagged = np.array([conformal_p_value(row[:1], row[1:])[0] <= alpha for row in draws])
    error = np.sqrt(alpha * (1 - alpha) / trials)
    assert flagged.mean() <= alpha + 4 * error
    if not ties:
        expected = np.floor(alpha * (n + 1) + 1e-9) / (n + 1)
        assert flagged.mean() == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("by", SCORES)
def test_false_alarm_rate_of_the_whole_chain(by):
    """Fit on held-out normals, p-values from further ones, test on new ones: the guarantee needs them kept apart."""
    rng, alpha, trials, m = np.random.default_rng(7), 0.1, 120, 25
    flagged = np.empty((trials, m))
    for i in range(trials):
        calibration = Calibration.fit(*(statistics(rng, n) for n in (30, 30, 49)))
        flagged[i] = calibration.p_value(calibration.score(statistics(rng, m)), by) <= alpha
    rate, error = flagged.mean(), flagged.mean(axis=1).std() / np.sqrt(trials)
    assert rate <= alpha + 4 * error
    assert rate > alpha - 4 * error  # and is not simply never flagging


def test_p_value_and_threshold_of_a_calibration_agree(parts, calibration):
    scores = calibration.score(parts[3])
    for by in SCORES:
        expected = calibration.p_value(scores, by) <= 0.1
        np.testing.assert_array_equal(anomaly_scores(scores)[by] > calibration.threshold(by, 0.1), expected)


def test_the_band_of_a_is_where_a_does_not_flag(parts, calibration):
    low, high = calibration.band(0.1)
    limit = -calibration.threshold("A", 0.1)
    assert norm(calibration.mu, calibration.sigma).logpdf([low, high]) == pytest.approx([limit, limit])
    scores = calibration.score(parts[3])
    flagged = anomaly_scores(scores)["A"] > calibration.threshold("A", 0.1)
    np.testing.assert_array_equal((scores["R"] < low) | (scores["R"] > high), flagged)
    assert np.isinf(calibration.band(1e-6)).all(), "too few images to flag anything"


def test_statistics_take_and_join(parts):
    s = parts[3]
    joined = Statistics.concatenate([s[:10], s[10:]])
    assert len(joined) == len(s) == 40
    for name, values in vars(s).items():
        np.testing.assert_array_equal(getattr(joined, name), values)


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_identical_normal_images_do_not_make_everything_normal(spread, rng):
    """Trained on copies of one image: any other image is far away in every direction, and its p-value is the smallest."""

    def copies(n):
        row = np.random.default_rng(1).normal(size=5)
        jitter = spread * np.random.default_rng(n).normal(size=(n, 5))
        return Statistics(
            row + jitter, np.full(n, 0.3), np.full(n, 0.2), np.full(n, 0.1), np.full(n, 4.0), np.ones((n, 1)) * row**2 + jitter
        )

    calibration = Calibration.fit(copies(30), copies(20), copies(19))
    noise = Statistics(
        rng.normal(size=(4, 5)),
        rng.normal(size=4),
        rng.normal(size=4),
        rng.random(4),
        5 * rng.random(4),
        rng.random((4, 5)),
    )
    scores = calibration.score(noise)
    for by, normal in (("M", 1), ("T", 1), ("C", 20)):
        assert (scores[by] > 1e3).all()
        np.testing.assert_allclose(calibration.p_value(scores, by), 1 / 20)
        assert (calibration.score(copies(19))[by] < normal).all()


def test_a_direction_without_spread_counts():
    vectors = np.column_stack([np.linspace(-1, 1, 50), np.full(50, 3.0)])
    gaussian = Gaussian.fit(vectors)
    near, far = gaussian.mahalanobis(np.array([[0.0, 3.0], [0.0, 3.5]]))
    assert near < 1e-6 and far > 1


@pytest.mark.parametrize("n", [1, 22, 99])
def test_the_smallest_rate_that_can_flag(n):
    calibration = np.arange(n, dtype=float)
    alpha = smallest_alpha(n)
    assert np.isfinite(conformal_threshold(calibration, alpha)) and not np.isfinite(
        conformal_threshold(calibration, alpha * 0.99)
    )
