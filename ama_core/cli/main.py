"""`python -m ama_core`: words to calls, and results to text.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 2 bad input (one line says what
was wrong and what to do), 130 stopped by the user (the state is saved).
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ama_core._version import __version__
from ama_core.data import available, catalog, check_path, check_sources, count_images, data_dir, load
from ama_core.data import inspect as inspect_images
from ama_core.data.files import files_of
from ama_core.detectors import registry
from ama_core.detectors.ama.config import PRESETS
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.registry import detector_class, load_detector
from ama_core.errors import AMAError, ConfigError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import auroc_interval
from ama_core.paper import jobs as tables
from ama_core.paper.tables import report as benchmark_tables
from ama_core.profiling import speed
from ama_core.runs import execute as runs
from ama_core.runs import queue
from ama_core.scoring import table as streaming
from ama_core.scoring.check import check_files, drift_warning, reach_warning
from ama_core.scoring.report import html_report, is_report
from ama_core.storage.bundle import FILES as BUNDLE_FILES
from ama_core.storage.bundle import find_bundle, is_shared, list_bundles, read_info, read_results, read_scores, zip_bundle
from ama_core.storage.files import check_output, write_atomically
from ama_core.training.loop import Event


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
        arguments.run(arguments)
    except runs.RunStopped as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except AMAError as error:
        print(f"ama_core: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # the disk's or the system's: full, read-only, out of reach
        place = f": {error.filename}" if error.filename else ""
        advice = "Check the disk and its permissions, then run this again."
        print(f"ama_core: {error.strerror or error}{place}. {advice}", file=sys.stderr)
        return 2
    return 0


def datasets(arguments: argparse.Namespace) -> None:
    """List the catalog, or download sets."""
    unknown = [name for name in arguments.download if name not in catalog()]
    if unknown:
        raise ConfigError(f"There is no data set {', '.join(unknown)}. Known: {', '.join(catalog())}.")
    for name in arguments.download:
        for split in catalog()[name].splits:
            images = load(name, split, download=True, progress=_download_bar)
            print(f"{name} {split}: {len(images):,} images", file=sys.stderr)
    rows = [{**_set_row(name), "title": info.title, "kind": info.kind} for name, info in catalog().items()]
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"Data directory: {data_dir()} (set AMA_DATA_DIR to change it)\n")
    for row in rows:
        at_hand = ", ".join(row["available"]) or f"download (about {catalog()[row['name']].download_mb} MB)"
        print(f"{row['name']:14}{'grey' if row['channels'] == 1 else 'colour':8}{row['kind']:12}{at_hand:26}{row['title']}")


def train(arguments: argparse.Namespace) -> None:
    """Train in a run folder, which becomes a bundle."""
    if arguments.spec:
        spec = runs.RunSpec.from_json(arguments.spec)
    else:
        if arguments.out.exists() and not arguments.out.is_dir():
            raise ConfigError(f"--out {arguments.out} is a file: name a folder for the run.")
        spec = runs.RunSpec(
            arguments.dataset,
            runs.config_for(arguments.dataset, arguments.preset, arguments.detector, **_settings(arguments.set)),
            detector=arguments.detector,
            one_class=arguments.one_class,
            anomalies=arguments.anomalies,
            validate_ood=arguments.validate_ood,
            select=arguments.select,
            measure=not arguments.no_measure,
        )
    with _TrainingBar(arguments.quiet) as bar:
        runs.execute(
            arguments.out,
            spec,
            resume=arguments.resume,
            claimed=arguments.claimed,
            download=arguments.download,
            device=arguments.device,
            on_event=bar.update,
            on_progress=bar.measuring,
        )
    print(f"{arguments.out} is ready: python -m ama_core info {arguments.out}", file=sys.stderr)


def inspect(arguments: argparse.Namespace) -> None:
    """Look at one's own images before training: sizes, unreadable files, duplicates, images shared by train and test."""
    with tqdm(unit="file", disable=_hidden(arguments.quiet)) as bar:
        found = inspect_images(arguments.source, arguments.against, lambda met: bar.update(met - bar.n))
    if arguments.json:
        sizes = [{"width": width, "height": height, "n": n} for (width, height), n in found.sizes.items()]
        parts = {name: getattr(found, name) for name in ("n", "grey", "refused", "duplicates", "near", "shared", "notes")}
        print(json.dumps(parts | {"sizes": sizes}))
    else:
        print("\n".join(found.sentences()))


