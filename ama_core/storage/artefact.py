"""Optional files of a bundle: arrays in one .npz with a header, a JSON object that names the version of what is stored."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ama_core.errors import BundleError
from ama_core.storage.files import DAMAGED_ARRAYS, npz_bytes, open_arrays, parse_json, write_atomically

HEADER = "header"
T = TypeVar("T")


def write_artefact(file: Path, version: int, header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `file`, whole or not at all. `arrays` have names other than HEADER."""
    text = json.dumps({"version": version, **header})
    write_atomically(file, npz_bytes({**arrays, HEADER: np.array(text)}))


def read_artefact(file: Path, version: int, make: Callable[[dict[str, Any], Mapping[str, np.ndarray]], T]) -> T | None:
    """What `make` builds from the header and the arrays of `file`; None where there is no such file.

    Args:
        make: raises ValueError, KeyError or TypeError where the parts do not fit together.

    Raises:
        BundleError: the file is damaged, or of another version.
    """
    if not file.exists():
        return None
    try:
        with open_arrays(file) as arrays:
            header = parse_json(str(arrays[HEADER]))
            if header["version"] != version:
                raise ValueError(f"it has version {header['version']}, this software reads version {version}")
            return make(header, arrays)
    except (*DAMAGED_ARRAYS, AttributeError) as error:
        raise BundleError(f"{file} is damaged: {error}. Measure again with `python -m ama_core measure`.") from error
