"""One image, changed on purpose: the same scores as anywhere else, before and after."""

import numpy as np
import pytest

from ama_core.analysis.probe import SEARCHED, lowest_r, probe, r_after
from ama_core.data.changes import Change


def test_a_probe_holds_the_scores_of_both_images(tiny_detector, digits):
    image, change = digits.images[7], Change(contrast=0.4, blur=1.0)
    found = probe(tiny_detector, image, change)
    both = np.stack([image, change(image[None])[0]])
    expected = tiny_detector.scores(both)
    np.testing.assert_array_equal(found.images, both)
    np.testing.assert_array_equal(found.reconstructions, tiny_detector.reconstruct(both))
    for name in ("R", "A", "M", "T", "p_R", "p_T"):
        np.testing.assert_allclose(found.scores[name], expected[name], rtol=1e-4)
    train_r = tiny_detector.calibration_.train_r
    assert list(found.below) == pytest.approx([np.mean(train_r < r) for r in expected["R"]])


def test_flagged_is_what_the_p_values_say(tiny_detector, digits):
    found = probe(tiny_detector, digits.images[0], Change(noise=0.5))
    for alpha in (0.01, 0.3, 1.0):
        for i, flagged in enumerate(found.flagged(alpha, ("R", "A", "T"))):
            assert flagged == {name for name in ("R", "A", "T") if found.scores[f"p_{name}"][i] <= alpha}
    assert found.flagged(1.0, ("R",)) == [{"R"}, {"R"}]


def test_r_after_changes_and_the_lowest_of_them(tiny_detector, digits):
    images = digits.images[:3]
    changes = {"dark": Change(brightness=0.3), "as it is": Change()}
    found = r_after(tiny_detector, images, changes)
    np.testing.assert_allclose(found["as it is"], tiny_detector.scores(images)["R"], rtol=1e-4)
    np.testing.assert_allclose(found["dark"], tiny_detector.scores(changes["dark"](images))["R"], rtol=1e-4)
    lowest = lowest_r(tiny_detector, images[0])
    r = [float(tiny_detector.scores(change(images[:1]))["R"][0]) for change in SEARCHED]
    assert float(tiny_detector.scores(lowest(images[:1]))["R"][0]) == pytest.approx(min(r), rel=1e-4)