def report(arguments: argparse.Namespace) -> None:
    """Check images and write verdicts and pictures as one self-contained HTML file."""
    if not 0 < arguments.alpha < 1:
        raise ConfigError(f"--alpha = {arguments.alpha} must lie in (0, 1).")
    if arguments.most < 1:
        raise ConfigError(f"--most {arguments.most} must be at least 1.")
    check_sources(arguments.paths)
    _check_output(arguments, is_report, arguments.paths)
    detector = load_detector(arguments.model, score=arguments.by, device=arguments.device)
    with tqdm(unit="image", disable=_hidden(arguments.quiet)) as bar:
        found = check_files(detector, arguments.paths, arguments.most, lambda done, total: bar.update(done - bar.n))
    if not len(found):
        raise DataError(_nothing_scored(len(found.refused), found.refused))
    write_atomically(arguments.out, html_report(detector, arguments.model, found, arguments.alpha))
    print(f"{arguments.out}: {len(found):,} images, {len(found.refused):,} could not be read", file=sys.stderr)
    _warn(detector, arguments.alpha, found.examined.scores)


def share(arguments: argparse.Namespace) -> None:
    """Pack a model as a .zip file to give to others, who unpack it and name its folder as MODEL."""
    _check_output(arguments, is_shared, ())
    folder = find_bundle(arguments.model)
    load_detector(folder)  # what does not fit together is not handed on
    write_atomically(arguments.out, zip_bundle(folder))
    print(f"{arguments.out} is written", file=sys.stderr)


def score(arguments: argparse.Namespace) -> None:
    """Score files and folders of any size, one row an image."""
    if not 0 < arguments.alpha <= 1:
        raise ConfigError(f"--alpha = {arguments.alpha} must lie in (0, 1].")
    if arguments.resume and not arguments.out:
        raise ConfigError("--resume continues a table: say which with --out FILE.")
    check_sources(arguments.paths)
    detector = load_detector(arguments.model, score=arguments.by, device=arguments.device)
    hidden = _hidden(arguments.quiet)
    with tqdm(total=None if hidden else count_images(arguments.paths), unit="image", disable=hidden) as bar:
        if arguments.out:
            try:
                found = streaming.score_to_file(
                    detector, arguments.model, arguments.paths, arguments.out, arguments.alpha, resume=arguments.resume,
                    force=arguments.force, progress=lambda summary: bar.update(summary.rows - bar.n),
                )  # fmt: skip
            except KeyboardInterrupt:
                print(f"Stopped; what is scored is in {arguments.out}. Continue with --resume.", file=sys.stderr)
                raise
        else:
            found = streaming.summary_of(detector)
            write = _csv_printer(streaming.columns(detector)) if not arguments.json else lambda row: print(json.dumps(row))
            for row in streaming.score_rows(detector, arguments.paths, arguments.alpha):
                write(row)
                found.add(row)
                bar.update()
    if arguments.out:
        print(
            f"{arguments.out}: {found.rows:,} rows, {found.flagged:,} flagged at alpha = {arguments.alpha:g}", file=sys.stderr
        )
    if found.unreadable:
        print(f"{found.unreadable:,} could not be scored; the column error says why:", file=sys.stderr)
        for path, why in found.errors:
            print(f"  {path}: {why}", file=sys.stderr)
        if found.unreadable == found.rows:
            raise DataError(_nothing_scored(found.rows, found.errors))
    _warn(detector, arguments.alpha, found.sample.scores())


def evaluate(arguments: argparse.Namespace) -> None:
    """AUROC, AUPRC and FPR95 of every score against OOD sets."""
    detector = load_detector(arguments.model, device=arguments.device)
    with _SetBars(arguments.quiet) as bars:
        found = evaluation.evaluate(
            detector, arguments.ood, model=arguments.model, seed=arguments.seed, full=arguments.full, progress=bars.update
        )
    if arguments.json:
        print(json.dumps(found))
    else:
        _print_results(found)


