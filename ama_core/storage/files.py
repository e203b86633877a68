"""Files, the same way everywhere: read only where they are regular, written whole or not at all, JSON and CSV that harm nobody.

Locks end with their holder, and nothing is overwritten that this software did not write.
"""

import errno
import io
import json
import os
import secrets
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from ama_core.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

ROOT = Path(__file__).resolve().parents[2]  # of the checkout, in which models, results and runs lie
PARTIAL = ".part"
MAX_JSON_BYTES = 64 * 2**20
MAX_UNPACKED_TIMES = 200  # what an .npz file of a model may unpack to, of its size, beside MAX_UNPACKED_BYTES
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 64  # of what is written here, none is deeper than 6
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a formula can begin with; the last four are its full-width forms
# What NumPy and zipfile raise for archives and arrays that are missing, damaged, encrypted, or lie about their contents.
DAMAGED_ARRAYS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    TokenError,
)


def open_regular(path: Path | str) -> IO[bytes]:
    """Open a regular file, links followed, for reading. Raises OSError, also for a folder, pipe or device, and never waits."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe's opening waits for its writer
    handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


@contextmanager
def open_arrays(path: Path | str) -> Iterator[Any]:
    """The arrays of a regular .npz file, by name, read as they are asked for and never unpickled.

    Raises DAMAGED_ARRAYS, among them ValueError where it unpacks to far more than stored numbers do.
    """
    with open_regular(path) as opened:
        with zipfile.ZipFile(opened) as archive:
            packed, unpacked = os.fstat(opened.fileno()).st_size, sum(member.file_size for member in archive.infolist())
            if unpacked > MAX_UNPACKED_TIMES * packed + MAX_UNPACKED_BYTES:
                raise ValueError(f"its {packed:,} bytes unpack to {unpacked:,}")
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as arrays:
            yield arrays


def read_regular(path: Path | str, limit: int) -> bytes:
    """The contents of a regular file. Raises OSError as `open_regular`, and where there are more than `limit` bytes."""
    with open_regular(path) as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)  # the number asked for is allocated at once
        while len(data) <= limit and (more := file.read(2**20)):  # it has grown
            data += more
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return data


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds. Raises ValueError, also where it is nested deeper than MAX_JSON_DEPTH."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):  # level by level: what can be read may still be too deep to be walked or written again
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def read_json(path: Path | str) -> Any:
    """What a JSON file holds: the one way to read any. Raises OSError as `read_regular`, and ValueError as `parse_json`."""
    return parse_json(read_regular(path, MAX_JSON_BYTES))


def csv_cell(value: Any) -> Any:
    """A value for a CSV table: text that a spreadsheet would take for a formula, as a file may be named, gets an apostrophe.

    A carriage return is spelled out: writers leave it unquoted, and readers would begin a row there.
    """
    if not isinstance(value, str):
        return value
    escaped = f"'{value}" if value.startswith(FORMULA) else value
    return escaped.replace("\r", "\\r")


def shown(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no UTF-8, in Python `\\udcff`, are spelled out."""
    return name.encode(errors="backslashreplace").decode()


def is_same(path: Path | str, other: Path | str) -> bool:
    """Whether two paths name one entry of one folder: links to the folder are followed, a link in it is itself."""
    first, second = (os.path.split(os.path.abspath(each)) for each in (path, other))
    return first[1] == second[1] and os.path.realpath(first[0]) == os.path.realpath(second[0])


def check_output(out: Path, inputs: Iterable[Path | str], ours: Callable[[Path], bool], force: bool = False) -> None:
    """Whether a command may write the file `out`.

    Args:
        inputs: files that it reads. ours: tells whether an existing file was written by the same command earlier.
        force: overwrite another file too, yet never an input, nor what is no regular file.

    Raises:
        ConfigError: it may not.
    """
    if not out.parent.is_dir():
        raise ConfigError(f"The folder of --out {out} does not exist: make it, or name another.")
    try:
        found = os.stat(out)
    except FileNotFoundError:
        if not out.is_symlink():  # else one that leads nowhere
            return
        found = out.lstat()
    for given in inputs:
        try:
            same = os.path.samestat(found, os.stat(given))
        except OSError:
            continue
        if same and not (is_same(given, out) and ours(out)):  # what was written among the images is none of them
            raise ConfigError(f"--out {out} is one of the files to be read ({given}): choose another name.")
    if stat.S_ISLNK(found.st_mode) or stat.S_ISREG(found.st_mode):
        if not force and not ours(out):
            raise ConfigError(f"{out} exists and was not written by this command: choose another name, or add --force.")
    else:
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
        raise ConfigError(f"--out {out} is {kind}: name a file.")


def write_atomically(path: Path, contents: bytes | str) -> None:
    """Write a whole file or nothing: to a temporary neighbour first, flushed to disk, then renamed over `path`.

    Text becomes UTF-8; odd bytes of names are spelled out as by `shown`.
    """
    write_together(Path(path).parent, {Path(path).name: contents})


def write_together(folder: Path, files: Mapping[str, bytes | str], outdated: Iterable[str] = ()) -> None:
    """Write several files of a folder, by name, as `write_atomically`: nothing is touched before all are on the disk.

    Only then are the files named by `outdated` removed, and the new ones renamed in their order.
    """
    partials: dict[str, Path] = {}
    try:
        for name, contents in files.items():
            data = contents.encode(errors="backslashreplace") if isinstance(contents, str) else contents
            partial = folder / f".{name}.{secrets.token_hex(4)}{PARTIAL}"
            with open(partial, "xb") as file:
                partials[name] = partial
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with suppress(OSError):  # a new file has the permissions of any that this process makes; some disks know none
                os.chmod(partial, (folder / name).stat().st_mode & 0o777)
        for name in outdated:
            (folder / name).unlink(missing_ok=True)
        for name, partial in partials.items():
            os.replace(partial, folder / name)
    except BaseException:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise


def remove_partials(folder: Path) -> None:
    """Remove what writers that were killed left behind in `folder`; nobody may be writing there."""
    for file in Path(folder).glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)


def lock(file: IO[str], wait: bool = False) -> bool:
    """Lock an open file for this process; whether that worked.

    A lock of the operating system ends with its holder: neither a crash nor a reused process id can leave it behind.
    """
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        else:
            file.seek(1 << 20)  # a place beyond the text, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def unlock(file: IO[str]) -> None:
    """Give back what `lock` took."""
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_UN)
    else:
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The contents of a compressed .npz file; object arrays, which would need pickle, are refused (ValueError)."""
    buffer = io.BytesIO()
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]:
        raise ValueError(f"{', '.join(objects)} would need pickle")
    np.savez_compressed(buffer, **arrays)  # older NumPy takes `allow_pickle` for the name of an array
    return buffer.getvalue()
