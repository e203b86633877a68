"""Splits: disjoint, of the right sizes, and decided by the seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ama_core.data import ImageSet, anomaly_mask, draw_anomalies, hold_out, one_class, validation_anomalies
from ama_core.errors import DataError

SEEDS = st.integers(0, 2**32)


def image_set(n, split="test"):
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)  # every image shows its own index
    return ImageSet("set", split, images, np.arange(n, dtype=np.int64) % 3)


@given(st.integers(40, 3000), st.floats(0.05, 0.9), SEEDS)
def test_hold_out_divides_everything_once(n, fraction, seed):
    parts = hold_out(n, fraction, seed)
    assert (np.sort(np.concatenate(parts)) == np.arange(n)).all()
    assert all((np.diff(part) > 0).all() for part in parts)
    held = len(parts.statistics) + len(parts.calibration)
    assert held == round(n * fraction) and 0 <= len(parts.calibration) - len(parts.statistics) <= 1
    assert all((a == b).all() for a, b in zip(parts, hold_out(n, fraction, seed), strict=True))


def test_the_seed_decides():
    assert not np.array_equal(hold_out(1000, 0.1, 0).calibration, hold_out(1000, 0.1, 1).calibration)
    assert not np.array_equal(draw_anomalies(1000, 5000, 0), draw_anomalies(1000, 5000, 1))


def test_a_tenth_is_held_out_by_default():
    assert [len(part) for part in hold_out(60_000)] == [54_000, 3_000, 3_000]


@pytest.mark.parametrize(("n", "fraction"), [(10, 0), (10, 1), (10, -0.1), (10, 0.1), (0, 0.1), (2, 0.9)])
def test_impossible_hold_outs_are_refused(n, fraction):
    with pytest.raises(DataError, match="held-out fraction|not enough for calibration"):
        hold_out(n, fraction)


@given(st.integers(1, 10_000), st.integers(1, 10_000), SEEDS)
def test_anomalies_are_a_fifth_of_the_normals_or_all_there_are(n_normal, n_ood, seed):
    drawn = draw_anomalies(n_normal, n_ood, seed)
    assert len(drawn) == min(max(1, round(n_normal / 5)), n_ood)
    assert (np.diff(drawn) > 0).all() and drawn[0] >= 0 and drawn[-1] < n_ood
    assert (drawn == draw_anomalies(n_normal, n_ood, seed)).all()


def test_impossible_draws_are_refused():
    for arguments in ((0, 10), (10, 0), (10, 10, 0, 0.0)):
        with pytest.raises(DataError):
            draw_anomalies(*arguments)


def test_validation_anomalies_come_from_train_where_there_is_one():
    train = image_set(100, "train")
    chosen, excluded = validation_anomalies(image_set(80), train, seed=3)
    assert len(chosen) == 50 and chosen.split == "train" and len(excluded) == 0
    assert len(set(chosen.images.ravel())) == 50
    assert len(validation_anomalies(image_set(80), image_set(20, "train"))[0]) == 20


@given(st.integers(2, 200), SEEDS)
def test_carved_validation_anomalies_are_the_excluded_ones(n, seed):
    chosen, excluded = validation_anomalies(image_set(n), seed=seed)
    assert len(chosen) == min(50, n // 2)
    assert (chosen.images.ravel() == excluded).all() and (np.diff(excluded) > 0).all()


def test_impossible_validation_is_refused():
    with pytest.raises(DataError, match="Cannot take 50"):
        validation_anomalies(image_set(1))


def test_one_class_protocol():
    data = image_set(30, "train")
    normal = one_class(data, 1)
    assert (normal.labels == 1).all() and len(normal) == 10
    assert (anomaly_mask(data, 1) == (data.labels != 1)).all()
    with pytest.raises(DataError, match="no images of class 7"):
        one_class(data, 7)
    for label, only in ((7, data), (1, normal)):
        with pytest.raises(DataError, match="needs class"):
            anomaly_mask(only, label)
