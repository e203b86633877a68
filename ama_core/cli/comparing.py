"""The command `compare`: several detectors on one's own images, and which one to take."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from ama_core.cli.arguments import SETTING, Commands, add_command, add_device, path, settings_of, source
from ama_core.data import ImageSet, calibration_fraction, catalog, divided, guidance, load_any, overlapping
from ama_core.data import inspect as inspect_images
from ama_core.data.defects import NAME, make_defects
from ama_core.detectors.ama.config import PRESETS
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.detectors.registry import detector_class, names
from ama_core.errors import ConfigError
from ama_core.evaluation.recommendation import Comparison
from ama_core.evaluation.recommendation import compare as compare_detectors
from ama_core.runs.spec import config_for

FAST = "fast64"
DEFAULT = ("ama", "nearest", "pca", "autoencoder", "lossless_length", "pixel_mean")


def add_compare(commands: Commands) -> None:
    parser = add_command(commands, compare)
    add = parser.add_argument
    add(
        "good",
        type=source,
        metavar="GOOD",
        help="normal images: a folder, .zip, .tar or .npz file, or a data set",
    )
    add("--against", type=source, metavar="BAD", help="anomalous images; without them, made defects stand in")
    add("--detectors", default=",".join(DEFAULT), metavar="NAMES", help="separated by commas; default: %(default)s")
    add("--preset", choices=PRESETS, help="default: tiny; of AMA with inputs of 64 pixels or more, fast64")
    add("--set", action="append", default=[], metavar=SETTING, help="a setting of every detector that has it; repeatable")
    add("--alpha", type=float, default=0.05, help="false-alarm rate at which detections are counted (%(default)s)")
    add("--out", type=path, metavar="DIR", help="keep the recommended detector there, as a model")
    add("--json", action="store_true")
    add_device(parser)


def compare(arguments: argparse.Namespace) -> None:
    """Train several detectors on one's own images, and say which finds most and what it costs."""
    if not 0 < arguments.alpha < 1:
        raise ConfigError(f"--alpha {arguments.alpha:g} must lie between 0 and 1.")
    if arguments.against and overlapping(arguments.good, arguments.against):
        raise ConfigError(f"{arguments.against} are, or lie among, the normal images {arguments.good}: name others.")
    if arguments.out and arguments.out.exists():
        raise ConfigError(f"--out {arguments.out} exists: name a new folder.")
    detectors = _detectors(arguments)
    spec = next(iter(detectors.values())).settings.input
    train, normal = (load_any(arguments.good, split, **vars(spec)) for split in ("train", "test"))
    if arguments.against:
        anomalous = load_any(arguments.against, "ood", **vars(spec))
    else:
        images = next(iter(detectors.values())).prepared(normal.images)
        painted, _, kinds = make_defects(images)
        anomalous = ImageSet(NAME, "test", painted, kinds)

    def say(title: str, what: str) -> None:
        if not arguments.quiet:
            print(f"{title}: {what}", file=sys.stderr)

    found = compare_detectors(
        train, normal, anomalous, detectors, alpha=arguments.alpha, made=not arguments.against, progress=say
    )
    if arguments.out:
        _keep(detectors[found.recommended], arguments, train)
    if arguments.json:
        print(json.dumps(_as_json(found)))
    else:
        _print(found)


def _detectors(arguments: argparse.Namespace) -> dict[str, AnomalyDetector]:
    """Unfitted detectors by name, with one input for all of them. Raises ConfigError."""
    chosen = list(dict.fromkeys(name.strip() for name in arguments.detectors.split(",") if name.strip()))
    if not chosen:
        raise ConfigError(f"--detectors names none. Known: {', '.join(names())}.")
    changes = settings_of(arguments.set)
    suited = _suited(arguments.good, arguments.alpha) | changes
    known = {name: {field.name for field in dataclasses.fields(detector_class(name).Settings)} for name in chosen}
    if unknown := [key for key in changes if not any(key in fields for fields in known.values())]:
        raise ConfigError(f"--set {unknown[0]}: none of {', '.join(chosen)} has a setting of this name.")
    found = {}
    for name in chosen:
        of_this = {key: value for key, value in suited.items() if key in known[name]}
        config = config_for(arguments.good, _preset(arguments.preset, name, suited), name, **of_this)
        found[name] = detector_class(name)(config, device=arguments.device, verbose=not arguments.quiet)
    return found


def _preset(asked: str | None, name: str, suited: dict[str, object]) -> str:
    """The preset of a detector: what was asked for, else a fast one for its input size."""
    fast = int(suited.get("image_size", 32)) >= 64 and FAST in detector_class(name).Settings.PRESETS
    return asked or (FAST if fast else "tiny")


def _suited(good: str, alpha: float) -> dict[str, object]:
    """Settings that suit the normal images."""
    if good in catalog():
        return {"calibration_fraction": calibration_fraction(len(load_any(good, "train")), alpha)}
    found = inspect_images(good)
    return dict(guidance(found, alpha, divided(Path(good))).settings()) if found.n else {}


def _keep(detector: AnomalyDetector, arguments: argparse.Namespace, train: ImageSet) -> None:
    """Save a detector as a model that knows where its normal images lie."""
    where = arguments.good if arguments.good in catalog() else str(Path(arguments.good).resolve())
    detector.info_["normal"] = vars(NormalData(train.name, where, None, len(train), train.fingerprint))
    detector.save(arguments.out)
    print(f"{arguments.out} holds {detector.title}: python -m ama_core score {arguments.out} IMAGES", file=sys.stderr)


def _as_json(found: Comparison) -> dict[str, object]:
    keys = ("name", "auroc", "low", "high", "detected", "alpha", "seconds_train", "ms_per_image", "false_alarms", "score")
    return {
        "recommended": found.recommended,
        "reason": found.reason,
        "certain": found.certain,
        "n_normal": found.n_normal,
        "n_anomalous": found.n_anomalous,
        "made_defects": found.made,
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
    print(f"\nFound and false alarms: flagged at a false-alarm rate of {found.detectors[0].alpha:g}.")
    print(f"Recommended: {found.recommended}. {found.reason}")
