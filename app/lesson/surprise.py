"""Step: images that the model has never seen, and that its raw score finds more normal than its own test images."""

import cache
import controls
import numpy as np
import plotly.graph_objects as go
import streamlit as st

from ama_core.formatting import significant
from lesson import parts
from lesson.case import Case, order, pairs

GUESS = "guess-{}-{}"  # the key of the reader's guess, of a model and a set


def guessed(case: Case) -> bool:
    """Whether the reader has guessed, so that nothing is given away."""
    return st.session_state.get(GUESS.format(case.view.name, case.other.name)) is not None


def show(case: Case) -> None:
    st.markdown(
        f"Here are images of {case.ood}. The model was trained on *{controls.literal(case.normal)}* and has never seen "
        "one of them. **Guess before you look:** which images get the higher R-scores?"
    )
    rows = np.argsort(case.other.scores["R"])[np.linspace(0, case.other.n - 1, 2 * parts.EXAMPLES + 2).astype(int)[1:-1]]
    parts.strip(case, case.other, rows, lambda value: "")
    names = {"ood": case.title, "normal": f"the model's own {case.normal} test images", "same": "about the same"}
    guess = st.pills(
        "Higher R-scores",
        list(names),
        format_func=names.get,
        key=GUESS.format(case.view.name, case.other.name),
        persist_state="page",
    )
    if guess is None:
        st.caption("The densities appear once you have guessed.")
        return
    auroc, truth = case.auroc["R"], order(case.auroc["R"])
    outcome = "Right" if guess == truth else "Not so"
    if truth == "normal":
        st.warning(
            f"**{outcome}: R fails here.** The AUROC of R is **{auroc:.3f}**, below chance (0.5): {pairs(auroc)}. Images "
            "that the model has never seen look *more normal* to it than its own test images.",
            icon=":material/trending_down:",
        )
        what_else_moves_r(case)
    elif truth == "same":
        st.warning(
            f"**{outcome}: R cannot tell them apart.** Its AUROC is **{auroc:.3f}**, near chance (0.5): {pairs(auroc)}.",
            icon=":material/casino:",
        )
    else:
        st.success(
            f"**{outcome}: here the hope holds.** The AUROC of R is **{auroc:.3f}**: {pairs(auroc)}. This set does *not* show "
            "the failure.",
            icon=":material/thumb_up:",
        )
    offer_worse(case)
    parts.densities(case, "R", parts.R_LABEL, "surprise")
    parts.beside_the_paper(case, parts.PAPERS_FAILURE, ("R",))


def what_else_moves_r(case: Case) -> None:
    """What else moves R, as measured for this model and these images; nothing where nothing was measured."""
    found = cache.response(case.view.folder)
    if found is None:
        return
    changed = ", ".join(f"{controls.literal(change)}: {significant(r)}" for change, r in found.changed.items())
    st.markdown(
        f"**R depends on more than how unusual an image is.** {found.n:,} of the model's own test images have a median R of "
        f"{significant(found.r)}; the same images, changed: {changed}."
    )
    own, other = found.sets.get(case.own.name), found.sets.get(case.other.name)
    if own is None or other is None:
        return
    properties = (
        ("deviation", "the standard deviation of an image's pixel values", "{:.3g}"),
        ("length", "an image's losslessly compressed length", "{:,.0f} bytes"),
    )
    for name, words, form in properties:
        expected = found.expected(case.other.name, name)
        if expected is None:
            continue
        here, there = (form.format(getattr(facts, name)) for facts in (other, own))
        r = own.correlation(name)
        so = {
            "low": "This alone predicts a *low* R.",
            "high": "This alone predicts a *high* R, so it does not explain why theirs is low.",
            "weak": "This correlation is too weak to predict anything.",
            "alike": "The two sets are similar in this respect, so it does not explain the low R.",
        }[expected]
        st.markdown(
            f"- Over its own test images, log R correlates with {words} (r = {r:.2f}). The median is {here} for "
            f"{controls.literal(case.title)}, {there} for its own test images. {so}"
        )


def offer_worse(case: Case) -> None:
    """Where another set shows the failure and this one does not, leads to it."""
    if case.auroc["R"] < 0.5:
        return
    worst = min(case.aurocs, key=lambda name: case.aurocs[name]["R"])
    r = case.aurocs[worst]["R"]
    if worst == case.other.name:
        st.caption(f"It is already the set with the lowest AUROC of R for this model, {r:.3f}: none falls below 0.5.")
        offer_model(case)
        return
    fails = "there R fails" if r < 0.5 else "even there R stays above chance; another model may fail"
    offer(worst, f"AUROC of R {r:.3f} ({fails})")


def offer_model(case: Case) -> None:
    """Leads to a model on which R fails, where there is one."""
    for name, folder in cache.models().items():
        measured = {} if controls.lacking(folder, ("R", "A", "M", "T", "reconstruct")) else cache.results(folder)
        r = {ood: row["scores"]["R"]["auroc"] for ood, row in measured.items()}
        worst = min(r, key=r.get, default=None)
        if name != case.view.name and worst and r[worst] < 0.5:
            what = f"Look at the model {name} instead: on {controls.title_of(worst)} its R has an AUROC of {r[worst]:.3f}"
            controls.link("lesson", what, "swap_horiz", model=name, step="Surprise")
            return


def offer(name: str, why: str) -> None:
    """A button that leads to another set."""
    st.button(
        f"Look at {controls.title_of(name)} instead: {why}",
        icon=":material/swap_horiz:",
        on_click=st.session_state.update,
        args=({controls.ONE: name},),
    )


def take_away(case: Case) -> str:
    auroc = case.auroc["R"]
    if order(auroc) == "normal":
        return (
            f"A low raw score does not mean normal: R ranks {case.title}, which the model has never seen, as more normal than "
            f"its own test images (AUROC {auroc:.3f}, below chance, 0.5)."
        )
    if order(auroc) == "same":
        return f"R cannot tell {case.title} from {case.normal}: its AUROC is {auroc:.3f}, near chance (0.5)."
    return f"R does not fail on {case.title}: its AUROC is {auroc:.3f}. With another set or another model it may."


def figure(case: Case) -> go.Figure:
    return parts.density_figure(case, "R", parts.R_LABEL, True)[0]
