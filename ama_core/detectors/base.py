"""The contract of every anomaly detector, in scikit-learn's terms, and everything that does not differ between them.

A detector is a scikit-learn outlier detector of images. It writes `Settings`, `SCORES`, `decides`, `fit_statistics`,
`raw_scores`, `state` and `restore`, and, where it is trained, `trainer_class` and `use_weights`. The base class holds data out,
trains, calibrates, gives p-values and verdicts, saves and loads. What else a detector can do it says by methods of
well-known names (see `CAPABILITIES`).

One sign convention: *anomaly scores* are larger for anomalies; `score_samples` and `decision_function` follow scikit-learn,
larger = more normal.
"""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin
from torch import Tensor
from tqdm.auto import tqdm

from ama_core.data import (
    HoldOut,
    ImageSet,
    absolute_source,
    catalog,
    check_images,
    decode_image,
    draw,
    hold_out,
    load_any,
    picture_array,
    prepare,
)
from ama_core.detectors.conformal import as_stored, batch_drift, conformal_p_value, conformal_threshold, out_of_reach
from ama_core.errors import AMAError, BundleError, ConfigError, DataError, NotFittedError, TrainingDiverged
from ama_core.provenance import training_facts
from ama_core.settings import Settings
from ama_core.storage.bundle import Bundle, find_bundle, read_bundle, write_bundle
from ama_core.tensors import default_device, find_device
from ama_core.training import distributed
from ama_core.training.loop import Event, Validation, train
from ama_core.training.trainer import Trainer

TRAIN_SAMPLE = 10_000  # training images, drawn by the seed, that statistics of the training set are taken from
VALIDATION_NORMALS = 500  # held-out normals, drawn by the seed, of the periodic AUROC
SELECTIONS = ("last", "validated")  # which step's weights a training keeps
WATCHED = 200  # images of each kind that are looked at while training

# What a detector may be able to do beside scoring -> the method that does it.
CAPABILITIES = {
    "reconstruct": "reconstruct",  # images -> images, uint8 (N, S, S, C)
    "encode": "encode",  # images -> codes, float32 (N, d)
    "decode": "decode",  # codes (N, d) -> images
    "localise": "maps",  # images -> what each place adds to the score, float32 (N, g, g)
    "features": "features",  # images -> feature vectors in which near means alike, float32 (N, p)
    "export": "graph",  # -> one module from uint8 images to scores and p-value (see `detectors.graph`)
}

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


