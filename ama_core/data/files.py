"""Images from untrusted files: decoded within limits, or refused in plain words.

Nothing is written, unpickled or extracted here. Sizes are checked before memory is spent.
"""

from __future__ import annotations

import errno
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from ama_core.errors import DataError
from ama_core.storage.files import DAMAGED_ARRAYS, open_regular, read_regular

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"]
)
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20
MAX_ARRAY_BYTES = 4 * 2**30
MAX_MEMBERS = 200_000
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use of the 16 in which they store a value
ORIENTATION, BITS, SAMPLE_FORMAT, MAX_SAMPLE = 0x0112, 258, 339, 281  # tags of EXIF and TIFF

_NPZ_WANTED = "It must hold `images`, uint8 (N, H, W, C) with C = 1 or 3, and may hold `labels`, integers (N,)."
_NOT_AN_IMAGE = "not an image file (by its name)"
_SAVE_AS = "Save it with 8 or 16 bits per channel, as unsigned integers."
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


class Unread(NamedTuple):
    """An image that is known by name and not yet decoded, so that whoever walks may skip it, or decode in several threads."""

    path: str
    index: int
    read: Callable[[], FileImage]
    size: int = 0
    """Bytes that it holds until it is read."""


def decode_image(source: bytes | str | Path) -> tuple[np.ndarray, list[str]]:
    """An encoded image as uint8 (H, W, C), C 1 for grey and 3 otherwise, and notes on what was changed.

    Of several frames the first is taken; transparency is laid on white, as most viewers show it; 16 bits are scaled
    to 8, in a TIFF file by the bits that are in use; CMYK and other colour spaces become RGB; the EXIF orientation is applied.

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
        if kind := _tiff_kind(data):
            raise DataError(f"{name} is a TIFF file of {kind} pixels, which cannot be read here. {_SAVE_AS}") from None
        raise DataError(f"{name} is not an image that can be read here ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels. Reduce it first.") from None
    except Exception as error:  # damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error …
        raise DataError(f"{name} is damaged or incomplete ({error}). Save or copy it again.") from error


def iter_images(sources: Iterable[Source], *, recursive: bool = True) -> Iterator[FileImage]:
    """Every image of files, folders, .npz and .zip files, one at a time, in sorted order within each source.

    What cannot be read is yielded as a `FileImage` with `error`, so that one bad file does not end the walk. Hidden
    files are passed over. Nothing of a .zip is unpacked to disk; archives within archives are not opened. Memory holds one
    image and the names of one folder, or a .zip file's table of contents, however many there are.

    Only regular files are opened: a pipe or a device, which might never end, is yielded with an `error`.

    Raises `DataError` for a path that is empty or does not exist and for a folder without any file.
    """
    return (unread.read() for unread in iter_unread(sources, recursive=recursive))


def iter_unread(sources: Iterable[Source], *, recursive: bool = True) -> Iterator[Unread]:
    """As `iter_images`, before anything is decoded; always in the same order while the sources do not change."""
    for source in sources:
        if isinstance(source, tuple):
            yield from _from_bytes(*source)
            continue
        path = Path(check_path(source))
        if not path.exists():
            raise DataError(f"'{path}' does not exist. Check the path.")
        for file in _files(path, recursive) if path.is_dir() else [str(path)]:
            suffix = os.path.splitext(file)[1].lower()
            if os.path.isdir(file):
                yield _refused(file, 0, "the folder cannot be listed: check its permissions")
            elif suffix in (".npz", ".zip"):
                yield from _from_archive(file, Path(file))
            elif suffix not in SUFFIXES:
                yield _refused(file, 0, _NOT_AN_IMAGE)
            else:
                yield Unread(file, 0, partial(_attempt, file, Path(file)))


def check_path(source: str | Path) -> str | Path:
    """The path itself. Raises DataError where it is empty: taken as a path, that would be the current folder."""
    if not str(source):
        raise DataError("The path is empty. Name a file or folder (the current folder is called '.').")
    return source


def check_sources(sources: Iterable[str | Path]) -> None:
    """Raises DataError for a path that is empty or does not exist, before any is read."""
    for source in sources:
        if not Path(check_path(source)).exists():
            raise DataError(f"'{source}' does not exist. Check the path.")


def files_of(sources: Iterable[str | Path]) -> Iterator[str]:
    """Every file that `iter_unread` would look at, archives as one, without opening any."""
    for source in sources:
        yield from _walk(str(source), recursive=True) if os.path.isdir(source) else [str(source)]


def count_images(sources: Iterable[Source]) -> int:
    """How many images `iter_images` would yield, readable or not, by names and tables of contents: for progress."""
    total = 0
    for source in sources:
        name, content = (source[0], io.BytesIO(source[1])) if isinstance(source, tuple) else (str(source), Path(source))
        if isinstance(content, Path) and content.is_dir():
            for file in _walk(name, recursive=True):
                total += count_images([file]) if file.lower().endswith((".npz", ".zip")) else 1
            continue
        try:
            if name.lower().endswith(".npz"):
                with _npz_rows(content, name) as (_, shape):
                    total += shape[0]
            elif name.lower().endswith(".zip"):
                with _opened(content) as file, zipfile.ZipFile(file) as archive:
                    total += len(_members(archive))
            else:
                total += 1
        except (DataError, *DAMAGED_ARRAYS):
            total += 1  # refused in one piece when it is read
    return total


def read_npz(source: str | Path | io.BytesIO, name: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`images` as uint8 (N, H, W, C) and `labels` as int64 (N,), zeros where the file has none.

    `images` may be (N, H, W) for grey. Pickled objects are refused.

    Raises `DataError` for anything else.
    """
    name = name or Path(source).name
    try:
        with _opened(source) as opened:
            with zipfile.ZipFile(opened) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAX_ARRAY_BYTES:
                    raise DataError(f"'{name}' unpacks to more than {MAX_ARRAY_BYTES >> 30} GiB. Split it.")
            with _npz_rows(source, name):
                pass  # refuses what a header can say wrongly
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                images = file["images"]
                labels = file["labels"] if "labels" in file else np.zeros(len(images), np.int64)
    except FileNotFoundError:
        raise DataError(f"'{source}' does not exist. Check the path.") from None
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(f"'{name}' holds pickled objects, which can run code: refused. {_NPZ_WANTED}") from None
        raise DataError(f"'{name}' is damaged ({error}). Write it again.") from error
    except DAMAGED_ARRAYS as error:
        raise DataError(f"'{name}' cannot be read as an .npz file ({error}). {_NPZ_WANTED}") from error
    images = np.ascontiguousarray(images[..., None] if images.ndim == 3 else images)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise DataError(f"'{name}': `labels` is {labels.dtype} {labels.shape} for {len(images)} images. {_NPZ_WANTED}")
    return images, labels.astype(np.int64)


