"""Scores of any number of images in constant memory: decoded in parallel, written as they come, and resumable.

Beside a table NAME lies `NAME.meta.json`: which model, score, false-alarm rate and images it belongs to, how many rows and
bytes of it are certain, and whether it is complete. A killed process loses what it wrote after that, a second's work, and
nothing else.
"""

import csv
import hashlib
import io
import json
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ama_core.data import Source, iter_unread, prepare
from ama_core.data.files import Unread, check_sources, files_of
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.settings import InputSpec
from ama_core.shards import Shard
from ama_core.storage.bundle import FILES, find_bundle
from ama_core.storage.files import check_output, csv_cell, is_same, lock, parse_json, read_json, shown, write_atomically
from ama_core.tensors import BATCH

KINDS = (".csv", ".jsonl")
CHUNK, CHUNK_BYTES = 32, 32 * 2**20  # images, or bytes of undecoded images, that a thread takes at a time
SAVE_SECONDS = 1.0
FIRST_ERRORS = 5
SOFTWARE = "AMA Explorer"
SAMPLED = 5_000  # rows that are kept for a test of the whole table

Row = dict[str, Any]


class Counts(NamedTuple):
    """How many rows and bytes of a table are certain, and whether it is complete."""

    rows: int = 0
    bytes: int = 0
    complete: bool = False


@dataclass
class Sample:
    """Scores of at most SAMPLED rows of however many are added, each as likely as any other: memory that does not grow.

    `names`: the entries of a row that are kept.
    """

    names: tuple[str, ...] = ()
    met: int = 0
    kept: list[tuple[float, ...]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, row: Row) -> None:
        self.met += 1
        place = len(self.kept) if len(self.kept) < SAMPLED else self.chance.randrange(self.met)
        if place < SAMPLED:
            self.kept[place : place + 1] = [tuple(float(row[name]) for name in self.names)]

    def scores(self) -> dict[str, np.ndarray]:
        """Each of the entries (n,), n <= SAMPLED."""
        return dict(zip(self.names, np.array(self.kept, np.float64).reshape(-1, len(self.names)).T))


@dataclass
class Summary:
    """What was found so far.

    Attributes:
        rows: images and files met, of which `flagged` are anomalous and `unreadable` could not be scored.
        errors: (path, why) of the first of these.
        sample: scores of the others, a sample where they are many.
    """

    rows: int = 0
    flagged: int = 0
    unreadable: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    sample: Sample = field(default_factory=Sample, compare=False)

    def add(self, row: Row) -> None:
        self.rows += 1
        self.flagged += row["anomalous"] in (True, "True")
        if row["error"]:
            self.unreadable += 1
            if len(self.errors) < FIRST_ERRORS:
                self.errors.append((row["path"], row["error"]))
        else:
            self.sample.add(row)


def meta_of(table: Path) -> Path:
    """What lies beside a table and says what it belongs to."""
    return table.with_name(f"{table.name}.meta.json")


def columns(detector: AnomalyDetector) -> tuple[str, ...]:
    """Columns of a table: where an image came from, the detector's scores, and the verdict of the one that decides."""
    return ("path", "index", *detector.table_columns(), "p_value", "anomalous", "error")


def summary_of(detector: AnomalyDetector) -> Summary:
    """A summary of no rows yet."""
    return Summary(sample=Sample(detector.table_columns()))


def score_rows(detector: AnomalyDetector, sources: Iterable[Source], alpha: float) -> Iterator[Row]:
    """A row of `columns` for every image, in the order of `iter_images`; `error` says why one could not be scored.

    Raises DataError for a path that does not exist and for an empty folder.
    """
    return score_unread(detector, iter_unread(sources), alpha)


