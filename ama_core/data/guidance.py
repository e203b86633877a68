"""Settings that suit one's own images: colours, size, fit, and how many to hold out for the false-alarm rate asked for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ama_core.data.folders import TEST_FRACTION
from ama_core.data.inspection import Inspection
from ama_core.settings import FALSE_ALARM_RATE

SIZES = (32, 64)  # 128 is possible, and takes several times as long
FRACTION = 0.1  # held out where that suffices
FEWEST = 5  # training images
MAX_FRACTION = 0.5  # never more than this fraction: the rest is trained on
LOPSIDED = 1.25  # sides of this ratio or more: cropping the centre would lose too much


@dataclass(frozen=True)
class Guidance:
    """Settings that follow from what images are like.

    Attributes:
        channels: 1 where all are grey. image_size: of SIZES. fit: see `prepare`.
        calibration_fraction: of the training images, so that `alpha` can be reached where that is possible.
        alpha: the false-alarm rate asked for. smallest_alpha: the smallest that can be reached with these images.
        n_train: how many of the images are training images.
        reasons: why, in sentences.
    """

    channels: int
    image_size: int
    fit: str
    calibration_fraction: float
    alpha: float
    smallest_alpha: float
    n_train: int
    reasons: tuple[str, ...]

    def settings(self) -> dict[str, int | float | str]:
        """By name of the hyper-parameter."""
        return {
            "channels": self.channels,
            "image_size": self.image_size,
            "fit": self.fit,
            "calibration_fraction": self.calibration_fraction,
            **({} if self.alpha == FALSE_ALARM_RATE else {"false_alarm_rate": self.alpha}),
        }


def calibration_fraction(n_train: int, alpha: float) -> float:
    """The fraction of n training images to hold out so that p-values can be as small as `alpha`, at most MAX_FRACTION.

    Half of what is held out, rounded up, gives p-values (see `hold_out`).
    """
    needed = _held_out(alpha)
    fraction = math.ceil(1000 * needed / max(n_train, 1)) / 1000  # three digits, rounded up: as it is typed
    return min(MAX_FRACTION, max(FRACTION, fraction))


def _held_out(alpha: float) -> int:
    """How many images to hold out so that the smallest p-value, 1 / (k + 1) with k of them, is at most alpha."""
    return 2 * math.ceil(1 / alpha - 1 - 1e-9) - 1


def guidance(found: Inspection, alpha: float = FALSE_ALARM_RATE, divided: bool = False) -> Guidance:
    """Settings for a training on inspected images.

    Args:
        found: with at least one readable image. alpha: the false-alarm rate wanted, in (0, 1).
        divided: whether all of them are training images; otherwise 20 % of them will be kept for testing.
    """
    n_train = found.n if divided else found.n - round(found.n * TEST_FRACTION)
    reasons = []
    channels = 1 if found.grey == found.n else 3
    reasons.append("All images are grey." if channels == 1 else "There are images in colour.")
    (width, height), of_it = Counter(found.sizes).most_common(1)[0]
    smaller = min(width, height)
    size = max((s for s in SIZES if s <= smaller), default=SIZES[0])
    lopsided = max(width, height) >= LOPSIDED * smaller
    fit = "stretch" if lopsided else "pad" if max(width, height) < size else "crop"
    sees = "with a border" if fit == "pad" else "as they are" if width == height == size else "resized"
    which = "All images have" if of_it == found.n else f"The most frequent size ({of_it:,} of {found.n:,} images) is"
    reasons.append(f"{which} {width}×{height} pixels: an input of {size} shows them {sees}.")
    if smaller >= 2 * SIZES[-1]:
        reasons.append("Defects of a few pixels need image_size=128, which takes several times as long, or crops.")
    reasons.append(
        {
            "stretch": "They are not square: stretching keeps all of the picture, which cropping would not.",
            "pad": "They are smaller than the input: they are padded with black.",
            "crop": "They are about square: the centre is cropped.",
        }[fit]
    )
    fraction = calibration_fraction(n_train, alpha)
    held = max(round(n_train * fraction), 2)
    smallest = 1 / (held - held // 2 + 1)
    needed = math.ceil(_held_out(alpha) / MAX_FRACTION)
    files = "" if divided else f", {math.ceil(needed / (1 - TEST_FRACTION)):,} with those that are kept for testing"
    reached = f"holding out {fraction:g} of them allows false-alarm rates from {smallest:.2g} on"
    lacking = "" if smallest <= alpha else f"; for {alpha:g}, {needed:,} training images are needed{files}"
    reasons.append(f"{n_train:,} training image{'s' * (n_train != 1)}: {reached}{lacking}.")
    return Guidance(channels, size, fit, fraction, alpha, smallest, n_train, tuple(reasons))
