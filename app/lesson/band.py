"""Step: the A-score, two sides of R."""

import cache
import controls
import numpy as np
import plotly.graph_objects as go
import streamlit as st

from ama_core.analysis.density import share_below
from ama_core.evaluation.cases import NEAR_CHANCE
from ama_core.evaluation.metrics import along, both_rules, confusion_at, confusion_outside
from ama_core.formatting import significant
from lesson import parts
from lesson.case import Case

GOOD = 0.9  # an AUROC from here on is called good
SHOWN = 8  # images of each kind


@st.fragment
def show(case: Case) -> None:
    of_r = case.view.of_r
    st.markdown(
        "If unusually *low* R is suspicious too, why not flag both sides? That is the paper's **A-score**: it asks how usual "
        f"this R is among the training images, whose R has mean μ = {significant(of_r.mu)} and standard deviation σ = "
        f"{significant(of_r.sigma)}. On the axis of R, A is a band: what falls outside is flagged. Its width follows from the "
        "**false-alarm rate α**: the fraction of normal images that you accept being flagged."
    )
    alpha = controls.false_alarm_rate(cache.false_alarm_rate(case.view.folder))
    if case.can_flag(alpha):
        parts.densities(case, "R", parts.R_LABEL, "band", **limits(case, alpha))
        what_they_flag(case, alpha)
    else:
        parts.densities(case, "R", parts.R_LABEL, "band")
    parts.beside_the_paper(case, parts.PAPERS_FAILURE, ("R", "A"))
    controls.explain(*case.view.scores("R", "A"))


def what_they_flag(case: Case, alpha: float) -> None:
    """What R alone and A flag of either kind of images, in counts and pictures."""
    own, other = case.own.scores, case.other.scores
    low, high = case.view.of_r.band(alpha)
    cut = case.view.detector.threshold("R", alpha)
    one, two = confusion_at(own["R"], other["R"], cut), confusion_outside(own["R"], other["R"], low, high)
    left, right = st.columns(2, gap="large")
    for column, title, counts in ((left, "R: one side", one), (right, "A: both sides", two)):
        with column:
            st.markdown(f"**{title}**, AUROC {case.auroc[title[0]]:.3f}")
            parts.matrix(case, counts)
            st.markdown(parts.rule_in_words(counts))
    below = controls.percent(share_below(low, other["R"]))
    above = controls.percent(share_below(-high, -other["R"]))
    st.info(f"Of {case.ood}, {below} fall below the band and {above} above it.", icon=":material/straighten:")
    caught_and_missed(case, both_rules(other["R"], cut, low, high))


def limits(case: Case, alpha: float) -> dict:
    """The band of A and the cut of R, as the chart draws them."""
    asked = controls.percent(alpha)
    return {
        "bands": [(f"A lets pass, α = {asked}", *case.view.of_r.band(alpha))],
        "cuts": {f"R alone flags right of this, α = {asked}": [case.view.detector.threshold("R", alpha)]},
    }


def caught_and_missed(case: Case, rules: dict[str, np.ndarray]) -> None:
    """The anomalies that A catches and R misses, and those that both miss."""
    n = case.other.n
    for rows, what in ((rules["A"], "A catches them, R misses them"), (rules["neither"], "both miss them")):
        shown = along(rows, SHOWN)
        some = f"; {len(shown)} of them, evenly along R" if 0 < len(shown) < len(rows) else ""
        st.markdown(f"**{what}**: {len(rows):,} of {n:,} images of {controls.literal(case.title)}{some}")
        if len(rows):
            parts.strip(case, case.other, shown, lambda r: f"R {significant(r, 4)}")
    if len(rules["R"]):
        st.caption(f"The other way round, R catches {len(rules['R']):,} that A misses.")


def take_away(case: Case) -> str:
    a, r = case.auroc["A"], case.auroc["R"]
    if a > max(r, 0.5) + NEAR_CHANCE:
        how = "fixes it" if a >= GOOD else "helps, but does not fix it"
        return f"Asking on both sides {how}: on {case.title}, A has an AUROC of {a:.3f}, where R had {r:.3f}."
    if a < r - NEAR_CHANCE:
        return (
            f"Asking on both sides loses here: on {case.title}, A has an AUROC of {a:.3f} and R alone {r:.3f}. Where anomalies "
            "have a usual R, A lets them pass."
        )
    if a > r + NEAR_CHANCE:
        return (
            f"Asking on both sides helps, though not beyond chance (0.5): on {case.title}, A has an AUROC of {a:.3f}, where R "
            f"had {r:.3f}."
        )
    return f"Asking on both sides changes little here: on {case.title}, A has an AUROC of {a:.3f}, R of {r:.3f}."


def figure(case: Case) -> go.Figure:
    return parts.density_figure(case, "R", parts.R_LABEL, True, **limits(case, case.view.alpha))[0]
