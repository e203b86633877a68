"""What tests ask of a run by its folder alone, its status as a plain dictionary."""

import os
from pathlib import Path
from typing import Any

from ama_core.runs.folder import CURVE_POINTS, Curves, Run
from ama_core.runs.processes import process_mark
from ama_core.runs.status import Status


def read_status(folder: Path | str) -> dict[str, Any]:
    """As `Run.status`, in the form of `status.json`. Raises BundleError."""
    return Run(Path(folder)).status().to_dict()


def write_status(folder: Path | str, status: dict[str, Any]) -> None:
    """As `Run.write`. Raises ValueError where it is no status."""
    Run(Path(folder)).write(Status.from_dict(status))


def this_process() -> dict[str, Any]:
    """`pid` and `mark` of a status that this process writes."""
    return {"pid": os.getpid(), "mark": process_mark(os.getpid())}


def is_running(folder: Path | str) -> bool:
    return Run(Path(folder)).is_running()


def stop_asked(folder: Path | str) -> str | None:
    return Run(Path(folder)).stop_asked()


def read_metrics(folder: Path | str) -> list[dict[str, Any]]:
    return Run(Path(folder)).metrics()


def read_curves(folder: Path | str, limit: int = CURVE_POINTS) -> Curves:
    return Run(Path(folder)).curves(limit)


def list_watched(folder: Path | str) -> dict[int, Path]:
    return Run(Path(folder)).watched()


def list_watched_pictures(folder: Path | str) -> dict[int, Path]:
    return Run(Path(folder)).watched_pictures()


def skip_asked(folder: Path | str) -> bool:
    return Run(Path(folder)).skip_asked()


def read_log(folder: Path | str, lines: int = 60) -> str:
    return Run(Path(folder)).read_log(lines)