def measure(arguments: argparse.Namespace) -> None:
    """Measure a bundle against every data set at hand and store the scores in it."""
    folder = find_bundle(arguments.model)
    with _SetBars(arguments.quiet) as bars:
        runs.measure_run(load_detector(folder, device=arguments.device), folder, bars.update, seed=arguments.seed)
    _print_results(read_results(folder))


def bench(arguments: argparse.Namespace) -> None:
    """How fast training and scoring run here, beside a plain reference and the hardware's peaks."""
    if arguments.rounds < 1 or arguments.concurrent < 0:
        raise ConfigError("--rounds must be at least 1 and --concurrent at least 0.")
    found = speed.bench(
        arguments.sizes,
        device=arguments.device,
        rounds=arguments.rounds,
        concurrent=arguments.concurrent,
        progress=(lambda what: None) if arguments.quiet else (lambda what: print(what, file=sys.stderr, flush=True)),
    )
    print(json.dumps(found) if arguments.json else speed.table(found))


def work(arguments: argparse.Namespace) -> None:
    """Carry out the runs that the app has queued, one after the other, until none is left."""
    queue.work(arguments.runs)


def benchmark(arguments: argparse.Namespace) -> None:
    """Train and measure what the paper's tables need, store it in results/, and write RESULTS.md."""
    if arguments.seeds < 1 or (arguments.jobs is not None and arguments.jobs < 1):
        raise ConfigError("--seeds and --jobs must be at least 1.")
    out, results = arguments.out.resolve(), arguments.results.resolve()
    if arguments.job:  # one training, in a process that this command started
        tables.carry_out(tables.Job.from_json(arguments.job), out, results, arguments.device)
        return
    if arguments.tables:
        jobs = tables.plan(
            arguments.tables,
            arguments.preset,
            _settings(arguments.set),
            arguments.seeds,
            arguments.only,
            not arguments.no_validate,
        )
        if arguments.list:
            for job in jobs:
                print(f"{job.title:44}seed {job.seed}   {_job_state(job, results)}")
            return
        try:
            _run_jobs(jobs, out, results, arguments)
        finally:
            _write_report(results)  # of what is stored, also where it was stopped
    elif arguments.report:
        _write_report(results)
    else:
        raise ConfigError(f"Name tables ({', '.join(tables.TABLES)}), or --report.")


