"""Where an image is unusual: maps of its places, compared with what normal images show there.

A place is marked where its map exceeds a threshold that at most a fraction alpha of normal images reach anywhere. Three maps:

    pixel     |x - x_hat|, mean over channels; of every detector that reconstructs
    critic    what each place adds to the score; of every detector that localises (of AMA, to R)
    combined  the sum of both, each divided by its median maximum on normal images

Every map is standardised per place: (value - mean) / sd, mean and sd of the held-out normal images that fit statistics. The
threshold is the conformal one of the maxima of the other held-out images, those that calibrate p-values.

where.npz   of a bundle, optional: means, standard deviations, maxima. Where it is missing, `find_localiser` computes the same
            from the training images, if they are available locally.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ama_core.data import draw, hold_out
from ama_core.detectors.base import AnomalyDetector, Examination
from ama_core.detectors.conformal import conformal_threshold, out_of_reach
from ama_core.errors import AMAError, ConfigError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.storage.artefact import read_artefact, write_artefact

FILE = "where.npz"
VERSION = 1
MAX_HELD_OUT = 1_000  # held-out images of each kind, drawn by the seed
PRIOR = 10  # images' worth of belief that a place varies as much as the mean place
CHUNK = 256
MAPS = {
    "pixel": "the difference between the image and its reconstruction",
    "critic": "what each place adds to the score",
    "combined": "the difference from the reconstruction and what each place adds to the score, together",
}


@dataclass(frozen=True)
class Standard:
    """What normal images show at each place of one map.

    Attributes:
        mean, sd: float32 (h, w); sd > 0. typical: median over the same images of the largest standardised value, > 0.
    """

    mean: np.ndarray
    sd: np.ndarray
    typical: float

    @classmethod
    def fit(cls, maps: np.ndarray) -> "Standard":
        """From maps (n, h, w) of normal images.

        The variance of a place is shrunk towards the mean variance of all places, as if PRIOR images had shown that one: where
        normal images never differ, as in black bars, a trace of a difference is then no infinite surprise.
        """
        maps = np.asarray(maps, np.float64)
        n, variance = len(maps), maps.var(axis=0)
        shrunk = (n * variance + PRIOR * variance.mean()) / (n + PRIOR)
        sd = np.sqrt(np.maximum(shrunk, np.finfo(np.float32).tiny * 1e6))
        mean, sd = maps.mean(axis=0).astype(np.float32), sd.astype(np.float32)
        typical = float(np.median(((maps - mean) / sd).max(axis=(1, 2))))
        return cls(mean, sd, typical if typical > 0 else 1.0)

    def of(self, maps: np.ndarray) -> np.ndarray:
        """(maps - mean) / sd, float32 (N, h, w)."""
        return ((maps - self.mean) / self.sd).astype(np.float32)


@dataclass(frozen=True)
class Localiser:
    """Maps of one detector with their thresholds.

    Attributes:
        standards: of `pixel` and `critic`, those that the detector has.
        maxima: the largest value of each standardised map, and of `combined` where there are both, of n held-out normal images
            that are not those of the standards; (n,) each.
    """

    standards: dict[str, Standard]
    maxima: dict[str, np.ndarray]

    @property
    def names(self) -> tuple[str, ...]:
        """Its maps, of MAPS."""
        return tuple(name for name in MAPS if name in self.maxima)

    @property
    def default(self) -> str:
        """The map that is shown where nobody chose one: the first, fixed beforehand."""
        return self.names[0]

    def reach_warning(self, alpha: float) -> str | None:
        """A sentence where the calibration is too small for any place to be marked at `alpha`; else None."""
        return out_of_reach(len(self.maxima[self.default]), alpha, "no place can be marked")

    def maps(self, examined: Examination) -> dict[str, np.ndarray]:
        """Its standardised maps of N examined images, float32 (N, S, S) each, larger = more unusual."""
        return standardised(self.standards, raw_maps(examined), examined.images.shape[1])

    def threshold(self, name: str, alpha: float) -> float:
        """The value that a place must exceed to be marked, so that at most a fraction alpha of normal images gets any mark;
        infinite where `reach_warning` says why. Raises ConfigError where the detector has no such map.
        """
        if name not in self.maxima:
            raise ConfigError(f"This model has no map {name!r}: choose one of {', '.join(self.names)}.")
        return conformal_threshold(self.maxima[name], alpha)

    def marks(self, name: str, maps: np.ndarray, alpha: float) -> np.ndarray:
        """Which places are marked, bool, of the shape of `maps`, which are those of `name`. Raises ConfigError."""
        return maps > self.threshold(name, alpha)

    def share_of_threshold(self, name: str, maps: np.ndarray, alpha: float) -> np.ndarray:
        """How much of what marks a place it shows, for colours: 0 as usual or less, 1 at the threshold or above. Raises
        ConfigError.
        """
        edge = self.threshold(name, alpha)
        edge = edge if np.isfinite(edge) else float(self.maxima[name].max())
        return np.clip(maps / max(edge, 1e-6), 0, 1)


def raw_maps(examined: Examination) -> dict[str, np.ndarray]:
    """Maps as they come: `pixel`, grey levels, (N, S, S); `critic` (N, g, g). Those that the detector has, float32."""
    found = {}
    if examined.reconstructions is not None:
        difference = examined.images.astype(np.float32) - examined.reconstructions.astype(np.float32)
        found["pixel"] = np.abs(difference).mean(axis=3)
    if examined.maps is not None:
        found["critic"] = examined.maps
    return found


def standardised(standards: Mapping[str, Standard], raw: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Standardised maps at the resolution of the images, float32 (N, size, size), with `combined` where there are both."""
    found = {}
    for name, standard in standards.items():
        values = standard.of(raw[name])
        times = size // values.shape[1]
        found[name] = values.repeat(times, axis=1).repeat(times, axis=2)
    if len(found) == 2:
        found["combined"] = sum(values / standards[name].typical for name, values in found.items())
    return found


