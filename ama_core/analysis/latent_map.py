"""Stored codes of images, and the maps of them.

Codes are float32 arrays (N, d); d is the config's nz. Maps are only views: PCA keeps distances in one plane, UMAP keeps
neighbours, and neither keeps the radius |z|, which `polar` and the functions of `shell` show instead.

    latents.npz   codes as float16 with the set, split and index of each image, so that images are fetched from the local
                  data and none is stored; PCA, so that any new code can be placed at once; UMAP where umap-learn was there
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from ama_core.analysis.shell import atypical
from ama_core.data import ImageSet, draw
from ama_core.detectors.ama.config import DIRECTIONS
from ama_core.detectors.ama.detector import AMADetector
from ama_core.errors import DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.storage.artefact import read_artefact, write_artefact

FILE = "latents.npz"
VERSION = 1
N_NORMAL, N_OOD, N_ATYPICAL = 500, 200, 100  # most codes of a normal split, of an OOD set, of a direction
CODES = "codes"  # the "split" of atypical codes, which stand for no image of any set
UMAP = {"n_neighbors": 15, "min_dist": 0.1, "metric": "euclidean", "n_epochs": 200, "init": "pca"}


@dataclass(frozen=True)
class Pca:
    """The plane of largest variance: `mean` (d,), `components` (2, d) orthonormal, `explained` (2,) shares of the variance."""

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    @classmethod
    def fit(cls, codes: np.ndarray) -> "Pca":
        """From at least three codes (N, d), d >= 2, by scikit-learn: the same codes give the same picture, signs included."""
        if codes.ndim != 2 or min(codes.shape[0] - 1, codes.shape[1]) < 2:
            raise DataError(f"A map needs at least three codes of at least two dimensions, got {codes.shape}.")
        fitted = PCA(2, svd_solver="full").fit(np.asarray(codes, np.float64))
        explained = np.nan_to_num(fitted.explained_variance_ratio_)  # codes that are all alike have no variance to explain
        return cls(*(a.astype(np.float32) for a in (fitted.mean_, fitted.components_, explained)))

    def project(self, codes: np.ndarray) -> np.ndarray:
        """Codes (N, d) on the plane, (N, 2)."""
        return (np.asarray(codes, np.float32) - self.mean) @ self.components.T


@dataclass(frozen=True)
class MapEntry:
    """A set on the map: rows `start` to `stop` of the codes are a sample of the `n_total` images of `split` of `name`."""

    name: str
    split: str
    start: int
    stop: int
    n_total: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class LatentMap:
    """Codes of a model with where they came from.

    Attributes:
        codes: (N, d) float32.
        index: (N,) where each image stands in its split as loaded, of all classes; for atypical codes a running number.
        umap: (N, 2), or None where umap-learn was missing.
        info: seed, versions, UMAP's parameters, notes.
    """

    codes: np.ndarray
    index: np.ndarray
    entries: tuple[MapEntry, ...]
    pca: Pca
    umap: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)


def measure_latents(detector: AMADetector, *, seed: int = 0, progress: evaluation.Progress | None = None) -> LatentMap:
    """Encode a seeded sample of the normal train and test split and of every available OOD set, and map them.

    100 atypical codes of each direction, with the model's own delta, stand on the maps as well.
    """
    normal = detector.normal
    label = normal.label
    parts: list[tuple[str, str, int, np.ndarray, np.ndarray]] = []

    def add(name: str, images: ImageSet, limit: int, mask: np.ndarray | None = None) -> None:
        eligible = np.arange(len(images)) if mask is None else np.flatnonzero(mask)
        chosen = eligible[draw(len(eligible), limit, seed)]
        parts.append((name, images.split, len(images), chosen, detector.encode(images.images[chosen])))

    for split in ("train", "test"):
        images = evaluation.normal_split(detector, split)
        add(normal.name, images, N_NORMAL, None if label is None else images.labels == label)
    others = [name for name in evaluation.available_others(detector) if name != evaluation.REST]
    for i, name in enumerate(others):
        add(name, evaluation.set_images(detector, name, "test"), N_OOD)
        if progress:
            progress(i + 1, len(others), "latent codes")
    pca = Pca.fit(np.concatenate([codes for *_, codes in parts]))
    for direction in DIRECTIONS:
        codes = atypical(N_ATYPICAL, detector.settings.nz, direction, detector.settings.delta, seed)
        parts.append((direction, CODES, N_ATYPICAL, np.arange(N_ATYPICAL), codes))

    entries, start = [], 0
    for name, split, n_total, chosen, _ in parts:
        entries.append(MapEntry(name, split, start, start + len(chosen), n_total))
        start += len(chosen)
    codes = np.concatenate([codes for *_, codes in parts]).astype(np.float16).astype(np.float32)  # as they are stored
    if progress:
        progress(0, 1, "UMAP")
    umap, info = _umap(codes, seed)
    if progress:
        progress(1, 1, "UMAP")
    index = np.concatenate([chosen for *_, chosen, _ in parts]).astype(np.int64)
    return LatentMap(codes, index, tuple(entries), pca, umap, {"seed": seed, "delta": detector.settings.delta, **info})


def write_latents(path: Path | str, stored: LatentMap) -> None:
    """Write `latents.npz` of the bundle at `path`, whole or not at all."""
    arrays = {"codes": stored.codes.astype(np.float16), "index": stored.index.astype(np.int32)}
    arrays |= {f"pca.{name}": value for name, value in vars(stored.pca).items()}
    if stored.umap is not None:
        arrays["umap"] = stored.umap.astype(np.float32)
    header = {"entries": [vars(entry) for entry in stored.entries], "info": stored.info}
    write_artefact(Path(path) / FILE, VERSION, header, arrays)


def read_latents(path: Path | str) -> LatentMap | None:
    """The latent map of a bundle, None where none was measured. Raises BundleError on a damaged file."""
    return read_artefact(Path(path) / FILE, VERSION, _stored)


def _stored(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> LatentMap:
    """What the file holds. Raises what `read_artefact` takes for damage."""
    codes, index = arrays["codes"].astype(np.float32), arrays["index"].astype(np.int64)
    pca = Pca(*(arrays[f"pca.{name}"] for name in ("mean", "components", "explained")))
    entries = tuple(MapEntry(**entry) for entry in header["entries"])
    stored = LatentMap(codes, index, entries, pca, arrays.get("umap"), header["info"])
    _check(stored)
    return stored


def entry_images(detector: AMADetector, stored: LatentMap, entry: MapEntry) -> np.ndarray:
    """The images behind an entry's codes, uint8 (n, S, S, c) as the model sees them; atypical codes are decoded.

    Raises:
        DataError: the set is not available locally, or is not the one that was measured.
    """
    if entry.split == CODES:
        return detector.decode(stored.codes[entry.rows])
    own = entry.name == detector.normal.name
    images = evaluation.normal_split(detector, entry.split) if own else evaluation.set_images(detector, entry.name, entry.split)
    if len(images) != entry.n_total:
        raise DataError(
            f"{entry.name} ({entry.split}) has {len(images):,} images here, but {entry.n_total:,} where the model was "
            "measured. Measure it again with `python -m ama_core measure`."
        )
    return detector.prepared(images.images[stored.index[entry.rows]])


def polar(codes: np.ndarray, pca: Pca) -> tuple[np.ndarray, np.ndarray]:
    """Radius |z| / sqrt(d), true, and angle in degrees, that of the PCA map and only a view: each (n,), of codes (n, d)."""
    x, y = pca.project(codes).T
    return np.linalg.norm(codes, axis=1) / np.sqrt(codes.shape[1]), np.degrees(np.arctan2(y, x)) % 360


def _umap(codes: np.ndarray, seed: int) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Seeded UMAP of the codes and what to record of it; None with a note where umap-learn is missing."""
    if len(codes) <= 2 * UMAP["n_neighbors"]:
        return None, {"umap": "skipped: too few codes"}
    try:
        from umap import UMAP as Umap  # numba takes seconds to import, and the GPU machine has none
    except ImportError:
        return None, {"umap": "skipped: umap-learn is not installed"}
    placed = Umap(**UMAP, random_state=seed, n_jobs=1).fit_transform(codes)
    versions = {name: version(name) for name in ("umap-learn", "numba", "numpy")}
    return placed.astype(np.float32), {"umap": {**UMAP, "random_state": seed, "versions": versions}}


def _check(stored: LatentMap) -> None:
    """Raises ValueError where the parts of a latent map do not fit together."""
    n, d = stored.codes.shape
    if stored.index.shape != (n,) or (len(stored.index) and stored.index.min() < 0):
        raise ValueError("image indices do not fit the codes")
    at = 0
    for entry in stored.entries:
        if entry.start != at or entry.stop <= at:
            raise ValueError("its sets do not follow one another")
        at = entry.stop
    if at != n:
        raise ValueError("its sets do not cover the codes")
    pca = stored.pca
    if pca.mean.shape != (d,) or pca.components.shape != (2, d) or pca.explained.shape != (2,):
        raise ValueError("the PCA has the wrong shape")
    if stored.umap is not None and stored.umap.shape != (n, 2):
        raise ValueError("the UMAP has the wrong shape")
    if not all(np.isfinite(a).all() for a in (stored.codes, pca.mean, pca.components, stored.umap) if a is not None):
        raise ValueError("values are not finite")
