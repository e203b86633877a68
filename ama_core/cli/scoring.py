"""Commands that say of images how anomalous they are: `score` and `report`."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ama_core.cli.arguments import (
    Commands,
    add_alpha_of_model,
    add_command,
    add_device,
    add_images,
    add_model,
    alpha_of,
    check_out,
    path,
    shard,
)
from ama_core.cli.mapping import add_map, add_maps, check_maps, outlined, outlines_of, write_maps
from ama_core.cli.progress import hidden, warn
from ama_core.data import check_sources, count_images
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.registry import load_detector
from ama_core.errors import ConfigError, DataError
from ama_core.scoring import table
from ama_core.scoring.check import check_files, drift_warning, reach_warning
from ama_core.scoring.merge import merge as merge_shards
from ama_core.scoring.on_cluster import score_on_cluster
from ama_core.scoring.report import html_report, is_report
from ama_core.scoring.watch import watch_rows
from ama_core.stopping import stop_signals
from ama_core.storage.files import write_atomically


def add_score(commands: Commands) -> None:
    parser = add_command(commands, score)
    add_model(parser)
    add_images(parser)
    add = parser.add_argument
    add_alpha_of_model(parser, "false-alarm rate: flag where p <= alpha")
    add("--by", metavar="SCORE", help="the score behind p_value and anomalous (default: T of AMA)")
    add("--out", type=path, metavar="FILE", help="write a .csv or .jsonl file instead of standard output")
    add("--resume", action="store_true", help="continue FILE where an interrupted call stopped")
    add("--force", action="store_true", help="replace FILE if it exists")
    add("--json", action="store_true", help="print one JSON object a line instead of CSV (a file: --out NAME.jsonl)")
    add("--shard", type=shard, metavar="I/N", help="only the I-th of N shares, into FILE's shard; `merge FILE` joins them")
    add(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="ray: on a Ray cluster that shares the folders (docs/cluster.md)",
    )
    add("--watch", action="store_true", help="score new files as they arrive in the folders, until Ctrl-C")
    add_maps(parser)
    add_device(parser)


def score(arguments: argparse.Namespace) -> None:
    """Score files and folders of any size, one row an image."""
    if arguments.resume and not arguments.out:
        raise ConfigError("--resume continues a table: name it with --out FILE.")
    if arguments.watch and arguments.out:
        raise ConfigError("--watch prints its rows: send them to a file with > FILE instead of --out.")
    if arguments.json and arguments.out:
        raise ConfigError("--json is for standard output: with --out, a file named .jsonl has JSON lines, one named .csv CSV.")
    if arguments.shard and not arguments.out:
        raise ConfigError("--shard writes one part of a table: name the table with --out FILE.")
    if arguments.engine == "ray" and (arguments.shard or arguments.device or arguments.watch or not arguments.out):
        raise ConfigError("--engine ray writes a table: name it with --out FILE, and leave --shard, --device and --watch out.")
    check_sources(arguments.paths)
    check_maps(arguments)
    detector = load_detector(arguments.model, score=arguments.by, device=arguments.device)
    arguments.alpha = alpha_of(arguments, detector)
    outlines = outlines_of(detector, arguments) if arguments.maps else None
    if arguments.watch:
        _watch(detector, arguments)
        return
    disable = hidden(arguments.quiet)
    total = None if disable or arguments.shard else count_images(arguments.paths)
    with tqdm(total=total, unit="image", disable=disable) as bar:
        verdicts: list[bool | None] = []
        found = _write_rows(detector, arguments, bar) if arguments.out else _print_rows(detector, arguments, bar, verdicts)
    if arguments.out:
        said = f"{found.rows:,} rows, {found.flagged:,} flagged at alpha = {arguments.alpha:g}"
        out = arguments.shard.file(arguments.out) if arguments.shard else arguments.out
        print(f"{out}: {said}", file=sys.stderr)
    if found.unreadable:
        print(f"{found.unreadable:,} could not be scored; the column error says why:", file=sys.stderr)
        for file, why in found.errors:
            print(f"  {file}: {why}", file=sys.stderr)
        if found.unreadable == found.rows and not arguments.shard:
            raise DataError(_nothing_scored(found.rows, found.errors))
    if outlines:
        write_maps(outlines, arguments, table.verdicts(arguments.out, detector) if arguments.out else verdicts)
    _warn(detector, arguments.alpha, found.sample.scores())


def _write_rows(detector: AnomalyDetector, arguments: argparse.Namespace, bar: tqdm) -> table.Summary:
    """The rows to `--out`."""
    try:
        if arguments.engine == "ray":
            return score_on_cluster(
                arguments.model,
                arguments.paths,
                arguments.out,
                arguments.alpha,
                by=arguments.by,
                resume=arguments.resume,
                force=arguments.force,
                progress=lambda rows: bar.update(rows - bar.n),
            )
        return table.score_to_file(
            detector,
            arguments.model,
            arguments.paths,
            arguments.out,
            arguments.alpha,
            resume=arguments.resume,
            force=arguments.force,
            shard=arguments.shard,
            progress=lambda summary: bar.update(summary.rows - bar.n),
        )
    except KeyboardInterrupt:
        print(f"Stopped; what is scored is in {arguments.out}. Continue with --resume.", file=sys.stderr)
        raise


def _print_rows(
    detector: AnomalyDetector, arguments: argparse.Namespace, bar: tqdm, verdicts: list[bool | None]
) -> table.Summary:
    """The rows to standard output; where maps are asked for, whether each is flagged to `verdicts`."""
    found = table.summary_of(detector)
    write = _csv_printer(table.columns(detector)) if not arguments.json else lambda row: print(json.dumps(row))
    for row in table.score_rows(detector, arguments.paths, arguments.alpha):
        write(row)
        found.add(row)
        bar.update()
        if arguments.maps:
            verdicts.append(None if row["error"] else bool(row["anomalous"]))
    return found


def _watch(detector: AnomalyDetector, arguments: argparse.Namespace) -> None:
    """Rows to standard output as files come, each at once; Ctrl-C or SIGTERM ends it, as it must."""
    found = table.summary_of(detector)
    write = _csv_printer(table.columns(detector)) if not arguments.json else lambda row: print(json.dumps(row))
    with stop_signals() as stop_requested:
        if not arguments.quiet:
            print("Watching; Ctrl-C ends it.", file=sys.stderr)
        for row in watch_rows(detector, arguments.paths, arguments.alpha, stop_requested=stop_requested):
            found.add(row)  # first: who reads the row may stop the command at once
            write(row)
            sys.stdout.flush()
    print(f"{found.rows:,} rows, {found.flagged:,} flagged at alpha = {arguments.alpha:g}", file=sys.stderr)
    _warn(detector, arguments.alpha, found.sample.scores())


def _csv_printer(names: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """Prints the header, and then each row as a table in a file has it."""

    def write(values: Iterable[Any]) -> None:
        sys.stdout.write(table.csv_line(values))

    write(names)
    return lambda row: write(row[name] for name in names)


def add_merge(commands: Commands) -> None:
    parser = add_command(commands, merge)
    parser.add_argument("out", type=path, metavar="FILE", help="the whole table, beside whose name the shards lie")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def merge(arguments: argparse.Namespace) -> None:
    """Make the whole table of the shards that `score --out FILE --shard I/N` wrote."""
    rows = merge_shards(arguments.out, force=arguments.force)
    print(f"{arguments.out}: {rows:,} rows", file=sys.stderr)


def add_report(commands: Commands) -> None:
    parser = add_command(commands, report)
    add_model(parser)
    add_images(parser)
    add = parser.add_argument
    add("--out", required=True, type=path, metavar="FILE", help="the .html file")
    add("--force", action="store_true", help="replace FILE even if it is not a report")
    add_alpha_of_model(parser)
    add("--by", metavar="SCORE", help="the score that decides (default: the detector's; T of AMA)")
    add("--limit", type=int, default=500, metavar="N", help="maximum number of images to read (default 500)")
    add_map(parser)
    add_device(parser)


def report(arguments: argparse.Namespace) -> None:
    """Check images and write verdicts and pictures as one self-contained HTML file."""
    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit} must be at least 1.")
    check_sources(arguments.paths)
    check_out(arguments, is_report, arguments.paths)
    detector = load_detector(arguments.model, score=arguments.by, device=arguments.device)
    arguments.alpha = alpha_of(arguments, detector)
    with tqdm(unit="image", disable=hidden(arguments.quiet)) as bar:
        found = check_files(detector, arguments.paths, arguments.limit, lambda done, total: bar.update(done - bar.n))
    if not len(found):
        raise DataError(_nothing_scored(len(found.refused), found.refused))
    drawn, where = outlined(detector, found, arguments)
    write_atomically(arguments.out, html_report(detector, arguments.model, found, arguments.alpha, drawn, where))
    print(f"{arguments.out}: {len(found):,} images, {len(found.refused):,} could not be read", file=sys.stderr)
    if found.more:
        warn(f"only the first {len(found):,} images were read; --limit {2 * arguments.limit} reads more.")
    _warn(detector, arguments.alpha, found.examined.scores)


def _nothing_scored(n: int, refused: Sequence[tuple[str, str]]) -> str:
    first = f" The first: {refused[0][0]}: {refused[0][1]}" if refused else ""
    none = "the one file is not readable" if n == 1 else f"none of the {n:,} files is readable"
    return f"No image could be scored: {none}.{first}"


def _warn(detector: AnomalyDetector, alpha: float, scores: dict[str, np.ndarray]) -> None:
    """Say on standard error what a reader of verdicts must know of all of them."""
    warn(reach_warning(detector, alpha), drift_warning(detector, scores))