def info(arguments: argparse.Namespace) -> None:
    """What a model is, and how well it was measured to do; --verify: whether it still gives the scores stored with it."""
    folder = find_bundle(arguments.model)
    if arguments.verify:
        _verify(folder, arguments)
        return
    header = read_info(folder)
    results = read_results(folder)
    if arguments.json:
        print(json.dumps({"path": str(folder), **header, "results": results}))
        return
    print(folder)
    for section in ("normal", "training", "config"):
        print(f"\n{section}")
        for name, value in header.get(section, {}).items():
            print(f"  {name:22}{value}")
    if results and results["results"]:
        print()
        _print_results(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ama_core", description="Train, score and evaluate Adversarial Mirrored AutoEncoders."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, **kwargs) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=function.__doc__.splitlines()[0], **kwargs)
        sub.set_defaults(run=function)
        return sub

    model_help = f"a bundle or run folder, or one of: {', '.join(list_bundles()) or '(none bundled)'}"

    sub = command(datasets)
    sub.add_argument("--download", nargs="+", default=[], metavar="NAME", help="fetch these sets through torchvision")
    sub.add_argument("--json", action="store_true")

    sub_detectors = command(detectors)
    sub_detectors.add_argument("--json", action="store_true")

    sub = command(train, epilog=_settings_help(), formatter_class=argparse.RawDescriptionHelpFormatter)
    sub.add_argument(
        "dataset", type=_source, metavar="DATASET", help=f"a folder, an .npz file, or one of: {', '.join(catalog())}"
    )
    sub.add_argument("--out", required=True, type=_path, metavar="DIR", help="run folder; becomes a bundle")
    sub.add_argument("--detector", default=registry.names()[0], choices=registry.names(), help="default: %(default)s")
    sub.add_argument("--preset", default="tiny", choices=PRESETS)
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter, see below; repeatable")
    sub.add_argument("--resume", action="store_true", help="go on exactly where the run in DIR stopped")
    sub.add_argument("--one-class", type=int, metavar="LABEL", help="train on this class alone (Table 2)")
    sub.add_argument("--anomalies", type=_source, metavar="NAME", help="real anomalies as negatives (semi-supervised)")
    sub.add_argument("--validate-ood", type=_source, metavar="NAME", help="measure AUROC on 50 of these while training")
    sub.add_argument("--select", default="last", choices=("last", "validated"), help="which step's weights to keep")
    sub.add_argument("--no-measure", action="store_true", help="do not score the data sets at hand afterwards")
    sub.add_argument("--download", action="store_true", help="fetch DATASET if it is not here")
    sub.add_argument("--spec", help=argparse.SUPPRESS)  # a whole RunSpec as JSON, from runs.launch
    sub.add_argument("--claimed", action="store_true", help=argparse.SUPPRESS)  # from the queue's worker

    sub_score = command(score)
    sub_score.add_argument("model", metavar="MODEL", help=model_help)
    sub_score.add_argument("paths", nargs="+", type=_source, metavar="PATH", help="image files, folders, .npz or .zip files")
    sub_score.add_argument("--alpha", type=float, default=0.05, help="false-alarm rate: flag where p <= alpha (default 0.05)")
    sub_score.add_argument("--by", metavar="SCORE", help="the score behind p_value and anomalous (default: T of AMA)")
    sub_score.add_argument("--out", type=_path, metavar="FILE", help="write a .csv or .jsonl file instead of standard output")
    sub_score.add_argument("--resume", action="store_true", help="go on with FILE where an interrupted call stopped")
    sub_score.add_argument("--force", action="store_true", help="replace FILE where it exists")
    sub_score.add_argument("--json", action="store_true", help="one JSON object a line instead of CSV")

    sub_inspect = command(inspect)
    sub_inspect.add_argument(
        "source", type=_source, metavar="PATH", help="a folder (with or without train and test), .zip or .npz file"
    )
    sub_inspect.add_argument(
        "--against", type=_source, metavar="PATH", help="images that should not be among them, such as the test's"
    )
    sub_inspect.add_argument("--json", action="store_true")
    sub_inspect.add_argument("--quiet", action="store_true", help="no progress bars")

    sub_report = command(report)
    sub_report.add_argument("model", metavar="MODEL", help=model_help)
    sub_report.add_argument("paths", nargs="+", type=_source, metavar="PATH", help="image files, folders, .npz or .zip files")
    sub_report.add_argument("--out", required=True, type=_path, metavar="FILE", help="the .html file")
    sub_report.add_argument("--force", action="store_true", help="replace FILE even where it is no report")
    sub_report.add_argument("--alpha", type=float, default=0.05, help="false-alarm rate (default 0.05)")
    sub_report.add_argument("--by", metavar="SCORE", help="the score that decides (default: the detector's; T of AMA)")
    sub_report.add_argument("--most", type=int, default=500, metavar="N", help="read at most so many images (default 500)")

    sub_share = command(share)
    sub_share.add_argument("model", metavar="MODEL", help=model_help)
    sub_share.add_argument("--out", required=True, type=_path, metavar="FILE", help="the .zip file")
    sub_share.add_argument("--force", action="store_true", help="replace FILE even where it is no shared model")

    sub_evaluate = command(evaluate)
    sub_evaluate.add_argument("model", metavar="MODEL", help=model_help)
    sub_evaluate.add_argument(
        "--ood", nargs="+", required=True, type=_source, metavar="NAME",
        help="data sets, folders or .npz files; rest: the other classes",
    )  # fmt: skip
    sub_evaluate.add_argument("--seed", type=_seed, default=0, help="seed of the 20 %% draw of anomalies")
    sub_evaluate.add_argument("--full", action="store_true", help="the whole OOD test split instead of the draw")
    sub_evaluate.add_argument("--json", action="store_true")

    sub_measure = command(measure)
    sub_measure.add_argument("model", metavar="MODEL", help=model_help)
    sub_measure.add_argument("--seed", type=_seed, default=0)

    sub_bench = command(bench)
    sub_bench.add_argument("--sizes", nargs="+", default=list(speed.SIZES), choices=speed.SIZES, metavar="SIZE")
    sub_bench.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (default 3)")
    sub_bench.add_argument("--concurrent", type=int, default=2, metavar="N", help="also N tiny trainings at once (default 2)")
    sub_bench.add_argument("--json", action="store_true")

    sub_work = command(work)
    sub_work.add_argument("--runs", type=Path, default=runs.runs_dir(), metavar="DIR", help="default: %(default)s")

    sub_benchmark = command(benchmark)
    sub_benchmark.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(tables.TABLES)}")
    sub_benchmark.add_argument("--preset", default="tiny", choices=PRESETS)
    sub_benchmark.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter for all rows (train --help)"
    )
    sub_benchmark.add_argument("--seeds", type=int, default=1, metavar="N", help="train each cell with seeds 0 to N-1")
    sub_benchmark.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="parts of titles: sanity, 'ama-mnist-[0-4]'"
    )
    sub_benchmark.add_argument("--jobs", type=int, metavar="N", help="trainings at once (default: one a core, or one on a GPU)")
    sub_benchmark.add_argument(
        "--out", type=Path, default=runs.runs_dir() / "benchmark", metavar="DIR", help="run folders (default: %(default)s)"
    )
    sub_benchmark.add_argument(
        "--results", type=Path, default=tables.RESULTS, metavar="DIR",
        help="stored results; RESULTS.md is written beside it (default: %(default)s)",
    )  # fmt: skip
    sub_benchmark.add_argument("--no-validate", action="store_true", help="no AUROC on 50 validation anomalies beside it")
    sub_benchmark.add_argument("--list", action="store_true", help="only say which trainings these are, and which are stored")
    sub_benchmark.add_argument("--report", action="store_true", help="only write RESULTS.md anew")
    sub_benchmark.add_argument("--job", help=argparse.SUPPRESS)

    sub_info = command(info)
    sub_info.add_argument("model", metavar="MODEL", help=model_help)
    sub_info.add_argument("--verify", action="store_true", help="score a part of the stored samples anew and compare")
    sub_info.add_argument("--json", action="store_true")

    for each in (sub, sub_score, sub_report, sub_evaluate, sub_measure, sub_benchmark, sub_bench, sub_info):
        each.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
        each.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def _said_in_words(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of an argument whose refusal is said as it is: argparse replaces what a ValueError says by words of its own."""

    @functools.wraps(kind)
    def checked(word: str) -> Any:
        try:
            return kind(word)
        except AMAError as error:
            raise AMAError(str(error)) from error

    return checked


@_said_in_words
def _path(word: str) -> Path:
    """The type of an argument that names a file or folder: "" would be the current folder."""
    return Path(check_path(word))


@_said_in_words
def _seed(word: str) -> int:
    """The type of an argument that is a seed. Raises ValueError (argparse says so) and ConfigError."""
    value = int(word)
    if value < 0:
        raise ConfigError(f"--seed {value} must not be negative.")
    return value


@_said_in_words
def _source(word: str) -> str:
    """The type of an argument that names a data set or a path, left as it was written."""
    return str(check_path(word))


def _check_output(arguments: argparse.Namespace, ours: Callable[[Path], bool], paths: Sequence[str]) -> None:
    """Raises ConfigError unless `--out` may be written; neither an image nor a file of the model ever is."""
    folder = find_bundle(arguments.model)
    check_output(arguments.out, (*files_of(paths), *(folder / name for name in BUNDLE_FILES)), ours, arguments.force)


def _csv_printer(names: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """Prints the header, and then each row as a table in a file has it."""

    def write(values: Iterable[Any]) -> None:
        sys.stdout.write(streaming.csv_line(values))

    write(names)
    return lambda row: write(row[name] for name in names)


def _nothing_scored(n: int, refused: Sequence[tuple[str, str]]) -> str:
    first = f" The first: {refused[0][0]}: {refused[0][1]}" if refused else ""
    return f"Not one image could be scored: {n:,} file{'s' if n != 1 else ''} met, none readable.{first}"


def _warn(detector: AnomalyDetector, alpha: float, scores: dict[str, np.ndarray]) -> None:
    """Say on standard error what a reader of verdicts must know of all of them."""
    for warning in (reach_warning(detector, alpha), drift_warning(detector, scores)):
        if warning:
            print(f"Warning: {warning}", file=sys.stderr)


def _settings_help() -> str:
    """Every detector's hyper-parameters with their meaning; what they share, once."""
    told: set[str] = set()
    lines = ["hyper-parameters for --set:"]
    for name in registry.names():
        detector = detector_class(name)
        lines.append(f"\n{name}: {detector.title}")
        for field in dataclasses.fields(detector.Settings):
            meaning = f"\n      {field.metadata['doc']}" if field.metadata["doc"] not in told else ""
            told.add(field.metadata["doc"])
            lines.append(f"  {field.name}={field.default}{meaning}")
    return "\n".join(lines)


def detectors(arguments: argparse.Namespace) -> None:
    """List the detectors: what each is, where it was published, and what it can do beside scoring."""
    found = [detector_class(name) for name in registry.names()]
    rows = [
        {"name": d.name, "title": d.title, "reference": d.reference, "can": list(d.can()), "scores": list(d.score_names()),
         "decides": d.decides, "trains": d.trains()}
        for d in found
    ]  # fmt: skip
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:18}{row['title']}\n{'':18}{row['reference']}\n{'':18}scores {', '.join(row['scores'])}"
              f"{'; can ' + ', '.join(row['can']) if row['can'] else ''}")  # fmt: skip


