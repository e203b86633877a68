"""`python -m ama_core`: parse the arguments, run the command, and turn errors into one line and an exit code.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 2 bad input (one line says what
was wrong and what to do), 130 stopped by the user (the state is saved).
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from ama_core._version import __version__
from ama_core.cli.comparing import add_compare
from ama_core.cli.data import add_datasets, add_inspect
from ama_core.cli.evaluating import add_calibrate, add_evaluate, add_export, add_info, add_measure, add_share
from ama_core.cli.scoring import add_merge, add_report, add_score
from ama_core.cli.tables import add_bench, add_benchmark
from ama_core.cli.training import add_detectors, add_train, add_work
from ama_core.errors import AMAError, TrainingDiverged
from ama_core.runs.execute import RunStopped
from ama_core.storage.files import shown
from ama_core.training import distributed

COMMANDS = (
    add_datasets,
    add_detectors,
    add_inspect,
    add_train,
    add_compare,
    add_score,
    add_merge,
    add_report,
    add_evaluate,
    add_measure,
    add_calibrate,
    add_info,
    add_share,
    add_export,
    add_benchmark,
    add_bench,
    add_work,
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the commands."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ama_core: {message.removesuffix('.')}. See: {self.prog} --help\n")


class Warnings:
    """Shows a warning for users as one line, once; those for programmers as usual."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def show(self, message: Warning | str, category: type[Warning], *where: Any) -> None:
        """As `warnings.showwarning`."""
        said = shown(" ".join(str(message).split()))
        if category is not UserWarning:
            print(warnings.formatwarning(message, category, *where[:2]), file=sys.stderr, end="")
        elif said not in self.told and distributed.launched_rank() == 0:
            self.told.add(said)
            print(f"Warning: {said}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        arguments, unknown = parser().parse_known_args(argv)
        if unknown:
            Parser(prog=f"python -m ama_core {arguments.run.__name__}").error(f"unrecognized arguments: {' '.join(unknown)}")
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
        with warnings.catch_warnings():
            warnings.showwarning = Warnings().show
            arguments.run(arguments)
    except RunStopped as stopped:
        if distributed.launched_rank() == 0:  # of several that train together, one says so
            print(stopped, file=sys.stderr)
        return 130
    except AMAError as error:
        if distributed.launched_rank() == 0 or not isinstance(error, TrainingDiverged):
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


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    found = Parser(prog="python -m ama_core", description="Train, score and evaluate Adversarial Mirrored AutoEncoders.")
    found.add_argument("--version", action="version", version=__version__)
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return found
