"""The evaluation protocol: who is tested against whom, AUROC, AUPRC and FPR95, and the scores kept for the app.

Anomalies are the positive class throughout, and an AUROC below 0.5 is reported as it is: never max(AUROC, 1 - AUROC).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from ama_core.data import (
    ImageSet,
    anomaly_mask,
    available,
    catalog,
    count_any,
    draw,
    draw_anomalies,
    holds_training_images,
    load,
    load_any,
    same_source,
    validation_anomalies,
)
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.errors import DataError
from ama_core.evaluation.metrics import count, detection_metrics
from ama_core.storage.bundle import StoredScores

REST = "rest"  # the other classes of a one-class model's own data set (Table 2)
STORED_SAMPLE = 2_000  # scores kept of each data set: enough for densities, small enough for a repository
N_VALIDATION = 50  # anomalies for choosing a checkpoint; never tested
VERIFIED = 64  # images of each stored sample that `verify` scores again
VERIFY_TOLERANCE = 1e-3  # relative: processors and libraries round differently, other weights or data differ by far more
_NONE = np.empty(0, np.int64)


Progress = Callable[[int, int, str], None]


def normal_name(detector: AnomalyDetector) -> str:
    """How the model's normal data are called in results: the set's name, with the class of a one-class model."""
    return _normal(detector).title


def normal_split(detector: AnomalyDetector, split: str, **load_options) -> ImageSet:
    """A split of the model's own normal data, of all classes. Raises DataError where it is not available locally."""
    return load_any(_normal(detector).source, split, **vars(detector.settings.input), **load_options)


def was_trained_on(detector: AnomalyDetector, source: str | Path) -> bool:
    """Whether images of a model's training are among those that `load_any` takes of a source as "ood"."""
    normal = detector.normal
    return normal is not None and normal.is_own and holds_training_images(source, normal.source)


def training_images(detector: AnomalyDetector) -> ImageSet:
    """The images that were given to `fit`. Raises DataError where they are not available locally, or are others."""
    normal = _normal(detector)
    found = normal_split(detector, "train")
    if normal.label is not None:
        found = found.take(~anomaly_mask(found, normal.label))
    if len(found) != normal.n or (normal.fingerprint and found.fingerprint != normal.fingerprint):
        raise DataError(f"The {len(found):,} training images of {normal.name} here are not those that it was trained on.")
    return found


def _normal(detector: AnomalyDetector) -> NormalData:
    normal = detector.normal
    if normal is None or not normal.source:
        raise DataError("This model does not say what it was trained on, so it has no normal test images.")
    return normal


