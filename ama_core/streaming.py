"""Scores of any number of images in constant memory: decoded in parallel, written as they come, and resumable.

Beside a table that is not complete yet lies `.NAME.progress` (JSON): which model, settings and sources it belongs to, and how
many rows and bytes of it are certain. A killed process loses what it wrote after that, a second's work, and nothing else.
"""

import csv
import hashlib
import io
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ama_core.bundle import find_bundle
from ama_core.config import Config
from ama_core.data import Source, iter_unread, prepare
from ama_core.data.files import Unread
from ama_core.detector import AMADetector
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.files import write_atomically
from ama_core.inference import BATCH

COLUMNS = ("path", "index", "R", "A", "log_A", "M", "T", "p_value", "anomalous", "error")
KINDS = (".csv", ".jsonl")
CHUNK, CHUNK_BYTES = 32, 32 * 2**20  # images, or bytes of undecoded images, that a thread takes at a time
SAVE_SECONDS = 1.0
FIRST_ERRORS = 5

Row = dict[str, Any]


@dataclass
class Summary:
    """What was found so far.

    Attributes:
        rows: images and files met, of which `flagged` are anomalous and `unreadable` could not be scored.
        errors: (path, why) of the first of these.
    """

    rows: int = 0
    flagged: int = 0
    unreadable: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows += 1
        self.flagged += row["anomalous"] in (True, "True")
        if row["error"]:
            self.unreadable += 1
            if len(self.errors) < FIRST_ERRORS:
                self.errors.append((row["path"], row["error"]))


def score_rows(detector: AMADetector, sources: Iterable[Source], alpha: float) -> Iterator[Row]:
    """A row of COLUMNS for every image, in the order of `iter_images`; `error` says why one could not be scored.

    Raises DataError for a path that does not exist and for an empty folder.
    """
    return _score(detector, iter_unread(sources), alpha)


def score_to_file(
    detector: AMADetector,
    model: str | Path,
    sources: Sequence[str | Path],
    out: Path,
    alpha: float,
    *,
    resume: bool = False,
    progress: Callable[[Summary], None] | None = None,
) -> Summary:
    """Write the rows of all sources to `out`, a .csv or .jsonl file, as they come.

    Args:
        model: where the detector was loaded from: a table is resumed with the same model only.
        resume: go on where an interrupted call stopped: nothing is scored twice or left out. From the start where `out` does
            not exist yet; nothing is done where it is complete.
        progress: called after every batch.

    Raises:
        ConfigError: `out` exists (without `resume`), is of another kind, or was begun with another model or settings.
        DataError: as `score_rows`; or a source has changed since `out` was begun.
    """
    out = Path(out)
    if out.suffix.lower() not in KINDS:
        raise ConfigError(f"The table must be called something.csv or something.jsonl, not {out.name!r}.")
    if out.exists() and not resume:
        raise ConfigError(f"{out} exists: continue it with --resume, choose another name, or delete it.")
    beside = out.with_name(f".{out.name}.progress")
    asked = {
        "model": _fingerprint(find_bundle(model)), "score": detector.score, "alpha": alpha,
        "sources": [str(Path(source).resolve()) for source in sources],
    }  # fmt: skip
    summary, unread = Summary(), iter_unread(sources)
    if not out.exists():
        beside.unlink(missing_ok=True)
    elif not beside.exists():
        for row in _written(out):
            summary.add(row)
        return summary
    else:
        certain = _read_progress(beside, asked, out)
        with open(out, "r+b") as file:
            file.truncate(certain["bytes"])
        for row in _written(out):
            item = next(unread, None)
            if item is None or (item.path, item.index) != (row["path"], int(row["index"])):
                raise DataError(f"The images have changed since {out} was begun, at {row['path']}. Begin a new table.")
            summary.add(row)
        if summary.rows != certain["rows"]:
            raise DataError(f"{out} was changed by something else. Begin a new table.")

    def save() -> None:
        file.flush()
        os.fsync(file.fileno())
        write_atomically(beside, json.dumps(asked | {"rows": summary.rows, "bytes": file.tell()}))

    with open(out, "ab") as file:
        write = _writer(file, out.suffix.lower(), header=file.tell() == 0)
        saved = 0.0
        try:
            for number, row in enumerate(_score(detector, unread, alpha), 1):
                write(row)
                summary.add(row)
                if number % BATCH == 0:
                    if time.monotonic() - saved > SAVE_SECONDS:
                        save()
                        saved = time.monotonic()
                    if progress:
                        progress(summary)
        finally:  # also where the user, or a missing source, ends it
            save()
    beside.unlink()
    if progress:
        progress(summary)
    return summary


