"""The contract of every anomaly detector here, in scikit-learn's words, and AMA's fulfilment of it."""

import platform
import shlex
import subprocess
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ama_core import inference
from ama_core._version import __version__
from ama_core.bundle import Bundle, build_networks, find_bundle, half_precision, read_bundle, write_bundle
from ama_core.config import Config
from ama_core.data import check_images, draw, hold_out, prepare
from ama_core.errors import ConfigError, DataError, NotFittedError
from ama_core.scores import (
    SCORES,
    Calibration,
    Statistics,
    anomaly_scores,
    conformal_p_value,
    conformal_threshold,
    smallest_alpha,
)
from ama_core.training import Event, TrainingState, Validation, precision, train

VALIDATION_NORMALS = 500  # held-out normals, drawn by the seed, of the periodic AUROC
TRAIN_SAMPLE = 10_000  # training images, drawn by the seed, behind mu and sigma of the A-score


class AnomalyDetector(ABC):
    """What AMA and every baseline offer.

    Images are uint8 arrays (N, H, W, C) or float tensors (N, C, H, W) in [0, 1], C = 1 or 3. One sign convention:
    *anomaly scores* are larger for anomalies; `score_samples` and `decision_function` follow scikit-learn, larger = more
    normal.

    Attributes:
        calibration_scores_: anomaly scores of held-out normal images (n,), available after `fit` or `load`.
        false_alarm_rate: default alpha of `decision_function` and `predict`.
    """

    calibration_scores_: np.ndarray
    false_alarm_rate: float = 0.05

    @abstractmethod
    def fit(self, images) -> Self:
        """Train on normal images and calibrate on a held-out part of them. Raises DataError, ConfigError."""

    @abstractmethod
    def anomaly_score(self, images) -> np.ndarray:
        """Anomaly scores (N,), float64, larger = more anomalous. Raises NotFittedError, DataError."""

    @abstractmethod
    def save(self, path: Path | str) -> None:
        """Write the fitted detector into the folder `path`. Raises NotFittedError."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote. Raises BundleError."""

    def score_samples(self, images) -> np.ndarray:
        """Normality (N,): minus the anomaly score, larger = more normal."""
        return -self.anomaly_score(images)

    def p_value(self, images) -> np.ndarray:
        """Conformal p-value (N,) in (0, 1]: the part of normal images that would look at least as anomalous."""
        return conformal_p_value(self.anomaly_score(images), self.calibration_scores_)

    def decision_function(self, images, alpha: float | None = None) -> np.ndarray:
        """Distance (N,) to the cut of false-alarm rate `alpha`: negative = flagged as anomalous; finite, larger = more normal.

        With n calibration images no p-value is below 1 / (n + 1). At a smaller alpha nothing can be flagged: all values are
        positive, and still fall strictly with the anomaly score. A UserWarning says so.
        """
        alpha = self.false_alarm_rate if alpha is None else alpha
        if not 0 < alpha < 1:
            raise DataError(f"The false-alarm rate must lie between 0 and 1, got {alpha}.")
        scores, calibration = self.anomaly_score(images), self.calibration_scores_
        threshold = conformal_threshold(calibration, alpha)
        if np.isfinite(threshold):
            return threshold - scores
        n = len(calibration)
        warnings.warn(
            f"With {n} calibration images nothing can be flagged at a false-alarm rate of {alpha:g}: the smallest that works "
            f"is {smallest_alpha(n):.2g}.",
            stacklevel=2,
        )
        excess = scores - calibration.max()
        return np.where(excess > 0, 1 / (1 + np.maximum(excess, 0)), 1 - excess)

    def predict(self, images, alpha: float | None = None) -> np.ndarray:
        """+1 normal, -1 anomalous (N,): flagged where the p-value is at most `alpha`."""
        return np.where(self.decision_function(images, alpha) < 0, -1, 1)