def can_localise(detector: AnomalyDetector) -> bool:
    """Whether it says anything of places: whether it reconstructs or localises."""
    return bool({"reconstruct", "localise"} & set(detector.can()))


def fit_localiser(
    detector: AnomalyDetector,
    statistics: np.ndarray,
    calibration: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> Localiser:
    """From two disjoint samples of normal images that the detector was not trained on, uint8 (n, S, S, C).

    Raises ConfigError where the detector neither reconstructs nor localises.
    """
    if not can_localise(detector):
        raise ConfigError(
            f"{detector.title} cannot localise anomalies: it neither reconstructs images nor maps its score. Use another "
            "detector."
        )
    raw, total, done = [], len(statistics) + len(calibration), 0
    for images in (statistics, calibration):
        parts = []
        for start in range(0, len(images), CHUNK):
            parts.append(raw_maps(_places(detector, images[start : start + CHUNK])))
            done += len(images[start : start + CHUNK])
            if progress:
                progress(done, total)
        raw.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    standards = {name: Standard.fit(values) for name, values in raw[0].items()}
    found = standardised(standards, raw[1], statistics.shape[1])
    return Localiser(standards, {name: values.max(axis=(1, 2)) for name, values in found.items()})


def _places(detector: AnomalyDetector, images: np.ndarray) -> Examination:
    """What it says of places, and as little else as can be: some detectors take seconds to score an image."""
    if {"reconstruct", "localise"} <= set(detector.can()):
        return detector.examine(images)
    if "reconstruct" in detector.can():
        return Examination(images, {}, reconstructions=detector.reconstruct(images))
    return Examination(images, {}, maps=detector.maps(images))


def held_out_images(detector: AnomalyDetector, images: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The normal images kept out of training: those for statistics and those for p-values, at most MAX_HELD_OUT of each.

    Args:
        images: all that were given to `fit`, uint8 (N, S, S, C); default: read from where the model says that they lie.

    Raises:
        DataError: they are not available locally, or are not those that the model was trained on.
    """
    settings = detector.settings
    images = detector.prepared(evaluation.training_images(detector).images) if images is None else images
    parts = hold_out(len(images), settings.calibration_fraction, settings.seed)
    statistics, calibration = (
        images[part[draw(len(part), MAX_HELD_OUT, settings.seed)]] for part in (parts.statistics, parts.calibration)
    )
    return statistics, calibration


def find_localiser(detector: AnomalyDetector, folder: Path | str) -> Localiser:
    """The maps of the bundle at `folder`, from which `detector` was loaded: stored, or computed from its training images.

    Raises:
        ConfigError: the detector neither reconstructs nor localises.
        DataError: nothing is stored and the training images are not available locally. BundleError: the file is damaged.
    """
    if can_localise(detector) and (stored := read_localiser(folder, detector)):
        return stored
    try:
        held_out = held_out_images(detector) if can_localise(detector) else (np.empty(0), np.empty(0))
    except AMAError as error:
        raise DataError(
            f"Places cannot be marked with this model: no {FILE} was made for it as it is, which `python -m ama_core measure` "
            "writes, and its training images, from which that is computed, are not available here "
            f"({str(error).rstrip('.')})."
        ) from error
    return fit_localiser(detector, *held_out)


def write_localiser(folder: Path | str, localiser: Localiser, detector: AnomalyDetector) -> None:
    """Write `where.npz` of the bundle at `folder`, whole or not at all."""
    arrays = {f"maxima.{name}": values for name, values in localiser.maxima.items()}
    for name, standard in localiser.standards.items():
        arrays |= {f"mean.{name}": standard.mean, f"sd.{name}": standard.sd}
    typical = {name: standard.typical for name, standard in localiser.standards.items()}
    write_artefact(Path(folder) / FILE, VERSION, {"typical": typical, "calibration": _calibration(detector)}, arrays)


def read_localiser(folder: Path | str, detector: AnomalyDetector) -> Localiser | None:
    """The maps stored in a bundle; None where there are none, or none of this very model. Raises BundleError on damage."""

    def make(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Localiser | None:
        if header["calibration"] != _calibration(detector):  # the model was trained again into the same folder
            return None
        standards = {
            name: Standard(arrays[f"mean.{name}"], arrays[f"sd.{name}"], float(typical))
            for name, typical in header["typical"].items()
        }
        names = (*standards, "combined") if len(standards) == 2 else tuple(standards)
        found = Localiser(standards, {name: arrays[f"maxima.{name}"] for name in names})
        _check(found, detector.settings.input.size)
        return found

    return read_artefact(Path(folder) / FILE, VERSION, make)


def _calibration(detector: AnomalyDetector) -> str:
    """A fingerprint of the scores of held-out images, which no two trainings share."""
    scores = detector.held_out_scores_
    return hashlib.sha256(b"".join(np.asarray(scores[name], np.float64).tobytes() for name in sorted(scores))).hexdigest()[:16]


def _check(localiser: Localiser, size: int) -> None:
    """Raises ValueError where the parts do not fit together."""
    if not localiser.standards or set(localiser.standards) - set(MAPS):
        raise ValueError("it holds no known map")
    for name, standard in localiser.standards.items():
        side = standard.mean.shape[0] if standard.mean.ndim == 2 else 0
        if standard.mean.shape != (side, side) or standard.sd.shape != (side, side) or not side or size % side:
            raise ValueError(f"the statistics of the map {name} have a wrong shape")
        if not np.isfinite(standard.mean).all() or not np.isfinite(standard.sd).all() or not (standard.sd > 0).all():
            raise ValueError(f"the statistics of the map {name} are not finite or not positive")
        if not 0 < standard.typical < np.inf:
            raise ValueError(f"the typical maximum of the map {name} is not positive")
    if any(values.ndim != 1 or not len(values) or not np.isfinite(values).all() for values in localiser.maxima.values()):
        raise ValueError("maxima are missing or not finite")
