"""The latent space in pictures: stored codes of images, two maps of them, the shell, atypical codes, mixtures.

Codes are float32 arrays (N, d); d is the config's nz. Maps are only views: PCA keeps distances in one plane, UMAP keeps
neighbours, and neither keeps the radius |z|, which `shell_facts`, `norm_histograms` and `polar` show instead.

    latents.npz   codes as float16 with the set, split and index of each image, so that images are fetched from the data at
                  hand and none is stored; PCA, so that any new code can be placed at once; UMAP where umap-learn was there
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chi
from sklearn.decomposition import PCA

from ama_core.data import ImageSet
from ama_core.detectors.ama import latent
from ama_core.detectors.ama.detector import AMADetector
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.storage.files import DAMAGED_ARRAYS, npz_bytes, open_regular, parse_json, write_atomically

FILE = "latents.npz"
VERSION = 1
N_NORMAL, N_OOD, N_ATYPICAL = 500, 200, 100  # most codes of a normal split, of an OOD set, of a direction
DIRECTIONS = ("inward", "outward", "sipple")
CODES = "codes"  # the "split" of atypical codes, which stand for no image of any set
UMAP = {"n_neighbors": 15, "min_dist": 0.1, "metric": "euclidean", "n_epochs": 200, "init": "pca"}
SIMPLEX_RANGE = (-0.5, 1.5)  # weights that may be tried; outside [0, 1] is outside the simplex
BAND_LEVEL = 0.95


@dataclass(frozen=True)
class Pca:
    """The plane of largest variance: `mean` (d,), `components` (2, d) orthonormal, `explained` (2,) fractions of it."""

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

    def add(name: str, images: ImageSet, most: int, mask: np.ndarray | None = None) -> None:
        eligible = np.arange(len(images)) if mask is None else np.flatnonzero(mask)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(eligible, min(most, len(eligible)), replace=False))
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
    header = {"version": VERSION, "entries": [vars(entry) for entry in stored.entries], "info": stored.info}
    arrays = {"codes": stored.codes.astype(np.float16), "index": stored.index.astype(np.int32)}
    arrays |= {f"pca.{name}": value for name, value in vars(stored.pca).items()}
    if stored.umap is not None:
        arrays["umap"] = stored.umap.astype(np.float32)
    write_atomically(Path(path) / FILE, npz_bytes({**arrays, "header": np.array(json.dumps(header))}))


def read_latents(path: Path | str) -> LatentMap | None:
    """The latent map of a bundle, None where none was measured. Raises BundleError on a damaged file."""
    file = Path(path) / FILE
    if not file.exists():
        return None
    try:
        with open_regular(file) as opened, np.load(opened, allow_pickle=False) as arrays:
            header = parse_json(str(arrays["header"]))
            if header["version"] != VERSION:
                raise ValueError(f"it has version {header['version']}, this software reads version {VERSION}")
            codes, index = arrays["codes"].astype(np.float32), arrays["index"].astype(np.int64)
            pca = Pca(*(arrays[f"pca.{name}"] for name in ("mean", "components", "explained")))
            umap = arrays.get("umap")
        stored = LatentMap(codes, index, tuple(MapEntry(**entry) for entry in header["entries"]), pca, umap, header["info"])
        _check(stored)
    except (*DAMAGED_ARRAYS, AttributeError) as error:
        raise BundleError(f"{file} is damaged: {error}. Measure again with `python -m ama_core measure`.") from error
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


# The shell


def shell_band(d: int, level: float = BAND_LEVEL) -> tuple[float, float]:
    """The central part `level` of chi_d: where |z| of a standard normal z in d dimensions lies with that probability."""
    low, high = chi.interval(level, d)
    return float(low), float(high)


def chi_density(radius: np.ndarray, d: int) -> np.ndarray:
    """Density of chi_d at `radius` (n,)."""
    return chi.pdf(radius, d)


@dataclass(frozen=True)
class ShellFacts:
    """Where the norms of some codes lie: the median of |z| / sqrt(d), and the share within the 95 % band of chi_d."""

    median_ratio: float
    share_in_band: float
    n: int


def shell_facts(codes: np.ndarray) -> ShellFacts:
    """Of codes (n, d), n >= 1."""
    norms, d = np.linalg.norm(codes, axis=1), codes.shape[1]
    low, high = shell_band(d)
    return ShellFacts(float(np.median(norms) / np.sqrt(d)), float(np.mean((norms >= low) & (norms <= high))), len(codes))


@dataclass(frozen=True)
class NormHistograms:
    """Histograms of |z| on shared bins, as densities.

    Attributes:
        edges: (B + 1,). densities: name -> (B,) per unit of |z|; what lies beyond the edges counts in no bin.
        rows: name -> for each bin the positions of its codes among those given.
        grid, chi: (G,) the curve of chi_d over the same range.
    """

    edges: np.ndarray
    densities: dict[str, np.ndarray]
    rows: dict[str, list[np.ndarray]]
    grid: np.ndarray
    chi: np.ndarray


def norm_histograms(samples: Mapping[str, np.ndarray], bins: int = 32) -> NormHistograms:
    """|z| of several sets of codes (n, d) on shared bins over their central 99 % and the whole band of chi_d."""
    if not samples:
        raise DataError("There are no codes to draw.")
    norms = {name: np.linalg.norm(codes, axis=1) for name, codes in samples.items()}
    d = next(iter(samples.values())).shape[1]
    ends = [shell_band(d, 0.999), *(np.percentile(v, [0.5, 99.5]) for v in norms.values())]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    edges = np.linspace(max(0.0, low - 0.02 * (high - low)), high + 0.02 * (high - low), bins + 1)
    width = edges[1] - edges[0]
    places = {name: np.searchsorted(edges, v, side="right") - 1 for name, v in norms.items()}
    rows = {name: [np.flatnonzero(place == b) for b in range(bins)] for name, place in places.items()}
    densities = {name: np.array([len(r) for r in found]) / (len(norms[name]) * width) for name, found in rows.items()}
    grid = np.linspace(edges[0], edges[-1], 300)
    return NormHistograms(edges, densities, rows, grid, chi_density(grid, d))


def polar(codes: np.ndarray, pca: Pca) -> tuple[np.ndarray, np.ndarray]:
    """Radius |z| / sqrt(d), true, and angle in degrees, that of the PCA map and only a view: each (n,), of codes (n, d)."""
    x, y = pca.project(codes).T
    return np.linalg.norm(codes, axis=1) / np.sqrt(codes.shape[1]), np.degrees(np.arctan2(y, x)) % 360


def atypical(n: int, d: int, direction: str, delta: float, seed: int) -> np.ndarray:
    """`latent.atypical_codes`, (n, d) float32: one seed keeps directions while delta moves the codes along them."""
    if direction not in DIRECTIONS or not 0 <= delta < np.inf or n < 1:
        raise ConfigError(f"Atypical codes need a direction of {', '.join(DIRECTIONS)}, a finite delta >= 0 and n >= 1.")
    return latent.atypical_codes(n, d, direction, delta, torch.Generator().manual_seed(seed)).numpy()


# The simplex


def mixtures(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """e_hat = sum_i alpha_i E(x_i) / sum_i alpha_i (Section "Simplex interpolation"): codes (k, d), alphas (m, k) -> (m, d).

    Raises:
        DataError: weights are not finite, or their sum is so near 0 that the mixture means nothing.
    """
    weights = np.atleast_2d(np.asarray(weights, np.float64))
    total = weights.sum(axis=1, keepdims=True)
    if not np.isfinite(weights).all() or np.any(total < 0.1):
        raise DataError("The three weights must add up to more than 0.1: a mixture is divided by their sum.")
    return ((weights / total) @ codes).astype(np.float32)


def triangle_weights(side: int = 6, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Barycentric lattice (m, 3) with rows that sum to 1: `side` steps from `low` to `high` of each weight.

    side 6 in [0, 1]: the 21 points of a triangle with six along each edge. Where `low` < 0 what lies outside of the simplex
    is covered as well.
    """
    values = np.linspace(low, high, side)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values, indexing="ij"))
    c = 1 - a - b
    inside = (c >= low - 1e-9) & (c <= high + 1e-9)
    return np.round(np.stack([a, b, c], axis=1)[inside], 6)


