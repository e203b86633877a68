"""Marks of an image's places as outlines on the photograph that was given, at its full size, and as files."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ama_core.data import frame, pictures, prepare
from ama_core.data.files import Unread
from ama_core.data.pictures import to_picture
from ama_core.detectors.base import AnomalyDetector, Examination
from ama_core.errors import ConfigError, DataError
from ama_core.scoring.localise import MAPS, Localiser
from ama_core.storage.files import check_output, open_regular, write_atomically

LINE, HALO = (213, 94, 0), (255, 255, 255)  # vermillion of Okabe and Ito, between white, so that it shows on every ground
SMALL = 384  # a photograph whose longer side is below this is enlarged by a whole number, or lines would cover it
PART = 250  # of the longer side: the thickness of a line
SOFTWARE = "AMA Explorer outlines"
NAME_LENGTH = 80  # of the image's own name, within that of its file

Segment = tuple[float, float, float, float]


def outline(image: np.ndarray, marks: np.ndarray, fit: str) -> np.ndarray:
    """The photograph with the marked places outlined, uint8 (H, W, 3), enlarged by a whole number where it is small.

    Args:
        image: as it was given, uint8 (H, W, C), C 1 or 3. marks: bool (S, S), of the square that `prepare` made of it
            with `fit`.
    """
    height, width = image.shape[:2]
    times = max(1, SMALL // max(height, width))
    picture = to_picture(image).convert("RGB")
    picture = picture.resize((times * width, times * height), Image.Resampling.NEAREST) if times > 1 else picture
    thick = max(2, round(times * max(height, width) / PART))
    lines = [[times * value for value in segment] for segment in segments(marks, height, width, fit)]
    draw = ImageDraw.Draw(picture)
    for colour, extra in ((HALO, thick), (LINE, 0)):
        for x0, y0, x1, y1 in lines:
            more = (thick + extra) / 2  # lines meet in corners without a gap
            draw.rectangle((x0 - more, y0 - more, x1 + more - 1, y1 + more - 1), fill=colour)
    return np.asarray(picture)


def segments(marks: np.ndarray, height: int, width: int, fit: str) -> list[Segment]:
    """The edges of the marked places in pixels of the photograph: (left, top, right, bottom) of horizontal and vertical lines.

    Edges between two marked places are none. What lies outside the photograph, where a square was padded, is left out.
    """
    size = len(marks)
    left, top, right, bottom = frame(height, width, size=size, fit=fit)
    x = left + (right - left) * np.arange(size + 1) / size
    y = top + (bottom - top) * np.arange(size + 1) / size
    inside_x, inside_y = ((at[1:] > 0) & (at[:-1] < most) for at, most in ((x, width), (y, height)))
    shown = np.pad(marks & inside_y[:, None] & inside_x[None], 1)
    x, y = np.clip(x, 0, width), np.clip(y, 0, height)
    found = []
    for row in range(size + 1):
        for start, end in _runs(shown[row, 1:-1] != shown[row + 1, 1:-1]):
            found.append((float(x[start]), float(y[row]), float(x[end]), float(y[row])))
    for column in range(size + 1):
        for start, end in _runs(shown[1:-1, column] != shown[1:-1, column + 1]):
            found.append((float(x[column]), float(y[start]), float(x[column]), float(y[end])))
    return found


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and end of every run of True in a bool array (n,)."""
    changes = np.flatnonzero(np.diff(np.pad(values.astype(np.int8), 1)))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist())


# Files


