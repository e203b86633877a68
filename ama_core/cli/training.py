"""Commands that train: `detectors`, `train`, and `work`, the queue's worker."""

import argparse
import dataclasses
import json
import math
import sys
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ama_core.cli.arguments import SETTING, Commands, add_command, add_device, add_json, path, settings_of, source
from ama_core.cli.progress import TrainingBar, warn
from ama_core.data import catalog, count_any
from ama_core.detectors import registry
from ama_core.detectors.ama.config import PRESETS
from ama_core.detectors.base import SELECTIONS, AnomalyDetector
from ama_core.detectors.conformal import out_of_reach
from ama_core.detectors.registry import detector_class
from ama_core.errors import ConfigError, DataError
from ama_core.runs import queue, timing
from ama_core.runs.execute import execute
from ama_core.runs.folder import runs_dir
from ama_core.runs.spec import RunSpec, config_for, suited_to_few
from ama_core.settings import Settings
from ama_core.training import distributed
from ama_core.training.loop import Event

PRESET = "tiny"


def add_detectors(commands: Commands) -> None:
    parser = add_command(commands, detectors)
    parser.add_argument(
        "--time", action="store_true", help="time some steps of each that has not been timed on this machine yet"
    )
    add_json(parser)


def detectors(arguments: argparse.Namespace) -> None:
    """List the detectors: what each is, where it was published, what it can do beside scoring, and how long a step takes."""
    found = [detector_class(name) for name in registry.names()]
    times = {d.name: _step_time(d, arguments.time) for d in found if d.trains()}
    rows = [
        {
            "name": d.name,
            "title": d.title,
            "reference": d.reference,
            "can": list(d.can()),
            "scores": [score.name for score in d.SCORES],
            "decides": d.decides,
            "trains": d.trains(),
            "seconds_per_step": times[d.name].seconds if times.get(d.name) else None,
        }
        for d in found
    ]
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        can = f"; can {', '.join(row['can'])}" if row["can"] else ""
        print(f"{row['name']:18}{row['title']}\n{'':18}{row['reference']}\n{'':18}scores {', '.join(row['scores'])}{can}")
        if step := times.get(row["name"]):
            print(f"{'':18}{step.seconds:.2g} s a step of preset tiny here ({step.how})")
    if not all(times.values()):
        print("\nHow long a step takes here: python -m ama_core detectors --time")


def _step_time(kind: type[AnomalyDetector], measure: bool) -> timing.StepTime | None:
    """What a step of preset `tiny` costs on this machine, where that is known or may be measured."""
    config, folder = kind.Settings.preset("tiny"), runs_dir()
    return timing.known(config, folder) or (timing.measure(config, folder) if measure else None)


def add_train(commands: Commands) -> None:
    parser = add_command(commands, train, epilog=_settings_help(), formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "dataset",
        type=source,
        metavar="DATASET",
        help=f"a folder, an archive (.zip, .tar), an .npz file, or one of: {', '.join(catalog())}",
    )
    add("--out", required=True, type=path, metavar="DIR", help="run folder; becomes a bundle")
    add("--detector", default=registry.names()[0], choices=registry.names(), help="default: %(default)s")
    add(
        "--preset",
        choices=PRESETS,
        help=f"size and length, see below (default: {PRESET}); fast64, for photographs: ama and autoencoder",
    )
    add("--set", action="append", default=[], metavar=SETTING, help="a hyper-parameter, see below; repeatable")
    add("--resume", action="store_true", help="continue exactly where the run in DIR stopped")
    add("--one-class", type=int, metavar="LABEL", help="train on this class alone (Table 2)")
    add("--anomalies", type=source, metavar="NAME", help="real anomalies as negatives (semi-supervised)")
    add("--validate-ood", type=source, metavar="NAME", help="measure AUROC on 50 of these while training")
    add(
        "--watch",
        type=source,
        metavar="NAME",
        help="follow the scores of 200 of these while training; nothing is chosen by them",
    )
    add("--select", default="last", choices=SELECTIONS, help="the step whose weights are kept")
    add("--no-measure", action="store_true", help="do not score the data sets that are available locally")
    add("--download", action="store_true", help="fetch DATASET if it is not here")
    add("--spec", help=argparse.SUPPRESS)  # a whole RunSpec as JSON, from `runs.execute.start`
    add("--claimed", action="store_true", help=argparse.SUPPRESS)  # from the queue's worker
    add_device(parser)


def train(arguments: argparse.Namespace) -> None:
    """Train in a run folder, which becomes a bundle."""
    first, spec = distributed.launched_rank() == 0, _asked(arguments)
    told = not first or arguments.resume or bool(arguments.spec)
    with TrainingBar(arguments.quiet or not first) as bar:

        def tell() -> None:
            nonlocal told
            if not told:  # once it has begun, so that a refusal is one line
                told = True
                _say_suited(arguments, spec)

        def follow(event: Event) -> None:
            tell()
            bar.update(event)

        def measuring(done: int, total: int, name: str) -> None:
            tell()
            bar.measuring(done, total, name)

        execute(
            arguments.out,
            spec,
            resume=arguments.resume,
            claimed=arguments.claimed,
            download=arguments.download,
            device=arguments.device,
            on_event=follow,
            on_progress=measuring,
        )
        tell()  # nothing was trained by steps, nor measured
    if first:
        print(f"{arguments.out} is ready: python -m ama_core info {arguments.out}", file=sys.stderr)


