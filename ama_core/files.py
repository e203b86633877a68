"""Files that several processes share: written whole or not at all, and locks that end with their holder."""

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

PARTIAL = ".part"
# What NumPy and zipfile raise for archives and arrays that are missing, damaged, encrypted, or lie about their contents.
DAMAGED_ARRAYS = (
    OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error,
    TokenError,
)  # fmt: skip


def write_atomically(path: Path, contents: bytes | str) -> None:
    """Write a whole file or nothing: to a temporary neighbour first, flushed to disk, then renamed over `path`."""
    path = Path(path)
    data = contents.encode() if isinstance(contents, str) else contents
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # mkstemp makes it private
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
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
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