def _verify(folder: Path, arguments: argparse.Namespace) -> None:
    """Compare, print, and raise AMAError where the model does not give its stored scores."""
    stored = read_scores(folder)
    if not stored:
        raise AMAError(f"{folder} stores no scores to compare with: python -m ama_core measure {folder} makes them.")
    with _SetBars(arguments.quiet) as bars:
        rows = evaluation.verify(load_detector(folder, device=arguments.device), stored, progress=bars.update)
    if arguments.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            said = {True: "agrees", False: "DIFFERS", None: "not compared"}[row["agrees"]]
            how = f"{row['n']} images, at most {row['difference']:.1e} apart ({row['score']})" if row["n"] else row["why"]
            print(f"{row['name'][-20:]:22}{row['split']:8}{said:14}{how}")
    if differing := [f"{row['name']} ({row['split']})" for row in rows if row["agrees"] is False]:
        raise AMAError(
            f"{folder} does not give the scores stored with it for {', '.join(differing)}: its weights, its calibration or "
            "the images have changed. Copy the bundle again, or measure it anew."
        )
    if not any(row["agrees"] for row in rows):
        raise AMAError(f"Nothing of what {folder} stores could be compared. {rows[0]['why']}")


def _job_state(job: tables.Job, results: Path) -> str:
    return job.missing() or ("stored" if tables.is_stored(job, results) else "to do")


