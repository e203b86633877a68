"""The tables of docs/results.md that say what models and trainings were measured to do, written from the stored figures.

python -m benchmarks.docs_tables           writes them between their marks, <!-- table: NAME --> and <!-- end of table -->
python -m benchmarks.docs_tables --check   only says whether they are up to date, by its exit status
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ama_core.detectors.ama.scores import SCORES
from ama_core.detectors.registry import detector_class
from ama_core.formatting import duration, markdown_table
from ama_core.paper import published as paper
from ama_core.paper.records import RESULTS, read_results
from ama_core.paper.report import figure
from ama_core.paper.rivals import rival_lines
from ama_core.paper.rows import INWARD, RELEASED, SIPPLE
from ama_core.paper.tables import lines
from ama_core.paper.verdicts import with_most_seeds
from ama_core.storage.bundle import FIRST, PRETRAINED, list_bundles, read_info
from ama_core.storage.bundle import read_results as read_measured

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
NORMAL, OOD = "fashionmnist", ("mnist", "omniglot")
BUNDLED = {  # the pairs of the table of bundled models
    "digits": ("fashionmnist", "mnist"),
    "photos": ("noise", "gradients", "house_numbers", "gtsrb"),
    "fashionmnist": OOD,
    "cifar10": ("gtsrb", "house_numbers", "photos", "mnist", "tinyimagenet", "cifar100"),
}
ROWS = {  # the rows of the table of ablations, and what the page calls them
    paper.AMA: "AMA (preset: negatives outside)",
    INWARD: "AMA, negatives inside the shell",
    SIPPLE: "AMA, negatives in the cube [−1, 1]^d (Sipple)",
    paper.WITHOUT_MIRRORED: "without the mirrored loss",
    paper.WITHOUT_SIMPLEX: "without simplex interpolation",
    paper.WITHOUT_ATYPICAL: "without atypical selection",
    paper.WITHOUT_A: "without the A-score (raw R)",
    RELEASED: "AMA as the released code trains it (`mode=released`)",
}


def auroc(name: str) -> dict[str, dict[str, float]]:
    """AUROC of a bundled model: set -> score -> value."""
    measured = read_measured(PRETRAINED / name)["results"]
    return {row["ood"]: {by: found["auroc"] for by, found in row["scores"].items()} for row in measured}


def bundled() -> list[str]:
    """Every score of the bundled models of AMA, and of their plain names."""
    head = ["model", "against", *SCORES, *(f"plain: {by}" for by in SCORES)]
    body = []
    for name, sets in BUNDLED.items():
        mirrored, plain = auroc(name), auroc(f"{name}-plain")
        for ood in sets:
            body.append([f"`{name}`", ood, *(f"{found[ood][by]:.3f}" for found in (mirrored, plain) for by in SCORES)])
    return markdown_table(head, body)


def printed(value: float | None) -> str:
    """A figure of the paper's."""
    return "–" if value is None else f"{value:.3f}"


def detectors() -> list[str]:
    """The score that decides and its two-sided version, of every bundled detector of FashionMNIST; AMA first, then by AUROC."""
    published = {(line.detector, line.ood): line.paper for line in rival_lines([]) if line.normal == NORMAL}
    body = []
    for name in list_bundles():
        info = read_info(PRETRAINED / name)
        if info["normal"]["name"] != NORMAL or name.endswith("-plain"):
            continue
        found, kind = auroc(name), detector_class(info["detector"])
        ama = kind.name == FIRST
        names = ("R", "A", "T") if ama else (kind.decides, f"A_{kind.decides}")
        shown = [by for by in names if by in found[OOD[0]]]
        cells = [" / ".join(f"{found[ood][by]:.3f}" for by in shown) for ood in OOD]
        cells += [printed(paper.table1(NORMAL, ood) if ama else published.get((kind.name, ood))) for ood in OOD]
        row = [f"`{name}`" + " (AMA)" * ama, " / ".join(shown), duration(info["training"]["seconds"]), *cells]
        body.append((not ama, -sum(found[ood][kind.decides] for ood in OOD), row))
    head = ["model", "score", "training", "MNIST", "Omniglot", "paper: MNIST", "paper: Omniglot"]
    return markdown_table(head, [row for *_, row in sorted(body)])


def ablations() -> list[str]:
    """A and T of AMA and of AMA without its parts on FashionMNIST: those stored of the condition with most of the rows."""
    records = read_results(RESULTS)
    stored = [line for table in ("ablations", "table1") for line in lines(table, records) if line.normal == NORMAL]
    measured = dict.fromkeys((line.condition, line.row) for line in stored if line.ours and line.row in ROWS)
    condition = Counter(condition for condition, _ in measured).most_common(1)[0][0]  # of several, the longest training
    stored = [line for line in stored if line.condition == condition]
    body = []
    for row, title in ROWS.items():
        found = {line.ood: line for line in with_most_seeds([line for line in stored if line.row == row])}
        cells = []
        for line in map(found.get, OOD):
            a, t = ("R", None) if row == paper.WITHOUT_A else ("A", "T")
            cells += [figure(line.ours[a]), printed(line.paper), figure(line.ours.get(t))]
        body.append([title, *cells])
    return markdown_table(["", "MNIST, A", "paper", "MNIST, T", "Omniglot, A", "paper", "Omniglot, T"], body)


TABLES: Mapping[str, Callable[[], Sequence[str]]] = {
    "bundled models": bundled,
    "detectors": detectors,
    "ablations": ablations,
}


def with_tables(text: str) -> str:
    """The text with every table between its marks written again. Raises ValueError where a table has no marks."""
    for name, table in TABLES.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end of table -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"docs/results.md has no place for the table {name!r}, which is between {begin} and {end}.")
        text = "\n".join([before + begin, "", *table(), "", end + after])
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = with_tables(before)
    if arguments.check:
        print(f"{PAGE} is up to date." if after == before else f"{PAGE} differs: run python -m benchmarks.docs_tables.")
        return int(after != before)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