class AMADetector(AnomalyDetector):
    """The Adversarial Mirrored AutoEncoder with calibrated scores.

    Args:
        config: hyper-parameters; default: the paper's.
        score: which of R, A, M, T decides (`anomaly_score`, `p_value`, `predict`). T by default, fixed beforehand.
        device: where the networks live; CUDA first by default.

    Attributes after `fit` or `load`: `networks_` (eval mode), `calibration_` (see `scores.Calibration`), `info_` (how it was
    trained).
    """

    def __init__(self, config: Config | None = None, *, score: str = "T", device: torch.device | str | None = None):
        if score not in SCORES:
            raise ConfigError(f"score = {score!r} must be one of {', '.join(SCORES)}.")
        self.config = config or Config()
        self.score = score
        self.device = inference.find_device(device) if device else inference.default_device()
        self.false_alarm_rate = self.config.false_alarm_rate

    def fit(
        self,
        images,
        *,
        anomalies=None,
        validation_anomalies=None,
        checkpoint: Path | None = None,
        state: TrainingState | None = None,
        select: str = "last",
        on_event: Callable[[Event], None] | None = None,
    ) -> Self:
        """Hold a part of `images` out, train on the rest, calibrate on what was held out.

        Args:
            images: normal images.
            anomalies: a few real anomalies, as negatives (semi-supervised).
            validation_anomalies: a few anomalies for the periodic AUROC.
            checkpoint: file for the training state; `state`: a state loaded from one, to resume.
            select: the weights at the `last` step (their average, where the configuration has one), or the ones with the best
                AUROC on the validation anomalies (`validated`).
            on_event: called with every `training.Event`; it may raise to stop.
        """
        images = self.prepared(images)
        parts = hold_out(len(images), self.config.calibration_fraction, self.config.seed)
        state = state or TrainingState(self.config, self.device)
        validation = None
        if validation_anomalies is not None:
            drawn = draw(len(parts.statistics), VALIDATION_NORMALS, self.config.seed)  # a folder may be sorted by class
            validation = Validation(images[parts.statistics[drawn]], self.prepared(validation_anomalies))
        anomalies = None if anomalies is None else self.prepared(anomalies)
        for event in train(state, images[parts.train], anomalies=anomalies, validation=validation, checkpoint=checkpoint):
            if on_event:
                on_event(event)
        if select == "validated" and not state.best:
            raise ConfigError("select = 'validated' needs validation anomalies.")
        weights = state.best if select == "validated" else state.weights()
        self._calibrate(weights, images, parts)
        self.info_ = {"training": training_facts(state, len(parts.train), select)}
        return self

    def _calibrate(self, weights, images: np.ndarray, parts) -> None:
        """Round the weights to what `save` stores, so that calibration is of the very weights that are loaded later."""
        self.networks_ = build_networks(self.config, half_precision(weights), self.device)
        sample = parts.train[draw(len(parts.train), TRAIN_SAMPLE, self.config.seed)]
        self.calibration_ = Calibration.fit(
            *(inference.statistics(self.networks_, images[part]) for part in (sample, parts.statistics, parts.calibration))
        )

    @property
    def calibration_scores_(self) -> np.ndarray:
        return self._fitted().calibration_.scores[self.score]

    def anomaly_score(self, images) -> np.ndarray:
        return anomaly_scores(self.scores(images))[self.score]

    def scores(self, images, *, progress: Callable[[int, int], None] | None = None) -> dict[str, np.ndarray]:
        """Everything known of N images from one forward pass, each (N,) float64.

        R, A, log_A, M, T, z_norm, pixel_l1, and `p_R`, `p_A`, `p_M`, `p_T`: their conformal p-values.
        """
        return self._scores(self._fitted().calibration_, self.statistics(images, progress=progress))

    def statistics(self, images, *, progress: Callable[[int, int], None] | None = None) -> Statistics:
        """What the networks say of the images, before any score is formed."""
        return inference.statistics(self._fitted().networks_, self.prepared(images), progress=progress)

    def r_score(self, images) -> np.ndarray:
        """R(x) (Eq. 5), (N,), high = the critic tells x from its reconstruction."""
        return self.scores(images)["R"]

    def a_score(self, images) -> np.ndarray:
        """A(x) (Eq. 6), (N,): Gaussian density of R(x) under the training data; low = anomalous on either side."""
        return self.scores(images)["A"]

    def encode(self, images) -> np.ndarray:
        """Codes z = E(x), (N, nz) float32."""
        return inference.encode(self._fitted().networks_, self.prepared(images))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Images G(z), uint8 (N, S, S, c), of codes (N, nz). Raises DataError on another shape or non-finite values."""
        self._fitted()
        z = np.asarray(z, dtype=np.float32)
        if z.ndim != 2 or z.shape[1] != self.config.nz or not len(z) or not np.isfinite(z).all():
            raise DataError(f"Codes must be finite and of shape (N, {self.config.nz}), got {z.shape}.")
        return inference.decode(self.networks_, z)

    def reconstruct(self, images) -> np.ndarray:
        """G(E(x)), uint8 (N, S, S, c)."""
        return inference.reconstruct(self._fitted().networks_, self.prepared(images))

    def critic(self, x, y) -> np.ndarray:
        """D(x, y), (N,), of as many images x as y: high = the critic takes y for x itself. A plain critic sees y alone."""
        x, y = self.prepared(x), self.prepared(y)
        if len(x) != len(y):
            raise DataError(f"The critic sees images in pairs, got {len(x)} and {len(y)}.")
        return inference.critic_values(self._fitted().networks_, x, y)

    def examine(self, images) -> "Examination":
        """Scores, reconstructions, critic maps and features of N images, all from one forward pass."""
        calibration = self._fitted().calibration_
        images = self.prepared(images)
        seen = inference.examine(self.networks_, images)
        return Examination(images, self._scores(calibration, seen.statistics), seen.reconstructions, seen.maps, seen.features)

    def critic_difference(self, images) -> np.ndarray:
        """What each place of the critic's grid adds to R (positive) or takes from it: (N, g, g) float32 that sums to R."""
        return inference.examine(self._fitted().networks_, self.prepared(images)).maps

    def features(self, images) -> np.ndarray:
        """The critic's features f(x, x), (N, width_critic) float32."""
        return inference.features(self._fitted().networks_, self.prepared(images))

    def prepared(self, images) -> np.ndarray:
        """Checked and made uint8 (N, S, S, c) as the model expects; images that fit already pass untouched."""
        c = self.config
        return prepare(check_images(images), size=c.image_size, channels=c.channels, fit=c.fit)[0]

    def save(self, path: Path | str) -> None:
        self._fitted()
        weights = {name: t.detach().cpu().contiguous() for name, t in self.networks_.state_dict().items()}
        write_bundle(path, Bundle(self.config, half_precision(weights), self.calibration_, self.info_))

    @classmethod
    def load(cls, path: Path | str, *, score: str = "T", device: torch.device | str | None = None) -> Self:
        """Read a bundle or run folder, or a name in `pretrained/`. Raises BundleError."""
        bundle = read_bundle(find_bundle(path))
        detector = cls(bundle.config, score=score, device=device)
        detector.networks_ = build_networks(bundle.config, bundle.weights, detector.device)
        detector.calibration_ = bundle.calibration
        detector.info_ = bundle.info
        return detector

    @staticmethod
    def _scores(calibration: Calibration, statistics: Statistics) -> dict[str, np.ndarray]:
        scores = calibration.score(statistics)
        return scores | {f"p_{name}": calibration.p_value(scores, name) for name in SCORES}

    def _fitted(self) -> Self:
        if not hasattr(self, "calibration_"):
            raise NotFittedError("This detector has not been trained: call fit(images) or AMADetector.load(path) first.")
        return self


