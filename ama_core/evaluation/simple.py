"""What methods without any training find of the sets that a model is measured on: what a figure of the model is held against.

simple.npz   p-values of a sample of every set by every such method, fitted to and calibrated on the images of the model itself
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ama_core.data import draw, one_class
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.conformal import decidable
from ama_core.detectors.registry import detector_class
from ama_core.errors import ConfigError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import larger_by_chance
from ama_core.storage.artefact import read_artefact, write_artefact

FILE = "simple.npz"
VERSION = 1
METHODS = ("pixel_mean", "lossless_length", "pca", "nearest")  # of the registry; fixed before anything was measured
COMMON = ("image_size", "channels", "fit", "seed", "calibration_fraction", "false_alarm_rate")  # settings shared with the model
CHANCE = 0.05  # that a method is said to find more on any set where it does not
SAMPLE = 500  # images of a set
MOST_NORMAL = 10_000  # of the model's normal images, drawn by the seed, that they are fitted to and calibrated on


@dataclass(frozen=True)
class SimpleFigures:
    """p-values in (0, 1] of samples of the measured sets, as `p[method][set]`, each (n,); the normal test images among them.

    calibrated: with how many images each method was calibrated.
    """

    p: Mapping[str, Mapping[str, np.ndarray]]
    calibrated: Mapping[str, int]

    def flagged(self, method: str, name: str, alpha: float) -> float | None:
        """The fraction of a set that a method flags at `alpha`; None where that set was not measured, or nothing can be flagged
        at so small an `alpha`.
        """
        values = self.p.get(method, {}).get(name)
        if values is None or not decidable(self.calibrated[method], alpha):
            return None
        return float(np.mean(values <= alpha * (1 + 1e-6)))  # stored in single precision


@dataclass(frozen=True)
class FindsMore:
    """Where simple methods find more than a model: `method`, the one that does so on the most sets (None where none does on
    any), those `sets`, and on how many both were measured, `compared`.
    """

    method: str | None
    sets: tuple[str, ...]
    compared: int


def finds_more(found: Mapping[str, float], n: Mapping[str, int], figures: SimpleFigures, alpha: float) -> FindsMore:
    """Where a method flags a larger fraction of a set than a model does, by more than chance explains.

    By `larger_by_chance`; a false claim in at most a fraction CHANCE of models, however many methods and sets are looked at
    (Bonferroni).

    Args:
        found: the fraction of each anomalous set that the model flags at `alpha`. n: of how many of its images.
    """
    rates = {
        (method, name): rate
        for method in figures.p
        for name in found
        if (rate := figures.flagged(method, name, alpha)) is not None
    }
    more: dict[str, list[str]] = {}
    for (method, name), rate in rates.items():
        size = len(figures.p[method][name])
        chance = larger_by_chance(round(rate * size), size, round(found[name] * n[name]), n[name])
        if chance * len(rates) <= CHANCE:
            more.setdefault(method, []).append(name)
    best = max(more, key=lambda method: len(more[method]), default=None)
    return FindsMore(best, tuple(more.get(best, ())), len({name for _, name in rates}))


def unfitted_beside(detector: AnomalyDetector, name: str, preset: str = "tiny") -> AnomalyDetector:
    """The detector `name`, unfitted, that sees images and is calibrated as a fitted one. Raises ConfigError."""
    kind = detector_class(name)
    values = {common: getattr(detector.settings, common) for common in COMMON}
    return kind(kind.Settings.preset(preset, **values), device=detector.device, verbose=False)


def measure_simple(detector: AnomalyDetector, *, seed: int = 0, progress: evaluation.Progress | None = None) -> SimpleFigures:
    """Fit every method of METHODS to the normal images of a model, and measure it on the sets of the model.

    A method that is the model's own is left out, and so is one whose library is missing. Raises DataError.
    """
    normal = detector.normal
    images = evaluation.normal_split(detector, "train")
    images = images if normal.label is None else one_class(images, normal.label)
    images = images.take(draw(len(images), MOST_NORMAL, seed)).images
    sets = {}
    for name in (normal.name, *evaluation.available_others(detector)):
        found = evaluation.set_images(detector, name, "test", tested=True).images
        sets[name] = found[draw(len(found), SAMPLE, seed)]
    p: dict[str, dict[str, np.ndarray]] = {}
    calibrated: dict[str, int] = {}
    methods = [name for name in METHODS if name != detector.name]
    for done, name in enumerate(methods, 1):
        try:
            method = unfitted_beside(detector, name).fit(images)
            p[name] = {title: method.p_value(some) for title, some in sets.items()}
            calibrated[name] = len(method.calibration_scores_)
        except ConfigError:
            continue
        if progress:
            progress(done, len(methods), "simple methods")
    return SimpleFigures(p, calibrated)


def write_simple(path: Path | str, figures: SimpleFigures) -> None:
    """Write `simple.npz` of the bundle at `path`, whole or not at all."""
    names = [(method, name) for method, sets in figures.p.items() for name in sets]
    arrays = {str(i): figures.p[method][name].astype(np.float32) for i, (method, name) in enumerate(names)}
    write_artefact(Path(path) / FILE, VERSION, {"names": names, "calibrated": dict(figures.calibrated)}, arrays)


def read_simple(path: Path | str) -> SimpleFigures | None:
    """The figures stored in a bundle, None where none were measured. Raises BundleError on a damaged file."""
    return read_artefact(Path(path) / FILE, VERSION, _figures)


def _figures(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> SimpleFigures:
    p: dict[str, dict[str, np.ndarray]] = {}
    calibrated = {str(method): int(n) for method, n in header["calibrated"].items()}
    for i, (method, name) in enumerate(header["names"]):
        values = arrays[str(i)].astype(np.float64)
        if values.ndim != 1 or not len(values) or not ((values > 0) & (values <= 1 + 1e-6)).all():
            raise ValueError("p-values must lie between 0 and 1")
        p.setdefault(str(method), {})[str(name)] = values
    if set(calibrated) != set(p) or not all(n > 0 for n in calibrated.values()):
        raise ValueError("it does not say how its methods were calibrated")
    return SimpleFigures(p, calibrated)
