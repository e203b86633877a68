"""Every detector by name. A new one is a file beside this one and a line in `DETECTORS`."""

import os
from importlib import import_module
from pathlib import Path

import torch

from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import BundleError, ConfigError
from ama_core.settings import Settings
from ama_core.storage.bundle import find_bundle, read_bundle

VARIABLE = "AMA_DETECTORS"  # of the environment: further detectors from outside, as name=module:Class, separated by commas

# Name -> where its class is; imported when it is asked for.
DETECTORS: dict[str, str] = {
    "ama": "ama_core.detectors.ama.detector:AMADetector",
    "waic": "ama_core.detectors.waic:WAICDetector",
    "alad": "ama_core.detectors.alad:ALADDetector",
    "anogan": "ama_core.detectors.anogan:AnoGANDetector",
    "skipganomaly": "ama_core.detectors.skipganomaly:SkipGANomalyDetector",
    "fencegan": "ama_core.detectors.fencegan:FenceGANDetector",
    "deepsvdd": "ama_core.detectors.deepsvdd:DeepSVDDDetector",
    "pixelcnn": "ama_core.detectors.pixelcnn:PixelCNNDetector",
    "complexity": "ama_core.detectors.complexity:ComplexityDetector",
    "likelihood_ratio": "ama_core.detectors.likelihood_ratio:LikelihoodRatioDetector",
    "glow": "ama_core.detectors.glow:GlowDetector",
    "typicality": "ama_core.detectors.glow:TypicalityDetector",
    "pixel_mean": "ama_core.detectors.pixel_mean:PixelMeanDetector",
    "lossless_length": "ama_core.detectors.lossless_length:LosslessLengthDetector",
    "autoencoder": "ama_core.detectors.autoencoder:AutoencoderDetector",
    "pca": "ama_core.detectors.pca:PCADetector",
    "nearest": "ama_core.detectors.nearest:NearestDetector",
}


def known() -> dict[str, str]:
    """Name of every detector -> where its class is, AMA first, those of the environment last."""
    found = dict(DETECTORS)
    for entry in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, place = entry.strip().partition("=")
        found[name] = place
    return found


def names() -> tuple[str, ...]:
    """Names of all detectors, AMA first."""
    return tuple(known())


def detector_class(name: str) -> type[AnomalyDetector]:
    """The class of a detector by its name. Raises ConfigError where there is none of that name."""
    place = known().get(name)
    if place is None:
        raise ConfigError(f"There is no detector {name!r}. Known: {', '.join(known())}.")
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"The detector {name!r} cannot be imported from {place!r}: {error}.") from error


def detector_for(settings: Settings) -> type[AnomalyDetector]:
    """The class of the detector whose settings these are. Raises ConfigError where there is none."""
    for name in known():
        if detector_class(name).Settings is type(settings):
            return detector_class(name)
    raise ConfigError(f"{type(settings).__name__} are the settings of no detector known here.")


def load_detector(path: Path | str, *, score: str | None = None, device: torch.device | str | None = None) -> AnomalyDetector:
    """The model in a bundle or run folder, or of a name in `pretrained/`, whichever detector it is of.

    Raises:
        BundleError: there is none, it is damaged, or of a detector that this software does not know.
        ConfigError: `score` is none of the detector's, or `device` is not here.
    """
    folder = find_bundle(path)
    bundle = read_bundle(folder)
    if bundle.detector not in known():
        raise BundleError(
            f"{folder} holds the detector {bundle.detector!r}, which this software does not know: update AMA Explorer."
        )
    return detector_class(bundle.detector).from_bundle(bundle, folder, score=score, device=device)
