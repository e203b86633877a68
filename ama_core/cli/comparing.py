"""The command `compare`: several detectors on one's own images, and which one to take."""

import argparse
import json
import sys

from ama_core.cli.arguments import (
    SETTING,
    Commands,
    add_alpha,
    add_command,
    add_device,
    add_json,
    check_new,
    path,
    settings_of,
    source,
)
from ama_core.cli.progress import warn
from ama_core.data import overlapping
from ama_core.data.defects import NAME
from ama_core.detectors.ama.config import PRESETS
from ama_core.detectors.registry import names
from ama_core.errors import ConfigError
from ama_core.evaluation.recommendation import Comparison
from ama_core.evaluation.recommendation import compare as compare_detectors
from ama_core.runs.comparing import DEFAULT, keep, own_detectors, own_inputs, own_normal
from ama_core.scoring.check import reach_warning


def add_compare(commands: Commands) -> None:
    parser = add_command(commands, compare)
    add = parser.add_argument
    add(
        "good",
        type=source,
        metavar="GOOD",
        help="normal images: a folder, .zip, .tar or .npz file, or a data set",
    )
    add("--against", type=source, metavar="BAD", help="anomalous images; without them, synthetic defects are used")
    add("--detectors", default=",".join(DEFAULT), metavar="NAMES", help="separated by commas; default: %(default)s")
    add(
        "--preset", choices=PRESETS, help="for detectors that have it; default: tiny, or fast64 for inputs of 64 pixels or more"
    )
    add("--set", action="append", default=[], metavar=SETTING, help="a setting for every detector that has it; repeatable")
    add_alpha(parser, "false-alarm rate at which detections are counted")
    add("--out", type=path, metavar="DIR", help="save the recommended detector there as a model")
    add_json(parser)
    add_device(parser)


def compare(arguments: argparse.Namespace) -> None:
    """Train several detectors on your own images, and say which finds most and what it costs."""
    if arguments.against and overlapping(arguments.good, arguments.against):
        raise ConfigError(f"{arguments.against} are, or lie among, the normal images {arguments.good}: name others.")
    if arguments.out:
        check_new(arguments.out)
    chosen = list(dict.fromkeys(name.strip() for name in arguments.detectors.split(",") if name.strip()))
    if not chosen:
        raise ConfigError(f"--detectors names none. Known: {', '.join(names())}.")
    detectors = own_detectors(
        arguments.good,
        chosen,
        alpha=arguments.alpha,
        preset=arguments.preset,
        changes=settings_of(arguments.set),
        device=arguments.device,
        verbose=not arguments.quiet,
    )
    inputs = own_inputs(arguments.good, arguments.against, next(iter(detectors.values())))

    def say(title: str, what: str) -> None:
        if not arguments.quiet:
            print(f"{title}: {what}", file=sys.stderr)

    found = compare_detectors(
        inputs.train, inputs.normal, inputs.anomalous, detectors, alpha=arguments.alpha, made=inputs.made, progress=say
    )
    if arguments.out:
        kept = detectors[found.recommended]
        keep(kept, own_normal(arguments.good, inputs.train, arguments.against), arguments.out, inputs)
        by = f" --by {kept.by}" if kept.by != kept.decides else ""
        print(f"{arguments.out} holds {kept.title}: python -m ama_core score {arguments.out} IMAGES{by}", file=sys.stderr)
    warn(*(reach_warning(detectors[one.name], arguments.alpha) for one in found.detectors))
    if arguments.json:
        print(json.dumps(_as_json(found)))
    else:
        _print(found)


def _as_json(found: Comparison) -> dict[str, object]:
    keys = ("name", "auroc", "low", "high", "detected", "alpha", "seconds_train", "ms_per_image", "false_alarms", "score")
    return {
        "recommended": found.recommended,
        "reason": found.reason,
        "significant": found.significant,
        "n_normal": found.n_normal,
        "n_anomalous": found.n_anomalous,
        "synthetic_defects": found.made,
        "detectors": [{key: getattr(one, key) for key in keys} for one in found.detectors],
    }


def _print(found: Comparison) -> None:
    what = NAME if found.made else "anomalous images"
    print(f"{found.n_normal:,} normal test images against {found.n_anomalous:,} {what}\n")
    print(f"{'detector':36}{'AUROC':8}{'95 % interval':18}{'found':8}{'false alarms':14}{'training':>10}{'an image':>11}")
    for one in found.detectors:
        print(
            f"{one.title[:35]:36}{one.auroc:<8.3f}{f'{one.low:.3f} to {one.high:.3f}':18}{one.detected:<8.0%}"
            f"{one.false_alarms:<14.0%}{one.seconds_train:>8.1f} s{one.ms_per_image:>8.1f} ms"
        )
    scores = ", ".join(f"{one.name} {one.score}" for one in found.detectors)
    print(f"\nFound and false alarms: flagged at a false-alarm rate of {found.detectors[0].alpha:g}. By the scores {scores}.")
    print(f"Recommended: {found.recommended}. {found.reason}")
