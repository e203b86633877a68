"""Everything that the app keeps between reruns, each with a limit. Pages get models, scores and images from here alone.

What is cached says which files of a folder it reads (`cached`): a model that is trained or measured again is read again.
"""

import copy
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import getsourcelines
from pathlib import Path

import numpy as np
import pictures
import streamlit as st

from ama_core import AMAError
from ama_core.analysis import latent_map, neighbours, shell, simplex
from ama_core.analysis.density import Densities, densities
from ama_core.analysis.fidelity import Fidelity, fidelity
from ama_core.analysis.latent_map import LatentMap, MapEntry
from ama_core.analysis.model_card import read_card
from ama_core.analysis.neighbours import Neighbours
from ama_core.analysis.probe import Probe, lowest_r, probe, r_after
from ama_core.analysis.response import Response, read_response
from ama_core.analysis.shell import NormHistograms
from ama_core.data import FileImage, ImageSet, Inspection, decode_image, draw, inspect, label_of, load, one_class, prepare
from ama_core.data.changes import Change
from ama_core.data.files import files_of
from ama_core.data.imageset import SPLITS
from ama_core.detectors.ama.scores import a_distance
from ama_core.detectors.base import AnomalyDetector, Examination
from ama_core.detectors.registry import detector_class, load_detector
from ama_core.evaluation import comparison
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import metric_intervals
from ama_core.evaluation.protocol import normal_split
from ama_core.evaluation.simple import SimpleFigures, read_simple
from ama_core.runs import timing
from ama_core.runs.folder import RUNS_VARIABLE, Run, read_watched, runs_dir
from ama_core.runs.spec import RunSpec
from ama_core.scoring import check
from ama_core.scoring.check import Checked
from ama_core.scoring.localise import Localiser, find_localiser
from ama_core.scoring.outlines import Outlines
from ama_core.scoring.report import html_report, to_outline
from ama_core.settings import FALSE_ALARM_RATE
from ama_core.storage.bundle import (
    PRETRAINED,
    StoredScores,
    array_names,
    list_bundles,
    n_parameters,
    read_info,
    read_results,
    read_scores,
    zip_bundle,
)

MODELS_VARIABLE = "AMA_MODELS_DIR"
A_DISTANCE = "a_distance"  # names |R − μ| / σ among the scores: A itself lies within a hundredth of any axis that holds it
HELD_OUT = "held out"  # what held-out normal images are called on charts
NORMAL = "normal test images"  # stands for the chosen model's own test split wherever sets are listed
GALLERY = 256  # images of a set that are scored and reconstructed: one forward pass
TIMED = 16  # images that are scored to time a model
MAX_CHECKED = 500  # images of one's own that are checked at once
_PARSING = threading.Lock()
MODEL = ("model.safetensors", "calibration.npz", "config.json")  # the files that make a model


def stamp(folder: Path, files: Sequence[str]) -> tuple:
    """What changes when one of these files of a folder is written; a name may have a *, and "" is the folder itself."""
    paths = [path for name in files for path in (sorted(folder.glob(name)) if "*" in name else [folder / name])]
    return str(folder), *((path.name, *_written(path)) for path in paths)


def _written(path: Path) -> tuple[int, int]:
    """When a file was written last, and its size: two writings may fall into one tick of the clock. Zeros where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def contents(source: Path) -> tuple:
    """What changes when an image of one's own, in a folder or its subfolders, or an archive comes, goes or is written."""
    digest = hashlib.sha256()
    with suppress(OSError):  # it goes meanwhile: whoever reads the images says so
        for file in files_of([source.expanduser()]):
            found = os.stat(file)
            digest.update(repr((file, found.st_size, found.st_mtime_ns)).encode(errors="surrogateescape"))
    return str(source), digest.hexdigest()


def cached(
    *files: str, kind: str = "data", max_entries: int, spinner: str | bool = False, key: Callable[[Path], tuple] | None = None
) -> Callable:
    """Makes a function of folders remember its last `max_entries` results, each until one of `files` in such a folder changes.

    Args:
        kind: `data` is copied for every caller, `resource` is shared by all sessions: read only.
        spinner: what is shown while the function runs.
        key: makes of such a folder what is compared, in place of the times of `files`.
    """
    key = key or (lambda folder: stamp(folder, files))
    cache = {"data": st.cache_data, "resource": st.cache_resource}[kind]
    return cache(max_entries=max_entries, show_spinner=spinner, hash_funcs={type(Path()): key})


