"""Tables that were written shard by shard, made into the table that one call would have written, byte for byte."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO

from ama_core.errors import ConfigError, DataError
from ama_core.scoring.table import KINDS, meta_of, read_owner
from ama_core.shards import Shard
from ama_core.storage.files import write_atomically
from ama_core.tensors import BATCH

SAME = ("fingerprint", "alpha", "score", "inputs")  # what all shards of a table have in common


def merge(out: Path, *, force: bool = False) -> int:
    """Make `out` from the complete shards that lie beside it (see `Shard.file`); returns its number of rows.

    The shards stay. Reads and writes line by line.

    Raises:
        ConfigError: there are no shards, or `out` exists (without `force`).
        DataError: a shard is missing, not complete, changed, or of another model, rate or images than the others.
    """
    out = Path(out)
    if out.suffix.lower() not in KINDS:
        raise ConfigError(f"The table must be called something.csv or something.jsonl, not {out.name!r}.")
    if out.exists() and not (force and out.is_file()):
        raise ConfigError(f"{out} exists: replace it with --force, or choose another name.")
    shards = _found(out)
    owners = [_owner(shard.file(out)) for shard in shards]
    for shard, owner in zip(shards, owners):
        if differs := [name for name in SAME if owner.get(name) != owners[0].get(name)]:
            raise DataError(f"{shard.file(out)} belongs to another {', '.join(differs)} than {shards[0].file(out)}.")
    partial = out.with_name(f".{out.name}.merging")
    try:
        rows = _interleave([shard.file(out) for shard in shards], partial, out.suffix.lower() == ".csv")
        if rows != sum(owner["rows"] for owner in owners):
            raise DataError(f"The shards of {out} were changed by something else: score them again.")
        owner = {name: value for name, value in owners[0].items() if name != "shard"}
        size = partial.stat().st_size
        write_atomically(meta_of(out), json.dumps(owner | {"rows": rows, "bytes": size, "complete": True}, indent=2))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _found(out: Path) -> list[Shard]:
    """All shards of a table. Raises ConfigError where none or several divisions lie there, DataError where one is missing."""
    counts = Shard.divisions(out)
    if len(counts) != 1:
        found = f"shards of {' and of '.join(map(str, sorted(counts)))}" if counts else "no shards"
        raise ConfigError(
            f"Beside {out} lie {found}: it is made from those of one division, such as {Shard(1, 8).file(out).name}, which "
            f"`score … --out {out.name} --shard 1/8` writes."
        )
    shards = Shard(1, counts.pop()).all()
    if missing := [str(shard) for shard in shards if not shard.file(out).exists()]:
        raise DataError(f"Of {out} these shards are missing: {', '.join(missing[:20])}. Score them first.")
    return shards


def _owner(file: Path) -> dict:
    owner = read_owner(meta_of(file))
    if owner is None:
        raise DataError(f"{file} was not written here, or {meta_of(file).name} beside it is lost: score this shard again.")
    if not owner.get("complete") or owner.get("bytes") != file.stat().st_size:
        raise DataError(f"{file} is not complete: finish it with the same command and --resume.")
    return owner


def _interleave(files: list[Path], out: Path, header: bool) -> int:
    """Write the blocks of all shards in turn; returns the number of rows."""
    with ExitStack() as opened, open(out, "wb") as whole:
        records = [_records(opened.enter_context(open(file, "rb")), header) for file in files]
        if header:
            whole.write([next(each) for each in records][0])
        rows, place, ended = 0, 0, 0
        while ended < len(records):  # in turn; behind the end of the images nobody has a block
            block = list(islice(records[place % len(records)], BATCH))
            whole.writelines(block)
            rows, place = rows + len(block), place + 1
            ended = ended + 1 if len(block) < BATCH else 0
        return rows


def _records(file: IO[bytes], csv: bool) -> Iterator[bytes]:
    """Rows of a table as they stand: of CSV, a quoted name may hold line breaks."""
    record = b""
    for line in file:
        record += line
        if not csv or record.count(b'"') % 2 == 0:
            yield record
            record = b""
    if record:
        yield record
