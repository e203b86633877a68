"""Can this model be trusted, and for what: what it takes as normal, what it finds, what something simpler would find."""

from collections.abc import Mapping

import access
import cache
import controls
import numpy as np
import pictures
import simple_methods
import streamlit as st

from ama_core.analysis.density import share_below
from ama_core.detectors import registry
from ama_core.detectors.conformal import reachable_alpha
from ama_core.evaluation.metrics import SOUND, false_alarm_band
from ama_core.evaluation.simple import SimpleFigures, finds_more

FOUND = 0.5  # a set of which at least this fraction is found is called found
NAMED = 4  # sets that a sentence names
NORMAL_ROW = "normal test images: false alarms"


def panel(view: controls.View) -> None:
    """Nine normal images, what the model finds at this rate, and, on one's own images, what something simpler would do."""
    with st.container(border=True):
        st.markdown("##### Can I trust this model?")
        normal_images(view)
        measured(view)
        simple_methods.in_trust_panel(view)


def measured(view: controls.View) -> None:
    """One sentence on what the model finds, and the table behind it; or why nobody knows."""
    alpha = reachable_alpha(len(view.detector.held_out_scores_[view.score]), view.alpha, controls.ALPHAS)
    if alpha is None:
        st.markdown("**It cannot flag anything**: it was calibrated on too few normal images for every rate offered here.")
        return
    found = cache.flagged(view.folder, view.score, alpha)
    own = found.pop(view.normal, None) if view.normal else None
    if not found:
        st.markdown(
            "**It was measured against no other images**, so its detection rate is unknown. Name some bad images when you "
            f"train, or measure it: `python -m ama_core measure {access.shown(view.folder)}`."
        )
        return
    simple = cache.simple(view.folder)
    off = "" if own is None else false_alarms(view, alpha, own)
    st.markdown(verdict(view, alpha, None if off else own, found, simple))
    if off:
        st.warning(off, icon=":material/warning:")
    st.caption(controls.meaning(*view.scores(view.score)))
    with st.expander("Set by set, and what methods without any training find", icon=":material/checklist:"):
        table(view, alpha, own, found, simple)


def normal_images(view: controls.View) -> None:
    """What the model takes as normal, as pictures where they can be had."""
    normal = view.detector.normal
    examples = cache.normal_examples(view.folder) if normal else None
    if examples is None:
        what = f"{normal.n:,} images of {controls.title_of(normal.name)}" if normal else "images that it does not name"
        st.markdown(f"It takes as normal what looks like {controls.literal(what)}. They are not on this computer.")
        return
    images, how = examples
    what = "a normal training image" if how == "training" else "what the model makes of a normal training image"
    st.html(pictures.thumbnails(images, what))
    of = "of the images it was trained on"
    if how != "training":
        of += ", as the model reconstructs them from stored codes: the images are not on this computer"
    st.caption(
        f"**It takes these as normal**: {len(images)} {of}. Images of anything else, or from another camera, lighting or crop, "
        "may be flagged for that alone."
    )


def verdict(
    view: controls.View, alpha: float, own: float | None, found: Mapping[str, float], simple: SimpleFigures | None
) -> str:
    """What the model finds at this false-alarm rate, which sets it misses, and where something simpler finds more."""
    rate, ranked = controls.percent(alpha), sorted(found, key=found.get, reverse=True)
    hits, misses = [n for n in ranked if found[n] >= FOUND], [n for n in reversed(ranked) if found[n] < FOUND]
    said = "" if alpha == view.alpha else f"At {controls.percent(view.alpha)} it cannot flag anything. "
    many = f"all {len(found)}" if not misses else f"{len(hits) or 'none'} of the {len(found)}"
    if len(found) == 1:
        of = next(s.n for s in cache.stored(view.folder) if (s.name, s.split) == (ranked[0], "test"))
        said += (
            f"**At a false-alarm rate of {rate}, {view.score} finds {controls.percent(found[ranked[0]])} of the {of:,} images "
            f"of {controls.literal(controls.title_of(ranked[0]))}**, the only ones it was measured on."
        )
    else:
        said += (
            f"**At a false-alarm rate of {rate}, {view.score} finds at least half of the images of {many} sets it was measured "
            f"on**{span(hits, found)}"
        )
        said += f"; it misses most of {named(misses, found)}." if misses else "."
    if own is not None:
        said += f" It flags {controls.percent(own)} of its own normal test images."
    return said + beside_simple(view, alpha, found, simple)


def beside_simple(view: controls.View, alpha: float, found: Mapping[str, float], simple: SimpleFigures | None) -> str:
    """On how many sets something simpler finds more than chance explains; empty where that was not measured."""
    if simple is None:
        return ""
    more = finds_more(found, {s.name: s.n for s in cache.stored(view.folder) if s.split == "test"}, simple, alpha)
    if not more.compared:
        return ""
    if more.method is None:
        measured = f"any of the {more.compared} sets" if more.compared > 1 else "the one set"
        return f" No simple method finds more on {measured} that it was measured on, by more than chance explains."
    other = "Something simpler" if view.detector.trains() else "Another method"
    title = registry.detector_class(more.method).title
    return (
        f" **{other} finds more on {len(more.sets)} of {more.compared}**, by more than chance explains: {title}, without any "
        "training."
    )


def named(sets: list[str], found: Mapping[str, float]) -> str:
    """Sets with what is found of each; the rest counted."""
    shown = [f"{controls.literal(controls.title_of(name))} (finds {controls.percent(found[name])})" for name in sets[:NAMED]]
    return controls.listed([*shown, f"{len(sets) - NAMED} more"] if len(sets) > NAMED else shown)