@dataclass(frozen=True)
class Gallery:
    """Images of one set as a model and its siblings see them: uint8 (N, S, S, C), scores (N,), and the labels (N,).

    `seen` maps each column's title to what its model says of the images, `mean_score` to the mean score of normal images that
    the colours of its maps are relative to.
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    seen: dict[str, Examination]
    mean_score: dict[str, float]
    scores: dict[str, np.ndarray]
    n_total: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Images that were checked, with small pictures of them as data URIs."""

    found: Checked
    icons: tuple[str, ...]


@dataclass(frozen=True)
class Decoded:
    """Codes (n, d), their images uint8 (n, S, S, C), critic values (n,) and scores (n,)."""

    codes: np.ndarray
    images: np.ndarray
    critic: np.ndarray
    scores: dict[str, np.ndarray]


# Models


def models() -> dict[str, Path]:
    """Names and folders of the trained models here: those of AMA_MODELS_DIR, else the bundled ones; and one's own runs.

    Where AMA_MODELS_DIR is set, runs are looked for only in AMA_RUNS_DIR.

    Not cached: a run that has just finished is a model at once.
    """
    named = os.environ.get(MODELS_VARIABLE)
    folders = [Path(part) for part in named.split(os.pathsep) if part] if named else [PRETRAINED]
    if not named or os.environ.get(RUNS_VARIABLE):
        folders.append(runs_dir())
    found: dict[str, Path] = {}
    for folder in folders:
        for name, path in list_bundles(folder).items():
            found[name if name not in found else f"{folder.name}/{name}"] = path
    return found


@cached(*MODEL, kind="resource", max_entries=6, spinner="Loading the model …")
def detector(folder: Path) -> AnomalyDetector:
    """A trained model, shared by every session: read only. Raises BundleError."""
    return load_detector(folder)


def deciding(folder: Path, by: str) -> AnomalyDetector:
    """A trained model with the score that this reader lets decide. Raises BundleError."""
    model = copy.copy(detector(folder))
    model.score = by
    return model


@cached("config.json", max_entries=64)
def info(folder: Path) -> dict:
    """A model's config.json, without its weights: `detector`, `config`, `normal`, `training`. Raises BundleError."""
    return read_info(folder)


def false_alarm_rate(folder: Path) -> float:
    """A model's own false-alarm rate, without loading it. Raises BundleError."""
    return float(info(folder)["config"].get("false_alarm_rate", FALSE_ALARM_RATE))


def kind_of(folder: Path) -> type[AnomalyDetector]:
    """The detector of a model, without loading it. Raises BundleError, ConfigError."""
    return detector_class(info(folder)["detector"])


@cached("calibration.npz", max_entries=64)
def score_names(folder: Path) -> tuple[str, ...]:
    """Names of the scores that a model gives, without loading it. Raises BundleError, ConfigError."""
    return tuple(score.name for score in kind_of(folder).scores_in(array_names(folder)))


@cached("README.md", max_entries=16)
def card(folder: Path) -> str | None:
    """A model's card, as Markdown; None where it has none. Raises BundleError."""
    return read_card(folder)


def shared(folder: Path) -> bytes:
    """A model as a .zip file. Raises BundleError."""
    detector(folder)  # what does not fit together is not handed on
    return zip_bundle(folder)


@cached(*MODEL, max_entries=16)
def stages(folder: Path) -> list:
    """The stages of AMA's networks (see `networks.Stage`). Raises BundleError."""
    return detector(folder).stages()


# Scores that are stored with a model


@cached("scores.npz", kind="resource", max_entries=8)
def stored(folder: Path) -> list[StoredScores]:
    """The scores stored with a model. Raises BundleError."""
    return read_scores(folder)


@cached("results.json", max_entries=16)
def results(folder: Path) -> dict[str, dict]:
    """What was measured of each OOD set (see `evaluation.evaluate`), by its name. Raises BundleError."""
    return {row["ood"]: row for row in (read_results(folder) or {"results": []})["results"]}


@cached("scores.npz", "results.json", *MODEL, max_entries=16)
def aurocs(folder: Path) -> dict[str, dict[str, float]]:
    """AUROC of every score of every OOD set with stored scores, the same on every page. Raises BundleError."""
    return evaluation.known_aurocs(detector(folder), results(folder), stored(folder))


