"""Bundles: a trained model as a folder that can be read, checked and shared. Nothing in it is ever unpickled.

    model.safetensors   weights of E, G and D; the critic's with its spectral norm divided out
    config.json         format version, hyper-parameters, what was normal, how it was trained
    calibration.npz     what `scores.Calibration` holds
    scores.npz          a sample of the scores of every data set it was measured on
    latents.npz         codes of a sample of those sets with two maps of them (see `latent_map`)
    neighbours.npz      the critic's features of a sample of the training images (see `neighbours`)
    response.json       how R answers to contrast, brightness, blur and other plain properties (see `response`)
    results.json        AUROC, AUPRC and FPR95 of every OOD set, as `evaluate --json` prints them
    README.md           model card
"""

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from ama_core.config import Config
from ama_core.errors import AMAError, BundleError
from ama_core.files import DAMAGED_ARRAYS, npz_bytes, write_atomically
from ama_core.networks import Networks
from ama_core.scores import SCORES, Calibration, Gaussian

FORMAT = "ama-bundle"
VERSION = 1
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
FILES = (
    "config.json", "model.safetensors", "calibration.npz", "scores.npz", "latents.npz", "neighbours.npz", "response.json",
    "results.json", "README.md",
)  # fmt: skip
STORED_FIELDS = ("R", "log_A", "M", "T", "z_norm", "pixel_l1")


@dataclass
class Bundle:
    """The parts of a trained detector.

    Attributes:
        weights: state of `Networks(config, spectral=False)`.
        info: `normal` (name, split, label, n, fingerprint of the training data) and `training` (steps, seconds, device,
            versions, command, ...), as they were recorded.
    """

    config: Config
    weights: dict[str, Tensor]
    calibration: Calibration
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredScores:
    """Scores of a seeded sample of one split of one data set, as measured when the bundle was made.

    Attributes:
        scores: R, A, log_A, M, T, z_norm, pixel_l1, each float32 (n,).
        n_total: images in the split from which the n were drawn with `seed`.
        notes: what a reader of any figure from it should know, in sentences.
    """

    name: str
    split: str
    scores: dict[str, np.ndarray]
    seed: int
    n_total: int
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.scores["R"])