def _score(detector: AMADetector, unread: Iterable[Unread], alpha: float) -> Iterator[Row]:
    """Threads decode and shrink the next images while this one scores."""
    waiting: list[Row] = []
    images: list[np.ndarray] = []
    with ThreadPoolExecutor(threads := os.cpu_count() or 1, "decode") as pool:
        try:
            for row, image in _decoded(pool, threads, unread, detector.config):
                waiting.append(row)
                if image is not None:
                    images.append(image)
                if len(waiting) == BATCH:
                    yield from _fill(detector, waiting, images, alpha)
                    waiting, images = [], []
            yield from _fill(detector, waiting, images, alpha)
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(
    pool: ThreadPoolExecutor, threads: int, unread: Iterable[Unread], config: Config
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """Rows without scores and prepared images (S, S, C), in order; a few chunks are under way at any time, never more."""
    under_way: deque[Future] = deque()
    for chunk in _chunks(unread):
        under_way.append(pool.submit(_read_chunk, chunk, config))
        if len(under_way) > 2 * threads + BATCH // CHUNK:
            yield from under_way.popleft().result()
    while under_way:
        yield from under_way.popleft().result()


def _chunks(unread: Iterable[Unread]) -> Iterator[list[Unread]]:
    chunk, size = [], 0
    for item in unread:
        chunk.append(item)
        size += item.size
        if len(chunk) == CHUNK or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read_chunk(chunk: Sequence[Unread], config: Config) -> list[tuple[Row, np.ndarray | None]]:
    found = []
    for unread in chunk:
        item, small = unread.read(), None
        if item.image is not None:
            small = prepare(item.image[None], size=config.image_size, channels=config.channels, fit=config.fit)[0][0]
        found.append((dict.fromkeys(COLUMNS) | {"path": item.path, "index": item.index, "error": item.error}, small))
    return found


def _fill(detector: AMADetector, rows: list[Row], images: list[np.ndarray], alpha: float) -> Iterator[Row]:
    scored = iter(())
    if images:
        scores = detector.scores(np.stack(images))
        p = scores[f"p_{detector.score}"]
        columns = {name: scores[name] for name in ("R", "A", "log_A", "M", "T")} | {"p_value": p, "anomalous": p <= alpha}
        scored = iter(dict(zip(columns, values)) for values in zip(*(column.tolist() for column in columns.values())))
    for row in rows:
        yield row if row["error"] else row | next(scored)


def _writer(file: IO[bytes], kind: str, header: bool) -> Callable[[Row], None]:
    if kind == ".jsonl":
        return lambda row: file.write(json.dumps(row).encode() + b"\n")

    def write(row: Iterable) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        file.write(line.getvalue().encode(errors="surrogateescape"))  # a file's name need not be text

    if header:
        write(COLUMNS)
    return lambda row: write(row[name] for name in COLUMNS)


def _written(out: Path) -> Iterator[Row]:
    """The rows of a table so far."""
    with open(out, newline="", errors="surrogateescape") as file:
        try:
            if out.suffix.lower() == ".jsonl":
                yield from map(json.loads, file)
            else:
                yield from csv.DictReader(file)
        except (ValueError, csv.Error) as error:
            raise DataError(f"{out} is damaged ({error}). Begin a new table.") from error


def _read_progress(beside: Path, asked: dict[str, Any], out: Path) -> dict[str, Any]:
    try:
        found = json.loads(beside.read_text())
        if other := [name for name in asked if asked[name] != found[name]]:
            raise ConfigError(f"{out} was begun with another {', another '.join(other)}. Begin a new table.")
        if not 0 <= found["bytes"] <= out.stat().st_size:
            raise ValueError("it says more than there is")
        return found
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"{beside} is damaged ({error}), so {out} cannot be continued. Begin a new table.") from error


def _fingerprint(folder: Path) -> str:
    """Of what decides the scores. Raises BundleError."""
    try:
        files = (folder / name for name in ("config.json", "model.safetensors", "calibration.npz"))
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error}.") from error
