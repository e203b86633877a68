"""Settings that follow from one's own images, and synthetic defects."""

import numpy as np
import pytest

from ama_core.data import Inspection, calibration_fraction, guidance, hold_out, load
from ama_core.data.defects import KINDS, make_defects


def inspection(n, size, grey=0) -> Inspection:
    return Inspection(n, {size: n}, grey, (), (), (), (), {}, ())


@pytest.mark.parametrize("n", [60, 200, 240, 999, 5000])
@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_the_fraction_held_out_reaches_alpha_where_that_can_be(n, alpha):
    fraction = calibration_fraction(n, alpha)
    k = len(hold_out(n, fraction).calibration)
    assert 0.1 <= fraction <= 0.5
    assert 1 / (k + 1) <= alpha or fraction == 0.5
    if fraction > 0.1 and fraction < 0.5:  # and no more than needed
        assert 1 / (len(hold_out(n, fraction - 0.02).calibration) + 1) > alpha


@pytest.mark.parametrize(
    "size, grey, expected",
    [
        ((28, 28), 100, (1, 32, "pad")),
        ((32, 32), 0, (3, 32, "crop")),
        ((96, 96), 0, (3, 64, "crop")),
        ((640, 400), 0, (3, 64, "stretch")),
        ((1000, 900), 100, (1, 64, "crop")),
    ],
)
def test_settings_follow_from_sizes_and_colours(size, grey, expected):
    found = guidance(inspection(100, size, grey))
    assert (found.channels, found.image_size, found.fit) == expected


def test_the_smallest_alpha_is_that_of_a_training():
    found = guidance(inspection(50, (64, 64)), alpha=0.01)  # 40 are trained on
    k = len(hold_out(40, found.calibration_fraction).calibration)
    assert found.smallest_alpha == pytest.approx(1 / (k + 1)) and "394 training images are needed" in found.reasons[-1]
    assert guidance(inspection(50, (64, 64)), divided=True).smallest_alpha < guidance(inspection(50, (64, 64))).smallest_alpha


def test_made_defects_change_what_their_mask_says_and_nothing_else():
    images = load("photos", "test").images[:40]
    changed, masks, kinds = make_defects(images, seed=3)
    assert set(kinds) == set(range(len(KINDS))) and changed.dtype == np.uint8 and changed.shape == images.shape
    differs = (changed != images).any(axis=3)
    for i, kind in enumerate(kinds):
        assert masks[i].any() and 0.001 < masks[i].mean() < 0.2
        if KINDS[kind] != "patch":  # a patch may happen to equal what it covers
            assert differs[i][masks[i]].mean() > 0.9
        assert differs[i].mean() < 0.3
    again = make_defects(images, seed=3)
    np.testing.assert_array_equal(again[0], changed)
    assert (make_defects(images, seed=4)[0] != changed).any()


def test_no_made_defect_is_invisible_on_a_plain_ground():
    """A patch of background on background would be counted as an anomaly that no detector finds."""
    images = np.full((200, 32, 32, 1), 30, np.uint8)
    images[:, 14:18, 14:18] = 200  # one object, alike in all
    changed, masks, kinds = make_defects(images, seed=1)
    difference = np.abs(changed.astype(int) - images).max(axis=3)
    assert (difference.max(axis=(1, 2)) >= 16).all()
    assert all(difference[i][masks[i]].max() >= 16 for i in np.flatnonzero(kinds == KINDS.index("patch")))


def test_a_rate_other_than_the_usual_one_becomes_the_models_own():
    assert guidance(inspection(900, (64, 64)), 0.01).settings()["false_alarm_rate"] == 0.01
    assert "false_alarm_rate" not in guidance(inspection(900, (64, 64))).settings()