@contextmanager
def _opened(source: str | Path | io.BytesIO) -> Iterator[IO[bytes]]:
    """A file opened by `open_regular`, or bytes, from their beginning; these stay open. Raises OSError."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
        yield source
    else:
        with open_regular(source) as file:
            yield file


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(f"'{path.name}' is larger than {MAX_FILE_BYTES >> 20} MiB. Reduce it first.") from None
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}). Check the path.") from None


def _decode(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    notes = []
    kind, tags = picture.format, _tiff_tags(picture)
    if getattr(picture, "is_animated", False):
        notes.append("several frames: only the first is used")
        picture.seek(0)
    picture.load()
    if picture.getexif().get(ORIENTATION, 1) in range(2, 9):  # others exist in files and mean nothing
        notes.append("turned upright as its EXIF orientation says")
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and kind in ("PNG", "PPM")):  # both of these fill 16 bits
        values = np.asarray(picture).astype(np.uint32)
        most, note = _range(values, tags) if kind == "TIFF" else (65535, "16 bits per pixel scaled to 8")
        notes.append(note)
        return ((np.minimum(values, most) * 255 + most // 2) // most).astype(np.uint8)[..., None], notes
    if mode in ("I", "F"):
        described = _described(tags) or ("integer" if mode == "I" else "floating-point")
        low, high = picture.getextrema()
        raise DataError(f"The image has {described} pixels (here {low:g} to {high:g}), whose range is unknown. {_SAVE_AS}")
    if tags.get(BITS, (8,))[0] == 16 and kind == "TIFF":  # of several channels Pillow reads the upper halves alone
        if max(high for _, high in _bands(picture)) < 16:
            raise DataError(
                "The image uses the lower 12 bits, or fewer, of 16 per channel, of which the upper 8 alone can be read. "
                "Save it with 8 bits per channel."
            )
        notes.append("16 bits per channel scaled to 8")
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


def _range(values: np.ndarray, tags: dict[int, tuple[int, ...]]) -> tuple[int, str]:
    """The value that is white in a grey TIFF file of 16 bits, and the note that says how it was found."""
    bits, most = tags.get(BITS, (16,))[0], tags.get(MAX_SAMPLE, (0,))[0]
    largest = int(values.max())
    if 8 < bits < 16 and largest < 2**bits:
        return 2**bits - 1, f"{bits} bits per pixel scaled to 8"
    if 255 <= most <= 65535 and largest <= most:
        return most, f"16 bits per pixel scaled to 8 ({most} is white, as the file says)"
    bits = next(depth for depth in DEPTHS if largest < 2**depth)
    if bits == 16:
        return 65535, "16 bits per pixel scaled to 8"
    return 2**bits - 1, f"16 bits per pixel scaled to 8, as {bits}-bit data: the largest value is {largest}"


def _bands(picture: Image.Image) -> list[tuple[int, int]]:
    """Lowest and highest value of every channel."""
    found = picture.getextrema()
    return [found] if isinstance(found[0], (int, float)) else list(found)


def _tiff_tags(picture: Image.Image) -> dict[int, tuple[int, ...]]:
    """The tags of a TIFF file that tell how its values are stored; empty for any other."""
    return _stored_as(getattr(picture, "tag_v2", {})) if picture.format == "TIFF" else {}


def _stored_as(directory) -> dict[int, tuple[int, ...]]:
    found = {}
    for tag in (BITS, SAMPLE_FORMAT, MAX_SAMPLE):
        values = directory.get(tag)
        values = values if isinstance(values, tuple) else (values,)
        if values and all(isinstance(value, int) for value in values):
            found[tag] = values
    return found


def _described(tags: dict[int, tuple[int, ...]]) -> str:
    """Such as "16-bit signed integer"; "" where the tags do not say."""
    kinds = {1: "unsigned integer", 2: "signed integer", 3: "floating-point", 5: "complex integer", 6: "complex"}
    kind = kinds.get(tags.get(SAMPLE_FORMAT, (1,))[0])
    return f"{tags[BITS][0]}-bit {kind}" if kind and BITS in tags else ""


def _tiff_kind(data: bytes) -> str:
    """What the pixels of a TIFF file are that Pillow does not know; "" where it is none, or says nothing of them."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return ""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return _described(_stored_as(directory))
    except Exception:  # damaged files make Pillow raise nearly anything
        return ""


