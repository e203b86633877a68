"""A user's own images as an ImageSet, and `load_any`, which takes a catalog name, a folder or an .npz file alike."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from ama_core.data.files import check_path, count_images, iter_images, read_npz
from ama_core.data.imageset import SPLITS, ImageSet
from ama_core.data.preprocess import prepare, summarise
from ama_core.data.sets import Progress, catalog, load, prepared_file
from ama_core.errors import DataError

OWN_SPLITS = (*SPLITS, "ood")
TEST_FRACTION = 0.2


def load_any(
    source: str | Path,
    split: str = "test",
    *,
    size: int = 32,
    channels: int | None = None,
    fit: str = "crop",
    data_dir: str | Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> ImageSet:
    """A set of the catalog by name, or one's own images: a folder, a .zip or .tar, or an .npz file with `images`.

    split: "train" or "test" as the source has them (for a folder: its subfolders of these names). One's own images
    without such a division are divided by a fixed seed, 80 % train and 20 % test. "ood" is what may serve as anomalies:
    the test split where the source has one, otherwise every image.
    size, channels, fit: how the images of a folder are brought to one shape (see `prepare`); `channels=None` gives 1
    where all are grey, else 3. Sets of the catalog and .npz files keep their own shape.
    data_dir, download, progress: as in `load`.

    Raises `DataError` for an unknown name or split and for a source without a readable image.
    """
    if split not in OWN_SPLITS:
        raise DataError(f"The split must be one of {', '.join(OWN_SPLITS)}, got '{split}'.")
    if str(source) in catalog():
        named = "test" if split == "ood" else split
        return load(str(source), named, data_dir=data_dir, download=download, progress=progress)
    path, own = _own_place(source, split)
    if path.suffix.lower() == ".npz":
        return _divide(ImageSet(path.stem, "test", *read_npz(path)), split)
    images = load_folder(own, size=size, channels=channels, fit=fit)
    if own == path:
        return _divide(images, split)
    return ImageSet(path.name, own.name, images.images, images.labels, images.paths, images.notes)


def count_any(source: str | Path, split: str = "train") -> int:
    """How many images `load_any` returns of one's own, if all can be read: files are counted by their names, not read.

    Raises `DataError` as `load_any` for a source without that split, with too few images to be divided, or with none.
    """
    path, own = _own_place(source, split)
    n = count_images([own], named=True)
    if not n:
        return len(load_any(source, split))  # says what is wrong with it
    if own != path or split == "ood":
        return n
    n_test = _test_count(n, path.stem)
    return n_test if split == "test" else n - n_test


def absolute_source(source: str) -> str:
    """The name of a data set of the catalog as it is, and a path so that it is found from any folder."""
    return source if source in catalog() else str(Path(source).expanduser().resolve())


def _own_place(source: str | Path, split: str) -> tuple[Path, Path]:
    """Where one's own images are, and what of it a split is read from: a subfolder, or all, which is then divided.

    Raises DataError.
    """
    path = Path(check_path(source)).expanduser()
    if path.name in ("", ".."):  # the current folder or one above it: the images are called by its name
        path = path.resolve()
    if not path.exists():
        raise DataError(f"'{source}' is neither a known data set ({', '.join(catalog())}) nor an existing path.")
    divided = [path / name for name in SPLITS if (path / name).is_dir()]
    if not divided:
        return path, path
    own = path / ("test" if split == "ood" else split)
    if own not in divided:
        raise DataError(f"'{path}' has a subfolder '{divided[0].name}' but none named '{own.name}'. Add it.")
    return path, own


def same_source(one: str | Path | None, other: str | Path | None) -> bool:
    """Whether two sources, however they are spelled, are one: one name of the catalog, or one folder or file."""
    if one is None or other is None:
        return False
    if str(one) in catalog() or str(other) in catalog():
        return str(one) == str(other)
    places = [Path(source).expanduser().resolve() for source in (one, other)]
    return places[0] == places[1] or all(place.exists() for place in places) and places[0].samefile(places[1])


def overlapping(normal: str | Path, other: str | Path) -> bool:
    """Whether two sources, however they are spelled, have images in common: one is the other, or one lies within the other."""
    if str(normal) in catalog() and str(other) in catalog():
        return str(normal) == str(other)
    return any(_within(a, b) or _within(b, a) for a in _places(normal) for b in _places(other))


def holds_training_images(source: str | Path, normal: str | Path) -> bool:
    """Whether what `load_any` takes of `source` as "ood" has files in common with what it divides for training of `normal`."""
    if str(source) in catalog() or str(normal) in catalog():
        return False
    try:
        tested, trained = (_own_place(own, split)[1].resolve() for own, split in ((source, "ood"), (normal, "train")))
    except DataError:  # it is not here, or has no such split
        return False
    return _within(tested, trained) or _within(trained, tested)


def _places(source: str | Path) -> list[Path]:
    """The files or folders that `load_any` reads for a source, links followed."""
    if str(source) in catalog():
        return [file.resolve() for split in SPLITS if (file := prepared_file(str(source), split))]
    path = Path(source).expanduser().resolve()
    return [path / name for name in SPLITS if (path / name).is_dir()] or [path]


def _within(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) or (path.exists() and folder.exists() and path.samefile(folder))


def load_folder(path: str | Path, *, size: int = 32, channels: int | None = None, fit: str = "crop") -> ImageSet:
    """Every readable image of a folder (subfolders included), .zip or .tar, prepared as read; `split` is "test".

    Files that are no images or cannot be read are left out, with a UserWarning, and named in `notes`; `paths` names the others.

    Raises `DataError` where not one image is left.
    """
    path = Path(path)
    images, paths, skipped, steps = [], [], [], Counter()
    for file in iter_images([path]):
        if file.image is None:
            skipped.append(f"{file.path.removeprefix(f'{path}{os.sep}')}: {str(file.error).rstrip('.')}")
            continue
        image, done = prepare([file.image], size=size, channels=channels or file.image.shape[2], fit=fit)
        images.append(image[0])
        paths.append(file.path if file.index == 0 else f"{file.path}#{file.index}")
        steps.update([*file.notes, *done])
    if not images:
        raise DataError(f"'{path}' holds no readable image. {'; '.join(skipped[:3])}")
    notes = summarise(steps, len(images))
    if len({image.shape[2] for image in images}) > 1:
        grey = sum(image.shape[2] == 1 for image in images)
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
        notes.append(f"{grey} of {len(images)} images: grey repeated to 3 channels")
    if skipped:
        count = f"{len(skipped):,} file{'s' * (len(skipped) > 1)} left out"
        notes.append(f"{count}: {'; '.join(skipped[:3])}{' …' if len(skipped) > 3 else ''}")
        warnings.warn(f"Of {path.resolve()}, {notes[-1]}", stacklevel=2)
    labels = np.zeros(len(images), np.int64)
    return ImageSet(path.stem, "test", np.stack(images), labels, tuple(paths), tuple(notes))


def _divide(images: ImageSet, split: str) -> ImageSet:
    """All images for "ood", otherwise this split's share of a fixed random division."""
    if split == "ood":
        return images
    test_count = _test_count(len(images), images.name)
    order = np.random.default_rng(0).permutation(len(images))
    chosen = order[:test_count] if split == "test" else order[test_count:]
    part = images.take(np.sort(chosen))
    return ImageSet(part.name, split, part.images, part.labels, part.paths, part.notes)


def _test_count(n: int, name: str) -> int:
    """How many of n images become the test split. Raises DataError where that leaves one of the splits empty."""
    count = round(n * TEST_FRACTION)
    if not 0 < count < n:
        raise DataError(f"'{name}' has {n} image{'s' * (n != 1)}, too few to divide into train and test. Add more.")
    return count
