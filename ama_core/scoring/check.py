"""From untrusted files to what a model says of each image: read within limits, prepared, examined in batches."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ama_core.data import FileImage, Source, count_images, iter_images, iter_unread, prepare
from ama_core.data.pictures import thumbnail
from ama_core.detectors.base import AnomalyDetector, Examination
from ama_core.detectors.conformal import DRIFT_LEAST, DRIFT_LEVEL, out_of_reach, smallest_alpha
from ama_core.settings import InputSpec

CHUNK = 32  # images read before they are examined together: what a page waits for between two reports
REDUCED, ENLARGED, LOPSIDED = 8, 4 / 3, 1.5  # from here on a change of size or shape may cause the score; a judgement


@dataclass(frozen=True)
class Checked:
    """What a model says of N images, N = 0 where none could be read.

    Attributes:
        names: what each is called: a file, or "archive.zip/member.png".
        given: each as it was given, uint8 (H, W, C), reduced where it is large.
        notes: what was done to each. concerns: which of that may itself cause its score, in sentences.
        examined: None where N = 0.
        refused: (name, why) of what could not be read.
        more: whether images beyond the limit were left unread.
        numbers: where each stands among all that was met, what was refused included (see `originals`).
    """

    names: tuple[str, ...]
    given: tuple[np.ndarray, ...]
    notes: tuple[tuple[str, ...], ...]
    concerns: tuple[tuple[str, ...], ...]
    examined: Examination | None
    refused: tuple[tuple[str, str], ...] = ()
    more: bool = False
    numbers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def check(
    detector: AnomalyDetector, items: Iterable[FileImage], limit: int, progress: Callable[[int], None] | None = None
) -> Checked:
    """Examine at most `limit` readable images; `progress(done)` is called with how many were read or refused so far."""
    names, given, notes, concerned, refused, numbers = [], [], [], [], [], []
    parts: list[Examination] = []
    waiting: list[np.ndarray] = []
    more = False
    spec = detector.settings.input
    for number, item in enumerate(items):
        if item.image is None:
            refused.append((_name(item), item.error))
            continue
        if len(names) == limit:
            more = True
            break
        seen, done = prepare([item.image], **vars(spec))
        waiting.append(seen)
        names.append(_name(item))
        numbers.append(number)
        given.append(thumbnail(item.image))
        notes.append((*item.notes, *done))
        concerned.append(concerns(item.image.shape, spec))
        if len(waiting) == CHUNK:
            parts.append(detector.examine(np.concatenate(waiting)))
            waiting = []
            if progress:
                progress(len(names) + len(refused))
    if waiting:
        parts.append(detector.examine(np.concatenate(waiting)))
    examined = Examination.concatenate(parts) if parts else None
    return Checked(*map(tuple, (names, given, notes, concerned)), examined, tuple(refused), more, tuple(numbers))


def drift_warning(detector: AnomalyDetector, scores: dict[str, np.ndarray]) -> str | None:
    """A sentence where images as a whole are not like those of the calibration; None where they are, or are too few to tell.

    scores: of the images, each (N,).
    """
    n = len(next(iter(scores.values())))
    if n < DRIFT_LEAST:
        return None
    p, score = detector.drift(scores)
    if p >= DRIFT_LEVEL:
        return None
    return (
        f"Taken together, these images differ from the calibration images (two-sample Kolmogorov-Smirnov test on {score}, p = "
        f"{p:.1g}): if they should be normal, the false-alarm rate does not hold for them."
    )


def reach_warning(detector: AnomalyDetector, alpha: float) -> str | None:
    """Sentences where the calibration is too small for any image to be flagged at `alpha`, and what to do; else None."""
    n = len(detector.calibration_scores_)
    why = out_of_reach(n, alpha)
    return why and (
        f"{why} Choose a rate of at least {math.ceil(1000 * smallest_alpha(n)) / 1000:g}, or train with at least "
        f"{math.ceil(round(1 / alpha - 1, 6)):,} calibration images (more images, or a larger calibration_fraction)."
    )


def check_files(
    detector: AnomalyDetector, sources: Sequence[Source], limit: int, progress: Callable[[int, int], None] | None = None
) -> Checked:
    """As `check`, of files and archives; `progress(done, total)`, where the total is what the files say of themselves."""
    total = min(max(1, count_images(sources)), limit)
    return check(detector, iter_images(sources), limit, (lambda done: progress(min(done, total), total)) if progress else None)


def originals(sources: Sequence[Source], checked: Checked, chosen: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Checked images as they were given, at full size: (position in `checked`, uint8 (H, W, C)), in the order of the files.

    Args:
        sources: those that were checked. chosen: positions in `checked`. What can no longer be read is left out.
    """
    wanted = {checked.numbers[i]: i for i in chosen}
    for number, unread in enumerate(iter_unread(sources)) if wanted else ():
        if number in wanted and (image := unread.read().image) is not None:
            yield wanted[number], image
        if number >= max(wanted):
            return


def concerns(shape: tuple[int, int, int], spec: InputSpec) -> tuple[str, ...]:
    """Which changes to an image (H, W, C) that a model needs may themselves cause its score, in sentences."""
    height, width, channels = shape
    size, fit = spec.size, spec.fit
    side = min(height, width) if fit == "crop" else max(height, width)
    found = []
    if side >= REDUCED * size:
        found.append(f"It was reduced {side / size:.0f}-fold, so the model sees its rough shapes and none of its detail.")
    elif side * ENLARGED < size:
        found.append(f"It was enlarged {size / side:.2g}-fold and is smoother than an image taken at this size.")
    if max(height, width) >= LOPSIDED * min(height, width):
        found.append(
            {
                "pad": "It is much longer than it is wide, or wider, and black bars fill the rest.",
                "crop": "A third or more of it was cut away to make it square.",
                "stretch": "Its sides were stretched to a square, which bends its shapes.",
            }[fit]
        )
    if channels < spec.channels:
        found.append("It is grey, and the model learned from colour images.")
    return tuple(found)


def _name(item: FileImage) -> str:
    return f"{item.path}#{item.index}" if item.path.lower().endswith(".npz") else item.path
