"""Whether outputs follow their images: every figure against loops over pairs in NumPy, and what it says of known cases."""

import numpy as np
import pytest

from ama_core.analysis.fidelity import fidelity
from ama_core.errors import DataError


def images(rng, n: int = 7) -> np.ndarray:
    return rng.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8)


def test_every_figure_is_the_mean_over_its_pairs(rng):
    x, y = images(rng), images(rng)
    y[2] = x[2]  # one is found
    found = fidelity(x, y)

    def apart(a, b):
        return np.abs(a.astype(float) - b.astype(float)).mean() / 255

    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    assert found.error == pytest.approx(np.mean([apart(x[i], y[i]) for i in range(n)]))
    assert found.other == pytest.approx(np.mean([apart(x[i], y[j]) for i, j in pairs]))
    assert found.spread == pytest.approx(np.mean([apart(y[i], y[j]) for i, j in pairs]))
    assert found.input_spread == pytest.approx(np.mean([apart(x[i], x[j]) for i, j in pairs]))
    nearest = [int(np.argmin([apart(x[i], y[j]) for j in range(n)])) == i for i in range(n)]
    assert found.found == pytest.approx(np.mean(nearest)) and found.n == n
    assert found.ratio == pytest.approx(found.error / found.other)


def test_a_copy_a_shuffle_and_a_constant_are_told_apart(rng):
    x = images(rng, 40)
    copy, shuffled, constant = fidelity(x, x), fidelity(x, np.roll(x, 1, axis=0)), fidelity(x, np.repeat(x[:1], 40, 0))
    assert (copy.error, copy.ratio, copy.found, copy.spread) == pytest.approx((0, 0, 1, copy.input_spread))
    assert shuffled.found == 0 and shuffled.ratio > 0.95 and shuffled.spread == pytest.approx(shuffled.input_spread)
    assert constant.found == 0, "an output that is everybody's is nobody's own"
    assert constant.spread == 0 and constant.ratio == pytest.approx(1, abs=0.05)


def test_full_scale_is_one(rng):
    black, white = np.zeros((2, 4, 4, 1), np.uint8), np.full((2, 4, 4, 1), 255, np.uint8)
    assert fidelity(black, white).error == 1 and fidelity(black, white).ratio == 1


def test_what_cannot_be_compared_is_refused(rng):
    with pytest.raises(DataError, match="two images"):
        fidelity(images(rng, 1), images(rng, 1))
    with pytest.raises(DataError):
        fidelity(images(rng, 3), images(rng, 4))
