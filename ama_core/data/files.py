"""Images of folders, archives and arrays that nobody has checked, one at a time: read within limits, or refused in plain words.

Nothing is written, unpickled or extracted here. Sizes are checked before memory is spent.
"""

from __future__ import annotations

import io
import math
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ama_core.data import decode
from ama_core.data.decode import FORMATS, MAX_PIXELS, SUFFIXES, decode_image
from ama_core.errors import DataError
from ama_core.storage.files import DAMAGED_ARRAYS, open_regular

ARCHIVES = (".npz", ".zip", ".tar")
MAX_ARRAY_BYTES = 4 * 2**30
MAX_MEMBERS = 200_000
DAMAGED = (*DAMAGED_ARRAYS, tarfile.TarError)  # what a damaged archive makes its reader raise

_NPZ_WANTED = "It must hold `images`, uint8 (N, H, W, C) with C = 1 or 3, and may hold `labels`, integers (N,)."
_NOT_AN_IMAGE = "not an image file (by its name)"
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


def iter_images(sources: Iterable[Source]) -> Iterator[FileImage]:
    """Every image of files, folders, .npz, .zip and .tar files, one at a time, in sorted order within each source.

    What cannot be read is yielded as a `FileImage` with `error`, so that one bad file does not end the walk. Hidden
    files are passed over, in a .tar also what has the name of an image but for the suffix: in WebDataset's shards these are
    its labels. Nothing of an archive is unpacked to disk; archives within archives are not opened. Memory holds one image and
    the names of one folder, or an archive's table of contents, however many there are.

    Only regular files are opened: a pipe or a device, which might never end, is yielded with an `error`.

    Raises `DataError` for a path that is empty or does not exist and for a folder without any file.
    """
    return (unread.read() for unread in iter_unread(sources))


def iter_unread(sources: Iterable[Source]) -> Iterator[Unread]:
    """As `iter_images`, before anything is decoded; always in the same order while the sources do not change."""
    for source in sources:
        if isinstance(source, tuple):
            yield from _from_bytes(*source)
            continue
        path = Path(check_path(source))
        if not path.exists():
            raise DataError(f"'{path}' does not exist. Check the path.")
        for file in _files(path) if path.is_dir() else [str(path)]:
            yield from unread_of(file)


def unread_of(file: str) -> Iterator[Unread]:
    """What `iter_unread` yields of one of the files that `files_of` names."""
    if os.path.islink(file) and not os.path.isfile(file):
        leads = "to a folder, which is not followed: name that folder" if os.path.isdir(file) else "that leads nowhere"
        yield _refused(file, 0, f"a link {leads}")
    elif os.path.isdir(file):
        yield _refused(file, 0, "the folder cannot be listed: check its permissions")
    elif os.path.splitext(file)[1].lower() in ARCHIVES:
        yield from _from_archive(file, Path(file))
    elif not _is_image(file):
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
        yield from _walk(str(source)) if os.path.isdir(source) else [str(source)]


def count_images(sources: Iterable[Source], *, named: bool = False) -> int:
    """How many images `iter_images` would yield, readable or not, by names and tables of contents: for progress.

    named: leave out files that are no images by their name, and archives that cannot be opened, which are refused as well.
    """
    total = 0

    def counted(file: str) -> int:
        return int(_is_image(file) or not named)

    for source in sources:
        name, content = (source[0], io.BytesIO(source[1])) if isinstance(source, tuple) else (str(source), Path(source))
        if isinstance(content, Path) and content.is_dir():
            for file in _walk(name):
                total += count_images([file], named=named) if file.lower().endswith(ARCHIVES) else counted(file)
            continue
        try:
            if name.lower().endswith(".npz"):
                with _npz_rows(content, name) as (_, shape):
                    total += shape[0]
            elif name.lower().endswith(ARCHIVES):
                with _members(content, name) as members:
                    total += sum(counted(member.name) for member in members)
            else:
                total += counted(name)
        except (DataError, *DAMAGED):
            total += not named  # refused in one piece when it is read
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
    except DataError:
        raise
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


def _attempt(name: str, source: bytes | Path) -> FileImage:
    try:
        image, notes = decode_image(source)
    except DataError as error:
        return FileImage(name, 0, None, str(error))
    return FileImage(name, 0, image, None, tuple(notes))


def _files(folder: Path) -> Iterator[str]:
    """Every file that is not hidden, sorted; the first is looked for at once. Raises DataError where there is none."""
    files = _walk(str(folder))
    first = next(files, None)
    if first is None:
        raise DataError(f"The folder '{folder}' is empty. Put images into it ({', '.join(FORMATS)}).")
    yield first
    yield from files


