"""Bundles: a trained model as a folder that can be read, checked and shared. Nothing in it is ever unpickled.

model.safetensors   the detector's weights, where it has any (of AMA: E, G and D, its spectral norm divided out)
config.json         format version, detector, hyper-parameters, what was normal, how it was trained
calibration.npz     the detector's statistics, and the anomaly scores of held-out normal images
scores.npz          a sample of the scores of every data set it was measured on
latents.npz         codes of a sample of those sets with two maps of them (see `latent_map`)
neighbours.npz      features of a sample of the training images (see `neighbours`)
response.json       how a score answers to contrast, brightness, blur and other plain properties (see `response`)
where.npz           what normal images show at each place of its maps (see `scoring.localise`)
simple.npz          what methods without training find of the same sets (see `simple`)
results.json        AUROC, AUPRC and FPR95 of every OOD set, as `evaluate --json` prints them
README.md           model card
"""

import io
import json
import math
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from ama_core.errors import BundleError
from ama_core.storage.files import (
    DAMAGED_ARRAYS,
    MAX_JSON_BYTES,
    ROOT,
    npz_bytes,
    open_arrays,
    open_regular,
    parse_json,
    read_json,
    read_regular,
    shown,
    write_atomically,
    write_together,
)

FORMAT = "ama-bundle"
VERSION = 2  # 1: of AMA alone, and still what its bundles are
FIRST = "ama"  # the detector of a bundle that does not name one
MAX_WEIGHTS = 4 * 2**30
PRETRAINED = ROOT / "pretrained"
FILES = (
    "config.json",
    "model.safetensors",
    "calibration.npz",
    "scores.npz",
    "latents.npz",
    "neighbours.npz",
    "response.json",
    "where.npz",
    "simple.npz",
    "results.json",
    "README.md",
)
FIRST_STORED = ("R", "log_A", "M", "T", "z_norm", "pixel_l1")  # entries of stored scores that do not name theirs
WHICH = "which images"  # the entry of stored scores that is no score: `n_split`, then `index`
SHARED = b"AMA Explorer bundle"  # the comment of a .zip file that `zip_bundle` made

_NUMBER, _TEXT = (int, float), (str, type(None))
# What the parts of config.json and results.json hold where they are there; whoever shows them relies on it.
_SECTIONS = {
    "normal": {
        "name": str,
        "source": _TEXT,
        "label": (int, type(None)),
        "n": int,
        "fingerprint": str,
        "validation_ood": _TEXT,
        "anomalies": _TEXT,
        "watch": _TEXT,
    },
    "training": {
        "n_train": int,
        "steps": int,
        "seconds": _NUMBER,
        "images_per_s": _NUMBER,
        "select": str,
        "validated_auroc_A": (*_NUMBER, type(None)),
        "precision": str,
        "device": str,
        "versions": dict,
        "commit": _TEXT,
        "command": _TEXT,
    },
    "calibrated_on": {"name": str, "n": int, "fingerprint": str},
}
_RESULT = {"ood": str, "n_normal": int, "n_ood": int, "scores": dict}
_METRICS = {"auroc": _NUMBER, "auprc": _NUMBER, "fpr95": _NUMBER}


@dataclass
class Bundle:
    """The parts of a trained detector.

    Attributes:
        detector: its name in the registry. settings: its hyper-parameters by name.
        tensors: its weights; empty where it has none. arrays: its statistics, and `scores.NAME`, the anomaly scores of held-out
            normal images.
        info: `normal` (see `NormalData`) and `training` (steps, seconds, device, versions, command, ...), as recorded.
    """

    detector: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    arrays: dict[str, np.ndarray]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredScores:
    """Scores of a seeded sample of one split of one data set, as measured when the bundle was made.

    Attributes:
        scores: the detector's scores and what else it keeps of them (see `AnomalyDetector.STORED`), each float32 (n,).
        n_total: images from which the n were drawn with `seed`.
        notes: what a reader of any figure from it should know, in sentences.
        index: which images of the whole split, of `n_split`, these are, ascending, (n,): a model may be tested on a part of
            one alone, its own class or what it was not validated on. None where an earlier version stored them.
    """

    name: str
    split: str
    scores: dict[str, np.ndarray]
    seed: int
    n_total: int
    notes: tuple[str, ...] = ()
    index: np.ndarray | None = None
    n_split: int | None = None

    @property
    def n(self) -> int:
        return len(next(iter(self.scores.values())))

    def thinned(self, most: int) -> Self:
        """At most `most` of these images, evenly spaced: of a random sample, again one."""
        if self.n <= most:
            return self
        places = np.arange(most) * self.n // most
        scores = {key: values[places] for key, values in self.scores.items()}
        return replace(self, scores=scores, index=None if self.index is None else self.index[places])