@dataclass(frozen=True)
class Score:
    """One of the scores that a detector gives an image.

    Attributes:
        name: short, as in tables and files, such as "R".
        meaning: one sentence for a reader who has never heard of it.
        equation: LaTeX, with the source in `source` where it is published.
        low: whether low values are anomalous; high ones are otherwise.
        ranks_by: the entry of `scores` that ranks in its place, where the score itself would underflow or tie.
        log_axis: whether charts show it on a logarithmic axis.
    """

    name: str
    meaning: str
    equation: str
    low: bool = False
    ranks_by: str | None = None
    log_axis: bool = True
    source: str = ""

    def anomaly(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score (N,) turned so that larger = more anomalous, from the entries of `AnomalyDetector.scores`."""
        return self.from_anomaly(scores[self.ranks_by or self.name])

    def from_anomaly(self, values: np.ndarray) -> np.ndarray:
        """Anomaly scores (N,), as of `anomaly`, turned back into entries of `AnomalyDetector.scores`."""
        return -values if self.low else values


@dataclass(frozen=True)
class NormalData:
    """What a model was trained on, as stored in its bundle.

    Attributes:
        name: what the data are called. source: a name of the catalog, a folder or a file; None for arrays.
        label: the one class of a one-class model. n: images, those held out among them.
        fingerprint: of the images (see `ImageSet.fingerprint`).
        validation_ood, anomalies, watch: sources of validation anomalies, of real anomalies trained with, and of images that
            were looked at while training.
    """

    name: str
    source: str | None = None
    label: int | None = None
    n: int = 0
    fingerprint: str = ""
    validation_ood: str | None = None
    anomalies: str | None = None
    watch: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether they are a user's own: a folder or a file, no set of the catalog and no arrays."""
        return self.source is not None and self.source not in catalog()

    @property
    def title(self) -> str:
        """The name, with the class of a one-class model."""
        return self.name if self.label is None else f"{self.name}:{self.label}"

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "NormalData | None":
        """From a bundle's header; None where it does not say."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in (info.get("normal") or {}).items() if name in known}
        return cls(**values) if values.get("name") else None


def _all_finite(scores: Mapping[str, np.ndarray]) -> bool:
    return all(np.isfinite(values).all() for values in scores.values())


def check_finite(scores: Mapping[str, np.ndarray]) -> None:
    """Raises TrainingDiverged where a score, or what scores are made from, is not finite for a normal image."""
    if not _all_finite(scores):
        raise TrainingDiverged("Training diverged: scores of normal images are not finite. Lower lr.")


def checked_codes(z: np.ndarray, size: int) -> np.ndarray:
    """Codes as float32 (N, size). Raises DataError on another shape, none of them, or non-finite values."""
    z = np.asarray(z, dtype=np.float32)
    if z.ndim != 2 or z.shape[1] != size or not len(z) or not np.isfinite(z).all():
        raise DataError(f"Codes must be finite and of shape (N, {size}), got {z.shape}.")
    return z


@dataclass(frozen=True)
class Examination:
    """What a model says of N images.

    Attributes:
        images: uint8 (N, S, S, C), as the model sees them.
        scores: as of `AnomalyDetector.scores`, each (N,).
        reconstructions: of the same shape as images; None where the detector does not reconstruct.
        maps: float32 (N, g, g), what each place adds to the score; None where it does not localise.
        features: float32 (N, p); None where it has none.
    """

    images: np.ndarray
    scores: dict[str, np.ndarray]
    reconstructions: np.ndarray | None = None
    maps: np.ndarray | None = None
    features: np.ndarray | None = None

    @classmethod
    def concatenate(cls, parts: Sequence["Examination"]) -> "Examination":
        """All images of `parts`, of one detector, in order."""
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
        arrays = {}
        for name in ("images", "reconstructions", "maps", "features"):
            found = [getattr(part, name) for part in parts]
            arrays[name] = None if found[0] is None else np.concatenate(found)
        return cls(scores=scores, **arrays)

    def take(self, index: np.ndarray | Sequence[int]) -> "Examination":
        """Of some images alone."""
        index = np.asarray(index)
        arrays = {name: getattr(self, name) for name in ("images", "reconstructions", "maps", "features")}
        scores = {name: values[index] for name, values in self.scores.items()}
        return Examination(scores=scores, **{name: None if found is None else found[index] for name, found in arrays.items()})


class AnomalyDetector(OutlierMixin, BaseEstimator, ABC):
    """Base class of all detectors.

    Images are uint8 arrays (N, H, W, C) or float tensors (N, C, H, W) in [0, 1], C = 1 or 3; lists of Pillow images,
    uint8 arrays (H, W, C) of any size or image files; or where they lie: a name of the catalog, a folder, a .zip or an
    .npz file.

    Args:
        config: the detector's settings.
        score: which of its scores decides (`anomaly_score`, `p_value`, `predict`); default: `decides`, fixed beforehand.
        device: where networks live; CUDA first by default.
        verbose: whether `fit` shows a progress bar where nobody follows its events.

    Attributes:
        held_out_scores_: anomaly scores of held-out normal images by name of the score, each (n,), after `fit` or `load`.
        info_: how and on what it was trained.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    trainer_class: ClassVar[type[Trainer] | None] = None  # None: nothing is trained by gradient steps
    SCORES: ClassVar[tuple[Score, ...]]
    decides: ClassVar[str]
    MEASURED: ClassVar[tuple[str, ...]] = ()  # what else is measured of it, by its names in `runs.measuring`
    STORED: ClassVar[tuple[str, ...]] = ()  # entries of `scores` that a bundle keeps; default: the scores
    ADDED: ClassVar[tuple[str, ...]] = ()  # scores that a bundle of an earlier version may lack: its model has fewer SCORES

    def __init__(
        self,
        config: Settings | None = None,
        *,
        score: str | None = None,
        device: torch.device | str | None = None,
        verbose: bool = True,
    ):
        self.config = config
        self.score = score
        self.device = device
        self.verbose = verbose

    # What a detector writes

    @abstractmethod
    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        """Fit everything that is not trained by gradient steps, on uint8 images (N, S, S, C).

        Args:
            train: a sample of at most TRAIN_SAMPLE training images. held_out: normal images that were not trained on.
        """

    @abstractmethod
    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        """Every score and what else is worth a chart, each (N,) float64, of uint8 images (N, S, S, C).

        An image's scores never depend on the others in the batch.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        """Everything that scoring needs beside the settings: tensors (weights) and arrays (statistics), by name."""

    @abstractmethod
    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over the arrays of `state`. Raises ValueError or KeyError where one is missing or of a wrong shape."""

    def trainer(self) -> Trainer | None:
        """A new training of this detector from its first step; None where nothing is trained by gradient steps."""
        return self.trainer_class(self.settings, self.torch_device) if self.trainer_class else None

    def use_weights(self, weights: dict[str, Tensor]) -> None:
        """Score with these weights from now on: of `Trainer.weights`, or the tensors of `state`.

        Raises ValueError where they do not belong to these settings.
        """
        raise NotImplementedError

    def card_remark(self) -> str:
        """What the first sentence of its model card adds to its title, beginning with a comma; nothing by default."""
        return ""

    # Settings

    @property
    def settings(self) -> Settings:
        """`config`, or the detector's default settings. Raises ConfigError where it belongs to another detector."""
        if self.config is None:
            return self.Settings()
        if not isinstance(self.config, self.Settings):
            raise ConfigError(f"{self.title} takes {self.Settings.__name__}, got {type(self.config).__name__}.")
        return self.config

    @property
    def torch_device(self) -> torch.device:
        """Where networks live. Raises ConfigError where `device` is not here."""
        return find_device(self.device) if self.device else default_device()

    @property
    def by(self) -> str:
        """The score that decides. Raises ConfigError where `score` is none of this detector's."""
        by = self.score or self.decides
        if by not in self.score_names():
            why = ""
            if by in {score.name for score in type(self).SCORES}:
                why = f" It was calibrated by a version without {by}; run `python -m ama_core measure MODEL --calibrate`."
            raise ConfigError(f"score = {by!r} must be one of {', '.join(self.score_names())}.{why}")
        return by

    def deciding_score(self) -> Score:
        """The score of name `by`. Raises ConfigError as `by` does."""
        return next(score for score in self.SCORES if score.name == self.by)

    @property
    def false_alarm_rate(self) -> float:
        """Default alpha of `decision_function` and `predict`."""
        return self.settings.false_alarm_rate

    @classmethod
    def scores_in(cls, arrays: Container[str]) -> tuple[Score, ...]:
        """The scores that a model gives whose bundle holds arrays of these names."""
        return tuple(score for score in cls.SCORES if score.name not in cls.ADDED or f"scores.{score.name}" in arrays)

    def score_names(self) -> tuple[str, ...]:
        """Names of the scores that it gives: all of its class, but for those that its bundle does not know yet."""
        return tuple(score.name for score in self.SCORES)

    def gives(self, name: str) -> bool:
        """Whether it gives the score of this name."""
        return name in self.score_names()

    @classmethod
    def can(cls) -> tuple[str, ...]:
        """What it can do beside scoring: keys of CAPABILITIES."""
        return tuple(what for what, method in CAPABILITIES.items() if callable(getattr(cls, method, None)))

    @classmethod
    def trains(cls) -> bool:
        """Whether it is trained by gradient steps."""
        return cls.trainer_class is not None

    # Fitting

    def fit(
        self,
        X,
        y=None,
        *,
        anomalies=None,
        validation_anomalies=None,
        watched=None,
        checkpoint: Path | None = None,
        trainer: Trainer | None = None,
        select: str = "last",
        on_event: Callable[[Event], None] | None = None,
    ) -> Self:
        """Hold a fraction of normal images out, train on the rest, calibrate on what was held out.

        Args:
            X: normal images (see the class). y: ignored.
            anomalies: a few real anomalies, as negatives (semi-supervised), for detectors that can use them.
            validation_anomalies: a few anomalies for the periodic AUROC.
            watched: other images than normal ones whose scores are looked at while training; nothing is chosen by them.
            checkpoint: file for the state of the training. trainer: one read from it, to resume.
            select: the weights at the `last` step (their average, where the settings have one), or the ones with the best
                AUROC on the validation anomalies (`validated`), of a training in stages among those of the last stage.
            on_event: called with every `training.Event`; it may raise to stop. Default: a progress bar, where `verbose`.

        Raises:
            DataError: images that are not as stated, or too few. ConfigError: settings that contradict each other.
            TrainingDiverged: losses, weights or scores are not finite.
        """
        settings, _ = self.settings, self.by  # refuse early what is wrong with them
        images, normal = self._normal_images(X)
        parts = hold_out(len(images), settings.calibration_fraction, settings.seed)
        trainer = trainer or self.trainer()
        if select not in SELECTIONS:
            raise ConfigError(f"select = {select!r}: it must be {' or '.join(SELECTIONS)}.")
        if select == "validated" and trainer is not None and validation_anomalies is None and not trainer.best:
            raise ConfigError("select = 'validated' needs validation anomalies: give validation_anomalies.")
        facts: dict[str, Any] = {"steps": 0, "seconds": 0.0}
        if trainer is not None:
            validation = None
            if validation_anomalies is not None:
                drawn = draw(len(parts.statistics), VALIDATION_NORMALS, settings.seed)  # a folder may be sorted by class
                validation = Validation(images[parts.statistics[drawn]], self.prepared(validation_anomalies))
            watch = None
            if watched is not None and trainer.can_be_watched():
                drawn = draw(len(parts.statistics), WATCHED, settings.seed)
                watch = Validation(images[parts.statistics[drawn]], self.prepared(watched)[:WATCHED])
            anomalies = None if anomalies is None else self.prepared(anomalies)
            events = train(
                trainer, images[parts.train], anomalies=anomalies, validation=validation, watch=watch, checkpoint=checkpoint
            )
            _follow(events, on_event, self.verbose and distributed.is_first())
            if not distributed.is_first():
                return self  # the first process goes on alone: calibrated, measured and saved once
            self.use_weights(trainer.best if select == "validated" else trainer.weights())
            facts = trainer.facts()
        elif anomalies is not None or validation_anomalies is not None or select != "last":
            raise ConfigError(f"{self.title} is not trained by steps, so it takes no anomalies and no validation.")
        start = time.perf_counter()
        self._calibrate(images, parts)
        if trainer is None:
            facts["seconds"] = time.perf_counter() - start
        self.info_ = {
            "training": training_facts(facts, self.torch_device, len(parts.train), select),
            "normal": asdict(normal),
        }
        return self

    def calibrate(self, images: np.ndarray) -> Self:
        """Fit statistics and p-values again, with the networks as they are, on all images that were given to `fit`.

        P-values that `recalibrate` took from other images are replaced. A model that a bundle of an earlier version was read
        from gives every score of its class afterwards.
        """
        self._fitted()
        images = self.prepared(images)
        self._calibrate(images, hold_out(len(images), self.settings.calibration_fraction, self.settings.seed))
        self.info_ = {name: value for name, value in self.info_.items() if name != "calibrated_on"}
        return self

    def recalibrate(self, X) -> Self:
        """Take p-values from other normal images, such as those of another camera; scores and their statistics stay.

        Args:
            X: n normal images in any form that `fit` takes, none of which the model was trained on. What is tested later must
                not be among them. The smallest p-value becomes 1 / (n + 1). Marks of places (`scoring.localise`) still come
                from images that were held out of the training.

        Raises NotFittedError, DataError.
        """
        self._fitted()
        found = self.image_set(X, "ood")
        images = self.prepared(found.images)
        if not len(images):
            raise DataError("There are no images to calibrate on.")
        scores = self.anomaly_scores(self.raw_scores(images))
        if not _all_finite(scores):
            raise DataError(f"A score of an image of {found.name} is not finite: leave that image out, or train again.")
        self.held_out_scores_ = scores
        self.info_ = self.info_ | {"calibrated_on": {"name": found.name, "n": len(images), "fingerprint": found.fingerprint}}
        return self

    def _calibrate(self, images: np.ndarray, parts: HoldOut) -> None:
        for name in ("SCORES", "STORED"):
            vars(self).pop(name, None)  # of an earlier bundle
        seed = self.settings.seed
        self.fit_statistics(images[parts.train[draw(len(parts.train), TRAIN_SAMPLE, seed)]], images[parts.statistics])
        held_out = self.anomaly_scores(self.raw_scores(images[parts.calibration]))
        if self.trains():
            check_finite(held_out)
        self.held_out_scores_ = held_out

    def _normal_images(self, X) -> tuple[np.ndarray, NormalData]:
        """Images to train on, uint8 (N, S, S, C), and what they are."""
        found = self.image_set(X, "train")
        images = self.prepared(found.images)
        source = absolute_source(str(X)) if isinstance(X, (str, Path)) else None
        return images, NormalData(found.name, source, None, len(images), found.fingerprint)

    # Scores

    def scores(self, X, *, progress: Progress | None = None) -> dict[str, np.ndarray]:
        """Everything known of N images, each (N,) float64: `raw_scores`, and `p_NAME`, the p-value of every score.

        Raises NotFittedError, DataError.
        """
        self._fitted()
        return self.with_p_values(self.raw_scores(self.prepared(X), progress))

    def with_p_values(self, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The scores with the conformal p-value `p_NAME` of each."""
        turned = self.anomaly_scores(scores)
        return scores | {f"p_{by}": conformal_p_value(values, self.held_out_scores_[by]) for by, values in turned.items()}

    def anomaly_scores(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every score turned so that larger = more anomalous, by its name, each (N,), from entries of `scores`."""
        return {score.name: score.anomaly(scores) for score in self.SCORES}

    @property
    def calibration_scores_(self) -> np.ndarray:
        """Anomaly scores (n,) of held-out normal images by the score that decides."""
        return self._fitted().held_out_scores_[self.by]

    def threshold(self, by: str, alpha: float) -> float:
        """The anomaly score of `by` above which an image is flagged at false-alarm rate `alpha`; infinite where none can be."""
        return conformal_threshold(self._fitted().held_out_scores_[by], alpha)

    @property
    def offset_(self) -> float:
        """`decision_function` is `score_samples` minus this, at the default false-alarm rate where it can be reached."""
        return -self.threshold(self.by, self.false_alarm_rate)

    def anomaly_score(self, X) -> np.ndarray:
        """Anomaly scores (N,), float64, larger = more anomalous. Raises NotFittedError, DataError."""
        self._fitted()
        return self.anomaly_scores(self.raw_scores(self.prepared(X)))[self.by]

    def score_samples(self, X) -> np.ndarray:
        """Normality (N,): minus the anomaly score, larger = more normal. Raises NotFittedError, DataError."""
        return -self.anomaly_score(X)

    def p_value(self, X) -> np.ndarray:
        """Conformal p-value (N,) in (0, 1]: the fraction of normal images that would look at least as anomalous."""
        return conformal_p_value(self.anomaly_score(X), self.calibration_scores_)

    def decision_function(self, X, alpha: float | None = None) -> np.ndarray:
        """Distance (N,) to the cut of false-alarm rate `alpha`: negative = flagged as anomalous, larger = more normal; minus
        infinity for an image whose score is not finite, which is flagged wherever anything can be.

        With n calibration images no p-value is below 1 / (n + 1). At a smaller alpha nothing can be flagged: all values are
        positive (0 where the score is not finite), and still fall strictly with the anomaly score. A UserWarning says so.
        """
        alpha = self.false_alarm_rate if alpha is None else alpha
        if not 0 < alpha < 1:
            raise DataError(f"The false-alarm rate must lie between 0 and 1, got {alpha}.")
        scores, calibration = self.anomaly_score(X), self.calibration_scores_
        scores = np.where(np.isnan(scores), np.inf, scores)  # as its p-value, the smallest there is
        threshold = conformal_threshold(calibration, alpha)
        if np.isfinite(threshold):
            distance, tied = threshold - scores, as_stored(scores) == as_stored(threshold)
            return np.where(tied, np.maximum(distance, 0), distance)  # what ties with the threshold is not flagged
        warnings.warn(out_of_reach(len(calibration), alpha), stacklevel=2)
        excess = scores - calibration.max()
        return np.where(excess > 0, 1 / (1 + np.maximum(excess, 0)), 1 - excess)

    def predict(self, X, alpha: float | None = None) -> np.ndarray:
        """+1 normal, -1 anomalous (N,): flagged where the p-value is at most `alpha`."""
        return np.where(self.decision_function(X, alpha) < 0, -1, 1)

    def examine(self, X) -> Examination:
        """Scores of N images, in any form that `scores` takes, and whatever else the detector can say of them.

        Raises NotFittedError, DataError.
        """
        images = self.prepared(X)
        methods = {"reconstructions": "reconstruct", "maps": "maps", "features": "features"}
        more = {field: getattr(self, method)(images) for field, method in methods.items() if hasattr(self, method)}
        return Examination(images, self.scores(images), **more)

    def drift(self, scores: Mapping[str, np.ndarray]) -> tuple[float, str]:
        """How probable it is that normal images differ so much *as a whole* from those of the calibration, and the score that
        says so: by the first of the scores and by the one that decides (see `batch_drift`).

        Args:
            scores: of N images, as `scores` or `raw_scores` returns them, each (N,).

        Returns:
            A p-value in (0, 1], and the name of a score. Raises NotFittedError.
        """
        self._fitted()
        turned = self.anomaly_scores(scores)
        return batch_drift(turned, self.held_out_scores_, (self.SCORES[0].name, self.by))

    def table_columns(self) -> tuple[str, ...]:
        """Entries of `scores` that a table of images shows: every score, followed by what ranks in its place."""
        return tuple(name for score in self.SCORES for name in (score.name, score.ranks_by) if name)

    # Images

    @property
    def normal(self) -> NormalData | None:
        """What it was trained on; None where it does not say."""
        return NormalData.of(getattr(self, "info_", {}))

    def prepared(self, X) -> np.ndarray:
        """Checked and made uint8 (N, S, S, C) as the detector expects; images that fit already pass untouched.

        Of a folder or archive, files that cannot be read are left out, with a UserWarning: `image_set(X, "ood").paths` names
        the images, in their order. A file of a list must be readable. Raises DataError.
        """
        if isinstance(X, (str, Path)):
            X = self.image_set(X, "ood").images
        spec = self.settings.input
        if isinstance(X, (list, tuple)):
            X = [_as_array(image) if not isinstance(image, (str, Path)) else self._read(image) for image in X]
        else:
            X = check_images(X)
        return prepare(X, size=spec.size, channels=spec.channels, fit=spec.fit)[0]

    def _read(self, file: str | Path) -> np.ndarray:
        """An image file as the detector sees it, so that large photographs are not kept. Raises DataError."""
        spec = self.settings.input
        return prepare([decode_image(file)[0]], size=spec.size, channels=spec.channels, fit=spec.fit)[0][0]

    def image_set(self, X, split: str, name: str = "images") -> ImageSet:
        """Images, or where they lie, as a set; a set as it is, and arrays under `name`. Raises DataError."""
        if isinstance(X, ImageSet):
            return X
        if isinstance(X, (str, Path)):
            return load_any(X, split, **vars(self.settings.input))
        images = self.prepared(X)
        return ImageSet(name, "test" if split == "ood" else split, images, np.zeros(len(images), np.int64))

    # Storage

    def save(self, path: Path | str) -> None:
        """Write the fitted detector into the folder `path`, a new one, or one of a model or run.

        Raises NotFittedError, and BundleError where it is a file or holds other things.
        """
        self._fitted()
        tensors, arrays = self.state()
        arrays = arrays | {f"scores.{name}": values for name, values in self.held_out_scores_.items()}
        write_bundle(path, Bundle(self.name, self.settings.to_dict(), tensors, arrays, self.info_))

    @classmethod
    def load(cls, path: Path | str, *, score: str | None = None, device: torch.device | str | None = None) -> Self:
        """Read what `save` wrote: a bundle or run folder, or a name in `pretrained/`. Raises BundleError, ConfigError."""
        folder = find_bundle(path)
        return cls.from_bundle(read_bundle(folder), folder, score=score, device=device)

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, folder: Path, *, score: str | None = None, device: torch.device | str | None = None
    ) -> Self:
        """From a bundle that was read from `folder`. Raises BundleError, ConfigError."""
        if bundle.detector != cls.name:
            raise BundleError(f"{folder} holds the detector {bundle.detector!r}, not {cls.name!r}: use load_detector.")
        try:
            settings = cls.Settings.from_dict(bundle.settings)
        except AMAError as error:
            raise BundleError(f"{folder / 'config.json'} holds no valid hyper-parameters: {error}") from error
        detector = cls(settings, score=score, device=device)
        given = cls.scores_in(bundle.arrays)
        if given != cls.SCORES:
            detector.SCORES = given
            lacks = {score.name for score in cls.SCORES} - {score.name for score in given}
            detector.STORED = tuple(entry for entry in cls.STORED if entry not in lacks)
        _ = detector.by, detector.torch_device
        file = folder / "model.safetensors"
        try:
            if bundle.tensors or cls.trains():
                detector.use_weights(bundle.tensors)
            file, arrays = folder / "calibration.npz", dict(bundle.arrays)
            held_out = {name: arrays.pop(f"scores.{name}") for name in detector.score_names()}
            if not all(len(values) and values.ndim == 1 for values in held_out.values()):
                raise ValueError("scores are missing")
            detector.restore(arrays)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
            raise BundleError(f"{file} is damaged, or does not fit config.json: {error}. Copy it again.") from error
        detector.held_out_scores_ = held_out
        detector.info_ = bundle.info
        return detector

    def _fitted(self) -> Self:
        if not hasattr(self, "held_out_scores_"):
            raise NotFittedError(
                f"This {type(self).__name__} has not been trained: call fit(images) or {type(self).__name__}.load(path) first."
            )
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "held_out_scores_")


def _as_array(image) -> np.ndarray:
    """A Pillow image, or an array, as uint8 (H, W, C)."""
    if isinstance(image, Image.Image):
        return picture_array(image)
    if isinstance(image, np.ndarray) and image.ndim == 2:
        image = image[..., None]
    return image


def _follow(events, on_event: Callable[[Event], None] | None, verbose: bool) -> None:
    """Consume the events of a training; with a progress bar where nobody else does."""
    bar = None
    for event in events:
        if on_event:
            on_event(event)
            continue
        bar = bar or tqdm(total=event.total_steps, unit="step", disable=None if verbose else True)
        bar.update(event.step - bar.n)
    if bar is not None:
        bar.close()