def score_to_file(
    detector: AnomalyDetector,
    model: str | Path,
    sources: Sequence[str | Path],
    out: Path,
    alpha: float,
    *,
    resume: bool = False,
    force: bool = False,
    shard: Shard | None = None,
    progress: Callable[[Summary], None] | None = None,
) -> Summary:
    """Write the rows of all sources to `out`, a .csv or .jsonl file, as they come.

    Args:
        model: where the detector was loaded from: a table is resumed with the same model only.
        resume: go on where an earlier call ended: nothing is scored twice or left out. From the start where `out` does not
            exist yet; of a complete table, only images that have come since and sort behind those in it.
        force: replace an `out` that exists.
        shard: write only this shard's batches, to `shard.file(out)`; `scoring.merge` makes `out` of all of them.
        progress: called after every batch.

    Raises:
        ConfigError: `out` exists (without `resume` or `force`), is of another kind, is one of the images, was not written
            here, or belongs to another model, rate, score or to other images.
        DataError: as `score_rows`; or a source has changed since `out` was begun.
    """
    out = Path(out)
    if out.suffix.lower() not in KINDS:
        raise ConfigError(f"The table must be called something.csv or something.jsonl, not {out.name!r}.")
    if resume and force:
        raise ConfigError("--resume continues a table and --force replaces it: choose one of them.")
    own = [out, *(each.file(out) for each in shard.all())] if shard else [out]
    own += [meta_of(file) for file in own]
    out = shard.file(out) if shard else out
    beside = meta_of(out)
    check_sources(sources)
    folder = find_bundle(model)
    _check_place(out, beside, folder, sources, resume, force)
    asked = {
        "software": SOFTWARE,
        "model": str(model),
        "fingerprint": _fingerprint(folder),
        "alpha": alpha,
        "score": detector.by,
        "inputs": [_described(source) for source in sources],
    }
    asked |= {"shard": str(shard)} if shard else {}
    summary, unread = summary_of(detector), _without(iter_unread(sources), *own)
    if shard:  # whole batches, so that each image is scored beside the same others as in one call
        unread = (item for place, item in enumerate(unread) if shard.has(place // BATCH))
    certain, goes_on = Counts(), resume and out.exists()
    with open(out, "ab") as file:
        if not lock(file):
            raise ConfigError(f"Another process is writing {out}: wait for it, or choose another name.")
        if goes_on:
            certain = _read_meta(beside, asked, out)
            _skip_written(detector, out, certain, unread, summary)
        if not certain.bytes:
            write_atomically(beside, json.dumps(asked | certain._asdict(), indent=2))  # no table without an owner
            file.truncate(0)
        file.seek(0, os.SEEK_END)
        write = _writer(file, out.suffix.lower(), columns(detector), header=file.tell() == 0)
        rows = score_unread(detector, unread, alpha)
        _write_rows(rows, write, file.tell, lambda counts: _save(file, beside, asked, counts), summary, progress)
    if progress:
        progress(summary)
    return summary


def verdicts(out: Path, detector: AnomalyDetector) -> Iterator[bool | None]:
    """Whether each image of the table `out` is flagged, in its order; None where it could not be scored. Raises DataError."""
    for row in _written(out, detector):
        yield None if row["error"] else row["anomalous"] in (True, "True")


def images_of(sources: Sequence[str | Path], out: Path | None = None) -> Iterator[Unread]:
    """The images of the rows of a table, in their order; `out`: the file that it is written to, which is none of them."""
    unread = iter_unread(sources)
    return _without(unread, out, meta_of(out)) if out else unread


def _check_place(out: Path, beside: Path, folder: Path, sources: Sequence[str | Path], resume: bool, force: bool) -> None:
    """Raises ConfigError unless the table `out`, and what lies beside it, may be written with the model in `folder`."""
    inputs = [*(folder / name for name in FILES), *files_of(sources)] if out.exists() or beside.exists() else []
    check_output(out, inputs, lambda _: read_owner(beside) is not None, force=True)  # whether it exists is said below
    check_output(beside, inputs, lambda _: read_owner(beside) is not None, force or (resume and out.exists()))  # or said below
    if out.exists() and not (resume or force):
        raise ConfigError(f"{out} exists: continue it with --resume, replace it with --force, or choose another name.")


def _skip_written(detector: AnomalyDetector, out: Path, certain: Counts, unread: Iterator[Unread], summary: Summary) -> None:
    """Cut the table after what is certain, add its rows to the summary, and take their images from `unread`.

    Raises DataError where these are not the images of the rows, or the rows not as many as were written.
    """
    with open(out, "r+b") as file:
        file.truncate(certain.bytes)
    for row in _written(out, detector):
        item = next(unread, None)
        if item is None or (_named(item.path, out), item.index) != (row["path"], int(row["index"])):
            raise DataError(f"The images have changed since {out} was begun, at {row['path']}. Begin a new table.")
        summary.add(row)
    if summary.rows != certain.rows:
        raise DataError(f"{out} was changed by something else. Begin a new table.")


def _write_rows(
    rows: Iterable[Row],
    write: Callable[[Row], None],
    tell: Callable[[], int],
    save: Callable[[Counts], None],
    summary: Summary,
    progress: Callable[[Summary], None] | None,
) -> None:
    """Write rows as they come; `save(counts)` at most every SAVE_SECONDS and, whatever happens, at the end.

    `tell()`: how many bytes are written. A Ctrl-C between a row and its count leaves the counts of the row before.
    """
    saved, certain = 0.0, Counts(summary.rows, tell())
    try:
        for number, row in enumerate(rows, 1):
            write(row)
            summary.add(row)
            certain = Counts(summary.rows, tell())
            if number % BATCH == 0:
                if time.monotonic() - saved > SAVE_SECONDS:
                    save(certain)
                    saved = time.monotonic()
                if progress:
                    progress(summary)
        certain = certain._replace(complete=True)
    finally:  # also where the user, or a missing source, ends it
        save(certain)


def _save(file: IO[bytes], beside: Path, asked: dict[str, Any], counts: Counts) -> None:
    """Make what was written certain, and say so beside the table."""
    file.flush()
    os.fsync(file.fileno())
    write_atomically(beside, json.dumps(asked | counts._asdict(), indent=2))


def score_unread(detector: AnomalyDetector, unread: Iterable[Unread], alpha: float) -> Iterator[Row]:
    """Threads decode and shrink the next images while this one scores."""
    waiting: list[Row] = []
    images: list[np.ndarray] = []
    with ThreadPoolExecutor(threads := os.cpu_count() or 1, "decode") as pool:
        try:
            for row, image in _decoded(pool, threads, unread, detector.settings.input):
                waiting.append(dict.fromkeys(columns(detector)) | row)
                if image is not None:
                    images.append(image)
                if len(waiting) == BATCH:
                    yield from _fill(detector, waiting, images, alpha)
                    waiting, images = [], []
            yield from _fill(detector, waiting, images, alpha)
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(
    pool: ThreadPoolExecutor, threads: int, unread: Iterable[Unread], spec: InputSpec
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """Rows without scores and prepared images (S, S, C), in order; a few chunks are under way at any time, never more."""
    under_way: deque[Future] = deque()
    for chunk in _chunks(unread):
        under_way.append(pool.submit(_read_chunk, chunk, spec))
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


def _read_chunk(chunk: Sequence[Unread], spec: InputSpec) -> list[tuple[Row, np.ndarray | None]]:
    found = []
    for unread in chunk:
        item, small = unread.read(), None
        if item.image is not None:
            small = prepare(item.image[None], **vars(spec))[0][0]
        found.append(({"path": item.path, "index": item.index, "error": item.error}, small))
    return found


def _fill(detector: AnomalyDetector, rows: list[Row], images: list[np.ndarray], alpha: float) -> Iterator[Row]:
    scored = iter(())
    if images:
        scores = detector.scores(np.stack(images))
        p = scores[f"p_{detector.by}"]
        found = {name: scores[name] for name in detector.table_columns()} | {"p_value": p, "anomalous": p <= alpha}
        scored = iter(dict(zip(found, values)) for values in zip(*(column.tolist() for column in found.values())))
    for row in rows:
        yield row if row["error"] else row | next(scored)


def _writer(file: IO[bytes], kind: str, names: Sequence[str], header: bool) -> Callable[[Row], None]:
    if kind == ".jsonl":
        return lambda row: file.write(json.dumps(row).encode() + b"\n")
    if header:
        file.write(csv_line(names).encode())
    return lambda row: file.write(csv_line(row[name] for name in names).encode())


def csv_line(values: Iterable[Any]) -> str:
    """A line of a CSV table, in which nothing begins a formula, and a file's name that is no text is spelled out."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(csv_cell, values))
    return shown(line.getvalue())


def _named(path: str, out: Path) -> str:
    """How a path stands in a table."""
    return path if out.suffix.lower() == ".jsonl" else shown(csv_cell(path))


def _written(out: Path, detector: AnomalyDetector) -> Iterator[Row]:
    """The rows of a table so far. Raises DataError where they are not what was written."""
    with open(out, newline="", encoding="utf-8") as file:
        try:
            for row in map(parse_json, file) if out.suffix.lower() == ".jsonl" else csv.DictReader(file):
                if not isinstance(row, dict) or set(row) != set(columns(detector)):
                    raise ValueError("it has other columns")
                int(row["index"])
                if not row["error"]:
                    [float(row[name]) for name in detector.table_columns()]
                yield row
        except (ValueError, TypeError, csv.Error) as error:
            raise DataError(f"{out} is damaged ({error}). Begin a new table.") from error


def read_owner(beside: Path) -> dict[str, Any] | None:
    """What a table belongs to; None where that was not written here."""
    try:
        found = read_json(beside)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("software") == SOFTWARE else None


def _read_meta(beside: Path, asked: dict[str, Any], out: Path) -> Counts:
    """How much of a table is certain. Raises ConfigError where it belongs to something else than what is asked."""
    found = read_owner(beside)
    if found is None:
        raise ConfigError(
            f"{out} cannot be continued: no readable {beside.name} beside it says what it belongs to, as every table written "
            "here has. Choose another name."
        )
    names = {"fingerprint": "model", "alpha": "alpha", "score": "score", "inputs": "inputs"}
    if other := [name for key, name in names.items() if found.get(key) != asked[key]]:
        had = [f"{name} {found.get(name)}" for name in ("model", "alpha", "score")]
        raise ConfigError(
            f"{out} belongs to other {' and other '.join(other)} (it was begun with {', '.join(had)}): choose another name, or "
            "replace it with --force."
        )
    rows, size = found.get("rows"), found.get("bytes")
    if not isinstance(rows, int) or not isinstance(size, int) or not 0 <= size <= out.stat().st_size:
        raise ConfigError(f"{beside} is damaged, so {out} cannot be continued. Begin a new table.")
    if found.get("complete") and size < out.stat().st_size:
        raise ConfigError(f"{out} was complete and something else has added to it. Begin a new table.")
    return Counts(rows, size)


def _without(unread: Iterator[Unread], *own: Path) -> Iterator[Unread]:
    """All but the table, its shards and what lies beside them, which may lie among the images."""
    names = {file.name for file in own}
    for item in unread:
        if os.path.basename(item.path) not in names or not any(is_same(item.path, file) for file in own):
            yield item


def _described(source: str | Path) -> dict[str, Any]:
    """Which input this is: where it lies, and of a file its size and time, which tell another one put in its place."""
    path = Path(source).resolve()
    if not path.is_file():
        return {"path": str(path)}
    found = path.stat()
    return {"path": str(path), "bytes": found.st_size, "modified": found.st_mtime_ns}


def _fingerprint(folder: Path) -> str:
    """Of what decides the scores. Raises BundleError."""
    try:
        files = [folder / name for name in ("config.json", "model.safetensors", "calibration.npz")]
        files = [file for file in files if file.exists()]  # not every detector has weights
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error}.") from error