def write_bundle(path: Path | str, bundle: Bundle) -> None:
    """Write weights, config and calibration into the folder `path`; where that fails, a model that was there still is.

    Over another model, what was measured of that one goes: none of its files is taken for this one's.

    Raises BundleError where `path` is a file, or a folder of other things.
    """
    path = Path(path)
    if other := _other_file(path):
        raise BundleError(f"{path} is a folder of other things, such as {other}: name a new one for the model.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BundleError(f"{path} cannot hold a model, for {error.filename} is a file: name a folder.") from error
    version = 1 if bundle.detector == FIRST else VERSION  # older software reads what it knows, and says of the rest: update
    header = {"format": FORMAT, "version": version, "detector": bundle.detector, "config": bundle.settings, **bundle.info}
    written = {"calibration.npz": npz_bytes(bundle.arrays), "config.json": json.dumps(header, indent=2).encode()}
    if bundle.tensors:
        written = {"model.safetensors": safetensors_bytes(bundle.tensors)} | written
    model = ("model.safetensors", "calibration.npz")
    others = [name for name in model if _contents(path / name) not in (None, written.get(name))]
    outdated = [name for name in FILES if name not in written] if others else []
    if "model.safetensors" in others:  # no calibration beside weights that it is not of, whenever this ends
        outdated.append("calibration.npz")
    write_together(path, written, outdated)


_OF_SYSTEMS = ("Thumbs.db", "desktop.ini")  # what file managers leave in any folder


def _other_file(path: Path) -> str | None:
    """A file of a folder in which nothing is of a model or a run, a README left aside; None where there is no such file."""
    try:
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} - {"README.md", *_OF_SYSTEMS}
    except OSError:
        return None
    return None if {"run.json", *FILES} & names else min(names, default=None)


