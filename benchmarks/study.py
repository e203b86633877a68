"""What studies share that train many models and store each as it ends: their arguments, and which models are missing."""

import argparse
import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar


class Named(Protocol):
    """One model of a study; its figures are stored under its name."""

    @property
    def name(self) -> str: ...


Model = TypeVar("Model", bound=Named)


def study_parser(doc: str, results: Path) -> argparse.ArgumentParser:
    """`run OUT` or `report`; `results`: where figures are stored unless `--results` says otherwise."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("out", nargs="?", type=Path, help="folder for the states of unfinished trainings")
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--jobs", nargs="+", default=["*"], help="names of models, with wildcards")
    return parser


def missing(models: Iterable[Model], results: Path, patterns: Iterable[str]) -> Iterator[tuple[Model, Path]]:
    """Models of a name that a pattern matches whose file is not in `results`, and that file; looked at one by one."""
    for model in models:
        file = results / f"{model.name}.json"
        if not file.exists() and any(fnmatch.fnmatch(model.name, pattern) for pattern in patterns):
            yield model, file
