"""Images from files that nobody vouches for: decoded within limits, or refused in plain words.

Nothing is written, unpickled or extracted here. Sizes are checked before memory is spent.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ama_core.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"]
)
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20
MAX_ARRAY_BYTES = 4 * 2**30
MAX_MEMBERS = 200_000

_NOT_AN_IMAGE = "not an image file (by its name)"
# What zipfile and NumPy raise for damaged, encrypted or lying archives.
_ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)

Source = str | Path | tuple[str, bytes]
"""A path, or (name, content) of something uploaded."""


class FileImage(NamedTuple):
    """One image of a file, or the reason why there is none."""

    path: str
    """The file; for members of an archive "archive.zip/member.png"."""
    index: int
    """Position within an .npz file, otherwise 0."""
    image: np.ndarray | None
    """uint8 (H, W, C), C 1 or 3; None where `error` is set."""
    error: str | None
    notes: tuple[str, ...] = ()


def decode_image(source: bytes | str | Path) -> tuple[np.ndarray, list[str]]:
    """An encoded image as uint8 (H, W, C), C 1 for grey and 3 otherwise, and notes on what was changed.

    Of several frames the first is taken; transparency is laid on white, as most viewers show it; 16 bits are scaled
    to 8; CMYK and other colour spaces become RGB; the EXIF orientation is applied.

    Raises `DataError` for unreadable, truncated, oversized or unsupported files.
    """
    if isinstance(source, bytes):
        name, data = "The image", source
    else:
        name, data = f"'{Path(source).name}'", _read(Path(source))
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB. Reduce it first.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(
                    f"{name} has {picture.width}×{picture.height} pixels; the limit is {MAX_PIXELS // 10**6} million. "
                    "Reduce it first."
                )
            return _decode(picture)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        raise DataError(f"{name} is not an image that can be read here ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels. Reduce it first.") from None
    except Exception as error:  # damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error …
        raise DataError(f"{name} is damaged or incomplete ({error}). Save or copy it again.") from error


def iter_images(sources: Iterable[Source], *, recursive: bool = True) -> Iterator[FileImage]:
    """Every image of files, folders, .npz and .zip files, one at a time, in sorted order within each source.

    What cannot be read is yielded as a `FileImage` with `error`, so that one bad file does not end the walk. Hidden
    files are passed over. Nothing of a .zip is unpacked to disk; archives within archives are not opened.

    Raises `DataError` for a path that does not exist and for a folder without any file.
    """
    for source in sources:
        if isinstance(source, tuple):
            yield from _from_bytes(*source)
            continue
        path = Path(source)
        if not path.exists():
            raise DataError(f"'{path}' does not exist. Check the path.")
        for file in _walk(path, recursive) if path.is_dir() else [path]:
            if file.suffix.lower() in (".npz", ".zip"):
                yield from _from_archive(str(file), file)
            elif file.suffix.lower() not in SUFFIXES:
                yield FileImage(str(file), 0, None, _NOT_AN_IMAGE)
            else:
                yield _attempt(str(file), file)


def read_npz(source: str | Path | io.BytesIO, name: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`images` as uint8 (N, H, W, C) and `labels` as int64 (N,), zeros where the file has none.

    `images` may be (N, H, W) for grey. Pickled objects are refused.

    Raises `DataError` for anything else.
    """
    name = name or Path(source).name
    wanted = "It must hold `images`, uint8 (N, H, W, C) with C = 1 or 3, and may hold `labels`, integers (N,)."
    try:
        with zipfile.ZipFile(source) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_ARRAY_BYTES:
                raise DataError(f"'{name}' unpacks to more than {MAX_ARRAY_BYTES >> 30} GiB. Split it.")
        if isinstance(source, io.BytesIO):
            source.seek(0)
        with np.load(source, allow_pickle=False) as file:
            if "images" not in file:
                raise DataError(
                    f"'{name}' has no array `images` (it has: {', '.join(file.files) or 'nothing'}). {wanted}"
                )
            images = file["images"]
            labels = file["labels"] if "labels" in file else np.zeros(len(images) if images.ndim else 0, np.int64)
    except FileNotFoundError:
        raise DataError(f"'{source}' does not exist. Check the path.") from None
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(f"'{name}' holds pickled objects, which can run code: refused. {wanted}") from None
        raise DataError(f"'{name}' is damaged ({error}). Write it again.") from error
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"'{name}' cannot be read as an .npz file ({error}). {wanted}") from error
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise DataError(f"'{name}': `images` is {images.dtype} {images.shape}. {wanted}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise DataError(f"'{name}': `labels` is {labels.dtype} {labels.shape} for {len(images)} images. {wanted}")
    return images, labels.astype(np.int64)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"'{path.name}' is larger than {MAX_FILE_BYTES >> 20} MiB. Reduce it first.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}). Check the path.") from None


