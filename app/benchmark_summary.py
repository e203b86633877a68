"""What stands above the tables of the page Benchmark: computed sentences, and a dot plot of the paper's figures and ours."""

from collections.abc import Callable, Sequence

import controls
import paper_tables
import streamlit as st
from comparison_charts import dot_chart
from palette import BLUE, CUT, GREEN, ORANGE, VERMILLION

from ama_core.paper import published as paper
from ama_core.paper.report import PAPER_NAMES
from ama_core.paper.tables import Line
from ama_core.paper.verdicts import (
    ALIKE,
    CANNOT_TELL,
    CONFIRMS,
    CONTRADICTS,
    LEVEL,
    Ablation,
    Comparison,
    Pair,
    a_against_r,
    ablations,
    ours_against_paper,
    reaches_paper,
    signed,
    t_against_simple,
    with_most_seeds,
)

LISTED = 4  # cells that a verdict names
LINE = 30  # characters of a line of a row's name
DOTS = {  # series of the dot plot: colour and symbol
    "paper": (CUT, "diamond-open"),
    "ours, A": (BLUE, "circle"),
    "ours, R": (VERMILLION, "triangle-up"),
    "ours, T": (GREEN, "square"),
    "pixel mean": (ORANGE, "x"),
    "lossless length": (ORANGE, "cross"),
    "L2 autoencoder": (ORANGE, "star"),
}


def what(line: Line) -> str:
    """What a line is about, in words: the normal set, and its class or the set it is compared with."""
    normal = controls.title_of(line.normal)
    if line.classes:
        return f"{normal}, mean of {line.classes}"
    if line.label is not None:
        name = controls.class_name(line.normal, line.label)
        return f"{normal}, {line.label}" + ("" if name == str(line.label) else f" {name}")
    return f"{normal} → {controls.title_of(line.ood)}"


def stand_in(line: Line) -> str:
    """The paper's set in whose place another is measured; empty where it is the paper's own, or the paper has no figure."""
    theirs = paper.paper_name(line.ood)
    return "" if theirs == line.ood or line.paper is None else PAPER_NAMES[theirs]


def beside_paper(line: Line) -> str:
    """The same as `what`, with the paper's set where another is measured in its place."""
    theirs = stand_in(line)
    return what(line) + (f" in place of the paper's {theirs}" if theirs else "")


def counted(lines: Sequence[Line]) -> str:
    """How many lines are compared with the paper, and how many of them are of another set than the paper's."""
    n = sum(bool(stand_in(line)) for line in lines)
    return f"{len(lines)}" + (f" ({n} of these {len(lines)} with a stand-in for the paper's set)" if n else "")


def listing(pairs: Sequence[Pair], name: Callable[[Line], str]) -> str:
    """The cells, by `name`, in which a figure is ahead, with both figures; of many those with the largest difference."""
    clear = sorted(pairs, key=lambda pair: -abs(pair.first - pair.second))[:LISTED]
    said = "; ".join(f"{name(p.line)} ({p.first:.3f} against {p.second:.3f})" for p in pairs if p in clear)
    return said + (f"; and {len(pairs) - len(clear)} more" if len(pairs) > len(clear) else "")


def sentence(
    found: Comparison,
    first: str,
    second: str,
    name: Callable[[Line], str] = what,
    of: Callable[[Sequence[Line]], int | str] = len,
) -> str:
    """Where one figure is ahead of another, and where not; empty where nothing was compared.

    name: what a line is called. of: how many lines were compared, as the sentence says it.
    """
    ahead, behind, alike = (found.where(k) for k in (1, -1, 0))
    if not found.pairs:
        return ""
    parts = [f"**{first} is ahead of {second} on {len(ahead)} of {of([pair.line for pair in found.pairs])}**"]
    parts[0] += f": {listing(ahead, name)}" if ahead else ""
    parts += [f"{second} is ahead on {len(behind)}: {listing(behind, name)}"] if behind else []
    parts += [f"alike within {ALIKE} on {len(alike)}"] if alike else []
    return "; ".join(parts) + "."


