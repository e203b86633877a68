"""Step: a line on R that the reader moves."""

import charts
import controls
import numpy as np
import plotly.graph_objects as go
import streamlit as st

from ama_core.evaluation.metrics import (
    Confusion,
    best_threshold,
    confusion_at,
    nearest_the_cut,
    nearest_to,
    roc_points,
    threshold_places,
)
from ama_core.formatting import significant
from lesson import parts
from lesson.case import ALPHA, Case

BEST = "the best threshold"
CUT = "cut"  # the address's name of the line


@st.fragment
def show(case: Case) -> None:
    own, other = case.own.scores["R"], case.other.scores["R"]
    st.markdown(
        "Suppose R is all you have. Draw a line: what lies right of it is flagged. **Move it** (slider, or a click on a curve) "
        "and try to catch the anomalies without flagging half of the normal images."
    )
    reached = case.can_flag(ALPHA)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        chart, slider, downloads = st.container(), st.container(), st.container()
    with right:
        words = st.container()
        log = parts.log_switch()  # before the chart, which is drawn by it
    grid = parts.density_figure(case, "R", parts.R_LABEL, log)[1].grid
    places = threshold_places(float(grid[0]), float(grid[-1]), log)
    best = best_threshold(own, other)
    with slider:
        cut = line(places, nearest(places, case.threshold_r if reached else best))
    with chart:
        parts.densities(
            case,
            "R",
            parts.R_LABEL,
            "threshold",
            log=log,
            height=320,
            bare=True,
            marks={"your line: flagged right of it": cut},
            cuts={BEST: [min(best, float(grid[-1]))]},
            handling={
                "select": ("points",),
                "on_select": lambda chosen: move(places, chosen),
                "downloads": downloads,
            },
        )
    counts, ideal = confusion_at(own, other, cut), confusion_at(own, other, best)
    with words:
        st.markdown(f"**What your line at {significant(cut, 4)} does**")
        parts.matrix(case, counts)
        st.markdown(parts.rule_in_words(counts))
        st.markdown(f"**{BEST.capitalize()}**: {best_in_words(ideal, best)}")
    every_line(case, counts, ideal)
    at_the_line(case, cut)


def best_in_words(ideal: Confusion, best: float) -> str:
    """What the best line does."""
    if not ideal.hits + ideal.false_alarms:
        return "flag nothing. Every line flags normal images at least as readily as these."
    return (
        f"with R above {significant(best, 4)} it detects {controls.percent(ideal.detection_rate)} at "
        f"{controls.percent(ideal.false_alarm_rate)} false alarms (best: detections minus false alarms)."
    )


def nearest(places: list[float], value: float) -> float:
    return places[int(nearest_to(np.array(places), value, 1)[0])]


def move(places: list[float], chosen: list) -> None:
    """The line goes to where a curve was clicked."""
    if chosen:
        st.session_state[CUT] = nearest(places, float(chosen[0]))


def line(places: list[float], first: float) -> float:
    """The slider of the line: its places are those of the chart's axis above it, so that both have one scale."""
    st.session_state["defaults"][CUT] = first
    asked = st.session_state.get(CUT, st.query_params.get(CUT))
    if asked is not None and asked not in places:  # of another model, or from a link
        try:
            value = float(asked)
        except ValueError:
            value = np.nan
        st.session_state[CUT] = nearest(places, value) if places[0] <= value <= places[-1] else first
    return st.select_slider(
        "Threshold on R",
        places,
        first,
        key=CUT,
        bind="query-params",
        format_func=lambda place: significant(place, 4),
        help="It starts where 5 % of the held-out normal images would be flagged or, with too few images, at the best "
        "threshold.",
    )


def every_line(case: Case, counts: Confusion, ideal: Confusion) -> None:
    """The ROC, with the reader's line and the best one."""
    st.markdown(f"**Every line at once: the ROC of R, AUROC {case.auroc['R']:.3f}**")
    x, y = roc_points(case.own.scores["R"], case.other.scores["R"])
    points = {
        "your line": (counts.false_alarm_rate, counts.detection_rate),
        BEST: (ideal.false_alarm_rate, ideal.detection_rate),
    }
    controls.chart(
        charts.roc_chart({f"{case.title} against {case.normal}": (x, y)}, points),
        {"false_alarm_rate": x, "detection_rate": y},
        "lesson-roc",
        f"ROC of R on {case.title}; your threshold detects {counts.detection_rate:.1%} at "
        f"{counts.false_alarm_rate:.1%} false alarms.",
    )
    if case.auroc["R"] < 0.5:
        st.caption("It runs mostly below the diagonal of chance: for most thresholds, R is worse than chance.")


def at_the_line(case: Case, cut: float) -> None:
    st.markdown("**The images at the line**")
    for stored, right_word in ((case.own, "false alarm"), (case.other, "detected")):
        passed, flagged = nearest_the_cut(stored.scores["R"], cut, parts.EXAMPLES)
        rows = np.concatenate([passed[::-1], flagged])
        st.caption(f"{controls.literal(controls.title_of(stored.name))}: last to pass, then first to be flagged ({right_word})")
        if len(rows):
            parts.strip(case, stored, rows, lambda r, cut=cut: f"R {significant(r, 4)} {'flagged' if r > cut else 'passed'}")


def take_away(case: Case) -> str:
    own, other = case.own.scores["R"], case.other.scores["R"]
    best, at_5 = confusion_at(own, other, best_threshold(own, other)), confusion_at(own, other, case.threshold_r)
    usual = ""
    if np.isfinite(case.threshold_r):
        usual = (
            f"; the line that should flag 5 % of normal images detects {controls.percent(at_5.detection_rate)} at "
            f"{controls.percent(at_5.false_alarm_rate)} false alarms"
        )
    if not best.hits + best.false_alarms:
        return f"On {case.title} no threshold on R helps{usual}."
    return (
        f"The best line on R detects {controls.percent(best.detection_rate)} of {case.title} at "
        f"{controls.percent(best.false_alarm_rate)} false alarms{usual}."
    )


def figure(case: Case) -> go.Figure:
    best = best_threshold(case.own.scores["R"], case.other.scores["R"])
    cuts = {BEST: [best], "flags 5 % of held-out normal images": [case.threshold_r]}
    return parts.density_figure(case, "R", parts.R_LABEL, True, cuts=cuts)[0]
