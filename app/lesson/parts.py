"""What steps of the lesson share: rows of images, density charts, confusion matrices, the paper's figures, the take-away."""

from collections.abc import Callable, Mapping, Sequence

import cache
import controls
import numpy as np
import pictures
import plotly.graph_objects as go
import streamlit as st
from density_charts import density_chart

from ama_core import AMAError
from ama_core.analysis.density import Densities
from ama_core.evaluation.metrics import Confusion
from ama_core.formatting import significant
from ama_core.paper import published as paper
from ama_core.storage.bundle import StoredScores
from lesson.case import Case

R_LABEL = "R-score (high: image and reconstruction differ)"
EXAMPLES = 4  # images of each kind that are shown
PAPERS_FAILURE = ("cifar10", "svhn")  # the paper's own example of a raw score that fails


def take_away(words: str) -> None:
    """The one sentence that a step ends with."""
    with st.container(border=True):
        st.markdown(f":material/lightbulb: **{controls.literal(words)}**")


def examples(case: Case, stored: StoredScores, what: str, rows: np.ndarray) -> None:
    """Some of the images behind stored scores beside what the model makes of them; scores alone where they are not here."""
    rows = tuple(int(i) for i in rows)
    values = [significant(stored.scores["R"][i]) for i in rows]
    try:
        source = (case.view.folder, stored.name, stored.split, rows)
        seen, reconstructed = cache.stored_pictures(*source), cache.stored_pictures(*source, reconstructed=True)
    except AMAError as error:
        missing(error, what, values)
        return
    table = [
        (
            [(a, f"{what}, R {value}"), (b, "its reconstruction"), (pictures.difference_map(a, b), "their difference")],
            value,
        )
        for a, b, value in zip(seen, reconstructed, values)
    ]
    st.html(pictures.image_table(["Image", "Reconstruction", "Difference", "R"], table))


def missing(error: AMAError, what: str, values: Sequence[str]) -> None:
    """Says plainly that images are not here, and gives the numbers that are."""
    st.info(
        f"The images of {controls.literal(what)} are not on this computer, only their scores: R {', '.join(values)}.",
        icon=":material/hide_image:",
    )
    st.caption(controls.said(error))


def strip(case: Case, stored: StoredScores, rows: np.ndarray, words: Callable[[float], str]) -> None:
    """A row of images with words made of their R."""
    rows = tuple(int(i) for i in rows)
    captions, name = [words(stored.scores["R"][i]) for i in rows], controls.title_of(stored.name)
    try:
        images = cache.stored_pictures(case.view.folder, stored.name, stored.split, rows)
    except AMAError as error:
        missing(error, name, [significant(stored.scores["R"][i]) for i in rows])
        return
    st.html(pictures.figures([(c, image, f"{name} {c}") for c, image in zip(captions, images)], width=84))


def density_figure(case: Case, axis: str, label: str, log: bool, **more) -> tuple[go.Figure, Densities]:
    """The densities of the normal training and test images and of the OOD set, with their names at the curves."""
    folder, own, other = case.view.folder, case.own, case.other
    splits = {s.split for s in cache.stored(folder) if s.name == own.name}
    sets = tuple((split, own.name, split) for split in ("train", "test") if split in splits)
    found = cache.score_densities(folder, axis, (*sets, (other.name, other.name, "test")), log)
    named = {"train": "training images", "test": "normal test images", other.name: f"{case.title} (never seen)"}
    labels = {name: named[name] for name in found.curves}
    return density_chart(found.grid, found.curves, xlabel=label, log=log, labels=labels, **more), found


def densities(
    case: Case, axis: str, label: str, name: str, *, log: bool | None = None, handling: Mapping | None = None, **more
) -> Densities:
    """Draws `density_figure`, with its downloads.

    Args:
        log: whether the axis of scores is logarithmic; None: a switch above the figure asks.
        handling: further arguments of `controls.chart`.
    """
    log = log_switch() if log is None else log
    figure, found = density_figure(case, axis, label, log, **more)
    medians = "; ".join(f"{which} {significant(value)}" for which, value in found.medians.items())
    controls.chart(
        figure,
        {
            "set": np.repeat(list(found.curves), len(found.grid)),
            axis: np.tile(found.grid, len(found.curves)),
            "density": np.concatenate(list(found.curves.values())),
        },
        f"lesson-{name}",
        f"Densities of {axis} of training and test images and of {case.title}. Medians: {medians}.",
        **(handling or {}),
    )
    return found


def log_switch() -> bool:
    """Whether the reader wants the axis of scores to be logarithmic."""
    return controls.switch(
        "log", "Logarithmic axis", True, help="Otherwise a few very high scores would compress all the others."
    )


def matrix(case: Case, counts: Confusion) -> None:
    """The confusion matrix of a rule."""
    st.html(
        pictures.confusion_table(
            counts.hits, counts.misses, counts.false_alarms, counts.passed, case.title, f"{case.normal} (normal)"
        )
    )


def rule_in_words(counts: Confusion) -> str:
    """What a rule finds and what that costs."""
    found = (
        f"It detects **{controls.percent(counts.detection_rate)}** of the anomalies and raises a false alarm on "
        f"**{controls.percent(counts.false_alarm_rate)}** of the normal images."
    )
    if np.isnan(counts.precision):
        return f"{found} Nothing is flagged at all."
    if counts.detection_rate < counts.false_alarm_rate:
        found += " **It flags normal images more readily than anomalies: worse than chance.**"
    return found


def beside_the_paper(case: Case, example: tuple[str, str], scores: Sequence[str]) -> None:
    """The paper's figures for this very pair of sets, else for its own example of the point, beside ours.

    Args:
        example: the paper's (normal, OOD) sets. scores: of R and A, those that the step is about.
    """
    detector = case.view.detector
    normal = detector.normal
    printed = paper.published(detector.settings, normal.name, normal.label, case.other.name)
    same = any(score in printed for score in scores)
    if not same:
        printed = {"R": paper.ablation(paper.WITHOUT_A, *example), "A": paper.table1(*example)}
    theirs = " against ".join(map(controls.title_of, (normal.name, case.other.name) if same else example))
    here = f"Here: {case.normal} against {case.title}"
    shown = [score for score in scores if printed.get(score) is not None]
    st.markdown("**The paper's figure beside ours** (AUROC)")
    st.table(
        {
            "Score": shown,
            f"The paper: {theirs}": [f"{printed[score]:.3f}" for score in shown],
            here: [f"{case.auroc[score]:.3f}" for score in shown],
        },
        hide_index=True,
    )
    smaller = paper.reductions(detector.settings, detector.info_.get("training", {}))
    st.caption(
        f"Source: {paper.SOURCE}, Table 1. "
        + ("The same pair of sets" if same else "Another pair of sets, which the paper uses for the same point")
        + (f"; our model is smaller: {', '.join(smaller)}." if smaller else ".")
    )