def evaluate(
    detector: AnomalyDetector,
    ood: Sequence[str | ImageSet | np.ndarray],
    *,
    normal: ImageSet | np.ndarray | str | Path | None = None,
    model: str = "",
    seed: int = 0,
    full: bool = False,
    keep: Callable[[StoredScores], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tell the normal test images from each OOD set, under the protocol of the specification, Section 6.

    Every official test image of the normal set stands against anomalies of 20 % of that number, drawn by `seed` from the OOD
    test split (`full`: all of it). Validation anomalies carved out of a test split are never tested.

    Args:
        ood: names of the catalog, folders or .npz files, or images, as `AnomalyDetector.scores` takes them, which are called
            `images 1`, `images 2`, ...; `rest`: a one-class model's other classes.
        normal: normal test images, for a model trained on arrays; default: the test split of what it was trained on.
        keep: called with a sample of the scores behind the figures: of the normal images, then of each OOD set.

    Returns:
        The stable contract of `evaluate --json`: {"model", "normal", "seed", "results": [{"ood", "n_normal", "n_ood",
        "scores": {NAME of a score: {"auroc", "auprc", "fpr95"}}}]}, and "notes", sentences on what was left
        out, where anything was.
    """
    ood = list(ood)
    for name in ood:
        if isinstance(name, (str, Path)) and str(name) != REST:
            _check_here(str(name))  # before anything is scored
    test = normal_split(detector, "test") if normal is None else detector.image_set(normal, "ood", "normal")
    trained_on = _normal(detector) if normal is None else NormalData(test.name)
    label = trained_on.label
    is_anomaly = np.zeros(len(test), bool) if label is None else anomaly_mask(test, label)
    own = measure(detector, test, progress)
    normal_scores = {name: values[~is_anomaly] for name, values in own.items()}
    inliers = detector.anomaly_scores(normal_scores)
    n_normal = int((~is_anomaly).sum())
    if keep is not None:
        keep(_kept(detector, trained_on.name, test, np.flatnonzero(~is_anomaly), normal_scores, seed))
    results, left_out = [], []
    if isinstance(normal, (str, Path)) and was_trained_on(detector, normal):
        left_out.append(
            f"The model was trained on images of {normal}, all of which are tested: leave `normal` out to test on others."
        )
    for number, asked in enumerate(ood, 1):
        asked = str(asked) if isinstance(asked, Path) else asked
        given = asked if isinstance(asked, str) else detector.image_set(asked, "ood", f"images {number}")
        name = given.name if isinstance(given, ImageSet) else given
        if name == REST:
            if label is None:
                raise DataError(f"{REST!r} needs a one-class model; this one was trained on all of {trained_on.title}.")
            ood_set, chosen = test, np.flatnonzero(is_anomaly)
            scores = {key: values[is_anomaly] for key, values in own.items()}
        else:
            ood_set, untested = (given, _NONE) if isinstance(given, ImageSet) else ood_test(detector, name)
            chosen = np.setdiff1d(np.arange(len(ood_set)), untested)
            if len(untested):
                left_out.append(
                    f"{len(untested)} of the {len(ood_set)} images of {name} served as validation anomalies while training and "
                    f"are not tested; {len(chosen)} remain."
                )
            if not isinstance(given, ImageSet) and same_source(trained_on.anomalies, name):
                left_out.append(
                    f"Anomalies from {name} were used in training, so only its test split is evaluated; {len(chosen)} images "
                    "remain."
                )
            if not full:
                drawn = draw_anomalies(n_normal, len(chosen), seed)
                if len(drawn) < len(chosen) and name not in catalog():
                    left_out.append(
                        f"{len(drawn):,} of the {len(chosen):,} images of {name} were drawn, 20 % of the number of normals: "
                        "`evaluate` with `full` (--full) tests all."
                    )
                chosen = chosen[drawn]
            scores = measure(detector, ood_set.take(chosen), progress)
        anomalous = detector.anomaly_scores(scores)
        if keep is not None:
            keep(_kept(detector, name, ood_set, chosen, scores, seed))
        results.append(
            {
                "ood": name,
                "n_normal": n_normal,
                "n_ood": count(anomalous),
                "scores": {key: detection_metrics(inliers[key], anomalous[key]) for key in inliers},
            }
        )
    found = {"model": model, "normal": trained_on.title, "seed": seed, "results": results}
    return found | ({"notes": left_out} if left_out else {})


def _check_here(name: str) -> None:
    """Raises DataError where no images of an OOD set are available here, by its files alone."""
    if name not in catalog():
        count_any(name, "ood")
    elif "test" not in available(name):
        load(name, "test")


def ood_test(detector: AnomalyDetector, name: str) -> tuple[ImageSet, np.ndarray]:
    """The test images of an OOD set, and the indices among them that served as validation anomalies of this model.

    Where the model was trained with anomalies of the same source, only that source's test split is left.
    """
    return _untrained(detector, name), _validated_on(detector, name)


def _untrained(detector: AnomalyDetector, name: str) -> ImageSet:
    """The images of an OOD set that the model was not trained with."""
    normal = detector.normal or NormalData("unknown")
    split = "test" if same_source(normal.anomalies, name) else "ood"
    return load_any(name, split, **vars(detector.settings.input))


def _validated_on(detector: AnomalyDetector, name: str) -> np.ndarray:
    """The indices of the test images of an OOD set that served as validation anomalies of this model."""
    normal, spec = detector.normal, detector.settings.input
    if normal is None or not same_source(normal.validation_ood, name):
        return _NONE
    return choose_validation_anomalies(name, detector.settings.seed, normal.anomalies, **vars(spec))[1]


def choose_validation_anomalies(
    name: str, seed: int, trained_with: str | None = None, **as_input
) -> tuple[ImageSet, np.ndarray]:
    """50 anomalies from the OOD set's train split, or carved out of its test split where it has none here.

    Out of the test split, too, where the train split is `trained_with`. Returns them, and the indices of the test images (see
    `ood_test`) that they are.
    """
    if same_source(trained_with, name):
        return validation_anomalies(load_any(name, "test", **as_input), seed=seed, n=N_VALIDATION)
    train = load_any(name, "train", **as_input) if "train" in (available(name) if name in catalog() else ()) else None
    return validation_anomalies(load_any(name, "ood", **as_input), train, seed=seed, n=N_VALIDATION)


def measure(detector: AnomalyDetector, images: ImageSet, progress: Progress | None = None) -> dict[str, np.ndarray]:
    """Every score of every image of a set; `progress(done, total, name)` after every batch."""
    step = (lambda done, total: progress(done, total, images.name)) if progress else None
    return detector.scores(images.images, progress=step)


def measure_each(detector: AnomalyDetector, *, seed: int = 0, progress: Progress | None = None) -> Iterator[StoredScores]:
    """Scores for the bundle, each set as soon as it is measured: a sample of the normal train and test splits, and of the test
    split of `available_others`.

    Sets that would need a download are left out. A one-class model's other classes come first, as REST.

    Raises:
        DataError: the model does not say what it was trained on, or that is not available locally.
    """
    normal = _normal(detector)
    others = available_others(detector)
    for name, split in [(normal.name, "train"), (normal.name, "test"), *((name, "test") for name in others)]:
        whole, chosen = _part(detector, name, split, tested=True)
        sample = chosen[_sample(len(chosen), seed)]
        scores = measure(detector, replace(whole.take(sample), name=name), progress)
        yield _stored(detector, name, split, scores, seed, len(chosen), whole, sample)


def available_sets() -> list[str]:
    """Names of the catalog whose test split needs no download."""
    return [name for name in catalog() if "test" in available(name)]


def available_others(detector: AnomalyDetector) -> list[str]:
    """What a model is measured against by default: REST of a one-class model, and the available sets but its own.

    A model of one's own images is measured against what its training named alone: sets of the catalog say nothing of them.
    """
    normal = _normal(detector)
    if normal.source not in catalog():
        named = dict.fromkeys(name for name in (normal.watch, normal.validation_ood, normal.anomalies) if name)
        return [name for name in named if _is_here(name)]
    others = [name for name in available_sets() if name != normal.name]
    return others if normal.label is None else [REST, *others]


def _is_here(name: str) -> bool:
    return "test" in available(name) if name in catalog() else Path(name).expanduser().exists()


def _kept(
    detector: AnomalyDetector, name: str, whole: ImageSet, chosen: np.ndarray, scores: dict[str, np.ndarray], seed: int
) -> StoredScores:
    """A sample of the scores of test images that were all measured, those `chosen` of the `whole` split."""
    drawn = _sample(len(chosen), seed)
    scores = {key: values[drawn] for key, values in scores.items()}
    return _stored(detector, name, "test", scores, seed, len(chosen), whole, chosen[drawn])


def _stored(
    detector: AnomalyDetector,
    name: str,
    split: str,
    scores: dict[str, np.ndarray],
    seed: int,
    n_total: int,
    whole: ImageSet,
    index: np.ndarray,
) -> StoredScores:
    entries = dict.fromkeys((*detector.STORED, *detector.score_names()))
    return StoredScores(name, split, {key: scores[key] for key in entries}, seed, n_total, whole.notes, index, len(whole))


def set_images(detector: AnomalyDetector, name: str, split: str, *, tested: bool = False) -> ImageSet:
    """The images of a set; of a one-class model's own set its class alone, and REST are the others.

    Of other images of one's own, a folder or a file, those that may serve as anomalies. Raises DataError.

    Args:
        tested: without those that served as validation anomalies of this model.
    """
    whole, chosen = _part(detector, name, split, tested)
    found = whole if len(chosen) == len(whole) else whole.take(chosen)
    return replace(found, name=REST) if name == REST else found


def _part(detector: AnomalyDetector, name: str, split: str, tested: bool) -> tuple[ImageSet, np.ndarray]:
    """A whole split, and which of its images `set_images` is."""
    normal = _normal(detector)
    if name not in (normal.name, REST):
        whole = load(name, split) if name in catalog() else _untrained(detector, name)
        left_out = _validated_on(detector, name) if tested and split == "test" else _NONE
        return whole, np.setdiff1d(np.arange(len(whole)), left_out)
    whole = normal_split(detector, split)
    if normal.label is None:
        return whole, np.arange(len(whole))
    other = anomaly_mask(whole, normal.label)
    return whole, np.flatnonzero(other if name == REST else ~other)


def flagged_fractions(detector: AnomalyDetector, stored: Sequence[StoredScores], by: str, alpha: float) -> dict[str, float]:
    """The fraction of each stored test set that the score `by` flags at `alpha`; of the normal set these are false alarms."""
    found = {}
    for s in stored:
        if s.split == "test":
            found[s.name] = float(np.mean(detector.with_p_values(s.scores)[f"p_{by}"] <= alpha))
    return found


def stored_aurocs(detector: AnomalyDetector, stored: Sequence[StoredScores]) -> dict[str, dict[str, float]]:
    """AUROC of every score of every stored set against the stored normal test scores; empty where those are missing."""
    normal = detector.normal.name if detector.normal else None
    own = next((s for s in stored if (s.name, s.split) == (normal, "test")), None)
    if own is None:
        return {}
    inliers = detector.anomaly_scores(own.scores)
    found = {}
    for s in stored:
        if s.name != normal and s.split == "test":
            outliers = detector.anomaly_scores(s.scores)
            found[s.name] = {key: detection_metrics(inliers[key], outliers[key])["auroc"] for key in inliers}
    return found


def known_aurocs(
    detector: AnomalyDetector, results: Mapping[str, Mapping[str, Any]], stored: Sequence[StoredScores]
) -> dict[str, dict[str, float]]:
    """As `stored_aurocs`, but what `evaluate` measured of a set (its rows, by name) goes first.

    The stored scores are a sample of the images that `evaluate` sees, so the two differ a little: one pair of sets, one figure.
    """
    found = stored_aurocs(detector, stored)
    return {
        name: {by: results[name]["scores"][by]["auroc"] for by in aurocs} if name in results else aurocs
        for name, aurocs in found.items()
    }


def stored_images(detector: AnomalyDetector, stored: StoredScores) -> ImageSet:
    """The images behind stored scores, in order. Raises DataError where they are not available locally or not the same."""
    name, split = stored.name, stored.split
    whole, chosen = _part(detector, name, split, tested=True)
    if stored.index is None and len(chosen) != stored.n_total:  # an earlier version has the validation anomalies among them
        whole, chosen = _part(detector, name, split, tested=False)
    here, then = (len(chosen), stored.n_total) if stored.index is None else (len(whole), stored.n_split)
    if here != then:
        raise DataError(
            f"{name} ({split}) has {here:,} images here and had {then:,} when it was scored, so the images cannot be told "
            "apart by their scores."
        )
    found = whole.take(chosen[_sample(here, stored.seed)] if stored.index is None else stored.index)
    return replace(found, name=REST) if name == REST else found


def left_out_by(info: Mapping[str, Any], name: str) -> tuple[int | None, bool] | None:
    """What decided which images of an OOD set a model, by its config.json, is not tested on: the seed of its validation, and
    whether it was trained with others of that set. None where it is tested on all.
    """
    normal = NormalData.of(info)
    if normal is None:
        return None
    validated, trained = (same_source(source, name) for source in (normal.validation_ood, normal.anomalies))
    return (info["config"].get("seed", 0) if validated else None, trained) if validated or trained else None


def verify(
    detector: AnomalyDetector, stored: Sequence[StoredScores], n: int = VERIFIED, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Score the first n images of every stored sample again, and compare.

    Returns:
        For each sample a row: `name`, `split`, `n` compared (0 where its images are not available, and `why`), `score`, the one
        that differs most, `difference`, by how much relative to it, and `agrees`: within VERIFY_TOLERANCE. None where n = 0.
    """
    rows = []
    for sample in stored:
        row = {"name": sample.name, "split": sample.split}
        try:
            images = stored_images(detector, sample).images[:n]
        except DataError as error:
            rows.append(row | {"n": 0, "why": str(error), "score": None, "difference": None, "agrees": None})
            continue
        found = detector.scores(images)
        apart = {}
        for key in sample.scores:
            if key == "A":  # of log A, which does not underflow
                continue
            then = sample.scores[key][:n].astype(np.float64)
            # The 1 keeps the ratio meaningful where a score passes through zero, as log A may.
            apart[key] = float(np.max(np.abs(found[key] - then) / np.maximum(np.abs(then), 1.0 if key == "log_A" else 1e-6)))
        worst = max(apart, key=lambda key: (isnan(apart[key]), apart[key]))  # NaN agrees with nothing
        agrees = apart[worst] <= VERIFY_TOLERANCE
        rows.append(row | {"n": len(images), "score": worst, "difference": apart[worst], "agrees": agrees})
        if progress:
            progress(len(rows), len(stored), "verifying")
    return rows


def _sample(n: int, seed: int) -> np.ndarray:
    """Which of n images are kept in a bundle: sorted indices, all of them where they are few."""
    return draw(n, STORED_SAMPLE, seed)