@cached("scores.npz", "results.json", *MODEL, max_entries=128)
def intervals(folder: Path, ood: str) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % confidence intervals of what was measured of one OOD set (see `metric_intervals`)."""
    model = detector(folder)
    scores = {s.name: s for s in stored(folder) if s.split == "test"}
    return metric_intervals(model, results(folder)[ood], scores.get(model.normal and model.normal.name), scores.get(ood))


@cached("scores.npz", *MODEL, max_entries=64)
def flagged(folder: Path, by: str, alpha: float) -> dict[str, float]:
    """The fraction of each measured set that a score flags, by the set's name (see `flagged_fractions`). Raises BundleError."""
    return evaluation.flagged_fractions(detector(folder), stored(folder), by, alpha)


@cached("simple.npz", max_entries=16)
def simple(folder: Path) -> SimpleFigures | None:
    """What methods without training find of the same sets; None where that was not measured. Raises BundleError."""
    return read_simple(folder)


def own_images(folder: Path) -> tuple:
    """What changes when files come to the folder of one's own images that a model was trained on, or to its `train` or `test`,
    or go; empty of a set of the catalog. Cheap, however many images lie there.
    """
    normal = detector(folder).normal
    if normal is None or not normal.is_own or not normal.source:
        return ()
    return stamp(Path(normal.source), ["", *SPLITS])


def normal_examples(folder: Path, n: int = 9) -> tuple[np.ndarray, str] | None:
    """n images that a model takes as normal, uint8 (n, S, S, C), and what they are: `training`, images that it was trained on,
    or `decoded`, what it makes of the stored codes of some. None where neither is here.
    """
    try:
        return _training_examples(folder, own_images(folder), n), "training"
    except AMAError:  # looked for again each time: they may be downloaded meanwhile
        codes = _decoded_examples(folder, n)
        return None if codes is None else (codes, "decoded")


@cached(*MODEL, max_entries=16, spinner="Reading the training images …")
def _training_examples(folder: Path, own: tuple, n: int) -> np.ndarray:
    """n of its training images. Raises DataError where they are not here."""
    model = detector(folder)
    images, label = normal_split(model, "train"), model.normal.label
    images = images if label is None else one_class(images, label)
    return model.prepared(images.images[draw(len(images), n, 0)])


@cached("latents.npz", *MODEL, max_entries=16)
def _decoded_examples(folder: Path, n: int) -> np.ndarray | None:
    """What it makes of the stored codes of n of its training images; None where there are none."""
    model = detector(folder)
    mapped = latents(folder) if "decode" in model.can() else None
    entries = [entry for entry in mapped.entries if (entry.name, entry.split) == (model.normal.name, "train")] if mapped else []
    if not entries:
        return None
    codes = mapped.codes[entries[0].rows]
    return model.decode(codes[draw(len(codes), n, 0)])


