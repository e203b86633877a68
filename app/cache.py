"""Everything that the app keeps between reruns, each with a limit. Pages get models, scores and images from here alone.

Each cached function takes a `stamp` of the files it reads, so that a model trained or measured anew is read anew.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import charts
import numpy as np
import streamlit as st

from ama_core.analysis import latent_map, neighbours
from ama_core.analysis.density import Densities, densities
from ama_core.analysis.latent_map import LatentMap, MapEntry, NormHistograms
from ama_core.analysis.model_card import read_card
from ama_core.analysis.neighbours import Neighbours
from ama_core.analysis.response import Response, read_response
from ama_core.data import FileImage, ImageSet, Inspection, decode_image, inspect, load, one_class, prepare
from ama_core.detectors.ama.networks import Stage, summary
from ama_core.detectors.ama.scores import a_distance, mu_sigma_behind
from ama_core.detectors.base import AnomalyDetector, Examination
from ama_core.detectors.registry import load_detector
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import metric_intervals
from ama_core.evaluation.protocol import normal_split
from ama_core.paper import jobs as benchmark
from ama_core.paper import tables as benchmark_report
from ama_core.paper.jobs import Record, scores_folder
from ama_core.paper.jobs import read_results as read_records
from ama_core.paper.tables import Line
from ama_core.runs import execute as runs
from ama_core.runs import timing as pace
from ama_core.scoring import check
from ama_core.scoring.check import Checked
from ama_core.scoring.report import html_report
from ama_core.storage.bundle import PRETRAINED, StoredScores, list_bundles, read_info, read_results, read_scores, zip_bundle

MODELS_VARIABLE = "AMA_MODELS_DIR"
A_DISTANCE = "a_distance"  # names |R − μ| / σ among the scores: A itself lies within a hundredth of any axis that holds it
NORMAL = "normal test images"  # stands for the chosen model's own test split wherever sets are listed
GALLERY = 256  # images of a set that are scored and reconstructed: one forward pass
MOST_CHECKED = 500  # images of one's own that are checked at once

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """Images of one set as a model and its siblings see them: uint8 (N, S, S, C), scores (N,), and the labels (N,).

    `seen` maps each column's title to what its model says of the images, `mean_r` to its mean R of training images.
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    seen: dict[str, Examination]
    mean_r: dict[str, float]
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


def models() -> dict[str, Path]:
    """Names and folders of the trained models at hand: those of AMA_MODELS_DIR, else the bundled ones; and one's own runs.

    Where AMA_MODELS_DIR is set, runs are looked for only in AMA_RUNS_DIR.

    Not cached: a run that has just finished is a model at once.
    """
    named = os.environ.get(MODELS_VARIABLE)
    folders = [Path(part) for part in named.split(os.pathsep) if part] if named else [PRETRAINED]
    if not named or os.environ.get(runs.RUNS_VARIABLE):
        folders.append(runs.runs_dir())
    found: dict[str, Path] = {}
    for folder in folders:
        for name, path in list_bundles(folder).items():
            found[name if name not in found else f"{folder.name}/{name}"] = path
    return found


def detector(folder: Path) -> AnomalyDetector:
    """A trained model, shared by every session: read only. Raises BundleError."""
    return _detector(str(folder), _stamp(folder, "model.safetensors", "calibration.npz", "config.json"))


def stored(folder: Path) -> list[StoredScores]:
    """The scores stored with a model. Raises BundleError."""
    return _stored(str(folder), _stamp(folder, "scores.npz"))


def results(folder: Path) -> dict[str, dict]:
    """What was measured of each OOD set (see `evaluation.evaluate`), by its name. Raises BundleError."""
    return _results(str(folder), _stamp(folder, "results.json"))


def score_densities(folder: Path, axis: str, sets: tuple[tuple[str, str, str], ...], log: bool) -> Densities:
    """Densities of the stored score `axis`; `sets` are (name on the chart, set, split). Raises DataError."""
    return _score_densities(str(folder), _stamp(folder, "scores.npz", "calibration.npz"), axis, sets, log)