def _decode(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    notes = []
    is_png = picture.format == "PNG"
    if getattr(picture, "is_animated", False):
        notes.append("several frames: only the first is used")
        picture.seek(0)
    picture.load()
    if picture.getexif().get(0x0112, 1) != 1:
        notes.append("turned upright as its EXIF orientation says")
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and is_png):
        notes.append("16 bits per pixel scaled to 8")
        values = np.asarray(picture).astype(np.uint32)
        return ((values * 255 + 32767) // 65535).astype(np.uint8)[..., None], notes
    if mode in ("I", "F"):
        raise DataError(
            f"The image has {'32-bit integer' if mode == 'I' else 'floating-point'} pixels, whose range is "
            "unknown. Save it with 8 or 16 bits per channel."
        )
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getextrema()[3][0] < 255:
            notes.append("transparency laid on white")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    elif mode not in ("1", "L", "P", "RGB", "RGBX"):
        notes.append(f"{mode} colours converted to RGB")
    array = np.asarray(picture.convert(target))
    return array[..., None] if target == "L" else array, notes


def _attempt(name: str, source: bytes | Path) -> FileImage:
    try:
        image, notes = decode_image(source)
    except DataError as error:
        return FileImage(name, 0, None, str(error))
    return FileImage(name, 0, image, None, tuple(notes))


def _attempt_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> FileImage:
    try:
        return _attempt(name, archive.read(member))
    except _ARCHIVE_ERRORS as error:
        return FileImage(name, 0, None, f"damaged or encrypted ({error})")


def _walk(folder: Path, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.glob("*")
    files = sorted(
        path
        for path in found
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"The folder '{folder}' is empty. Put images into it ({', '.join(FORMATS)}).")
    return files


def _from_bytes(name: str, data: bytes) -> Iterator[FileImage]:
    if Path(name).suffix.lower() in (".npz", ".zip"):
        yield from _from_archive(name, io.BytesIO(data))
    else:
        yield _attempt(name, data)


def _from_archive(name: str, source: Path | io.BytesIO) -> Iterator[FileImage]:
    try:
        if name.lower().endswith(".npz"):
            for index, image in enumerate(read_npz(source, Path(name).name)[0]):
                yield FileImage(name, index, image, None)
        else:
            yield from _from_zip(name, source)
    except DataError as error:
        yield FileImage(name, 0, None, str(error))


def _from_zip(name: str, source: Path | io.BytesIO) -> Iterator[FileImage]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = sorted(
                (member for member in archive.infolist() if not member.is_dir() and not _hidden(member.filename)),
                key=lambda member: member.filename,
            )
            if not members or len(members) > MAX_MEMBERS:
                raise DataError(f"'{Path(name).name}' holds {len(members)} files; 1 to {MAX_MEMBERS:,} are read.")
            for member in members:
                inner = f"{name}/{member.filename}"
                if Path(member.filename).suffix.lower() not in SUFFIXES:
                    yield FileImage(inner, 0, None, _NOT_AN_IMAGE)
                elif member.file_size > MAX_FILE_BYTES:  # reading stops at this size, even if the content goes on
                    yield FileImage(inner, 0, None, f"larger than {MAX_FILE_BYTES >> 20} MiB")
                else:
                    yield _attempt_member(archive, member, inner)
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"'{Path(name).name}' is not a readable .zip file ({error}).") from error


def _hidden(member: str) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in Path(member).parts)