def on_axis(folder: Path, axis: str, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values of one score, or of A_DISTANCE, of images whose scores are given. Raises BundleError."""
    if axis != A_DISTANCE:
        return scores[axis]
    calibration = detector(folder).calibration_
    return a_distance(scores["R"], calibration.mu, calibration.sigma)


@cached("scores.npz", "calibration.npz", max_entries=64)
def score_densities(folder: Path, axis: str, sets: tuple[tuple[str, str, str], ...], log: bool) -> Densities:
    """Densities of the stored score `axis`; `sets` are (name on the chart, set, split). Raises DataError."""
    found = {(s.name, s.split): on_axis(folder, axis, s.scores) for s in stored(folder)}
    return _of_scores({title: found[name, split] for title, name, split in sets}, log)


@cached("calibration.npz", max_entries=32)
def train_density(folder: Path, log: bool) -> Densities:
    """The density of R over the training images behind mu and sigma, of a model that has them. Raises BundleError."""
    return _of_scores({"train": detector(folder).calibration_.train_r}, log)


@cached(*MODEL, max_entries=32)
def held_out_density(folder: Path, by: str, log: bool) -> Densities:
    """The density of a score, or of what ranks in its place, over the held-out normal images. Raises BundleError."""
    model = detector(folder)
    score = next(score for score in model.SCORES if score.name == by)
    return _of_scores({HELD_OUT: score.from_anomaly(model.held_out_scores_[by])}, log)


def _of_scores(samples: dict[str, np.ndarray], log: bool) -> Densities:
    """Densities of scores; where none is negative, no mass lies below 0."""
    negative = any(np.min(values) < 0 for values in samples.values() if len(values))
    return densities(samples, log=log, lower=-np.inf if negative else 0.0)


@cached("response.json", max_entries=16)
def response(folder: Path) -> Response | None:
    """How the model's R answers to plain properties of images; None where that was not measured. Raises BundleError."""
    return read_response(folder)


@cached("scores.npz", "config.json", kind="resource", max_entries=8, spinner="Reading the images …")
def stored_images(folder: Path, name: str, split: str) -> ImageSet:
    """The images behind some stored scores, in order. Raises DataError where they are not on this computer."""
    found = next(s for s in stored(folder) if (s.name, s.split) == (name, split))
    return evaluation.stored_images(detector(folder), found)


def stored_pictures(folder: Path, name: str, split: str, rows: tuple[int, ...], reconstructed: bool = False) -> np.ndarray:
    """Some of those as the model sees them, uint8 (n, S, S, c), or reconstructs them. Raises DataError."""
    model = detector(folder)
    images = stored_images(folder, name, split).images[list(rows)]
    return model.reconstruct(images) if reconstructed else model.prepared(images)


@cached(*MODEL, "scores.npz", max_entries=512)
def probed(folder: Path, name: str, split: str, row: int, change: Change) -> Probe:
    """What a model says of one of those images before and after a change. Raises DataError."""
    return probe(detector(folder), stored_images(folder, name, split).images[row], change)


@cached(*MODEL, "scores.npz", max_entries=64)
def r_changed(folder: Path, name: str, split: str, rows: tuple[int, ...], changes: dict[str, Change]) -> dict[str, np.ndarray]:
    """R of some of those images after each change, by its name. Raises DataError."""
    return r_after(detector(folder), stored_images(folder, name, split).images[list(rows)], changes)


@cached(*MODEL, "scores.npz", max_entries=64)
def lowest_change(folder: Path, name: str, split: str, row: int) -> Change:
    """The change of one of those images that gives it the lowest R. Raises DataError."""
    return lowest_r(detector(folder), stored_images(folder, name, split).images[row])


# Models beside each other


@cached("model.safetensors", max_entries=64)
def parameters(folder: Path) -> int:
    """How many weights a model has. Raises BundleError."""
    return n_parameters(folder)


@cached(*MODEL, max_entries=64, spinner="Timing …")
def seconds_per_image(folder: Path) -> float:
    """How long a model takes to score one of TIMED images here. Raises DataError where its images are not on this computer."""
    return comparison.seconds_per_image(detector(folder), sample_images(folder, NORMAL).images[:TIMED])


@cached("scores.npz", *MODEL, kind="resource", max_entries=32)
def stored_p_values(folder: Path, name: str, split: str, by: str) -> np.ndarray:
    """The p-values (n,) of stored scores, by a score of the model. Raises BundleError."""
    model, found = detector(folder), next(s for s in stored(folder) if (s.name, s.split) == (name, split))
    return model.with_p_values(found.scores)[f"p_{by}"]


# Images that are scored


def sample_images(folder: Path, set_name: str) -> ImageSet:
    """The test images of a set, as pages show them. Raises DataError where they are not on this computer."""
    return _sample_images(folder, set_name, own_images(folder) if set_name == NORMAL else ())


@cached("config.json", kind="resource", max_entries=4, spinner="Reading the images …")
def _sample_images(folder: Path, set_name: str, own: tuple) -> ImageSet:
    if set_name != NORMAL:
        return load(set_name, "test")
    model = detector(folder)
    images, label = normal_split(model, "test"), model.normal.label
    return images if label is None else one_class(images, label)


@cached(*MODEL, max_entries=256, spinner="Scoring …")  # a few numbers each
def upload_scores(folder: Path, data: bytes) -> dict[str, float]:
    """Every score of an image file. Raises DataError, BundleError."""
    model = detector(folder)
    image, _ = prepare([decode_image(data)[0]], **vars(model.settings.input))
    return {name: float(value[0]) for name, value in model.scores(image).items()}


def check_uploads(folder: Path, files: Sequence[tuple[str, str, bytes]], progress: Callable[[int, int], None]) -> Batch:
    """Check files, (identity, name, content), of this session alone: kept with it, the newest batch only. Raises BundleError.

    Args:
        progress: called with how many images are done and about how many there are, while they are read.
    """
    key = stamp(folder, MODEL), tuple(identity for identity, *_ in files)
    if st.session_state.get("checked", (None,))[0] != key:
        sources = [(name, content) for _, name, content in files]
        st.session_state["checked"] = key, _batch(check.check_files(detector(folder), sources, MAX_CHECKED, progress))
    return st.session_state["checked"][1]


@cached(*MODEL, max_entries=32, spinner="Scoring …")
def check_samples(folder: Path, set_name: str, start: int, stop: int) -> Batch:
    """Check the test images `start` to `stop` of a set. Raises DataError, BundleError."""
    images = sample_images(folder, set_name).images
    title = set_name if set_name == NORMAL else label_of(set_name)
    items = [FileImage(f"#{i} of {title}", 0, images[i], None) for i in range(start, min(stop, len(images)))]
    return _batch(check.check(detector(folder), items, len(items)))


def _batch(found: Checked) -> Batch:
    return Batch(found, tuple(pictures.data_uri(image, 3) for image in found.examined.images) if len(found) else ())


@cached("where.npz", *MODEL, kind="resource", max_entries=8, spinner="Looking at what normal images show at each place …")
def localiser(folder: Path) -> Localiser:
    """What marks places in a model's images. Raises ConfigError where it says nothing of places, DataError, BundleError."""
    return find_localiser(detector(folder), folder)


def photographs(batch: Batch, files: Sequence[tuple[str, str, bytes]], chosen: Sequence[int]) -> dict[int, np.ndarray]:
    """Checked images as they were given, at full size, uint8 (H, W, C), by their position; `files`: as of `check_uploads`."""
    if not files:  # samples are small
        return {i: batch.found.given[i] for i in chosen}
    return dict(check.originals([(name, content) for _, name, content in files], batch.found, chosen))


def report(
    folder: Path, name: str, by: str, alpha: float, batch: Batch, files: Sequence[tuple[str, str, bytes]], where: str | None
) -> str:
    """Checked images as one HTML file (see `html_report`), with outlines from the map `where`; None: without."""
    model = deciding(folder, by)
    if where is None:
        return html_report(model, name, batch.found, alpha)
    outlines = Outlines(model, localiser(folder), where, alpha)
    found = photographs(batch, files, to_outline(model, batch.found, alpha))
    return html_report(model, name, batch.found, alpha, *outlines.for_report(found.items(), batch.found.examined))


@cached(*MODEL, kind="resource", max_entries=8, spinner="Scoring and reconstructing, once …")
def gallery(folder: Path, set_name: str, siblings: dict[str, Path]) -> Gallery:
    """At most GALLERY images of a set with their scores and every sibling's reconstructions. Raises DataError, BundleError.

    Args:
        set_name: NORMAL or a set of the catalog.
        siblings: column title -> model folder.
    """
    chosen = sample_images(folder, set_name)
    n_total = len(chosen)
    index = draw(n_total, GALLERY)
    chosen = chosen.take(index)
    notes = prepare(chosen.images[:1], **vars(detector(folder).settings.input))[1]
    seen = {title: detector(path).examine(chosen.images) for title, path in siblings.items()}
    means = {title: mean_score(detector(path)) for title, path in siblings.items()}
    own = next(seen[title] for title, path in siblings.items() if path == folder)
    return Gallery(own.images, chosen.labels, index, seen, means, own.scores, n_total, tuple(notes))


@cached(*MODEL, max_entries=32)
def reconstructed(folder: Path, set_name: str, siblings: dict[str, Path]) -> dict[str, Fidelity]:
    """Whether each sibling reconstructs the images of a gallery (see `fidelity`), by column title. Raises as `gallery`."""
    found = gallery(folder, set_name, siblings)
    same = {title: seen for title, seen in found.seen.items() if seen.images.shape == found.images.shape}
    return {title: fidelity(seen.images, seen.reconstructions) for title, seen in same.items() if len(seen.images) > 1}


def mean_score(model: AnomalyDetector) -> float:
    """The mean score of normal images that maps of single places are compared with: R of the training images, where the model
    has it, else the deciding score of the held-out ones.
    """
    calibration = statistics_of_r(model)
    return calibration.mu if calibration else float(np.mean(np.abs(model.calibration_scores_))) or 1.0


def statistics_of_r(model: AnomalyDetector):
    """AMA's statistics of R: mu and sigma of the training images, the band of A, and R of training images; None where a model
    has none.
    """
    return getattr(model, "calibration_", None)


@cached("neighbours.npz", kind="resource", max_entries=8)
def nearest(folder: Path) -> Neighbours | None:
    """The sample of training images stored for `nearest`, None where there is none. Raises BundleError."""
    return neighbours.read_neighbours(folder)


@cached("neighbours.npz", *MODEL, kind="resource", max_entries=4, spinner="Reading the training images …")
def nearest_images(folder: Path) -> np.ndarray:
    """The images of that sample, uint8 (n, S, S, C). Raises DataError where they are not on this computer."""
    return neighbours.neighbour_images(detector(folder), nearest(folder))


# Codes


@cached("latents.npz", kind="resource", max_entries=6, spinner="Reading the latent map …")
def latents(folder: Path) -> LatentMap | None:
    """The latent map stored with a model, None where there is none. Raises BundleError."""
    return latent_map.read_latents(folder)


@cached("latents.npz", *MODEL, kind="resource", max_entries=48, spinner="Reading the images …")
def latent_images(folder: Path, entry: MapEntry) -> np.ndarray:
    """The images behind one set of the latent map, uint8 (n, S, S, C). Raises DataError where they are not on this computer."""
    return latent_map.entry_images(detector(folder), latents(folder), entry)


@cached("latents.npz", max_entries=32)
def norms(folder: Path, entries: tuple[tuple[str, MapEntry], ...]) -> NormHistograms:
    """Histograms of the code norms of sets of the latent map, (name on the chart, set)."""
    codes = latents(folder).codes
    return shell.norm_histograms({title: codes[entry.rows] for title, entry in entries})


@cached(*MODEL, max_entries=64)
def atypical(folder: Path, n: int, direction: str, delta: float, seed: int) -> Decoded:
    """n atypical codes and what the model makes of them. Raises ConfigError."""
    model = detector(folder)
    codes = shell.atypical(n, model.settings.nz, direction, delta, seed)
    images = model.decode(codes)
    return Decoded(codes, images, model.critic(images, model.reconstruct(images)), model.scores(images))


@cached(*MODEL, max_entries=16)
def parents(folder: Path, picks: tuple[tuple[str, int], ...]) -> Decoded:
    """The test images (set, number), as the model sees them, with their codes and scores. Raises DataError, BundleError."""
    model = detector(folder)
    images = np.concatenate([model.prepared(sample_images(folder, name).images[i : i + 1]) for name, i in picks])
    return Decoded(model.encode(images), images, model.critic(images, images), model.scores(images))


@cached(*MODEL, max_entries=64)
def mixed(folder: Path, picks: tuple[tuple[str, int], ...], weights: tuple[tuple[float, ...], ...]) -> Decoded:
    """Mixtures of the codes of three images, one for each triple of `weights`. Raises DataError, BundleError."""
    model, of = detector(folder), parents(folder, picks)
    codes = simplex.mixtures(of.codes, np.array(weights))
    images = model.decode(codes)
    return Decoded(codes, images, simplex.mixture_critic(model, images, of.images), model.scores(images))


# Runs, one's own images, and the stored results of the benchmark


@cached("metrics.jsonl", max_entries=32)
def curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """What a run has measured so far, thinned (see `Run.curves`)."""
    return Run(folder).curves()


@cached("", max_entries=32)
def watched_density(file: Path, score: str, title: str) -> tuple[Densities, bool]:
    """Densities of a score of the watched images, normal ones as HELD_OUT and the others as `title`, and whether it lies on a
    logarithmic axis. Raises BundleError, DataError.
    """
    normal, others = read_watched(file)[score]
    log = bool((normal > 0).all() and (others > 0).all())
    return _of_scores({HELD_OUT: normal, title: others}, log), log


@cached(key=contents, max_entries=4, spinner="Looking at every image …")
def inspect_own(source: Path) -> Inspection:
    """What one's own images are like. Raises DataError."""
    return inspect(str(source))


def training_size(spec: RunSpec) -> int:
    """How many normal images a run would have. Raises DataError where they are not on this computer."""
    return _training_size(Path(spec.dataset), spec.one_class, spec.config.fit, spec)


@cached(key=contents, max_entries=64, spinner="Counting the images …")
def _training_size(source: Path, label: int | None, fit: str, _spec: RunSpec) -> int:
    return timing.n_images(_spec)


# Source code


def source_lines(thing: type | Callable) -> tuple[list[str], int]:
    """The lines of a function or class, and the number of the first. One thread at a time: see `_source_lines`."""
    with _PARSING:
        return _source_lines(thing)


@functools.cache
def _source_lines(thing: type | Callable) -> tuple[list[str], int]:
    """Of a class by ast.parse of its whole file, which fails at times on Python 3.11 when two threads do so at once."""
    return getsourcelines(thing)
