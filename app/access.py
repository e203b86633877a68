"""Who may do what on a shared machine: two settings of the environment, asked for on the server wherever something is done."""

import os
import re
from pathlib import Path

import streamlit as st

from ama_core.data import data_dir
from ama_core.errors import DataError
from ama_core.runs.folder import runs_dir

ROOT = Path(__file__).resolve().parent.parent  # of the repository
PUBLIC_VARIABLE = "AMA_PUBLIC"
ROOTS_VARIABLE = "AMA_DATA_ROOTS"


def public() -> bool:
    """Whether strangers use this server: nothing is trained, stored or deleted, and nothing of its file system is shown."""
    return os.environ.get(PUBLIC_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def stop_where_public() -> None:
    """For pages and parts of pages that a public server does not offer, also to those who know their address."""
    if public():
        st.info(
            "This is a public server: it trains nothing and shows no files of its own. Run AMA Explorer on your computer "
            "for that.",
            icon=":material/public:",
        )
        st.stop()


def shown(folder: Path) -> str:
    """A folder as it is called on the screen: on a public server by its last name alone."""
    return folder.name if public() else str(folder)


def without_paths(words: str) -> str:
    """A message; on a public server without the folders of the files that it names."""
    return re.sub(r"(?<![\w./])~?/(?:[^/\s'\"]+/)*(?=[^/\s])", "", words) if public() else words


def data_roots() -> list[Path]:
    """The folders in which paths may lie that a user types: AMA_DATA_ROOTS, else home, working, data and runs folder."""
    named = os.environ.get(ROOTS_VARIABLE)
    roots = [Path(part) for part in named.split(os.pathsep) if part] if named else [Path.home(), Path.cwd(), data_dir()]
    return [root.expanduser().resolve() for root in (*roots, runs_dir())]


def allowed(typed: str) -> Path:
    """A typed path, links followed. Raises DataError where it leads out of `data_roots`."""
    try:
        path = Path(typed.strip()).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # circles of links, unknown users, null bytes
        raise DataError(f"'{typed}' is not a path: {error}.") from error
    if not any(path.is_relative_to(root) for root in data_roots()):
        raise DataError(
            f"'{path}' lies outside the folders that this server may read: {', '.join(map(str, data_roots()))}. "
            f"Copy the images there, or start the app with {ROOTS_VARIABLE} naming their folder."
        )
    return path