def path_weights(start: int, end: int, steps: int = 9, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Weights (steps, 3) on the line from image `start` to image `end`: t from `low` to `high`, beyond the images outside."""
    t = np.linspace(low, high, steps)
    weights = np.zeros((steps, 3))
    weights[:, start], weights[:, end] = 1 - t, t
    return weights


def rebalance(weights: Sequence[float], moved: int, low: float, high: float) -> tuple[float, ...]:
    """Three weights that sum to 1 again after the `moved` one was set: the others give or take alike, within [low, high]."""
    first, second = (i for i in range(3) if i != moved)
    new = [float(w) for w in weights]
    new[moved] = float(np.clip(new[moved], low, high))
    rest = 1 - new[moved]
    shared = new[first] + (rest - new[first] - new[second]) / 2
    new[first] = float(np.clip(round(shared, 2), max(low, rest - high), min(high, rest - low)))
    new[second] = rest - new[first]
    return tuple(round(w, 6) for w in new)


def triangle_xy(weights: np.ndarray) -> np.ndarray:
    """Barycentric weights (m, 3) as points (m, 2) of the equilateral triangle with corners (0, 0), (1, 0), (1/2, sqrt(3)/2)."""
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
    return np.asarray(weights) @ corners


def mixture_critic(detector: AMADetector, decoded: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """D of decoded mixtures (m, S, S, c), (m,): paired with each of the parents (k, S, S, c) and averaged, as in training.

    High = the critic takes the decode for the parent itself. A plain critic sees the decode alone.
    """
    m, k = len(decoded), len(parents)
    if detector.settings.reconstruction == "plain":
        return detector.critic(decoded, decoded)
    return detector.critic(np.tile(parents, (m, 1, 1, 1)), np.repeat(decoded, k, axis=0)).reshape(m, k).mean(axis=1)


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
