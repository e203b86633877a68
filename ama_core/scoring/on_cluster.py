"""A table of very many images, scored shard by shard on a Ray cluster whose machines share the folders, and merged."""

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ama_core.cluster import Task, cluster, slots
from ama_core.detectors.registry import load_detector
from ama_core.errors import AMAError, ConfigError
from ama_core.scoring.merge import merge
from ama_core.scoring.table import FIRST_ERRORS, SAMPLED, Sample, Summary, meta_of, read_owner, score_to_file
from ama_core.shards import Shard

SHARDS_PER_SLOT = 4  # so that slow shards even out
POLL_SECONDS = 0.5


def score_on_cluster(
    model: str,
    sources: Sequence[str],
    out: Path,
    alpha: float,
    *,
    by: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """As `table.score_to_file`, on Ray: the same table, byte for byte. Shards lie beside `out` until they are merged.

    A shard whose worker dies goes on, on another, where it stopped; `resume` finishes the shards of a call that was ended.

    Args:
        progress: called with the number of rows so far.

    Raises:
        ConfigError, DataError: as `score_to_file`; a shard could not be scored; Ray is not here.
    """
    out = Path(out).resolve()
    if out.exists() and (resume or not force):
        raise ConfigError(f"{out} exists: replace it with --force, or choose another name.")
    with cluster() as ray:
        earlier = Shard.divisions(out)
        if not resume:
            for of in earlier:
                _forget(out, Shard(1, of).all())
        elif len(earlier) > 1:
            found = " and of ".join(map(str, sorted(earlier)))
            raise ConfigError(f"Beside {out} lie shards of {found}: remove those of all but one call, or leave --resume out.")
        shards = Shard(1, earlier.pop() if resume and earlier else SHARDS_PER_SLOT * slots(ray)).all()
        tasks = [Task(ray, _score, os.getcwd(), model, list(sources), str(out), alpha, by, shard) for shard in shards]
        try:
            running = True
            while running:
                running = None in [task.poll() for task in tasks]  # all, and before the look at those that failed
                if failed := [task for task in tasks if task.returncode]:
                    raise failed[0].error if isinstance(failed[0].error, AMAError) else AMAError(str(failed[0].error))
                if progress:
                    progress(sum((read_owner(meta_of(shard.file(out))) or {}).get("rows", 0) for shard in shards))
                if running:
                    time.sleep(POLL_SECONDS)
        except BaseException:
            for task in tasks:
                task.terminate()
            raise
        summaries = [task.result for task in tasks]
    merge(out, force=force)
    _forget(out, shards)
    return _together(summaries)


def _score(folder: str, model: str, sources: list[str], out: str, alpha: float, by: str | None, shard: Shard) -> Summary:
    """One shard, by a worker: from the start, or where another worker left it."""
    os.chdir(folder)  # paths stand in the table as they were given
    detector = load_detector(model, score=by)
    return score_to_file(detector, model, sources, Path(out), alpha, shard=shard, resume=True)


def _forget(out: Path, shards: Sequence[Shard]) -> None:
    """Remove what was written of a table's shards."""
    for file in (shard.file(out) for shard in shards):
        if read_owner(meta_of(file)) is not None:
            file.unlink(missing_ok=True)
            meta_of(file).unlink()


def _together(parts: Sequence[Summary]) -> Summary:
    """The summary of all shards; its sample is one of theirs, which are of about the same size."""
    kept = [row for part in parts for row in part.sample.kept]
    if len(kept) > SAMPLED:
        kept = random.Random(0).sample(kept, SAMPLED)
    return Summary(
        sum(part.rows for part in parts),
        sum(part.flagged for part in parts),
        sum(part.unreadable for part in parts),
        [error for part in parts for error in part.errors][:FIRST_ERRORS],
        Sample(parts[0].sample.names, sum(part.sample.met for part in parts), kept),
    )
