"""What one's own images are like before anything is trained on them: sizes, colours, unreadable files, and double ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from ama_core.data.files import iter_images
from ama_core.data.imageset import SPLITS
from ama_core.data.pictures import thumbnail, to_picture

NEAR = 3  # of 64 bits: up to here two difference hashes count as one picture, saved or scaled again
PLAIN = 6  # brightness steps of the 72 that a picture without any structure has by chance
MAX_COMPARED = 20_000  # pairs grow with the square
REASONS = 3  # for which files are left out that are told one by one
PREVIEW = 12
PREVIEW_SIDE = 96  # pixels


@dataclass(frozen=True)
class Inspection:
    """What was found in one source.

    Attributes:
        n: readable images. sizes: (width, height) -> how many. grey: how many have one channel.
        refused: (path, why) of what could not be read.
        duplicates: groups of paths whose pixels are the same.
        near: pairs of paths that look the same though their pixels differ (difference hash, at most NEAR of 64 bits apart).
        shared: pairs (path here, path in the test images) that look the same: a test with them proves nothing.
        notes: what the reader changed on the way, such as an orientation, and how often.
        preview: the first images, uint8 (H, W, C), small.
        compared: whether `near` and `shared` were looked for: not among more than MAX_COMPARED images.
        compared_with_test: whether `shared` was looked for: not where the test images are more than MAX_COMPARED.
    """

    n: int
    sizes: dict[tuple[int, int], int]
    grey: int
    refused: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    near: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...]
    notes: dict[str, int]
    preview: tuple[np.ndarray, ...]
    compared: bool = True
    compared_with_test: bool = True

    def sentences(self) -> list[str]:
        """The report, for people."""
        if not self.n:
            return ["No image could be read.", *self._refusals()]
        ranked = sorted(self.sizes.items(), key=lambda item: -item[1])
        sizes = ", ".join(f"{w}×{h} ({count:,})" for (w, h), count in ranked[:4]) + (" …" if len(ranked) > 4 else "")
        lines = [
            f"{_counted(self.n, 'readable image')}, {self.n - self.grey:,} in colour and {self.grey:,} grey.",
            f"{_counted(len(self.sizes), 'size')}: {sizes}.",
        ]
        if 0 < self.grey < self.n:
            lines.append("Grey and colour are mixed: grey ones will be repeated to three channels, and may stand out for it.")
        changed = sorted(self.notes.items(), key=lambda item: -item[1])[:3]
        lines += [f"{_counted(count, 'image')}: {note}." for note, count in changed]
        lines += self._refusals()
        if self.duplicates:
            extra = sum(len(group) - 1 for group in self.duplicates)
            lines.append(
                f"{_counted(extra, 'exact duplicate')}, such as {' = '.join(self.duplicates[0][:3])}. Keep one of each."
            )
        if self.near:
            pairs = _counted(len(self.near), "pair")
            lines.append(f"{pairs} of images that look the same, such as {' and '.join(self.near[0])}.")
        if self.shared:
            lines.append(
                f"{_counted(len(self.shared), 'pair')} of a training and a test image that look the same, such as "
                f"{' and '.join(self.shared[0])}: take them out of one of the two, or the test proves nothing."
            )
        if not self.compared:
            lines.append(f"More than {MAX_COMPARED:,} images: only exact duplicates were looked for.")
        elif not self.compared_with_test:
            lines.append(f"More than {MAX_COMPARED:,} test images: whether training images are among them was not looked for.")
        elif not (self.duplicates or self.near or self.shared):
            lines.append("No duplicates and no look-alikes.")
        return lines

    def _refusals(self) -> list[str]:
        if not self.refused:
            return []
        groups: dict[str, list[tuple[str, str]]] = {}
        for path, why in self.refused:
            reason = why.replace(path, "").replace(PurePath(path).name, "")  # it may name the file
            groups.setdefault(reason, []).append((path, why))
        ranked = sorted(groups.values(), key=len, reverse=True)
        said = [f"{_counted(len(files), 'file')} left out, such as {': '.join(files[0])}" for files in ranked[:REASONS]]
        if rest := sum(map(len, ranked[REASONS:])):
            said.append(f"{rest:,} more left out for other reasons.")
        return said


def inspect(
    source: str | Path | Sequence[str | Path],
    against: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Inspection:
    """Look at folders, .zip, .tar, .npz or image files; one folder with subfolders train and test is compared between them.

    Args:
        source: a path, or several that are looked at together.
        against: other images that should not be among these, such as those of the test.
        progress: called with how many files were met.

    Raises DataError for a path that does not exist and for a folder without any file.
    """
    sources = [Path(source)] if isinstance(source, (str, Path)) else [Path(one) for one in source]
    if against is None and len(sources) == 1 and divided(sources[0]):
        sources, against = [sources[0] / SPLITS[0]], sources[0] / SPLITS[1]
    sizes, notes, refused, preview = Counter(), Counter(), [], []
    paths, exact, hashes, grey = [], {}, [], 0
    for met, item in enumerate(iter_images(sources), 1):
        name = item.path if len(sources) > 1 else item.path.removeprefix(f"{sources[0]}/")
        name += f"#{item.index}" if item.path.lower().endswith(".npz") else ""
        if progress and met % 32 == 0:
            progress(met)
        if item.image is None:
            refused.append((name, item.error))
            continue
        height, width, channels = item.image.shape
        sizes[width, height] += 1
        grey += channels == 1
        notes.update(item.notes)
        paths.append(name)
        exact.setdefault(hashlib.sha256(str(item.image.shape).encode() + item.image.tobytes()).digest(), []).append(name)
        hashes.append(difference_hash(item.image))
        if len(preview) < PREVIEW:
            preview.append(thumbnail(item.image, PREVIEW_SIDE))
    compared = len(paths) <= MAX_COMPARED
    groups = tuple(tuple(group) for group in exact.values() if len(group) > 1)
    near = _near(paths, hashes, groups) if compared else ()
    shared = _shared(paths, hashes, against) if compared and paths and against is not None else ()
    apart = shared is not None
    return Inspection(
        len(paths), dict(sizes), grey, tuple(refused), groups, near, shared or (), dict(notes), tuple(preview), compared, apart
    )


def divided(source: Path) -> bool:
    """Whether a folder has subfolders for training and for testing."""
    return all((source / split).is_dir() for split in SPLITS)


def _near(paths: list[str], hashes: list[int | None], groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, str], ...]:
    """Pairs that look the same and are not the same; of exact duplicates only the first counts."""
    doubled = {name for group in groups for name in group[1:]}
    pairs = ((paths[i], paths[j]) for i, j in look_alikes(hashes, hashes) if i < j)
    return tuple(pair for pair in pairs if not {*pair} & doubled)


def _shared(paths: list[str], hashes: list[int | None], against: str | Path) -> tuple[tuple[str, str], ...] | None:
    """Pairs of an image here and one of `against` that look the same; None where there are more than MAX_COMPARED."""
    names, theirs = [], []
    for item in islice((item for item in iter_images([against]) if item.image is not None), MAX_COMPARED + 1):
        names.append(item.path.removeprefix(f"{against}/"))
        theirs.append(difference_hash(item.image))  # at once: whole images of a folder need not fit in memory
    if len(names) > MAX_COMPARED:
        return None
    return tuple((paths[i], names[j]) for i, j in look_alikes(hashes, theirs))


def difference_hash(image: np.ndarray) -> int | None:
    """64 bits, each whether a place of the picture, 8×8 of them, is darker than the next; None where it has no structure.

    image: uint8 (H, W, C), C 1 or 3. Alike for a picture saved, scaled or brightened again.
    """
    picture = to_picture(image).convert("L")
    small = np.asarray(picture.resize((9, 8), Image.Resampling.BOX), np.int16)
    if np.count_nonzero(np.abs(np.diff(small, axis=1)) > 1) < PLAIN:
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


def look_alikes(some: Sequence[int | None], others: Sequence[int | None]) -> list[tuple[int, int]]:
    """(i, j) of hashes that are at most NEAR bits apart, in order."""
    columns = [j for j, value in enumerate(others) if value is not None]
    theirs = np.array([others[j] for j in columns], np.uint64)
    found = []
    for i, value in enumerate(some):
        if value is not None and columns:
            close = np.flatnonzero(np.bitwise_count(theirs ^ np.uint64(value)) <= NEAR)
            found += [(i, columns[j]) for j in close]
    return found


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