def _attempt(name: str, source: bytes | Path) -> FileImage:
    try:
        image, notes = decode_image(source)
    except DataError as error:
        return FileImage(name, 0, None, str(error))
    return FileImage(name, 0, image, None, tuple(notes))


def _files(folder: Path, recursive: bool) -> Iterator[str]:
    """Every file that is not hidden, sorted; the first is looked for at once. Raises DataError where there is none."""
    files = _walk(str(folder), recursive)
    first = next(files, None)
    if first is None:
        raise DataError(f"The folder '{folder}' is empty. Put images into it ({', '.join(FORMATS)}).")
    yield first
    yield from files


def _walk(folder: str, recursive: bool) -> Iterator[str]:
    """Paths as text, which weigh a fraction of Path objects; links to folders are not followed, for they may form a circle."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if entry.name[0] != ".")
    except PermissionError:
        yield folder  # for the caller to say so: its images must not be missing in silence
        return
    for name, is_folder in entries:
        path = os.path.join(folder, name)
        if is_folder:
            if recursive:
                yield from _walk(path, recursive)
        elif os.path.isfile(path):
            yield path


def _refused(name: str, index: int, error: str) -> Unread:
    return Unread(name, index, partial(FileImage, name, index, None, error))


def _from_bytes(name: str, data: bytes) -> Iterator[Unread]:
    if Path(name).suffix.lower() in (".npz", ".zip"):
        yield from _from_archive(name, io.BytesIO(data))
    else:
        yield Unread(name, 0, partial(_attempt, name, data), len(data))


def _from_archive(name: str, source: Path | io.BytesIO) -> Iterator[Unread]:
    try:
        yield from (_from_npz if name.lower().endswith(".npz") else _from_zip)(name, source)
    except DataError as error:
        yield _refused(name, 0, str(error))


def _from_npz(name: str, source: Path | io.BytesIO) -> Iterator[Unread]:
    """Rows of `images` one after the other, as they are unpacked: the array is never in memory as a whole."""
    with _npz_rows(source, name) as (rows, shape):
        size, short = math.prod(shape[1:]), Path(name).name
        for index in range(shape[0]):
            try:
                row = next(rows)
            except DAMAGED_ARRAYS as error:
                raise DataError(f"'{short}' is damaged at image {index} ({error}). Write it again.") from error
            if len(row) < size:
                raise DataError(f"'{short}' ends at image {index} of {shape[0]}. Write it again.")
            yield Unread(name, index, partial(_row, name, index, row, shape[1:]), size)


def _row(name: str, index: int, row: bytes, shape: tuple[int, int, int]) -> FileImage:
    return FileImage(name, index, np.frombuffer(row, np.uint8).reshape(shape), None)


@contextmanager
def _npz_rows(source: str | Path | io.BytesIO, name: str) -> Iterator[tuple[Iterator[bytes], tuple[int, int, int, int]]]:
    """The bytes of one image after the other of an .npz file's `images`, and its shape (N, H, W, C). Raises DataError."""
    name = Path(name).name
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(_opened(source))))
            if "images.npy" not in archive.namelist():
                names = ", ".join(n.removesuffix(".npy") for n in archive.namelist()[:5])
                raise DataError(f"'{name}' has no array `images` (it has: {names or 'nothing'}). {_NPZ_WANTED}")
            member = stack.enter_context(archive.open("images.npy"))
            version = np.lib.format.read_magic(member)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read_header(member)
        except DAMAGED_ARRAYS as error:
            raise DataError(f"'{name}' cannot be read as an .npz file ({error}). {_NPZ_WANTED}") from error
        if dtype.hasobject:
            raise DataError(f"'{name}' holds pickled objects, which can run code: refused. {_NPZ_WANTED}")
        axes = (*shape, 1) if len(shape) == 3 else shape
        if dtype != np.uint8 or len(axes) != 4 or axes[3] not in (1, 3) or min(axes) < 1:
            raise DataError(f"'{name}': `images` is {dtype} {shape}. {_NPZ_WANTED}")
        if axes[1] * axes[2] > MAX_PIXELS:
            raise DataError(f"'{name}': images of {axes[2]}×{axes[1]} pixels; the limit is {MAX_PIXELS // 10**6} million.")
        if fortran and math.prod(axes) > MAX_ARRAY_BYTES:
            raise DataError(
                f"'{name}': `images` lies in Fortran order and is larger than {MAX_ARRAY_BYTES >> 30} GiB. "
                "Save np.ascontiguousarray(images)."
            )
        yield _fortran_rows(member, axes) if fortran else _c_rows(member, axes), axes


