"""Scoring files as they come into folders: found by looking again, which works on network drives as well."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ama_core.data.files import check_sources, files_of, unread_of
from ama_core.detectors.base import AnomalyDetector
from ama_core.scoring.table import Row, score_unread
from ama_core.stopping import StopRequested

SECONDS = 1.0  # between two looks
Stamp = tuple[int, int]


def watch_rows(
    detector: AnomalyDetector,
    sources: Sequence[str | Path],
    alpha: float,
    *,
    seconds: float = SECONDS,
    wait: Callable[[float], None] = time.sleep,
    stop_requested: StopRequested = lambda: False,
) -> Iterator[Row]:
    """Rows (see `score_rows`) of every file that is in the folders, then of every new or changed one.

    Ends after the row, or the look, in which `stop_requested()` becomes true.

    A file is scored once its size and time are the same in two looks, so that one which is still being written is not read.
    Files that vanish are forgotten; memory grows with the number of files in the folders.

    Raises DataError for a path that does not exist at the start.
    """
    check_sources(sources)
    scored: dict[str, Stamp] = {}
    before = _stamps(sources)
    while not stop_requested():
        wait(seconds)
        now = _stamps(sources)
        for file, stamp in now.items():
            if before.get(file) == stamp and scored.get(file) != stamp:
                scored[file] = stamp
                if os.path.exists(file):
                    for row in score_unread(detector, unread_of(file), alpha):
                        yield row
                        if stop_requested():
                            return
        scored = {file: stamp for file, stamp in scored.items() if file in now}
        before = now


def _stamps(sources: Sequence[str | Path]) -> dict[str, Stamp]:
    """Size and time of every file of the sources, sorted by name; of those that are there."""
    found = {}
    for file in sorted(str(file) for file in files_of([source for source in sources if os.path.exists(source)])):
        try:
            state = os.stat(file) if os.path.isfile(file) else os.lstat(file)  # a link to a folder does not change with it
        except OSError:  # taken away meanwhile
            continue
        found[file] = (state.st_size, state.st_mtime_ns)
    return found
