"""The evaluation protocol: who is tested against whom, AUROC and friends, and the scores kept for the app.

Anomalies are the positive class throughout, and an AUROC below 0.5 is reported as it is: never max(AUROC, 1 - AUROC).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ama_core.bundle import STORED_FIELDS, StoredScores
from ama_core.data import ImageSet, anomaly_mask, available, catalog, draw_anomalies, load, load_any, validation_anomalies
from ama_core.detector import AMADetector
from ama_core.errors import DataError
from ama_core.scores import SCORES, anomaly_scores

REST = "rest"  # the other classes of a one-class model's own data set (Table 2)
STORED_SAMPLE = 2_000  # scores kept of each data set: enough for densities, small enough for a repository
N_VALIDATION = 50  # anomalies for choosing a checkpoint; never tested

Progress = Callable[[int, int, str], None]


def detection_metrics(normal: np.ndarray, anomalous: np.ndarray) -> dict[str, float]:
    """AUROC, AUPRC (anomaly positive) and FPR at 95 % TPR, from anomaly scores (n,), (m,)."""
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    scores = np.concatenate([normal, anomalous])
    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores)
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "auprc": float(average_precision_score(truth, scores)),
        "fpr95": float(false_positive_rate[true_positive_rate >= 0.95].min()),
    }


def normal_name(detector: AMADetector) -> str:
    """How the model's normal data are called in results: the set's name, with the class of a one-class model."""
    normal = detector.info_["normal"]
    return normal["name"] if normal.get("label") is None else f"{normal['name']}:{normal['label']}"


def normal_split(detector: AMADetector, split: str, **load_options) -> ImageSet:
    """A split of the model's own normal data, of all classes. Raises DataError where it is not at hand."""
    normal = detector.info_.get("normal") or {}
    if not normal.get("source"):
        raise DataError("This model does not say what it was trained on, so it has no normal test images.")
    return load_any(normal["source"], split, **_as_input(detector), **load_options)


def evaluate(
    detector: AMADetector,
    ood: Sequence[str],
    *,
    model: str = "",
    seed: int = 0,
    full: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tell the normal test images from each OOD set, under the protocol of the specification, Section 6.

    Every official test image of the normal set stands against anomalies of 20 % of that number, drawn by `seed` from the OOD
    test split (`full`: all of it). Validation anomalies carved out of a test split are never tested.

    Args:
        ood: names of the catalog, folders or .npz files; `rest`: a one-class model's other classes.

    Returns:
        The stable contract of `evaluate --json`: {"model", "normal", "seed", "results": [{"ood", "n_normal", "n_ood",
        "scores": {"R": {"auroc", "auprc", "fpr95"}, "A": ..., "M": ..., "T": ...}}]}.
    """
    label = detector.info_["normal"].get("label")
    test = normal_split(detector, "test")
    is_anomaly = np.zeros(len(test), bool) if label is None else anomaly_mask(test, label)
    own = measure(detector, test, progress)
    normal = {name: values[~is_anomaly] for name, values in anomaly_scores(own).items()}
    n_normal = int((~is_anomaly).sum())
    results = []
    for name in ood:
        if name == REST:
            if label is None:
                raise DataError(f"{REST!r} needs a one-class model; this one was trained on all of {normal_name(detector)}.")
            anomalous = {key: values[is_anomaly] for key, values in anomaly_scores(own).items()}
        else:
            ood_set, untested = ood_test(detector, name)
            chosen = np.setdiff1d(np.arange(len(ood_set)), untested)
            if not full:
                chosen = chosen[draw_anomalies(n_normal, len(chosen), seed)]
            anomalous = anomaly_scores(measure(detector, ood_set.take(chosen), progress))
        results.append(
            {
                "ood": name,
                "n_normal": n_normal,
                "n_ood": len(anomalous["R"]),
                "scores": {key: detection_metrics(normal[key], anomalous[key]) for key in SCORES},
            }
        )
    return {"model": model, "normal": normal_name(detector), "seed": seed, "results": results}


def ood_test(detector: AMADetector, name: str) -> tuple[ImageSet, np.ndarray]:
    """The test images of an OOD set, and the indices among them that served as validation anomalies of this model.

    Where the model was trained with anomalies of the same source, only that source's test split is left.
    """
    normal = detector.info_["normal"]
    test = load_any(name, "test" if normal.get("anomalies") == name else "ood", **_as_input(detector))
    if normal.get("validation_ood") != name:
        return test, np.empty(0, np.int64)
    return test, choose_validation_anomalies(name, detector.config.seed, **_as_input(detector))[1]


def choose_validation_anomalies(name: str, seed: int, **as_input) -> tuple[ImageSet, np.ndarray]:
    """50 anomalies from the OOD set's train split, or carved out of its test split where it has none at hand."""
    train = load_any(name, "train", **as_input) if "train" in (available(name) if name in catalog() else ()) else None
    return validation_anomalies(load_any(name, "ood", **as_input), train, seed=seed, n=N_VALIDATION)


def measure(detector: AMADetector, images: ImageSet, progress: Progress | None = None) -> dict[str, np.ndarray]:
    """Every score of every image of a set; `progress(done, total, name)` after every batch."""
    step = (lambda done, total: progress(done, total, images.name)) if progress else None
    return detector.scores(images.images, progress=step)


def measure_at_hand(detector: AMADetector, *, seed: int = 0, progress: Progress | None = None) -> list[StoredScores]:
    """Scores for the bundle: a sample of the normal train and test splits, and of the test split of every set at hand.

    Sets that would need a download are left out.
    """
    normal = detector.info_["normal"]
    stored = [
        _sampled(detector, split, normal_split(detector, split), seed, progress) for split in ("train", "test")
    ]
    for name in sets_at_hand():
        if name != normal["name"]:
            stored.append(_sampled(detector, "test", load(name, "test"), seed, progress))
    return stored


def sets_at_hand() -> list[str]:
    """Names of the catalog whose test split needs no download."""
    return [name for name in catalog() if "test" in available(name)]


def _sampled(detector: AMADetector, split: str, images: ImageSet, seed: int, progress: Progress | None) -> StoredScores:
    normal = detector.info_["normal"]
    name, label = images.name, normal.get("label")
    if name == normal["name"] and label is not None:
        images = images.take(images.labels == label)
    chosen = np.arange(len(images))
    if len(images) > STORED_SAMPLE:
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), STORED_SAMPLE, replace=False))
    scores = measure(detector, images.take(chosen), progress)
    kept = {key: scores[key] for key in ("A", *STORED_FIELDS)}
    return StoredScores(name, split, kept, seed, len(images), images.notes)


def _as_input(detector: AMADetector) -> dict[str, Any]:
    """How a folder of one's own becomes images of the size that this model sees."""
    c = detector.config
    return {"size": c.image_size, "channels": c.channels, "fit": c.fit}