def _run_jobs(jobs: Sequence[tables.Job], out: Path, results: Path, arguments: argparse.Namespace) -> None:
    """Train what is at hand and not stored; each job's beginning and end is a line, the whole a bar."""
    missing = {job.title: why for job in jobs if (why := job.missing())}
    for title, why in missing.items():
        print(f"{title}: not measured, {why}", file=sys.stderr)
    todo = [job for job in jobs if not job.missing() and not tables.is_stored(job, results)]
    print(f"{len(todo)} to train; {len(jobs) - len(todo)} are stored or cannot be measured here", file=sys.stderr)
    with tqdm(
        total=len(todo), unit="training", bar_format="{l_bar}{bar}| {n:.2f}/{total} {postfix}", disable=_hidden(arguments.quiet)
    ) as bar:

        def show(progress: tables.Progress) -> None:
            left = "" if progress.seconds_left is None else f"about {progress.seconds_left / 60:.0f} min left"
            bar.set_postfix_str(left, refresh=False)
            bar.update(progress.done - bar.n)
            if progress.job:
                name = f"{progress.job.title} seed {progress.job.seed}"
                facts = [words for words in (f"{name} {progress.what}", progress.words, left) if words]
                tqdm.write("   ".join(facts), file=sys.stderr)

        failed = tables.run(todo, out, results, parallel=arguments.jobs, device=arguments.device, on_progress=show)
    if failed:
        raise AMAError(
            f"{len(failed)} of {len(todo)} trainings failed, the others are stored: {', '.join(job.title for job in failed)}."
        )