def _c_rows(member: IO[bytes], shape: tuple[int, ...]) -> Iterator[bytes]:
    while True:
        yield member.read(math.prod(shape[1:]))  # short where the array ends early


def _fortran_rows(member: IO[bytes], shape: tuple[int, ...]) -> Iterator[bytes]:
    """In this order an image lies strewn over the whole array, which must be in memory for it."""
    data = member.read(math.prod(shape))
    if len(data) == math.prod(shape):
        yield from (image.tobytes() for image in np.frombuffer(data, np.uint8).reshape(shape, order="F"))
    while True:
        yield b""


def _from_zip(name: str, source: Path | io.BytesIO) -> Iterator[Unread]:
    try:
        with _opened(source) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive)
            if not members or len(members) > MAX_MEMBERS:
                raise DataError(f"'{Path(name).name}' holds {len(members)} files; 1 to {MAX_MEMBERS:,} are read.")
            for member in members:
                inner = f"{name}/{member.filename}"
                if Path(member.filename).suffix.lower() not in SUFFIXES:
                    yield _refused(inner, 0, _NOT_AN_IMAGE)
                elif member.file_size > MAX_FILE_BYTES:  # reading stops at this size, even if the content goes on
                    yield _refused(inner, 0, f"larger than {MAX_FILE_BYTES >> 20} MiB")
                else:
                    yield _member(archive, member, inner)
    except DAMAGED_ARRAYS as error:
        raise DataError(f"'{Path(name).name}' is not a readable .zip file ({error}).") from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Unread:
    """Unpacked at once, since the archive is closed when its walk ends; decoded when it is read."""
    try:
        data = archive.read(member)
    except DAMAGED_ARRAYS as error:
        return _refused(name, 0, f"damaged or encrypted ({error})")
    return Unread(name, 0, partial(_attempt, name, data), len(data))


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    found = (member for member in archive.infolist() if not member.is_dir() and not _hidden(member.filename))
    return sorted(found, key=lambda member: member.filename)


def _hidden(member: str) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in Path(member).parts)
