"""Step: where nothing works, and all measured sets at once."""

import charts
import controls
import numpy as np
import plotly.graph_objects as go
import streamlit as st

from ama_core.evaluation.cases import WORKS, best_of
from lesson import parts
from lesson.case import Case

PAPERS_LIMIT = ("cifar10", "cifar100")


def show(case: Case) -> None:
    best = best_of(case.auroc)
    value = case.auroc[best]
    st.markdown(
        f"A detector is not a yes-or-no thing: it works on some anomalies and not on others. Here is {case.ood}. The best of "
        f"its scores is {best}, with an AUROC of **{value:.3f}**. {so(value)}"
    )
    rows = np.argsort(case.other.scores["R"])[np.linspace(0, case.other.n - 1, 2 * parts.EXAMPLES + 2).astype(int)[1:-1]]
    left, right = st.columns(2, gap="medium")
    own = np.argsort(case.own.scores["R"])[np.linspace(0, case.own.n - 1, 2 * parts.EXAMPLES + 2).astype(int)[1:-1]]
    for column, stored, title, chosen in (
        (left, case.own, f"{case.normal} (normal)", own),
        (right, case.other, case.title, rows),
    ):
        with column:
            st.markdown(f"**{controls.literal(title)}**")
            parts.strip(case, stored, chosen, lambda value: "")
    by = "T" if best == "A" else best  # A itself cannot be drawn: it lies within a hundredth of any axis
    parts.densities(case, by, f"{by}-score", f"limits-{by}")
    st.markdown("**Every measured set at once.** Left of the dotted line a score is worse than chance.")
    controls.chart(
        figure(case),
        {
            "set": [name for name in case.aurocs for _ in case.scores],
            "score": [by for _ in case.aurocs for by in case.scores],
            "auroc": [case.aurocs[name][by] for name in case.aurocs for by in case.scores],
        },
        "lesson-limits",
        f"AUROC of every score on every set. {'; '.join(in_words(case))}.",
    )
    parts.beside_the_paper(case, PAPERS_LIMIT, ("R", "A"))


def in_words(case: Case) -> list[str]:
    """The AUROCs of every set as a line of text."""
    return [
        f"{controls.title_of(name)}: {', '.join(f'{by} {aurocs[by]:.2f}' for by in case.scores)}"
        for name, aurocs in ranked(case).items()
    ]


def so(value: float) -> str:
    """What an AUROC of the best score says of its set."""
    if value < WORKS:
        return "These images differ from the normal ones in what they show, and hardly in what the model measures."
    return "So even here, where this model does worst, something works; with another model it may not."


def ranked(case: Case) -> dict[str, dict[str, float]]:
    """The AUROCs of every set, the hardest first."""
    return dict(sorted(case.aurocs.items(), key=lambda item: max(item[1].values())))


def take_away(case: Case) -> str:
    best = best_of(case.auroc)
    value, n = case.auroc[best], len(case.aurocs)
    fails = sum(max(aurocs.values()) < WORKS for aurocs in case.aurocs.values())
    if value < WORKS:
        return (
            f"No score finds everything: on {case.title} the best score, {best}, has an AUROC of {value:.3f}, and for {fails} "
            f"of the {n} measured sets the best score stays below {WORKS:g}. Know what your model cannot see before you trust "
            "it."
        )
    return (
        f"On {case.title} the best score, {best}, has an AUROC of {value:.3f}; on {fails} of the {n} measured sets every score "
        f"stays below {WORKS:g}. This says nothing about sets that were not measured."
    )


def figure(case: Case) -> go.Figure:
    found = ranked(case)
    titles = controls.titles_of(found)
    return charts.auroc_dots({titles[name]: values for name, values in found.items()}, case.scores)
