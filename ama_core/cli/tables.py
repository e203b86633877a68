"""Commands that produce the figures of the repository: `benchmark`, the paper's tables, and `bench`, the speed."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from ama_core.cli.arguments import SETTING, Commands, add_command, add_device, add_json, settings_of, shard
from ama_core.cli.progress import hidden
from ama_core.cluster import cluster
from ama_core.detectors.ama.config import PRESETS
from ama_core.errors import AMAError, ConfigError
from ama_core.formatting import duration
from ama_core.paper.jobs import Job, is_stored, plan
from ama_core.paper.lengths import read_lengths
from ama_core.paper.records import RESULTS, read_results
from ama_core.paper.report import report
from ama_core.paper.rivals import bundled_entries
from ama_core.paper.rows import TABLES
from ama_core.paper.training import Progress, carry_out, train_all
from ama_core.profiling import speed
from ama_core.runs.folder import runs_dir
from ama_core.storage.files import write_atomically
from ama_core.tensors import find_device

BAR = "{l_bar}{bar}| {n:.2f}/{total} {postfix}"


def add_benchmark(commands: Commands) -> None:
    parser = add_command(commands, benchmark)
    out, results = runs_dir() / "benchmark", RESULTS
    add = parser.add_argument
    add("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)}")
    add("--preset", default="tiny", choices=PRESETS, help="size and length (default: tiny, 700 steps)")
    add("--set", action="append", default=[], metavar=SETTING, help="a hyper-parameter for all rows (train --help)")
    add("--seeds", type=int, default=1, metavar="N", help="train each cell with seeds 0 to N-1")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="parts of titles: released, 'ama-mnist-[0-4]'")
    add("--jobs", type=int, metavar="N", help="trainings at once (default: one per core, or one on a GPU)")
    add("--engine", choices=("here", "ray"), default="here", help="ray: trainings as tasks of a Ray cluster (docs/cluster.md)")
    add("--devices", metavar="LIST", help="such as cuda:0,cuda:1: a training at a time on each (one named twice takes two)")
    add("--shard", type=shard, metavar="I/N", help="only the I-th of N shares, for the tasks of an array over a shared folder")
    add("--out", type=Path, default=out, metavar="DIR", help="run folders (default: %(default)s)")
    beside = "stored results; RESULTS.md is written beside it (default: %(default)s)"
    add("--results", type=Path, default=results, metavar="DIR", help=beside)
    add("--no-validate", action="store_true", help="do not also measure AUROC on 50 validation anomalies")
    add("--list", action="store_true", help="only list the trainings, and which of them are stored")
    add("--report", action="store_true", help="only write RESULTS.md again")
    add("--job", help=argparse.SUPPRESS)
    add_device(parser)


def benchmark(arguments: argparse.Namespace) -> None:
    """Train and measure what the paper's tables need, store it in results/, and write RESULTS.md."""
    if arguments.seeds < 1 or (arguments.jobs is not None and arguments.jobs < 1):
        raise ConfigError("--seeds and --jobs must be at least 1.")
    if arguments.engine == "ray" and (arguments.devices or arguments.jobs or arguments.device):
        raise ConfigError("--engine ray places the trainings itself: leave --devices, --jobs and --device out.")
    if arguments.devices and (arguments.jobs or arguments.device):
        raise ConfigError("--devices says where and how many at once: leave --jobs and --device out.")
    devices = [str(find_device(name.strip())) for name in arguments.devices.split(",")] if arguments.devices else None
    out, results = arguments.out.resolve(), arguments.results.resolve()
    if arguments.job:  # one training, in a process that this command started
        carry_out(Job.from_json(arguments.job), out, results, arguments.device)
    elif arguments.report and arguments.tables:
        raise ConfigError("--report writes RESULTS.md again from all that is stored, and trains nothing: leave the tables out.")
    elif arguments.tables:
        jobs = plan(
            arguments.tables,
            arguments.preset,
            settings_of(arguments.set),
            arguments.seeds,
            arguments.only,
            not arguments.no_validate,
        )
        jobs = arguments.shard.of_items(jobs) if arguments.shard else jobs
        if arguments.list:
            for job in jobs:
                print(f"{job.title:44}seed {job.seed}   {_job_state(job, results)}")
            return
        try:
            _run_jobs(jobs, out, results, arguments, devices)
        finally:
            _write_report(results)  # of what is stored, also where it was stopped
    elif arguments.report:
        _write_report(results)
    else:
        raise ConfigError(f"Name tables ({', '.join(TABLES)}), or --report.")


def _job_state(job: Job, results: Path) -> str:
    return job.missing() or ("stored" if is_stored(job, results) else "to do")


def _run_jobs(
    jobs: Sequence[Job], out: Path, results: Path, arguments: argparse.Namespace, devices: Sequence[str] | None
) -> None:
    """Train what is available locally and not stored; each job's beginning and end is a line, the whole a bar."""
    missing = {job.title: why for job in jobs if (why := job.missing())}
    for title, why in missing.items():
        print(f"{title}: not measured, {why}", file=sys.stderr)
    todo = [job for job in jobs if not job.missing() and not is_stored(job, results)]
    print(f"{len(todo)} to train; {len(jobs) - len(todo)} are stored or cannot be measured here", file=sys.stderr)
    with tqdm(total=len(todo), unit="training", bar_format=BAR, disable=hidden(arguments.quiet)) as bar:

        def show(progress: Progress) -> None:
            left = "" if progress.seconds_left is None else f"about {duration(progress.seconds_left)} left"
            bar.set_postfix_str(left, refresh=False)
            bar.update(progress.done - bar.n)
            if progress.job:
                name = f"{progress.job.title} seed {progress.job.seed}"
                facts = [words for words in (f"{name} {progress.what}", progress.words, left) if words]
                tqdm.write("   ".join(facts), file=sys.stderr)

        with cluster() if arguments.engine == "ray" else nullcontext() as ray:
            failed = train_all(
                todo, out, results, parallel=arguments.jobs, device=arguments.device, devices=devices, ray=ray, on_progress=show
            )
    if failed:
        raise AMAError(
            f"{len(failed)} of {len(todo)} trainings failed, the others are stored: {', '.join(job.title for job in failed)}."
        )


def _write_report(results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    file = results.parent / "RESULTS.md"
    models, runs = (bundled_entries(), read_lengths()) if results == RESULTS.resolve() else ((), ())  # one's own stand alone
    write_atomically(file, report(read_results(results), models, runs))
    print(f"{file} is written", file=sys.stderr)


def add_bench(commands: Commands) -> None:
    parser = add_command(commands, bench)
    add = parser.add_argument
    add(
        "--sizes",
        nargs="+",
        default=list(speed.SIZES),
        choices=speed.SIZES,
        metavar="SIZE",
        help=f"of {', '.join(speed.SIZES)} (default: all)",
    )
    add("--rounds", type=int, default=3, help="how often each figure is measured (default 3)")
    add("--concurrent", type=int, default=2, metavar="N", help="also N tiny trainings at once (default 2)")
    add_json(parser)
    add_device(parser)


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