def on_axis(folder: Path, axis: str, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values of one score, or of A_DISTANCE, of images whose scores are given. Raises BundleError."""
    if axis != A_DISTANCE:
        return scores[axis]
    calibration = detector(folder).calibration_
    return a_distance(scores["R"], calibration.mu, calibration.sigma)


def intervals(folder: Path, ood: str) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % confidence intervals of what was measured of one OOD set (see `metric_intervals`)."""
    return _intervals(str(folder), _stamp(folder, "scores.npz", "results.json", "config.json"), ood)


def upload_scores(folder: Path, data: bytes) -> dict[str, float]:
    """Every score of an image file. Raises DataError, BundleError."""
    return _upload_scores(str(folder), _stamp(folder, "model.safetensors", "calibration.npz"), data)


def train_density(folder: Path, log: bool) -> Densities:
    """The density of R over the training images behind mu and sigma. Raises BundleError."""
    return _train_density(str(folder), _stamp(folder, "calibration.npz"), log)


def gallery(folder: Path, set_name: str, siblings: dict[str, Path]) -> Gallery:
    """At most GALLERY images of a set with their scores and every sibling's reconstructions. Raises DataError, BundleError.

    Args:
        set_name: NORMAL or a set of the catalog.
        siblings: column title -> model folder.
    """
    files = tuple((title, str(path), _stamp(path, "model.safetensors")) for title, path in siblings.items())
    return _gallery(str(folder), _stamp(folder, "model.safetensors", "calibration.npz"), set_name, files)


def check_uploads(folder: Path, files: Sequence[tuple[str, str, bytes]], progress: Callable[[int, int], None]) -> Batch:
    """Check files, (identity, name, content), of this session alone: kept with it, the newest batch only. Raises BundleError.

    Args:
        progress: called with how many images are done and about how many there are, while they are read.
    """
    key = str(folder), _stamp(folder, "model.safetensors", "calibration.npz"), tuple(identity for identity, *_ in files)
    if st.session_state.get("checked", (None,))[0] != key:
        sources = [(name, content) for _, name, content in files]
        st.session_state["checked"] = key, _batch(check.check_files(detector(folder), sources, MOST_CHECKED, progress))
    return st.session_state["checked"][1]


def report(folder: Path, name: str, by: str, alpha: float, batch: Batch) -> str:
    """Checked images as one HTML file (see `html_report`)."""
    return html_report(deciding(folder, by), name, batch.found, alpha)


def deciding(folder: Path, by: str) -> AnomalyDetector:
    """A trained model with the score that this reader lets decide. Raises BundleError."""
    model = copy.copy(detector(folder))
    model.score = by
    return model


def shared(folder: Path) -> bytes:
    """A model as a .zip file. Raises BundleError."""
    detector(folder)  # what does not fit together is not handed on
    return zip_bundle(folder)


def inspect_own(source: str) -> Inspection:
    """What one's own images are like. Raises DataError."""
    return _inspect_own(source, _stamp(Path(source), ""))


def check_samples(folder: Path, set_name: str, start: int, stop: int) -> Batch:
    """Check the test images `start` to `stop` of a set. Raises DataError, BundleError."""
    return _check_samples(str(folder), _stamp(folder, "model.safetensors", "calibration.npz"), set_name, start, stop)


def nearest(folder: Path) -> Neighbours | None:
    """The sample of training images stored for `nearest`, None where there is none. Raises BundleError."""
    return _nearest(str(folder), _stamp(folder, "neighbours.npz"))


def nearest_images(folder: Path) -> np.ndarray:
    """The images of that sample, uint8 (n, S, S, C). Raises DataError where they are not at hand."""
    return _nearest_images(str(folder), _stamp(folder, "neighbours.npz", "model.safetensors"))


def sample_images(folder: Path, set_name: str) -> ImageSet:
    """The test images of a set, as pages show them. Raises DataError where they are not at hand."""
    return _sample_images(str(folder), _stamp(folder, "config.json"), set_name)


def info(folder: Path) -> dict:
    """A model's config.json, without its weights: `config`, `normal`, `training`. Raises BundleError."""
    return _info(str(folder), _stamp(folder, "config.json"))


def aurocs(folder: Path) -> dict[str, dict[str, float]]:
    """AUROC of R, A, M and T of every OOD set with stored scores, the same on every page. Raises BundleError."""
    return _aurocs(str(folder), _stamp(folder, "scores.npz", "results.json", "config.json"))


def response(folder: Path) -> Response | None:
    """How the model's R answers to plain properties of images; None where that was not measured. Raises BundleError."""
    return _response(str(folder), _stamp(folder, "response.json"))


def stored_pictures(folder: Path, name: str, split: str, rows: tuple[int, ...], redrawn: bool = False) -> np.ndarray:
    """The images behind some stored scores as the model sees them, uint8 (n, S, S, c), or redraws them.

    Raises DataError where the images are not at hand.
    """
    model = detector(folder)
    images = _stored_images(str(folder), _stamp(folder, "scores.npz", "config.json"), name, split).images[list(rows)]
    return model.reconstruct(images) if redrawn else model.prepared(images)


def card(folder: Path) -> str | None:
    """A model's card, as Markdown; None where it has none. Raises BundleError."""
    return _card(str(folder), _stamp(folder, "README.md"))


def stages(folder: Path) -> list[Stage]:
    """The stages of a model's networks. Raises BundleError."""
    return _stages(str(folder), _stamp(folder, "model.safetensors", "config.json"))


def table_lines(table: str) -> list[Line]:
    """What `python -m ama_core benchmark` has stored for a table, measured lines alone. Raises BundleError."""
    return _table_lines(table, _records_stamp())


def records() -> list[Record]:
    """Every training that `python -m ama_core benchmark` has stored. Raises BundleError."""
    return _records(_records_stamp())


def record_scores(record: Record) -> list[StoredScores]:
    """The scores behind such a training; empty where they are not stored. Raises BundleError."""
    return stored(scores_folder(record, benchmark.RESULTS))


def record_densities(record: Record, ood: str, axis: str) -> Densities:
    """Densities of the normal images (`test`) and of one OOD set of such a training, whose scores are stored."""
    folder = scores_folder(record, benchmark.RESULTS)
    return _record_densities(str(folder), _stamp(folder, "scores.npz"), record.normal, ood, axis)


def latents(folder: Path) -> LatentMap | None:
    """The latent map stored with a model, None where there is none. Raises BundleError."""
    return _latents(str(folder), _stamp(folder, "latents.npz"))


def latent_images(folder: Path, entry: MapEntry) -> np.ndarray:
    """The images behind one set of the latent map, uint8 (n, S, S, C). Raises DataError where they are not at hand."""
    return _latent_images(str(folder), _stamp(folder, "latents.npz", "model.safetensors"), entry)


def norms(folder: Path, entries: tuple[tuple[str, MapEntry], ...]) -> NormHistograms:
    """Histograms of the code norms of sets of the latent map, (name on the chart, set)."""
    return _norms(str(folder), _stamp(folder, "latents.npz"), entries)


def atypical(folder: Path, n: int, direction: str, delta: float, seed: int) -> Decoded:
    """n atypical codes and what the model makes of them. Raises ConfigError."""
    return _atypical(str(folder), _stamp(folder, "model.safetensors", "calibration.npz"), n, direction, delta, seed)


def parents(folder: Path, picks: tuple[tuple[str, int], ...]) -> Decoded:
    """The test images (set, number), as the model sees them, with their codes and scores. Raises DataError, BundleError."""
    return _parents(str(folder), _stamp(folder, "model.safetensors", "calibration.npz", "config.json"), picks)


def mixed(folder: Path, picks: tuple[tuple[str, int], ...], weights: tuple[tuple[float, ...], ...]) -> Decoded:
    """Mixtures of the codes of three images, one for each triple of `weights`. Raises DataError, BundleError."""
    return _mixed(str(folder), _stamp(folder, "model.safetensors", "calibration.npz", "config.json"), picks, weights)


def curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """What a run has measured so far, thinned (see `runs.read_curves`)."""
    return _curves(str(folder), _stamp(folder, "metrics.jsonl"))


def training_size(spec: runs.RunSpec) -> int:
    """How many normal images a run would have. Raises DataError where they are not at hand."""
    return _training_size(spec.dataset, spec.one_class, spec.config.fit, _stamp(Path(spec.dataset), ""), spec)


def _records_stamp() -> Stamp:
    folder = benchmark.RESULTS
    return _stamp(folder, *(file.name for file in sorted(folder.glob("*.json"))))


def _stamp(folder: Path, *names: str) -> Stamp:
    return tuple((folder / name).stat().st_mtime_ns if (folder / name).exists() else 0 for name in names)


@st.cache_resource(max_entries=6, show_spinner="Loading the model …")
def _detector(folder: str, stamp: Stamp) -> AnomalyDetector:
    return load_detector(folder)


@st.cache_resource(max_entries=8, show_spinner=False)
def _stored(folder: str, stamp: Stamp) -> list[StoredScores]:
    return read_scores(folder)


@st.cache_data(max_entries=16, show_spinner=False)
def _results(folder: str, stamp: Stamp) -> dict[str, dict]:
    return {row["ood"]: row for row in (read_results(folder) or {"results": []})["results"]}


@st.cache_data(max_entries=64, show_spinner=False)
def _score_densities(folder: str, stamp: Stamp, axis: str, sets: tuple[tuple[str, str, str], ...], log: bool) -> Densities:
    at_hand = {(s.name, s.split): on_axis(Path(folder), axis, s.scores) for s in stored(Path(folder))}
    return densities({title: at_hand[name, split] for title, name, split in sets}, log=log, lower=0.0)


@st.cache_data(max_entries=128, show_spinner=False)
def _intervals(folder: str, stamp: Stamp, ood: str) -> dict[str, dict[str, tuple[float, float]]]:
    normal = (info(Path(folder)).get("normal") or {}).get("name")
    scores = {s.name: s for s in stored(Path(folder)) if s.split == "test"}
    return metric_intervals(detector(Path(folder)), results(Path(folder))[ood], scores.get(normal), scores.get(ood))


@st.cache_data(max_entries=256, show_spinner="Scoring …")  # a few numbers each
def _upload_scores(folder: str, stamp: Stamp, data: bytes) -> dict[str, float]:
    model = detector(Path(folder))
    c = model.settings
    image, _ = prepare([decode_image(data)[0]], size=c.image_size, channels=c.channels, fit=c.fit)
    return {name: float(value[0]) for name, value in model.scores(image).items()}


@st.cache_data(max_entries=32, show_spinner=False)
def _train_density(folder: str, stamp: Stamp, log: bool) -> Densities:
    return densities({"train": detector(Path(folder)).calibration_.train_r}, log=log, lower=0.0)


@st.cache_data(max_entries=4, show_spinner="Looking at every image …")
def _inspect_own(source: str, stamp: Stamp) -> Inspection:
    return inspect(source)


@st.cache_resource(max_entries=4, show_spinner="Reading the images …")
def _sample_images(folder: str, stamp: Stamp, set_name: str) -> ImageSet:
    if set_name != NORMAL:
        return load(set_name, "test")
    model = detector(Path(folder))
    images, label = normal_split(model, "test"), model.info_["normal"].get("label")
    return images if label is None else one_class(images, label)


@st.cache_resource(max_entries=8, show_spinner="Scoring and reconstructing, once …")
def _gallery(folder: str, stamp: Stamp, set_name: str, siblings: tuple[tuple[str, str, Stamp], ...]) -> Gallery:
    chosen = sample_images(Path(folder), set_name)
    n_total, index = len(chosen), np.arange(len(chosen))
    if n_total > GALLERY:
        index = np.sort(np.random.default_rng(0).choice(n_total, GALLERY, replace=False))
        chosen = chosen.take(index)
    c = detector(Path(folder)).settings
    notes = prepare(chosen.images[:1], size=c.image_size, channels=c.channels, fit=c.fit)[1]
    seen = {title: detector(Path(path)).examine(chosen.images) for title, path, _ in siblings}
    mean_r = {title: detector(Path(path)).calibration_.mu for title, path, _ in siblings}
    own = next(seen[title] for title, path, _ in siblings if path == folder)
    return Gallery(own.images, chosen.labels, index, seen, mean_r, own.scores, n_total, tuple(notes))


def _batch(found: Checked) -> Batch:
    return Batch(found, tuple(charts.data_uri(image, 3) for image in found.examined.images) if len(found) else ())


@st.cache_data(max_entries=32, show_spinner="Scoring …")
def _check_samples(folder: str, stamp: Stamp, set_name: str, start: int, stop: int) -> Batch:
    images = sample_images(Path(folder), set_name).images
    items = [FileImage(f"{set_name} #{i}", 0, images[i], None) for i in range(start, min(stop, len(images)))]
    return _batch(check.check(detector(Path(folder)), items, len(items)))


@st.cache_resource(max_entries=8, show_spinner=False)
def _nearest(folder: str, stamp: Stamp) -> Neighbours | None:
    return neighbours.read_neighbours(folder)


@st.cache_resource(max_entries=4, show_spinner="Reading the training images …")
def _nearest_images(folder: str, stamp: Stamp) -> np.ndarray:
    return neighbours.neighbour_images(detector(Path(folder)), nearest(Path(folder)))


@st.cache_data(max_entries=64, show_spinner=False)
def _info(folder: str, stamp: Stamp) -> dict:
    return read_info(folder)


@st.cache_data(max_entries=16, show_spinner=False)
def _aurocs(folder: str, stamp: Stamp) -> dict[str, dict[str, float]]:
    return evaluation.known_aurocs(detector(Path(folder)), results(Path(folder)), stored(Path(folder)))


@st.cache_data(max_entries=16, show_spinner=False)
def _response(folder: str, stamp: Stamp) -> Response | None:
    return read_response(folder)


@st.cache_resource(max_entries=8, show_spinner="Reading the images …")
def _stored_images(folder: str, stamp: Stamp, name: str, split: str) -> ImageSet:
    found = next(s for s in stored(Path(folder)) if (s.name, s.split) == (name, split))
    return evaluation.stored_images(detector(Path(folder)), found)


@st.cache_data(max_entries=16, show_spinner=False)
def _stages(folder: str, stamp: Stamp) -> list[Stage]:
    return summary(detector(Path(folder)).networks_)


@st.cache_resource(max_entries=2, show_spinner=False)
def _records(stamp: Stamp) -> list[Record]:
    return read_records(benchmark.RESULTS)


@st.cache_resource(max_entries=6, show_spinner=False)
def _table_lines(table: str, stamp: Stamp) -> list[Line]:
    return [line for line in benchmark_report.lines(table, _records(stamp)) if line.ours]


@st.cache_data(max_entries=32, show_spinner=False)
def _record_densities(folder: str, stamp: Stamp, normal: str, ood: str, axis: str) -> Densities:
    at_hand = {s.name: s.scores for s in stored(Path(folder))}
    samples = {"test": at_hand[normal], ood: at_hand[ood]}
    if axis != A_DISTANCE:
        return densities({title: scores[axis] for title, scores in samples.items()}, log=True)
    mu, sigma = mu_sigma_behind(*(np.concatenate([scores[key] for scores in samples.values()]) for key in ("R", "log_A")))
    return densities({title: a_distance(scores["R"], mu, sigma) for title, scores in samples.items()}, log=True)


@st.cache_resource(max_entries=6, show_spinner="Reading the latent map …")
def _latents(folder: str, stamp: Stamp) -> LatentMap | None:
    return latent_map.read_latents(folder)


@st.cache_resource(max_entries=48, show_spinner="Reading the images …")
def _latent_images(folder: str, stamp: Stamp, entry: MapEntry) -> np.ndarray:
    return latent_map.entry_images(detector(Path(folder)), latents(Path(folder)), entry)


@st.cache_data(max_entries=32, show_spinner=False)
def _norms(folder: str, stamp: Stamp, entries: tuple[tuple[str, MapEntry], ...]) -> NormHistograms:
    codes = latents(Path(folder)).codes
    return latent_map.norm_histograms({title: codes[entry.rows] for title, entry in entries})


@st.cache_data(max_entries=64, show_spinner=False)
def _atypical(folder: str, stamp: Stamp, n: int, direction: str, delta: float, seed: int) -> Decoded:
    model = detector(Path(folder))
    codes = latent_map.atypical(n, model.config.nz, direction, delta, seed)
    images = model.decode(codes)
    return Decoded(codes, images, model.critic(images, model.reconstruct(images)), model.scores(images))


@st.cache_data(max_entries=16, show_spinner=False)
def _parents(folder: str, stamp: Stamp, picks: tuple[tuple[str, int], ...]) -> Decoded:
    model = detector(Path(folder))
    images = np.concatenate([model.prepared(sample_images(Path(folder), name).images[i : i + 1]) for name, i in picks])
    return Decoded(model.encode(images), images, model.critic(images, images), model.scores(images))


@st.cache_data(max_entries=64, show_spinner=False)
def _mixed(folder: str, stamp: Stamp, picks: tuple[tuple[str, int], ...], weights: tuple[tuple[float, ...], ...]) -> Decoded:
    model, of = detector(Path(folder)), parents(Path(folder), picks)
    codes = latent_map.mixtures(of.codes, np.array(weights))
    images = model.decode(codes)
    return Decoded(codes, images, latent_map.mixture_critic(model, images, of.images), model.scores(images))


@st.cache_data(max_entries=16, show_spinner=False)
def _card(folder: str, stamp: Stamp) -> str | None:
    return read_card(folder)


@st.cache_data(max_entries=32, show_spinner=False)
def _curves(folder: str, stamp: Stamp) -> dict[str, tuple[list[int], list[float]]]:
    return runs.read_curves(folder)


@st.cache_data(max_entries=64, show_spinner="Counting the images …")
def _training_size(dataset: str, label: int | None, fit: str, stamp: Stamp, _spec: runs.RunSpec) -> int:
    return pace.n_images(_spec)