def _write_report(results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    file = results.parent / "RESULTS.md"
    write_atomically(file, benchmark_tables(tables.read_results(results)))
    print(f"{file} is written", file=sys.stderr)


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: write it as KEY=VALUE, for example --set nz=64.")
        settings[key.strip()] = value.strip()
    return settings


def _set_row(name: str) -> dict[str, Any]:
    info = catalog()[name]
    return {"name": name, "channels": info.channels, "available": list(available(name))}


def _print_results(found: dict[str, Any]) -> None:
    print(f"normal: {found['normal']}   draw seed: {found['seed']}   AUROC (AUPRC, FPR95), below it AUROC's 95 % interval")
    names = list(found["results"][0]["scores"]) if found["results"] else []
    print(f"{'against':16}{'n':>8}{'n OOD':>8}  " + "".join(f"{score:<24}" for score in names))
    for row in found["results"]:
        cells = [row["scores"][score] for score in names]
        figures = [f"{c['auroc']:.3f} ({c['auprc']:.3f}, {c['fpr95']:.3f})" for c in cells]
        print(f"{row['ood'][-15:]:16}{row['n_normal']:>8,}{row['n_ood']:>8,}  " + "".join(f"{f:<24}" for f in figures))
        intervals = [auroc_interval(c["auroc"], row["n_normal"], row["n_ood"]) for c in cells]
        print(" " * 34 + "".join(f"{f'{low:.3f} to {high:.3f}':<24}" for low, high in intervals))
    for note in found.get("notes", ()):
        print(note, file=sys.stderr)


def _download_bar(done: int, total: int, what: str) -> None:
    print(f"[{done}/{total}] {what}", file=sys.stderr)


def _hidden(quiet: bool) -> bool | None:
    """tqdm's `disable`: None shows a bar on a terminal alone, so that a log holds messages and no bars."""
    return True if quiet else None


class _SetBars:
    """A progress bar for every data set that is being scored."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.bar: tqdm | None = None
        self.name = None

    def __enter__(self) -> "_SetBars":
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.close()

    def update(self, done: int, total: int, name: str) -> None:
        if name != self.name or (self.bar and done < self.bar.n):
            if self.bar:
                self.bar.close()
            self.name, self.bar = name, tqdm(total=total, unit="image", desc=name, disable=_hidden(self.quiet))
        self.bar.update(done - self.bar.n)


class _TrainingBar:
    """Steps, time left and the losses; then the measuring of data sets."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.bar: tqdm | None = None
        self.sets = _SetBars(quiet)

    def __enter__(self) -> "_TrainingBar":
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.close()
        self.sets.__exit__()

    def update(self, event: Event) -> None:
        if self.bar is None:
            self.bar = tqdm(total=event.total_steps, unit="step", disable=_hidden(self.quiet))
        self.bar.update(event.step - self.bar.n)
        if event.kind == "progress":
            own = [name for name in event.values if name not in ("epoch", "lr", "images_per_s", "seconds", "eta_s")][:3]
            shown = {key: f"{event.values[key]:.4g}" for key in (*own, "images_per_s")}
            self.bar.set_postfix(shown)
        elif event.kind == "validation":
            tqdm.write(f"step {event.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in event.values.items()), file=sys.stderr)
        elif event.kind == "done":
            self.bar.close()

    def measuring(self, done: int, total: int, name: str) -> None:
        self.sets.update(done, total, name)
