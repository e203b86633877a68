"""The part of the page Benchmark about the paper's other methods: published figures beside those of their detectors here."""

from collections.abc import Sequence

import controls
import pandas as pd
import paper_tables
import streamlit as st
from benchmark_summary import DOTS, models_of, what
from comparison_charts import dot_chart

from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.paper.report import figure
from ama_core.paper.rivals import FAR, RivalLine
from ama_core.paper.rows import RIVAL_TABLES, STATUSES
from ama_core.paper.tables import Line
from ama_core.paper.verdicts import with_most_seeds

Row = tuple[str, dict[str, tuple[float, float, float]]]  # of the dot plot: its name, and series -> (value, low, high)


def cell_of_rival(line: RivalLine) -> str:
    pair = controls.title_of(line.normal)
    return f"{pair}, mean of 10" if line.ood == REST else f"{pair} → {controls.title_of(line.ood)}"


def main(table: int) -> None:
    """The other methods: what the paper prints, and what their detectors were measured to do here, by one protocol."""
    st.subheader("The paper's other methods")
    found = paper_tables.rivals()[table - 1]
    pairs = dict.fromkeys(cell_of_rival(line) for line in found)
    measured = [cell for cell in pairs if any(line.ours for line in found if cell_of_rival(line) == cell)]
    first = measured[0] if measured else next(iter(pairs))
    pair = controls.choose(st.selectbox, "pair", "Pair of sets", list(pairs), first)
    shown = [line for line in found if cell_of_rival(line) == pair]
    own = paper_tables.lines("table1" if table == 1 else "table2")
    ama = [
        line
        for line in with_most_seeds([line for line in own if line.row == paper.AMA])
        if (what(line) if table == 1 else f"{controls.title_of(line.normal)}, mean of {line.classes}") == pair
    ]
    rivals_verdict(shown, ama, pair)
    rows = rows_of(shown, ama)
    controls.chart(
        dot_chart(
            rows,
            {"paper": DOTS["paper"], "ours": DOTS["ours, A"]},
            "AUROC (higher is better)",
            level=(0.5, "chance (0.5)"),
            line=28,
        ),
        {
            "method": [name for name, cells in rows for _ in cells],
            "series": [key for _, cells in rows for key in cells],
            "auroc": [cells[key][0] for _, cells in rows for key in cells],
        },
        f"rivals-{table}",
        f"Paper and ours on {pair}, a row a method: "
        + "; ".join(f"{name}: " + ", ".join(f"{key} {value[0]:.3f}" for key, value in cells.items()) for name, cells in rows),
    )
    controls.grid(pd.DataFrame(map(cells_of, found)), width="stretch")
    links([line for line in shown if line.entries and line.entries[0].model])
    st.caption(
        "Ours: the score that decides, fixed beforehand, under the protocol of the table above. Bars, and the column 95 %: the "
        "interval of one training over the sampling of the test images; bars of several seeds are ± the standard deviation. "
        "Measure more with:"
    )
    st.code(f"python -m ama_core benchmark {RIVAL_TABLES[table - 1]} --only deepsvdd", language="bash")
    st.markdown("\n".join(f"- {controls.literal(caveat)}" for caveat in paper.CAVEATS))


def rows_of(shown: Sequence[RivalLine], ama: Sequence[Line]) -> list[Row]:
    """The rows of the dot plot: the methods of a pair of sets, and below them AMA by A and by T."""
    rows = [
        (
            f"{line.method}" + (f": {line.entries[0].source}" if line.entries else ""),
            ({"paper": (line.paper,) * 3} if line.paper is not None else {})
            | ({"ours": (line.ours[0], *line.interval)} if line.ours else {}),
        )
        for line in shown
    ]
    for line in ama:
        seeds = "" if line.classes or len(line.members) < 2 else f", {len(line.members)} seeds"
        theirs = {"paper": (line.paper,) * 3} if line.paper is not None else {}
        for by in ("A", "T"):
            ours = {"ours": (line.auroc(by)[0], *line.interval(by))}
            rows.append((f"AMA, {by}: {models_of(line)}{seeds}", (theirs if by == "A" else {}) | ours))
    return rows


def cells_of(line: RivalLine) -> dict[str, str]:
    """A row of the table of all methods and pairs."""
    return {
        "pair": cell_of_rival(line),
        "method": line.method,
        "paper": "" if line.paper is None else f"{line.paper:.3f}",
        "ours": figure(line.ours),
        "95 %": "{:.3f} – {:.3f}".format(*line.interval) if len(line.entries) == 1 else "",
        "score": line.entries[0].by if line.entries else "",
        "seeds": str(len({entry.seed for entry in line.entries}) or ""),
        "status": line.status,
        "model": ", ".join(dict.fromkeys(entry.source for entry in line.entries)),
    }


def links(here: Sequence[RivalLine]) -> None:
    """To the pages that show the models behind these lines."""
    if not here:
        return
    with st.container(horizontal=True):
        controls.link("compare", "Compare the models here", "balance")
        for line in here:
            controls.link(
                "densities",
                f"Densities of {line.entries[0].source}",
                "area_chart",
                model=line.entries[0].source,
                ood=line.ood,
                axis=line.entries[0].by,
            )


def rivals_verdict(shown: Sequence[RivalLine], ama: Sequence[Line], pair: str) -> None:
    """The place of AMA's A and T among the methods that were measured on a pair."""
    ours = [line for line in shown if line.ours]
    if not ours:
        st.info(f"None of these methods has been measured here on {pair} yet.", icon=":material/hourglass_empty:")
        return
    best = max(ours, key=lambda line: line.ours[0])
    said = (
        f"**On {pair}, of {len(ours)} other trainings measured here, {controls.literal(best.method)} does best: "
        f"{best.ours[0]:.3f}.**"
    )
    for line in ama[:1]:
        said += (
            " "
            + ", ".join(
                f"AMA's {by} ({line.auroc(by)[0]:.3f}) is ahead of {sum(other.ours[0] < line.auroc(by)[0] for other in ours)}"
                for by in ("A", "T")
            )
            + "."
        )
    st.markdown(said + far_from_the_paper(ours))


def far_from_the_paper(ours: Sequence[RivalLine]) -> str:
    """Which of the measured ones are far from the paper's figure, and what explains it; empty where none is."""
    apart = [line for line in ours if line.is_far]
    if not apart:
        return ""
    figures = "; ".join(f"{line.method} ({line.ours[0]:.3f} against {line.paper:.3f})" for line in apart)
    said = f" More than {FAR:g} from the paper's figure: {figures}."
    less = [line.method for line in apart if line.status != STATUSES[-1]]
    if less:
        which = (
            "Ours are" if len(less) == len(apart) else f"Of ours, {controls.listed(less)} {'are' if len(less) > 1 else 'is'}"
        )
        said += f" {which} smaller than published, or trained for less."
    return f"{said} All are measured here by one label-free protocol; see the remarks below."
