"""Changes of images: they do what they are called, in any form that images have."""

import numpy as np
import pytest

from ama_core.data.changes import Change
from ama_core.errors import DataError


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_done_by_default_and_what_is_done_keeps_the_form(rng, channels):
    images = rng.integers(0, 256, (3, 32, 32, channels), dtype=np.uint8)
    np.testing.assert_array_equal(Change()(images), images)
    assert Change().nothing and Change(seed=3).nothing and not Change(blur=0.5).nothing
    after = Change(0.5, 1.2, 1.0, 0.1)(images)
    assert after.shape == images.shape and after.dtype == np.uint8 and not np.array_equal(after, images)


def test_noise_has_the_strength_it_is_given_and_is_the_same_each_time():
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    after = Change(noise=0.1)(grey)
    assert after.std() == pytest.approx(25.5, rel=0.03) and after.mean() == pytest.approx(128, abs=1)
    np.testing.assert_array_equal(after, Change(noise=0.1)(grey))
    np.testing.assert_array_equal(after[0], after[1])  # an image changes alike whichever others are with it
    assert not np.array_equal(after, Change(noise=0.1, seed=1)(grey))


def test_each_strength_goes_one_way(rng):
    image = rng.integers(60, 190, (1, 32, 32, 3), dtype=np.uint8)
    spread = [float(Change(contrast=c)(image).std()) for c in (0.0, 0.5, 1.0, 1.5)]
    light = [float(Change(brightness=b)(image).mean()) for b in (0.0, 0.5, 1.0, 1.3)]
    edges = [float(np.abs(np.diff(Change(blur=b)(image).astype(float), axis=2)).mean()) for b in (2.0, 1.0, 0.5, 0.0)]
    for values in (spread, light, edges):
        assert values == sorted(values) and values[0] < values[-1]
    assert spread[0] < 1 and light[0] == 0


@pytest.mark.parametrize("wrong", [{"contrast": -0.1}, {"blur": float("nan")}, {"noise": float("inf")}, {"brightness": -1.0}])
def test_an_impossible_change_is_refused(wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))} must be a finite number"):
        Change(**wrong)