@dataclass(frozen=True)
class Examination:
    """What a model says of N images.

    Attributes:
        images: uint8 (N, S, S, c), as the model sees them. reconstructions: G(E(x)), of the same shape.
        scores: as of `AMADetector.scores`, each (N,).
        maps: float32 (N, g, g), what each place of the critic's grid adds to R or takes from it; a map sums to R.
        features: the critic's f(x, x), float32 (N, width_critic).
    """

    images: np.ndarray
    scores: dict[str, np.ndarray]
    reconstructions: np.ndarray
    maps: np.ndarray
    features: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence["Examination"]) -> "Examination":
        names = parts[0].scores
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in names}
        arrays = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls) if f.name != "scores"}
        return cls(scores=scores, **arrays)


def training_facts(state: TrainingState, n_train: int, select: str) -> dict[str, Any]:
    """How, where and with what a model was trained, for the bundle."""
    device = torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else platform.processor() or "CPU"
    return {
        "n_train": n_train,
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "images_per_s": round(state.step * state.config.batch_size / max(state.seconds, 1e-9), 1),
        "select": select,
        "validated_auroc_A": state.best_auroc if state.best else None,
        "precision": precision(state.config, state.device),
        "device": f"{state.device.type}: {device}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        | {"ama_core": __version__},
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "ama_core", *sys.argv[1:]]) if "ama_core" in sys.argv[0] else None,
    }


def _commit() -> str | None:
    """The commit of this source tree, where it is a git checkout; "-dirty" where the engine differs from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
