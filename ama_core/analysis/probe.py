"""One image, changed on purpose: what a model says of it before and after, and which change makes it look most normal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ama_core.analysis.density import share_below
from ama_core.data.changes import Change
from ama_core.detectors.ama.detector import AMADetector

# What is tried by `lowest_r`; no noise, which would only add to R.
SEARCHED = tuple(
    Change(contrast, brightness, blur)
    for contrast, brightness, blur in product((0.1, 0.3, 0.5, 0.75, 1.0), (0.2, 0.4, 0.7, 1.0), (0.0, 1.0, 2.0))
)


@dataclass(frozen=True)
class Probe:
    """An image before (0) and after (1) a change, as a model sees it.

    Attributes:
        images, reconstructions: uint8 (2, S, S, c).
        scores: as of `AnomalyDetector.scores`, each (2,).
        below: fractions of the training images whose R is lower, (2,).
    """

    images: np.ndarray
    reconstructions: np.ndarray
    scores: dict[str, np.ndarray]
    below: np.ndarray

    def flagged(self, alpha: float, names: Sequence[str]) -> list[set[str]]:
        """By which of these scores each of the two is flagged at a false-alarm rate."""
        return [{name for name in names if self.scores[f"p_{name}"][i] <= alpha} for i in range(2)]


def probe(detector: AMADetector, image: np.ndarray, change: Change) -> Probe:
    """What the model says of an image, uint8 (S, S, c), before and after a change; in one forward pass."""
    as_it_is = detector.prepared(image[None])
    seen = detector.examine(np.concatenate([as_it_is, change(as_it_is)]))
    below = np.array([share_below(r, detector.calibration_.train_r) for r in seen.scores["R"]])
    return Probe(seen.images, seen.reconstructions, seen.scores, below)


def r_after(detector: AMADetector, images: np.ndarray, changes: Mapping[str, Change]) -> dict[str, np.ndarray]:
    """R (N,) of images, uint8 (N, S, S, c), after each of some changes, by its name."""
    prepared = detector.prepared(images)
    r = detector.scores(np.concatenate([change(prepared) for change in changes.values()]))["R"]
    return dict(zip(changes, r.reshape(len(changes), len(prepared))))


def lowest_r(detector: AMADetector, image: np.ndarray, changes: Sequence[Change] = SEARCHED) -> Change:
    """The change of those tried after which an image, uint8 (S, S, c), has the lowest R."""
    found = r_after(detector, image[None], dict(enumerate(changes)))
    return changes[min(found, key=lambda i: float(found[i][0]))]
