"""The paper's tables, kept between reruns: stored trainings and models of this computer beside what is published."""

import contextlib
from pathlib import Path

import cache
import numpy as np

from ama_core import AMAError
from ama_core.analysis.density import Densities, densities
from ama_core.detectors.ama.scores import a_distance, mu_sigma_behind
from ama_core.paper import lengths, tables
from ama_core.paper import records as store
from ama_core.paper.lengths import LengthRun
from ama_core.paper.records import Record
from ama_core.paper.rivals import RivalLine, model_entries, rival_lines, rival_means, stored_entries
from ama_core.paper.tables import Line, Member
from ama_core.storage.bundle import StoredScores


def records() -> list[Record]:
    """Every training that `python -m ama_core benchmark` has stored. Raises BundleError."""
    return _records(store.RESULTS)


@cache.cached("*.json", kind="resource", max_entries=2)
def _records(folder: Path) -> list[Record]:
    return store.read_results(folder)


def members() -> tuple[list[Member], dict[str, str]]:
    """What the models on this computer were measured on, and why those that cannot be read are left out, by name."""
    return _members(cache.models())


@cache.cached("config.json", "results.json", kind="resource", max_entries=4)
def _members(folders: dict[str, Path]) -> tuple[list[Member], dict[str, str]]:
    found, left_out = [], {}
    for name, folder in folders.items():
        try:
            found += tables.model_members(name, cache.info(folder), cache.results(folder).values())
        except AMAError as error:
            left_out[name] = str(error)
    return found, left_out


def lines(table: str) -> list[Line]:
    """The lines of a table of the paper, of stored trainings and of the models here; of these alone where a stored file is
    damaged.
    """
    return _lines(store.RESULTS, cache.models(), table)


def other_pairs() -> list[Line]:
    """Lines of AMA on pairs of sets that the paper does not have."""
    return _lines(store.RESULTS, cache.models(), None)


@cache.cached("*.json", kind="resource", max_entries=12)
def _lines(folder: Path, folders: dict[str, Path], table: str | None) -> list[Line]:
    try:
        found = _records(folder)
    except AMAError:
        found = []
    own = _members(folders)[0]
    return tables.lines(table, found, own) if table else tables.other_pairs(found, own)


def training_lengths() -> list[LengthRun]:
    """Trainings of several lengths, of the study and of the tables; where a stored file is damaged, those of the other."""
    return _training_lengths(lengths.STORED, store.RESULTS)


@cache.cached("*.json", kind="resource", max_entries=2)
def _training_lengths(folder: Path, results: Path) -> list[LengthRun]:
    runs, found = [], []
    with contextlib.suppress(AMAError):
        runs = lengths.read_lengths(folder)
    with contextlib.suppress(AMAError):
        found = _records(results)
    return lengths.with_records(runs, found)


def rivals() -> tuple[list[RivalLine], list[RivalLine]]:
    """The paper's other methods beside ours, for its Tables 1 and 2, of stored trainings and of the models here."""
    return _rivals(store.RESULTS, cache.models())


@cache.cached("*.json", kind="resource", max_entries=2)
def _rivals(folder: Path, folders: dict[str, Path]) -> tuple[list[RivalLine], list[RivalLine]]:
    try:
        entries = stored_entries(_records(folder))
    except AMAError:
        entries = []
    for name, path in folders.items():
        try:
            entries += model_entries(name, cache.info(path), cache.results(path).values())
        except AMAError:
            continue  # `members` says so
    return rival_lines(entries), rival_means(entries)


def table_lines(table: str) -> list[Line]:
    """What `python -m ama_core benchmark` has stored for a table, measured lines alone. Raises BundleError."""
    return _table_lines(store.RESULTS, table)


@cache.cached("*.json", kind="resource", max_entries=6)
def _table_lines(folder: Path, table: str) -> list[Line]:
    return [line for line in tables.lines(table, _records(folder)) if line.ours]


def record_scores(record: Record) -> list[StoredScores]:
    """The scores behind such a training; empty where they are not stored. Raises BundleError."""
    return cache.stored(store.scores_folder(record, store.RESULTS))


def record_densities(record: Record, ood: str, axis: str) -> Densities:
    """Densities of the normal images (`test`) and of one OOD set of such a training, whose scores are stored."""
    return _record_densities(store.scores_folder(record, store.RESULTS), record.normal, ood, axis)


@cache.cached("scores.npz", max_entries=32)
def _record_densities(folder: Path, normal: str, ood: str, axis: str) -> Densities:
    found = {s.name: s.scores for s in cache.stored(folder)}
    samples = {"test": found[normal], ood: found[ood]}
    if axis != cache.A_DISTANCE:
        return densities({title: scores[axis] for title, scores in samples.items()}, log=True)
    mu, sigma = mu_sigma_behind(*(np.concatenate([scores[key] for scores in samples.values()]) for key in ("R", "log_A")))
    return densities({title: a_distance(scores["R"], mu, sigma) for title, scores in samples.items()}, log=True)