def span(sets: list[str], found: Mapping[str, float]) -> str:
    """From what is found least to what is found most, `sets` in falling order."""
    if not sets:
        return ""
    least, most = (controls.percent(found[sets[place]]) for place in (-1, 0))
    if least == most:
        return f": {least} of each" if len(sets) > 1 else f": {least} of {controls.literal(controls.title_of(sets[0]))}"
    ends = [f"{controls.percent(found[name])} of {controls.literal(controls.title_of(name))}" for name in (sets[-1], sets[0])]
    return f", from {' to '.join(ends)}"


def false_alarms(view: controls.View, alpha: float, own: float) -> str:
    """What it means that more or fewer of the normal test images are flagged than chance explains; empty where it does."""
    n = next(s.n for s in cache.stored(view.folder) if (s.name, s.split) == (view.normal, "test"))
    n_calibration = len(view.detector.held_out_scores_[view.score])
    low, high = (float(ends[0]) for ends in false_alarm_band(np.array([alpha]), n, n_calibration, SOUND))
    if low <= own <= high:
        return ""
    effect = "more false alarms than you asked for" if own > high else "that it finds fewer anomalies than it could"
    return (
        f"**It flags {controls.percent(own)} of its own normal test images.** At a rate of {controls.percent(alpha)} chance "
        f"explains {controls.percent(low)} to {controls.percent(high)} of these {n:,} "
        f"({controls.percent(SOUND)} band): they are most likely unlike the images that it was calibrated on. Expect "
        f"{effect}, or calibrate or train on images like those that it will see."
    )


def table(
    view: controls.View, alpha: float, own: float | None, found: Mapping[str, float], simple: SimpleFigures | None
) -> None:
    """What is flagged of each set, by the model and by each simple method."""
    rows = {NORMAL_ROW: view.normal} if own is not None else {}
    titles = controls.titles_of(sorted(found, key=found.get, reverse=True), rows)
    rows |= {title: name for name, title in titles.items()}
    values = dict(found) | ({view.normal: own} if own is not None else {})
    columns = {"Set": list(rows), f"{view.name} by {view.score}": [100 * values[name] for name in rows.values()]}
    for method in simple.p if simple else ():
        fractions = [simple.flagged(method, name, alpha) for name in rows.values()]
        columns[registry.detector_class(method).title] = [None if f is None else 100 * f for f in fractions]
    percent = st.column_config.NumberColumn(format="%.2g %%")
    controls.grid(
        columns,
        height=40 + 35 * len(rows),
        column_config=dict.fromkeys(columns, percent) | {"Set": st.column_config.TextColumn(width="medium")},
        alt=f"Fraction of each set that is flagged at a false-alarm rate of {controls.percent(alpha)}",
    )
    st.caption(
        f"The fraction of each set that is flagged at a false-alarm rate α of {controls.percent(alpha)}; of normal images "
        "these are false alarms. The simple methods are fitted to the same normal images and calibrated in the same way."
    )
    if simple is None:
        st.caption(
            "What simple methods find was not measured with this model: "
            f"`python -m ama_core measure {access.shown(view.folder)}`."
        )
    elif any(value is None for column in columns.values() for value in column):
        st.caption("None: the set was not measured, or the method has too few calibration images for so small an α.")


# Where the raw score disagrees


def disagrees(view: controls.View, scores: Mapping[str, np.ndarray], i: int) -> bool:
    """Whether R flags image i and A or T does not, or the other way round."""
    flagged = {by: scores[f"p_{by}"][i] <= view.alpha for by in ("R", "A", "T")}
    return flagged["R"] != flagged["A"] or flagged["R"] != flagged["T"]


def disagreement(view: controls.View, scores: Mapping[str, np.ndarray], i: int) -> None:
    """The sentence on an image about which the raw score and the others disagree, and the way to the lesson."""
    if not disagrees(view, scores, i):
        return
    flagged = {by: bool(scores[f"p_{by}"][i] <= view.alpha) for by in ("R", "A", "T")}
    below = share_below(float(scores["R"][i]), view.of_r.train_r)
    others = [by for by in ("A", "T") if flagged[by] != flagged["R"]]
    verb = "flag" if len(others) > 1 else "flags"
    if flagged["R"]:
        said = (
            f"R, the raw score, flags this image: its R is higher than that of {controls.percent(below)} of the training "
            f"images. {controls.listed(others)} {'do' if len(others) > 1 else 'does'} not: {reason(others, 'usual')}"
        )
    elif below < 0.5:
        said = (
            "R, the raw score, ranks this image as *more* normal than most: its R is lower than that of "
            f"{controls.percent(1 - below)} of the training images. {controls.listed(others)} {verb} it all the same: "
            f"{reason(others, 'unusual')}"
        )
    else:
        said = (
            f"R, the raw score, does not flag this image: its R is higher than that of {controls.percent(below)} of the "
            f"training images, and that is not rare enough. {controls.listed(others)} {verb} it: {reason(others, 'unusual')}"
        )
    st.info(f"**R disagrees.** {said}", icon=":material/compare_arrows:")
    controls.link("lesson", "Why a raw score can be wrong: the lesson", "school", model=view.name)


def reason(others: list[str], how: str) -> str:
    """What A and T look at that R does not."""
    words = {
        "A": "A asks how usual this very R is, on either side",
        "T": "T also weighs the pixel error, the length of the code and what the critic says of the image alone",
    }
    return f"{'; '.join(words[by] for by in others)}, and finds it {how}."