@dataclass(frozen=True)
class Outlines:
    """What `write_outlines` draws: where maps come from, which one, and at which false-alarm rate."""

    detector: AnomalyDetector
    localiser: Localiser
    name: str
    alpha: float

    def sentence(self, marked: Collection[bool] = ()) -> str:
        """What an outline means, for readers. marked: of images that were drawn, whether each has any."""
        means = (
            f"Outlined are places that stand out from what normal images show there, by {MAPS[self.name]}; at most a fraction "
            f"{self.alpha:g} of normal images gets any outline."
        )
        without = len(marked) - sum(marked)
        if without and without == len(marked):
            return f"{means} No single place stands out in any of these images: they are unusual as a whole."
        return means + (f" In {without:,} of these {len(marked):,} no single place stands out." if without else "")

    def marks(self, examined: Examination) -> np.ndarray:
        """Marked places of N examined images, bool (N, S, S)."""
        return self.localiser.marks(self.name, self.localiser.maps(examined)[self.name], self.alpha)

    def draw(self, image: np.ndarray, examined: Examination | None = None) -> tuple[np.ndarray, bool]:
        """An image as it was given, uint8 (H, W, C), with its outlines (see `outline`), and whether there are any.

        examined: what the detector says of it, N = 1; examined here where it is not given.
        """
        spec = self.detector.settings.input
        if examined is None:
            examined = self.detector.examine(prepare(image[None], **vars(spec))[0])
        marks = self.marks(examined)[0]
        return outline(image, marks, spec.fit), bool(marks.any())

    def for_report(
        self, images: Iterable[tuple[int, np.ndarray]], examined: Examination | None = None
    ) -> tuple[dict[int, np.ndarray], str]:
        """What `html_report` takes of outlines: images drawn, by their positions, and a sentence on them; empty without images.

        Args:
            images: positions and photographs, uint8 (H, W, C). examined: what the detector says of the image at each position;
                examined here where it is not given.
        """
        drawn = {i: self.draw(image, None if examined is None else examined.take([i])) for i, image in images}
        pictures = {i: picture for i, (picture, _) in drawn.items()}
        return pictures, self.sentence([marks for _, marks in drawn.values()]) if drawn else ""


def check_folder(folder: Path, sources: Iterable[str | Path], replace: bool) -> None:
    """Whether outlines may be written into `folder`.

    Args:
        sources: the images that are scored: were the folder among them, its files would be taken for images next time.
        replace: whether a folder may hold outlines already, which then are removed.

    Raises ConfigError where they may not.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--maps {folder} is not a folder: choose another name.")
    for source in sources:
        if Path(source).is_dir() and Path(source).resolve() in (folder.resolve(), *folder.resolve().parents):
            raise ConfigError(f"--maps {folder} is inside {source}, whose images are scored: choose a folder outside of it.")
    if not replace and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"--maps {folder} is not empty: choose a new folder, or add --force to replace the outlines in it and keep "
            "the rest."
        )


def write_outlines(
    outlines: Outlines,
    unread: Iterable[Unread],
    chosen: Iterable[bool],
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Write a PNG of every chosen image with its marked places outlined; outlines already in `folder` are removed first.

    A file is called after the number of its image in the table, from 0, and its name.

    Args:
        unread: the images. chosen: whether to draw each, in the same order; such as those that are flagged.
        progress: called with how many are written.

    Returns how many were written, and how many of these have no marked place.
    Raises ConfigError where a file of such a name lies in `folder` that is no outline, and DataError where the images changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.png"):
        if is_outline(file):
            file.unlink()
    written = unmarked = 0
    unread = iter(unread)
    for number, wanted in enumerate(chosen):
        item = next(unread, None)
        if item is None:
            raise DataError("There are fewer images now than when they were scored: score them again.")
        if not wanted:
            continue
        found = item.read()
        if found.image is None:
            raise DataError(f"{found.path} cannot be read any more ({found.error}): score the images again.")
        drawn, marked = outlines.draw(found.image)
        out = folder / file_name(number, found.path, found.index)
        check_output(out, (), is_outline)
        write_atomically(out, png(drawn))
        written, unmarked = written + 1, unmarked + (not marked)
        if progress:
            progress(written)
    return written, unmarked


def file_name(number: int, path: str, index: int = 0) -> str:
    """The name of the file of image `number`: letters, digits, dots, hyphens and underscores alone."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", os.path.basename(path.replace("\\", "/")))[:NAME_LENGTH].strip("._")
    return f"{number:06d}-{name or 'image'}{f'-{index}' if path.lower().endswith('.npz') else ''}.png"


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as a PNG file that says what made it."""
    return pictures.png(image, Software=SOFTWARE)


def is_outline(file: Path) -> bool:
    """Whether `png` made this file."""
    try:
        with open_regular(file) as opened, Image.open(opened, formats=("PNG",)) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