def _contents(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def read_info(path: Path | str) -> dict[str, Any]:
    """The contents of `config.json`; `config`, and `normal` and `training` where they are there, have what was once written.

    Raises BundleError where it is missing, damaged, or from something else.
    """
    file = Path(path) / "config.json"
    try:
        header = read_json(file)
    except FileNotFoundError:
        raise BundleError(f"{path} is not a bundle: it has no config.json.") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is damaged: {error}. Copy the bundle again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BundleError(f"{path} is not a bundle of AMA Explorer: its config.json does not say format {FORMAT!r}.")
    if header.get("version") not in range(1, VERSION + 1):
        raise BundleError(
            f"{path} has bundle version {header.get('version')}, this software reads up to {VERSION}: update AMA Explorer."
        )
    header.setdefault("detector", FIRST)
    try:
        _check_entries(header, {"config": dict, "detector": str}, "config")
        for name, entries in _SECTIONS.items():
            if name in header:
                _check_entries(header[name], entries, name)
    except ValueError as error:
        raise BundleError(f"{file} is damaged: {error}. Copy the bundle again.") from error
    return header


def _check_entries(value: Any, entries: dict[str, type | tuple], where: str, needed: bool = False) -> None:
    """Raises ValueError unless `value` is an object whose entries have these types; `needed`: and all of them are there."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    for name, kinds in entries.items():
        found = value.get(name)
        if name not in value and not needed:
            continue
        if not isinstance(found, kinds) or isinstance(found, bool) or isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{name} in {where} is missing or not what it should be")


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle; whether its parts fit together its detector knows. Raises BundleError with the file that is damaged."""
    path = Path(path)
    header = read_info(path)
    file, tensors = path / "model.safetensors", {}
    if file.exists() or header["detector"] == FIRST:
        try:
            tensors = tensors_from(read_regular(file, MAX_WEIGHTS))  # safetensors itself opens no path that is not UTF-8
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise ValueError(f"{name} holds values that are not finite")
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise BundleError(f"{file} is missing or damaged: {error}. Copy it again.") from error
    file = path / "calibration.npz"
    try:
        with open_arrays(file) as found:
            arrays = {name: found[name] for name in found.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.number):
                raise ValueError(f"{name} holds no numbers")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
    except DAMAGED_ARRAYS as error:
        raise BundleError(f"{file} is missing or damaged: {error}. Copy it again.") from error
    info = {name: value for name, value in header.items() if name not in ("format", "version", "detector", "config")}
    return Bundle(header["detector"], header["config"], tensors, arrays, info)


def n_parameters(path: Path | str) -> int:
    """How many numbers the weights of a bundle hold, read from the header of the file alone; 0 where it has none.

    Raises BundleError on a damaged file.
    """
    file = Path(path) / "model.safetensors"
    if not file.exists():
        return 0
    try:
        with open_regular(file) as opened:
            size = int.from_bytes(opened.read(8), "little")
            if size > MAX_JSON_BYTES:
                raise ValueError("its header is too large")
            header = parse_json(opened.read(size))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(int(side) for side in shape) for shape in shapes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{file} is damaged: {error}. Copy it again.") from error


def array_names(path: Path | str) -> frozenset[str]:
    """Names of the statistics (`Bundle.arrays`) of the bundle at `path`, none of which is read. Raises BundleError."""
    file = Path(path) / "calibration.npz"
    try:
        with open_arrays(file) as arrays:
            return frozenset(arrays.files)
    except DAMAGED_ARRAYS as error:
        raise BundleError(f"{file} is damaged: {error}. Copy it again.") from error


def write_scores(path: Path | str, stored: list[StoredScores]) -> None:
    """Write `scores.npz` of the bundle at `path`. A is left out: it is exp(log_A), and underflows in float32."""
    arrays: dict[str, np.ndarray] = {}
    index = []
    for s in stored:
        entries = [key for key in s.scores if not (key == "A" and "log_A" in s.scores)]
        entry = {"name": s.name, "split": s.split, "seed": s.seed, "n_total": s.n_total, "notes": s.notes}
        index.append(entry | ({"entries": entries} if tuple(entries) != FIRST_STORED else {}))
        arrays |= {f"{s.name}/{s.split}/{key}": s.scores[key].astype(np.float32) for key in entries}
        if s.index is not None:
            arrays[f"{s.name}/{s.split}/{WHICH}"] = np.array([s.n_split, *s.index], np.int32)
    arrays["index"] = np.array(json.dumps(index))
    write_atomically(Path(path) / "scores.npz", npz_bytes(arrays))


def read_scores(path: Path | str) -> list[StoredScores]:
    """Stored scores of a bundle; empty where none were measured. Raises BundleError on a damaged file."""
    file = Path(path) / "scores.npz"
    if not file.exists():
        return []
    stored = []
    try:
        with open_arrays(file) as arrays:
            for entry in parse_json(str(arrays["index"])):
                entries = entry.pop("entries", FIRST_STORED)
                values = {key: arrays[f"{entry['name']}/{entry['split']}/{key}"] for key in entries}
                if "log_A" in values:
                    values["A"] = np.exp(values["log_A"].astype(np.float64))
                found = StoredScores(scores=values, **{**entry, "notes": tuple(entry.get("notes", ()))})
                which = f"{found.name}/{found.split}/{WHICH}"
                stored.append(_numbered(found, arrays[which]) if which in arrays.files else found)
    except (*DAMAGED_ARRAYS, AttributeError) as error:
        raise BundleError(f"{file} is damaged: {error}. Measure again with `python -m ama_core measure`.") from error
    return stored


def _numbered(stored: StoredScores, which: np.ndarray) -> StoredScores:
    """Stored scores that say which images they are of. Raises ValueError where that cannot be."""
    if which.shape != (stored.n + 1,) or not np.issubdtype(which.dtype, np.integer):
        raise ValueError(f"it does not number the {stored.n} images of {stored.name}")
    n_split, index = int(which[0]), which[1:].astype(np.int64)
    if (np.diff(index, prepend=-1, append=n_split) <= 0).any():
        raise ValueError(f"the images of {stored.name} are not numbered as images of one split")
    return replace(stored, index=index, n_split=n_split)


def write_results(path: Path | str, results: dict[str, Any]) -> None:
    """Write `results.json`: what `evaluation.evaluate` returned."""
    write_atomically(Path(path) / "results.json", json.dumps(results, indent=2))


def read_results(path: Path | str, scores: Sequence[str] = ()) -> dict[str, Any] | None:
    """`results.json` of a bundle, None where there is none; `scores`: names that every row must have.

    Raises BundleError on a damaged file.
    """
    file = Path(path) / "results.json"
    if not file.exists():
        return None
    try:
        found = read_json(file)
        _check_entries(found, {"results": list}, "it", needed=True)
        if found["results"]:
            _check_entries(found, {"normal": str, "seed": int}, "it", needed=True)
        for row in found["results"]:
            _check_entries(row, _RESULT, "a result", needed=True)
            for score in {*scores, *row["scores"]}:
                _check_entries(row["scores"].get(score), _METRICS, f"score {score}", needed=True)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is damaged: {error}. Measure again with `python -m ama_core measure`.") from error
    return found


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
                archive.write(path / name, f"{shown(path.resolve().name)}/{name}")
        archive.comment = SHARED
    return buffer.getvalue()


def is_shared(file: Path) -> bool:
    """Whether `zip_bundle` made this file."""
    try:
        with open_regular(file) as opened, zipfile.ZipFile(opened) as archive:
            return archive.comment == SHARED
    except DAMAGED_ARRAYS:
        return False


def find_bundle(model: str | Path) -> Path:
    """A bundle or run folder, or a name in `pretrained/`, to its folder. Raises BundleError where there is none."""
    for path in (Path(model), PRETRAINED / str(model)) if str(model) else ():  # "" would be the current folder
        if (path / "config.json").is_file():
            return path
    if str(model):
        _say_what_it_is(Path(model))
    known = ", ".join(list_bundles(PRETRAINED)) or "none"
    raise BundleError(f"There is no model {str(model)!r}: give a bundle or run folder, or one of the bundled models ({known}).")


def _say_what_it_is(path: Path) -> None:
    """Raises BundleError where there is something at `path` that can become a model."""
    if path.is_file() and path.suffix.lower() == ".zip":
        raise BundleError(f"{path} is an archive: unpack it into a folder, and name that.")
    try:
        asked = read_json(path / "run.json")
    except (OSError, ValueError):
        return
    dataset = asked.get("dataset") if isinstance(asked, dict) else None
    command = shlex.join(["python", "-m", "ama_core", "train", str(dataset), "--out", str(path), "--resume"])
    raise BundleError(f"{path} is a training that has not ended: wait for it, or, where it was stopped, go on with {command}")


def list_bundles(folder: Path | str = PRETRAINED) -> dict[str, Path]:
    """Names and folders of the bundles in `folder`, sorted by name."""
    return {path.parent.name: path.parent for path in sorted(Path(folder).glob("*/config.json"))}


def half_precision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels in float16; vectors (biases, batch-norm statistics) as they are: they weigh nothing."""
    return {name: t.half() if t.is_floating_point() and t.ndim >= 2 else t for name, t in weights.items()}