def write_bundle(path: Path | str, bundle: Bundle) -> None:
    """Write weights, config and calibration into the folder `path`, each file atomically."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "version": VERSION, "config": bundle.config.to_dict(), **bundle.info}
    calibration = bundle.calibration
    arrays = {"mu": np.float64(calibration.mu), "sigma": np.float64(calibration.sigma), "train_r": calibration.train_r}
    for key in ("m", "t"):
        gaussian = getattr(calibration, f"gaussian_{key}")
        arrays |= {f"gaussian_{key}.{name}": value for name, value in vars(gaussian).items()}
    arrays |= {f"scores.{name}": calibration.scores[name] for name in SCORES}
    write_atomically(path / "model.safetensors", safetensors_bytes(bundle.weights))
    write_atomically(path / "calibration.npz", npz_bytes(arrays))
    write_atomically(path / "config.json", json.dumps(header, indent=2))


def read_info(path: Path | str) -> dict[str, Any]:
    """The contents of `config.json`. Raises BundleError where it is missing, damaged, or from something else."""
    file = Path(path) / "config.json"
    try:
        header = json.loads(file.read_text())
    except FileNotFoundError:
        raise BundleError(f"{path} is not a bundle: it has no config.json.") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is damaged: {error}. Copy the bundle again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BundleError(f"{path} is not a bundle of AMA Explorer: its config.json does not say format {FORMAT!r}.")
    if header.get("version") != VERSION:
        raise BundleError(
            f"{path} has bundle version {header.get('version')}, this software reads version {VERSION}: update AMA Explorer."
        )
    return header


def read_bundle(path: Path | str) -> Bundle:
    """Read and check a bundle. Raises BundleError with the file that is wrong."""
    path = Path(path)
    header = read_info(path)
    try:
        config = Config.from_dict(header["config"])
    except (AMAError, KeyError, TypeError) as error:
        raise BundleError(f"{path / 'config.json'} holds no valid hyper-parameters: {error}") from error
    file = path / "model.safetensors"
    try:
        with safe_open(file, "pt") as weights_file:
            weights = {name: weights_file.get_tensor(name) for name in weights_file.keys()}  # noqa: SIM118 (no mapping)
        _check_weights(config, weights)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{file} is missing or damaged, or does not fit config.json: {error}. Copy it again.") from error
    try:
        calibration = _read_calibration(path / "calibration.npz", config)
    except DAMAGED_ARRAYS as error:
        raise BundleError(f"{path / 'calibration.npz'} is missing or damaged: {error}. Copy it again.") from error
    info = {name: value for name, value in header.items() if name not in ("format", "version", "config")}
    return Bundle(config, weights, calibration, info)


def write_scores(path: Path | str, stored: list[StoredScores]) -> None:
    """Write `scores.npz` of the bundle at `path`. A is left out: it is exp(log_A), and underflows in float32."""
    arrays: dict[str, np.ndarray] = {}
    index = []
    for s in stored:
        index.append({"name": s.name, "split": s.split, "seed": s.seed, "n_total": s.n_total, "notes": s.notes})
        arrays |= {f"{s.name}/{s.split}/{key}": s.scores[key].astype(np.float32) for key in STORED_FIELDS}
    arrays["index"] = np.array(json.dumps(index))
    write_atomically(Path(path) / "scores.npz", npz_bytes(arrays))


def read_scores(path: Path | str) -> list[StoredScores]:
    """Stored scores of a bundle; empty where none were measured. Raises BundleError on a damaged file."""
    file = Path(path) / "scores.npz"
    if not file.exists():
        return []
    stored = []
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for entry in json.loads(str(arrays["index"])):
                values = {key: arrays[f"{entry['name']}/{entry['split']}/{key}"] for key in STORED_FIELDS}
                values["A"] = np.exp(values["log_A"].astype(np.float64))
                stored.append(StoredScores(scores=values, **{**entry, "notes": tuple(entry.get("notes", ()))}))
    except DAMAGED_ARRAYS as error:
        raise BundleError(f"{file} is damaged: {error}. Measure again with `python -m ama_core measure`.") from error
    return stored


def write_results(path: Path | str, results: dict[str, Any]) -> None:
    """Write `results.json`: what `evaluation.evaluate` returned."""
    write_atomically(Path(path) / "results.json", json.dumps(results, indent=2))


def read_results(path: Path | str) -> dict[str, Any] | None:
    """`results.json` of a bundle, None where there is none. Raises BundleError on a damaged file."""
    file = Path(path) / "results.json"
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is damaged: {error}.") from error


def zip_bundle(path: Path | str) -> bytes:
    """The bundle at `path` as a .zip file with one folder in it, to share; of a run folder its bundle alone.

    Raises BundleError where it is not a whole bundle.
    """
    path = Path(path)
    read_bundle(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            if (path / name).is_file():
                archive.write(path / name, f"{path.resolve().name}/{name}")
    return buffer.getvalue()


def find_bundle(model: str | Path) -> Path:
    """A bundle or run folder, or a name in `pretrained/`, to its folder. Raises BundleError where there is none."""
    for path in (Path(model), PRETRAINED / str(model)):
        if (path / "config.json").is_file():
            return path
    known = ", ".join(list_bundles(PRETRAINED)) or "none"
    raise BundleError(f"There is no model {str(model)!r}: give a bundle or run folder, or one of the bundled models ({known}).")


def list_bundles(folder: Path | str = PRETRAINED) -> dict[str, Path]:
    """Names and folders of the bundles in `folder`, sorted by name."""
    return {path.parent.name: path.parent for path in sorted(Path(folder).glob("*/config.json"))}


def half_precision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels in float16; vectors (biases, batch-norm statistics) as they are: they weigh nothing."""
    return {name: t.half() if t.is_floating_point() and t.ndim >= 2 else t for name, t in weights.items()}


def build_networks(config: Config, weights: dict[str, Tensor], device: torch.device) -> Networks:
    """Networks in eval mode on `device`, fp32, from stored weights."""
    networks = Networks(config, spectral=False)
    networks.load_state_dict(weights)
    networks.requires_grad_(False)
    return networks.to(device, memory_format=torch.channels_last).eval()


def _check_weights(config: Config, weights: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        expected = Networks(config, spectral=False).state_dict()
    if missing := sorted(set(expected) - set(weights)):
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} first")
    for name, tensor in weights.items():
        if name not in expected or tensor.shape != expected[name].shape:
            raise ValueError(f"{name} {tuple(tensor.shape)} does not belong to this configuration")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds values that are not finite")


def _read_calibration(file: Path, config: Config) -> Calibration:
    with np.load(file, allow_pickle=False) as arrays:
        gaussians = {}
        for key, size in (("m", config.width_critic), ("t", 6)):
            parts = {name: arrays[f"gaussian_{key}.{name}"] for name in ("mean", "precision", "scale")}
            if parts["mean"].shape != (size,) or parts["precision"].shape != (size, size) or parts["scale"].shape != (size,):
                raise ValueError(f"gaussian_{key} has the wrong shape")
            gaussians[key] = Gaussian(**parts)
        scores = {name: arrays[f"scores.{name}"] for name in SCORES}
        calibration = Calibration(
            float(arrays["mu"]), float(arrays["sigma"]), gaussians["m"], gaussians["t"], scores, arrays["train_r"]
        )
    if not all(np.isfinite(a).all() and a.ndim == 1 and len(a) for a in (*scores.values(), calibration.train_r)):
        raise ValueError("scores are missing or not finite")
    fitted = (calibration.mu, calibration.sigma, *(part for gaussian in gaussians.values() for part in vars(gaussian).values()))
    if not all(np.isfinite(part).all() for part in fitted):
        raise ValueError("statistics are not finite")
    if not all((scale > 0).all() for scale in (np.float64(calibration.sigma), *(g.scale for g in gaussians.values()))):
        raise ValueError("scales must be positive")
    return calibration
