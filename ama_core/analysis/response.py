"""How a model's R answers to plain properties of images: contrast, brightness, sharpness, spread of values, compressed length.

R is meant to say how strange an image is. Here is measured what else moves it: `response.json` of a bundle holds the median R
of normal test images before and after each of three changes, and for every data set how log R goes with the standard deviation
of an image's pixel values and with its losslessly compressed length.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ama_core.data import draw
from ama_core.data.changes import Change
from ama_core.detectors.ama.detector import AMADetector
from ama_core.detectors.lossless_length import CODEC, lossless_length
from ama_core.errors import BundleError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.storage.bundle import StoredScores
from ama_core.storage.files import read_json, write_atomically

FILE = "response.json"
SAMPLE = 1_000  # images of each set that are looked at
WEAK, ALIKE = 0.2, 0.1  # a correlation below which, and a relative difference of medians below which nothing is expected
CHANGES = {
    "contrast × 0.5": Change(contrast=0.5),
    "brightness × 0.3": Change(brightness=0.3),
    "blur of 2 px": Change(blur=2.0),
}


@dataclass(frozen=True)
class SetFacts:
    """Plain properties of n test images of one set, and how log R goes with them (Pearson; None where one does not vary).

    Medians: `r`; `deviation`, the standard deviation of an image's pixel values (0 to 255); `length`, its bytes under `codec`.
    """

    n: int
    r: float
    deviation: float
    length: float
    correlation_deviation: float | None
    correlation_length: float | None

    def correlation(self, name: str) -> float | None:
        """Of log R with the property `deviation` or `length`."""
        return getattr(self, f"correlation_{name}")


@dataclass(frozen=True)
class Response:
    """What was measured of a model.

    Attributes:
        normal: name of the model's own data set; its facts are among `sets`.
        n: normal test images that were changed. r: their median R as they are. changed: change -> their median R after it.
        sets: facts of every set whose scores are stored and whose images were available. codec: of the lengths.
    """

    normal: str
    n: int
    r: float
    changed: dict[str, float]
    sets: dict[str, SetFacts]
    codec: str = CODEC

    def expected(self, ood: str, name: str) -> str | None:
        """Which R this property alone predicts for a set: `low`, `high`, `weak` where log R hardly correlates with the property
        among the normal images, `alike` where the two sets hardly differ in it. None: unknown.
        """
        own, other = self.sets[self.normal], self.sets[ood]
        r, here, there = own.correlation(name), getattr(other, name), getattr(own, name)
        if r is None:
            return None
        if abs(r) < WEAK:
            return "weak"
        if abs(here - there) < ALIKE * there:
            return "alike"
        return "low" if (r > 0) == (here < there) else "high"


def measure_response(
    detector: AMADetector, stored: Sequence[StoredScores], progress: evaluation.Progress | None = None
) -> Response | None:
    """Measure `Response` from the images behind stored test scores; sets whose images are not available are left out.

    None where those of the normal test images are not.
    """
    normal = detector.normal.name
    tested = [s for s in stored if s.split == "test"]
    sets, images = {}, None
    for done, sample in enumerate(tested):
        chosen = draw(sample.n, SAMPLE, sample.seed)
        try:
            seen = detector.prepared(evaluation.stored_images(detector, sample).images[chosen])
        except DataError:
            continue
        sets[sample.name] = set_facts(seen, sample.scores["R"][chosen])
        images = seen if sample.name == normal else images
        if progress:
            progress(done + 1, len(tested), "what R depends on")
    if images is None:
        return None
    after = {}
    for name, change in CHANGES.items():
        after[name] = float(np.median(detector.scores(change(images))["R"]))
    return Response(normal, len(images), float(np.median(detector.scores(images)["R"])), after, sets)


def set_facts(images: np.ndarray, r: np.ndarray) -> SetFacts:
    """Facts of images, uint8 (N, S, S, c), whose R-scores are r (N,)."""
    deviation = images.std(axis=(1, 2, 3), dtype=np.float64)
    length, log_r = lossless_length(images), np.log(np.maximum(np.asarray(r, np.float64), 1e-12))
    return SetFacts(
        len(images),
        float(np.median(r)),
        float(np.median(deviation)),
        float(np.median(length)),
        correlation(log_r, deviation),
        correlation(log_r, length),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of (N,) and (N,), in [-1, 1]; None where one of them does not vary."""
    if np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def write_response(path: Path | str, response: Response) -> None:
    """Write `response.json` of the bundle at `path`."""
    write_atomically(Path(path) / FILE, json.dumps(asdict(response), indent=2))


def read_response(path: Path | str) -> Response | None:
    """`response.json` of a bundle, None where there is none. Raises BundleError on a damaged file."""
    file = Path(path) / FILE
    try:
        values = read_json(file)
        sets = {str(name): SetFacts(**facts) for name, facts in values["sets"].items()}
        found = Response(**{**values, "sets": sets})
        numbers = [found.n, found.r, *found.changed.values()]
        numbers += [value for facts in sets.values() for value in vars(facts).values() if value is not None]
        if not all(isinstance(n, (int, float)) and np.isfinite(n) for n in numbers):
            raise ValueError("a figure is not a finite number")
        if found.normal not in sets:
            raise ValueError("the model's own images are not among the sets")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{file} is damaged: {error}. Measure again with `python -m ama_core measure`.") from error
