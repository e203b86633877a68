"""Step: where R cannot tell two sets apart, and M, T and p-values."""

import cache
import controls
import plotly.graph_objects as go
import streamlit as st

from ama_core.evaluation.cases import CLEAR, NEAR_CHANCE, gain
from ama_core.evaluation.metrics import best_threshold, confusion_at
from lesson import parts
from lesson.case import Case
from lesson.surprise import offer

IMAGE_ALONE = "; **C** combines T with how unusual the image alone looks to the critic"


@st.fragment
def show(case: Case) -> None:
    detector = case.view.detector
    own, other = (detector.anomaly_scores(stored.scores) for stored in (case.own, case.other))
    best = confusion_at(own["R"], other["R"], best_threshold(own["R"], other["R"]))
    st.markdown(
        f"Where two densities of R lie *on top of each other*, no rule on R can separate them. Here the best line on R detects "
        f"{controls.percent(best.detection_rate)} of {case.ood} at {controls.percent(best.false_alarm_rate)} false alarms. But "
        "R is a sum of magnitudes: it forgets in which direction the critic's features moved. **M** keeps the direction: it is "
        "the distance of that move from the moves of normal images. **T** adds what else the same forward pass says: R, the "
        "pixel error, the length of the code and the critic's values"
        f"{IMAGE_ALONE if 'C' in case.scores else ''}. None of these scales means anything by itself, so each "
        "is turned into a **p-value**: the fraction of held-out normal images that look at least as unusual."
    )
    alpha = controls.false_alarm_rate(cache.false_alarm_rate(case.view.folder))
    asked = controls.percent(alpha)
    flags = case.can_flag(alpha)
    rates, expected = {}, ""
    if flags:
        st.markdown(f"**Flag where p ≤ α = {asked}** (α: the false-alarm rate). Measured on this model's stored test scores:")
        counts = [confusion_at(own[by], other[by], detector.threshold(by, alpha)) for by in case.scores]
        rates = {
            "False alarms": [f"{100 * c.false_alarm_rate:.1f} %" for c in counts],
            f"{case.title} detected": [f"{100 * c.detection_rate:.1f} %" for c in counts],
        }
        expected = f" False alarms should be close to {asked}, whichever score decides."
    aurocs = [f"{case.auroc[by]:.3f}" for by in case.scores]
    st.table({"Score": list(case.scores), **rates, "AUROC": aurocs}, hide_index=True)
    st.caption(
        f"n = {case.own.n:,} normal and {case.other.n:,} images of {case.title}; calibrated on "
        f"{len(detector.held_out_scores_['T']):,} others.{expected}"
    )
    verdict(case)
    beyond = [by for by in case.scores if by not in ("R", "A")]
    by = controls.choose(st.segmented_control, "by", "Look at", beyond, "T", required=True)
    cuts = {f"flagged right of this, p ≤ {asked}": [detector.threshold(by, alpha)]} if flags else {}
    parts.densities(case, by, label(by), f"overlap-{by}", cuts=cuts)
    controls.explain(*case.view.scores(*case.scores), p=True)


def label(by: str) -> str:
    return f"{by}-score: high = unusual"


def verdict(case: Case) -> None:
    r, a, m, t = (case.auroc[by] for by in "RAMT")
    if max(m, t) < 0.5 + NEAR_CHANCE:
        st.info("Nothing in this model tells these images apart: M and T are no better than chance either.")
    elif gain(case.auroc) > CLEAR:
        st.success(
            f"By AUROC, M ({m:.3f}) or T ({t:.3f}) sees what R ({r:.3f}) and A ({a:.3f}) do not.", icon=":material/visibility:"
        )
    else:
        st.info(f"On this set M ({m:.3f}) and T ({t:.3f}) find no more than the better of R ({r:.3f}) and A ({a:.3f}).")
    most = max(case.aurocs, key=lambda name: gain(case.aurocs[name]))
    if gain(case.auroc) <= CLEAR < gain(case.aurocs[most]):
        offer(most, "AUROC " + ", ".join(f"{by} {case.aurocs[most][by]:.3f}" for by in case.scores))


def take_away(case: Case) -> str:
    r, a, m, t = (case.auroc[by] for by in "RAMT")
    if gain(case.auroc) > CLEAR:
        which, value = ("M", m) if m > t else ("T", t)
        return (
            f"R adds up magnitudes and so loses their direction: on {case.title}, R has an AUROC of {r:.3f} and A of {a:.3f}, "
            f"{which} reaches {value:.3f} from the same forward pass."
        )
    return f"On {case.title}, M ({m:.3f}) and T ({t:.3f}) add nothing clear to R ({r:.3f}) and A ({a:.3f})."


def figure(case: Case) -> go.Figure:
    cut = {"flagged right of this, p ≤ 5 %": [case.view.detector.threshold("T", 0.05)]}
    return parts.density_figure(case, "T", label("T"), True, cuts=cut)[0]