def _walk(folder: str) -> Iterator[str]:
    """Paths as text, which weigh a fraction of Path objects; links to folders are not followed, for they may form a circle."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if entry.name[0] != ".")
    except PermissionError:
        yield folder  # for the caller to say so: its images must not be missing in silence
        return
    except (FileNotFoundError, NotADirectoryError):  # removed since its name was read
        return
    for name, is_folder in entries:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _walk(path)
        elif os.path.isfile(path) or os.path.islink(path):
            yield path


def _refused(name: str, index: int, error: str) -> Unread:
    return Unread(name, index, partial(FileImage, name, index, None, error))


def _from_bytes(name: str, data: bytes) -> Iterator[Unread]:
    if Path(name).suffix.lower() in ARCHIVES:
        yield from _from_archive(name, io.BytesIO(data))
    else:
        yield Unread(name, 0, partial(_attempt, name, data), len(data))


def _from_archive(name: str, source: Path | io.BytesIO) -> Iterator[Unread]:
    try:
        yield from (_from_npz if name.lower().endswith(".npz") else _from_members)(name, source)
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
    """In this order an image lies scattered over the whole array, which must be in memory for it."""
    data = member.read(math.prod(shape))
    if len(data) == math.prod(shape):
        yield from (image.tobytes() for image in np.frombuffer(data, np.uint8).reshape(shape, order="F"))
    while True:
        yield b""


def _from_members(name: str, source: Path | io.BytesIO) -> Iterator[Unread]:
    """Images of a .zip or .tar file, unpacked one by one, since it is closed when the walk ends; decoded when they are read."""
    with _members(source, name) as members:
        if not members or len(members) > MAX_MEMBERS:
            raise DataError(f"'{Path(name).name}' holds {len(members)} files; 1 to {MAX_MEMBERS:,} are read.")
        for member in members:
            inner = f"{name}/{member.name}"
            if not _is_image(member.name):
                yield _refused(inner, 0, _NOT_AN_IMAGE)
            elif member.size > decode.MAX_FILE_BYTES:  # reading stops at this size, even if the content goes on
                yield _refused(inner, 0, f"larger than {decode.MAX_FILE_BYTES >> 20} MiB")
            else:
                yield _unpacked(member, inner)


def _unpacked(member: _Member, name: str) -> Unread:
    try:
        data = member.read()
    except DAMAGED as error:
        return _refused(name, 0, f"damaged or encrypted ({error})")
    return Unread(name, 0, partial(_attempt, name, data), len(data))


class _Member(NamedTuple):
    """A file in an archive, with the bytes that it says to have; `read` may raise any of DAMAGED."""

    name: str
    size: int
    read: Callable[[], bytes]


@contextmanager
def _members(source: Path | io.BytesIO, name: str) -> Iterator[list[_Member]]:
    """The files of a .zip or .tar file that are not hidden, sorted; they can be read meanwhile. Raises DataError."""
    kind, remark = (".tar", " It must not be compressed.") if name.lower().endswith(".tar") else (".zip", "")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(source))
            if kind == ".tar":
                found = _of_tar(stack.enter_context(tarfile.open(fileobj=file, mode="r:")))
            else:
                found = _of_zip(stack.enter_context(zipfile.ZipFile(file)))
        except DAMAGED as error:
            raise DataError(f"'{Path(name).name}' is not a readable {kind} file ({error}).{remark}") from error
        yield sorted((member for member in found if not _hidden(member.name)), key=lambda member: member.name)


def _of_zip(archive: zipfile.ZipFile) -> list[_Member]:
    found = (info for info in archive.infolist() if not info.is_dir())
    return [_Member(info.filename, info.file_size, partial(archive.read, info)) for info in found]


def _of_tar(archive: tarfile.TarFile) -> list[_Member]:
    """Of files beside an image of the same name only the image: in WebDataset's shards the others are its labels."""
    found = [info for info in archive.getmembers() if info.isreg()]
    images = {_stem(info.name) for info in found if _is_image(info.name)}
    found = [info for info in found if _is_image(info.name) or _stem(info.name) not in images]
    return [_Member(info.name, info.size, lambda info=info: archive.extractfile(info).read()) for info in found]


def _stem(member: str) -> str:
    """The name up to the first dot after the last slash, as WebDataset takes it."""
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _hidden(member: str) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in Path(member).parts)
