"""What the arguments of several commands have in common: their types, their help, and what is checked of them."""

import argparse
import functools
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

from ama_core.data import check_path
from ama_core.data.files import files_of
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import AMAError, ConfigError
from ama_core.settings import FALSE_ALARM_RATE, LEAST_RATE
from ama_core.shards import Shard
from ama_core.storage.bundle import FILES, find_bundle, list_bundles
from ama_core.storage.files import check_output

SETTING = "KEY=VALUE"
Commands = argparse._SubParsersAction
"""What a parser adds its commands to."""


def add_command(commands: Commands, run: Callable[[argparse.Namespace], None], **more) -> argparse.ArgumentParser:
    """The parser of a command that is called as its function is, explained by the function's first line."""
    parser = commands.add_parser(run.__name__, help=run.__doc__.splitlines()[0], **more)
    parser.set_defaults(run=run)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    bundled = ", ".join(list_bundles()) or "(none bundled)"
    parser.add_argument("model", metavar="MODEL", help=f"a bundle or run folder, or one of: {bundled}")


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=source, metavar="PATH", help="image files, folders, .npz, .zip or .tar files")


def add_alpha(parser: argparse.ArgumentParser, help: str = "false-alarm rate") -> None:
    parser.add_argument("--alpha", type=alpha, default=FALSE_ALARM_RATE, help=f"{help} (default: %(default)s)")


def add_alpha_of_model(parser: argparse.ArgumentParser, help: str = "false-alarm rate") -> None:
    """`--alpha`, which is None where it was not given: see `alpha_of`."""
    parser.add_argument("--alpha", type=alpha, help=f"{help} (default: the model's setting false_alarm_rate)")


def alpha_of(arguments: argparse.Namespace, detector: AnomalyDetector) -> float:
    """The false-alarm rate that was asked for, or else the model's own."""
    return detector.false_alarm_rate if arguments.alpha is None else arguments.alpha


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the fastest available)")
    add_quiet(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def said_in_words(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of an argument whose refusal is said as it is: argparse replaces what a ValueError says by words of its own."""

    @functools.wraps(kind)
    def checked(word: str) -> Any:
        try:
            return kind(word)
        except AMAError as error:
            raise AMAError(str(error)) from error

    return checked


@said_in_words
def path(word: str) -> Path:
    """The type of an argument that names a file or folder: "" would be the current folder. Raises AMAError."""
    return Path(check_path(word))


@said_in_words
def source(word: str) -> str:
    """The type of an argument that names a data set or a path, left as it was written. Raises AMAError."""
    return str(check_path(word))


@said_in_words
def shard(word: str) -> Shard:
    """The type of `--shard`. Raises AMAError."""
    return Shard.parse(word)


@said_in_words
def alpha(word: str) -> float:
    """The type of `--alpha`, a false-alarm rate. Raises AMAError."""
    try:
        value = float(word)
    except ValueError:
        value = nan
    if not LEAST_RATE <= value <= 1 - LEAST_RATE:
        raise ConfigError(
            f"--alpha {word} must be a number between 0 and 1, by a millionth at least: 0.05 lets 5 of 100 normal images be "
            "flagged."
        )
    return value


@said_in_words
def seed(word: str) -> int:
    """The type of an argument that is a seed. Raises ValueError, which argparse explains, and AMAError."""
    value = int(word)
    if value < 0:
        raise ConfigError(f"--seed {value} must not be negative.")
    return value


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """What `--set KEY=VALUE` says, repeated, by name. Raises ConfigError."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: write it as {SETTING}, for example --set nz=64.")
        settings[key.strip()] = value.strip()
    return settings


def check_new(out: Path) -> None:
    """Raises ConfigError where `--out`, which a model shall be kept in, exists."""
    if out.exists():
        raise ConfigError(f"--out {out} exists: name a new folder.")


def check_out(arguments: argparse.Namespace, ours: Callable[[Path], bool], paths: Sequence[str]) -> None:
    """Raises ConfigError unless `--out` may be written; neither an image nor a file of the model ever is."""
    folder = find_bundle(arguments.model)
    check_output(arguments.out, (*files_of(paths), *(folder / name for name in FILES)), ours, arguments.force)