def _asked(arguments: argparse.Namespace) -> RunSpec:
    """The run that the arguments describe. Raises ConfigError."""
    if arguments.spec:
        return RunSpec.from_json(arguments.spec)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ConfigError(f"--out {arguments.out} is a file: name a folder for the run.")
    given = settings_of(arguments.set)
    config = config_for(arguments.dataset, arguments.preset or PRESET, arguments.detector, **given)
    suited = _suited(config, arguments.dataset, given)
    asked = RunSpec(
        arguments.dataset,
        suited,
        detector=arguments.detector,
        one_class=arguments.one_class,
        anomalies=arguments.anomalies,
        validate_ood=arguments.validate_ood,
        select=arguments.select,
        watch=arguments.watch,
        measure=not arguments.no_measure,
    )
    if arguments.resume:
        values = suited.to_dict()
        _check_resumed(arguments.out, asked, values if arguments.preset else {name: values[name] for name in given})
    return asked


def _suited(config: Settings, dataset: str, given: Collection[str]) -> Settings:
    """The settings, but for those `given`, as one's own images need them; sets of the catalog are large enough for any."""
    if dataset in catalog():
        return config
    try:
        return suited_to_few(config, count_any(dataset), given)
    except DataError:  # said when the run begins, after what is wrong with the rest
        return config


def _say_suited(arguments: argparse.Namespace, spec: RunSpec) -> None:
    """Say which settings were chosen for the number of images, see `_suited`."""
    usual = config_for(spec.dataset, arguments.preset or PRESET, spec.detector, **settings_of(arguments.set)).to_dict()
    changed = ", ".join(f"{name}={value}" for name, value in spec.config.to_dict().items() if value != usual[name])
    if changed:
        print(f"Adjusted for the small number of images: {changed} (override with --set).", file=sys.stderr)
    warn(_beyond_reach(spec))


def _beyond_reach(spec: RunSpec) -> str | None:
    """That its images are too few for its false-alarm rate, and how many would do; None where they are not, or unknown."""
    if spec.dataset in catalog():  # large enough for any usual rate, and not to be read for this
        return None
    rate = spec.config.false_alarm_rate
    try:
        n = timing.n_images(spec)
        why = out_of_reach(timing.reachable_rate(spec.config, n)[1], rate)
    except DataError:
        return None
    fraction = spec.config.calibration_fraction
    needed = math.ceil((1 / rate - 1) / (fraction / 2))
    return why and f"{why} At this calibration_fraction that takes about {needed:,} training images instead of {n:,}."


def _check_resumed(folder: Path, asked: RunSpec, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError where what is asked of a run that goes on is not how it began; BundleError where there is none.

    Args:
        settings: those of the detector that are asked for, by name; of the rest of `asked`, what is not the default.
    """
    begun, usual = RunSpec.read(folder), RunSpec(asked.dataset, asked.config)
    options = ("detector", "one_class", "anomalies", "validate_ood", "select", "watch")
    given = {name: getattr(asked, name) for name in options if getattr(asked, name) != getattr(usual, name)}
    found = {f"--{name.replace('_', '-')} ": (value, getattr(begun, name)) for name, value in given.items()}
    if begun.detector == asked.detector:
        before = begun.config.to_dict()
        found |= {f"--set {name}=": (value, before[name]) for name, value in settings.items()}
    for option, (value, had) in found.items():
        if value != had:
            began = f"without {option.strip()}" if had is None else f"with {option}{had}"
            raise ConfigError(
                f"The run in {folder} began {began}, not {value}: leave that out to go on, or name another --out."
            )


def _settings_help() -> str:
    """Every detector's hyper-parameters with their meaning; what they share, once."""
    told: set[str] = set()
    lines = [
        f"hyper-parameters for --set, with the values of preset paper. Above them: what another preset changes ({PRESET} is",
        "the default). [P] is stated in the paper, [C] used by its authors' released code, [D] decided here.",
    ]
    for name in registry.names():
        detector = detector_class(name)
        lines.append(f"\n{name}: {detector.title}")
        for preset, changes in detector.Settings.PRESETS.items():
            if changes:
                said = f"preset {preset}: {', '.join(f'{key}={value}' for key, value in changes.items())}"
                lines.append(textwrap.fill(said, 116, initial_indent="  ", subsequent_indent="    "))
        for field in dataclasses.fields(detector.Settings):
            meaning = f"\n      {field.metadata['doc']}" if field.metadata["doc"] not in told else ""
            told.add(field.metadata["doc"])
            lines.append(f"  {field.name}={field.default}{meaning}")
    return "\n".join(lines)


def add_work(commands: Commands) -> None:
    parser = add_command(commands, work)
    parser.add_argument("--runs", type=Path, default=runs_dir(), metavar="DIR", help="default: %(default)s")


def work(arguments: argparse.Namespace) -> None:
    """Carry out the runs that the app has queued, one after the other, until none is left."""
    queue.work(arguments.runs)
