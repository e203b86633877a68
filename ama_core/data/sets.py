"""The data sets known by name, and `load`: built-in, procedural, and downloaded ones alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ama_core.data import builtin, procedural
from ama_core.data.files import read_npz
from ama_core.data.imageset import SPLITS, ImageSet
from ama_core.errors import DataError

DATA_DIR_VARIABLE = "AMA_DATA_DIR"
DEFAULT_DATA_DIR = Path("~/.cache/ama_explorer")

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""


@dataclass(frozen=True)
class SetInfo:
    """What a person needs to know to choose a data set."""

    name: str
    title: str
    """What it is called wherever people read; files, JSON and addresses have its name."""
    description: str
    kind: str
    """"built-in" (real images, offline), "procedural" (generated, offline) or "download"."""
    channels: int
    size: int
    """Height and width as loaded; `prepare` does the rest."""
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, …; empty where the set has none worth showing."""
    source: str = ""
    """Origin and licence."""
    normal_ok: bool = True
    """Sensible as the normal set; otherwise only as an OOD set."""
    fit: str = "pad"
    """The `fit` that suits its images in `prepare`."""
    download_mb: int = 0
    splits: tuple[str, ...] = SPLITS


_CIFAR = "A. Krizhevsky, V. Nair, G. Hinton; no licence stated, research use."
_DIGITS = tuple("0123456789")
_GENERATED = "Generated here from a fixed seed."
_OBJECTS = tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
_CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_SIGNS = (
    *(f"speed limit {limit}" for limit in (20, 30, 50, 60, 70, 80)),
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "right of way at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "danger",
    "bend to the left",
    "bend to the right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "cyclists",
    "snow or ice",
    "wild animals",
    "end of all limits",
    "turn right",
    "turn left",
    "straight on",
    "straight on or right",
    "straight on or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)

# fmt: off
_CATALOG = {info.name: info for info in (
    SetInfo("digits", "Handwritten digits", "1,797 real digits of 8×8 pixels, smoothly enlarged to 32×32.",
            "built-in", 1, 32, _DIGITS, "UCI Optical Recognition of Handwritten Digits, in scikit-learn; CC BY 4.0."),
    SetInfo("photos", "Photo patches",
            "Patches of two photographs, a Chinese palace and a flower, at four scales; train and test come from separate "
            "regions.",
            "built-in", 3, 32, ("china", "flower"),
            "scikit-learn's sample images: china.jpg by D. Büchele, flower.jpg by vultilion; CC BY 2.0.", fit="crop"),
    SetInfo("noise", "Uniform noise", "Every value is drawn independently: as complex as an image can be.",
            "procedural", 3, 32, source=_GENERATED, normal_ok=False),
    SetInfo("flat", "Single colours", "One colour per image: as simple as an image can be.",
            "procedural", 3, 32, source=_GENERATED, normal_ok=False),
    SetInfo("gradients", "Colour gradients", "A few random colours that run into each other.",
            "procedural", 3, 32, source=_GENERATED, normal_ok=False),
    SetInfo("textures", "Procedural textures", "Stripes, checkers, dots, rings, bricks and clouds in two colours.",
            "procedural", 3, 32, procedural.TEXTURES, _GENERATED),
    SetInfo("house_numbers", "House numbers (synthetic)",
            "Drawn digits in mixed typefaces and colours, their neighbours cut off at the edges. Not SVHN.",
            "procedural", 3, 32, _DIGITS, _GENERATED),
    SetInfo("fashionmnist", "FashionMNIST", "70,000 grey pictures of clothes.",
            "download", 1, 28, _CLOTHES, "Zalando Research; MIT licence.", download_mb=31),
    SetInfo("mnist", "MNIST", "70,000 handwritten digits.",
            "download", 1, 28, _DIGITS, "Y. LeCun, C. Cortes, C. Burges; CC BY-SA 3.0.", download_mb=12),
    SetInfo("omniglot", "Omniglot", "32,460 characters of 50 alphabets, white on black, area-resized to 32×32.",
            "download", 1, 32, source="B. Lake, R. Salakhutdinov, J. Tenenbaum; MIT licence.", download_mb=15),
    SetInfo("cifar10", "CIFAR-10", "60,000 small photographs of ten kinds of objects.",
            "download", 3, 32, _OBJECTS, _CIFAR, fit="crop", download_mb=170),
    SetInfo("cifar100", "CIFAR-100",
            "60,000 small photographs of a hundred kinds of objects, collected like CIFAR-10: a hard OOD set for it.",
            "download", 3, 32, source=_CIFAR, fit="crop", download_mb=169),
    SetInfo("svhn", "SVHN", "99,289 house numbers of Street View, centred on one digit.",
            "download", 3, 32, _DIGITS, "Y. Netzer and others, Stanford and Google; non-commercial use.",
            fit="crop", download_mb=246),
    SetInfo("gtsrb", "Traffic signs (GTSRB)", "39,270 German traffic signs in the street, antialiased to 32×32.", "download",
            3, 32, _SIGNS, "Institut für Neuroinformatik, Ruhr-Universität Bochum; see the benchmark's page for its terms.",
            fit="stretch", download_mb=276),
    SetInfo("tinyimagenet", "Tiny-ImageNet",
            "Photographs of 200 kinds of objects, antialiased 64→32 (stand-in for the paper's “ImageNet (resized)”); the "
            "official validation split serves as test.", "download", 3, 32,
            source="Stanford CS231n, from ImageNet; non-commercial research use.", fit="crop", download_mb=248),
)}
# fmt: on

# Names in use elsewhere for prepared files of these splits.
_ALIASES = {
    ("omniglot", "train"): "omniglot-background",
    ("omniglot", "test"): "omniglot-evaluation",
    ("tinyimagenet", "test"): "tinyimagenet-val",
}

# Prepared files in circulation that are not the official split: fingerprint, and what to say beside every number.
_UNOFFICIAL = {
    ("cifar100", "test"): (
        "77b3df538b90c1f5",
        "CIFAR-100 here is 100 images of each class drawn from all 60,000, not the official test split.",
    ),
}


def catalog() -> dict[str, SetInfo]:
    """Every set by name, in the order in which to show them."""
    return dict(_CATALOG)


def label_of(name: str, label: int | None = None) -> str:
    """What a set is called where people read: its title in the catalog, the last part of a path, other names as they are; with
    a class, "set: class".
    """
    info = _CATALOG.get(name)
    title = info.title if info else name.rstrip("/").rpartition("/")[2] or name
    return title if label is None else f"{title}: {class_of(name, label)}"


def class_of(name: str, label: int) -> str:
    """What the class `label` of a set is called; its number where it has no name."""
    info = _CATALOG.get(name)
    return info.classes[label] if info and 0 <= label < len(info.classes) else str(label)


def data_dir(path: str | Path | None = None) -> Path:
    """Where prepared sets are kept: `path`, else the environment's AMA_DATA_DIR, else ~/.cache/ama_explorer."""
    return Path(path or os.environ.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR).expanduser()


def available(name: str, path: str | Path | None = None) -> tuple[str, ...]:
    """The splits that `load` gives without a download; empty where there is none. `path` as in `data_dir`."""
    info = _info(name)
    if info.kind != "download":
        return info.splits
    return tuple(split for split in info.splits if _prepared(name, split, data_dir(path)))


def load(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> ImageSet:
    """One split of a set of the catalog, at its own size (MNIST stays 28×28).

    A downloadable set is read from `<name>-<split>.npz` in the data directory (see the function `data_dir`). Where that
    is missing and `download` is true, torchvision fetches the set, and the file is written for the next time.

    Raises `DataError` for an unknown name or split, a set that is not there, and a failed download.
    """
    info = _info(name)
    if split not in info.splits:
        raise DataError(f"'{name}' has no split '{split}'; it has {', '.join(info.splits)}.")
    if info.kind != "download":
        return _generate(name, split)
    folder = _data_dir(data_dir)
    file = _prepared(name, split, folder)
    if file is None:
        if not download:
            raise DataError(
                f"{info.title} ({split}) is not in {folder}. Get it with "
                f"`python -m ama_core datasets --download {name}` (about {info.download_mb} MB), "
                f"or set {DATA_DIR_VARIABLE} to where {name}-{split}.npz lies."
            )
        file = _download(info, split, folder, progress or (lambda done, total, what: None))
    loaded = ImageSet(name, split, *read_npz(file))
    known, note = _UNOFFICIAL.get((name, split), ("", ""))
    return replace(loaded, notes=(note,)) if known and loaded.fingerprint == known else loaded


_data_dir = data_dir  # `load` takes an argument of this name


@lru_cache(maxsize=16)
def _generate(name: str, split: str) -> ImageSet:
    module = builtin if _CATALOG[name].kind == "built-in" else procedural
    return ImageSet(name, split, *getattr(module, name)(split))


def _info(name: str) -> SetInfo:
    if name not in _CATALOG:
        raise DataError(f"There is no data set '{name}'. Known data sets: {', '.join(_CATALOG)}.")
    return _CATALOG[name]


def prepared_file(name: str, split: str) -> Path | None:
    """Where the array of a downloadable set lies; None where there is none."""
    return _prepared(name, split, data_dir()) if _info(name).kind == "download" else None


def _prepared(name: str, split: str, folder: Path) -> Path | None:
    stems = filter(None, (f"{name}-{split}", _ALIASES.get((name, split))))
    return next((file for stem in stems if (file := folder / f"{stem}.npz").is_file()), None)


def _download(info: SetInfo, split: str, folder: Path, progress: Progress) -> Path:
    from ama_core.data.downloads import FETCHERS  # torchvision takes a second to import, and few calls need it

    root = folder / "torchvision"
    progress(0, 2, f"downloading and preparing {info.title} (about {info.download_mb} MB)")
    try:
        root.mkdir(parents=True, exist_ok=True)
        images, labels = FETCHERS[info.name](root, split)
        progress(1, 2, f"storing {info.title}")
        file = folder / f"{info.name}-{split}.npz"
        _write_npz(file, images, labels)
    except Exception as error:  # network, server, disk or a changed file: each library raises its own kinds
        raise DataError(
            f"{info.title} could not be downloaded to {folder} ({type(error).__name__}: {error}). Check the network "
            f"and the free space and try again, or put {info.name}-{split}.npz there yourself."
        ) from error
    progress(2, 2, f"{info.title} is ready")
    return file


def _write_npz(file: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write beside the target and rename: a reader sees the whole file or none."""
    part = file.with_name(f".{file.stem}-{os.getpid()}.npz")
    try:
        np.savez(part, images=images, labels=labels)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