def adds(found: Sequence[Ablation]) -> list[str]:
    """What the part that was left out adds to A, a sentence a verdict."""
    said = []
    for verdict in (CONFIRMS, CONTRADICTS, CANNOT_TELL):
        own = [one for one in found if one.verdict == verdict]
        if own:
            cells = "; ".join(f"{beside_paper(one.line)} {one}, in the paper {signed(one.paper)}" for one in own)
            said.append(f"**{verdict.capitalize()}** on {len(own)} of {len(found)}: {cells}.")
    if said:
        reduced = any(member.reductions for one in found for member in one.line.members)
        small = " Our models are smaller than the paper's, or trained for less." if reduced else ""
        level = f"with a {100 * LEVEL:.0f} % interval over seeds"
        said.insert(0, f"How much the part left out adds to the AUROC of A, {level}.{small}")
    return said


def target(shown: Sequence[Line]) -> str:
    """On which of these lines T reaches the paper's figure, as the targets of RESULTS.md have it; empty where nothing is."""
    found = with_most_seeds([line for line in shown if line.paper is not None])
    if not found:
        return ""
    reached = [beside_paper(line) for line in found if reaches_paper(line, "T")]
    missed = [
        f"{beside_paper(line)} by {line.paper - round(line.ours['T'][0], 3):.3f}"
        for line in found
        if not reaches_paper(line, "T")
    ]
    said = f"**T, named beforehand, reaches the paper's figure on {len(reached)} of {counted(found)}**"
    said += f": {'; '.join(reached)}" if reached else ""
    return said + (f"; it misses {'; '.join(missed)}." if missed else ".")


def verdicts(key: str, shown: Sequence[Line]) -> None:
    """What the shown lines of a table, by its name in `rows.TABLES`, come to in computed sentences."""
    said = []
    if key != "ablations":
        own = [line for line in shown if not line.classes]
        said.append(target([line for line in shown if line.classes] if key == "table2" else shown))
        said.append(sentence(ours_against_paper(own), "Our A", "the paper's", beside_paper, counted))
        said.append(sentence(a_against_r(own), "A (two-sided)", "R (raw)"))
        said += [sentence(found, "T", name) for name, found in t_against_simple(own).items()]
    else:
        said += adds(ablations(shown, paper_tables.lines("ablations")))
    said = [words for words in said if words]
    if not said:
        st.info("Nothing of this table has been measured here yet.", icon=":material/hourglass_empty:")
        return
    st.markdown("\n".join(f"- {words}" for words in said))


def dots(shown: Sequence[Line], name: str) -> None:
    """The paper's figures and ours with their intervals, a row a cell; in the rows' own score, and R beside A."""
    own = with_most_seeds(shown)
    lines = {line.cell: line for line in shown}
    measured = {line.cell: line for line in own}
    rows = []
    for key, line in lines.items():
        found = {"paper": (line.paper,) * 3} if line.paper is not None else {}
        if ours := measured.get(key):
            scores = ("R",) if line.row == paper.WITHOUT_A else ("A", "R", "T")
            found |= {f"ours, {by}": (ours.auroc(by)[0], *ours.interval(by)) for by in scores}
            found |= {name: (value,) * 3 for name, (value, _) in (ours.simple or {}).items()}
        rows.append((beside_paper(line), found))
    series = [name for name in DOTS if any(name in found for _, found in rows)]
    styles = {name: DOTS[name] for name in series}
    figure = dot_chart(rows, styles, "AUROC (higher is better)", level=(0.5, "chance (0.5)"), line=LINE)
    flat = [(row, name, *values) for row, found in rows for name, values in found.items()]
    controls.chart(
        figure,
        dict(zip(("cell", "series", "auroc", "low", "high"), zip(*flat))),
        f"dots-{name}",
        "Paper and ours, a row a cell. "
        + "; ".join(f"{row}: " + ", ".join(f"{name} {value[0]:.3f}" for name, value in found.items()) for row, found in rows),
    )
    st.caption(
        "A: the paper's two-sided score, unusual where R is unusually high or low. R: the raw score, the distance that the "
        "critic sees between an image and its reconstruction. T: all statistics together, ours. Pixel mean, lossless length, "
        "L2 autoencoder: simple scores, stored beside the same trainings. Bars: 95 % interval of one training over the "
        "sampling of the test images; of several seeds ± the standard deviation. The paper prints no intervals. Where a cell "
        "was measured more than once, the line with the most seeds is drawn; of several with as many seeds, the first."
    )


def models_of(line: Line) -> str:
    """What the trainings behind a line are called."""
    if line.classes and not line.records:
        return "ten models"
    return ", ".join(dict.fromkeys(member.name for member in line.members))
