"""Writing files so that a reader never sees half of one."""

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_atomically(path: Path, contents: bytes | str) -> None:
    """Write a whole file or nothing: to a temporary neighbour first, flushed to disk, then renamed over `path`."""
    path = Path(path)
    data = contents.encode() if isinstance(contents, str) else contents
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
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


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The contents of a compressed .npz file; object arrays, which would need pickle, are refused (ValueError)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
