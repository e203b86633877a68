"""Step: the reader changes an image and sees what becomes of R, A, T and p."""

import cache
import controls
import numpy as np
import pictures
import plotly.graph_objects as go
import streamlit as st
from density_charts import density_chart

from ama_core import AMAError
from ama_core.analysis.probe import Probe
from ama_core.data.changes import Change
from ama_core.formatting import significant
from ama_core.storage.bundle import StoredScores
from lesson.case import ALPHA, Case

N_IMAGES = 6
SHOWN = ("R", "A", "T")  # M comes in a later step
MOVED = 0.03  # a relative change of R from here on is called one
# Key, label, lowest, highest, as it is, step, help.
SLIDERS = (
    ("contrast", "Contrast ×", 0.0, 2.0, 1.0, 0.05, "1 leaves it as it is; 0 is a grey square."),
    ("brightness", "Brightness ×", 0.0, 2.0, 1.0, 0.05, "1 leaves it as it is; 0 is black."),
    ("blur", "Blur (pixels)", 0.0, 4.0, 0.0, 0.25, "The standard deviation of the blur."),
    ("noise", "Noise", 0.0, 0.5, 0.0, 0.01, "The standard deviation of the noise; 1 would be the full scale."),
)
AS_IT_IS = "As it is"
LOWEST = "Lowest R"
PRESETS = {
    AS_IT_IS: Change(),
    "Half the contrast": Change(contrast=0.5),
    "Dark": Change(brightness=0.3),
    "Blurred": Change(blur=2.0),
    "Noisy": Change(noise=0.2),
}


def source_of(case: Case) -> tuple[StoredScores, tuple[int, ...]]:
    """Whose images are changed, and which: normal test images evenly along R; where those are missing, the first set that is
    here. Raises DataError where none is.
    """
    others = [s for s in cache.stored(case.view.folder) if s.split == "test" and s.name != case.own.name]
    missing = None
    for stored in (case.own, *others):
        ranked = np.argsort(stored.scores["R"], kind="stable")
        rows = tuple(int(i) for i in ranked[np.linspace(0, len(ranked) - 1, N_IMAGES + 2).astype(int)[1:-1]])
        try:
            cache.stored_pictures(case.view.folder, stored.name, stored.split, rows)
        except AMAError as error:
            missing = missing or error
            continue
        return stored, rows
    raise missing


@st.fragment
def show(case: Case) -> None:
    st.markdown(
        "Now make R fail yourself. Pick an image and change it. A changed image is *less* like those the model was trained "
        "on, so R should rise. Press a preset or move a slider, and watch the tick on the curve of the training images."
    )
    try:
        stored, rows = source_of(case)
    except AMAError as error:
        st.info("No images to change are on this computer.", icon=":material/hide_image:")
        st.caption(controls.said(error))
        return
    if stored is not case.own:
        st.caption(
            f"The normal test images, {controls.literal(case.normal)}, are not on this computer, so these are "
            f"{controls.literal(controls.title_of(stored.name))}, which the model has never seen."
        )
    case.can_flag(ALPHA)
    where = (case.view.folder, stored.name, stored.split)
    images = cache.stored_pictures(*where, rows)
    row = rows[choose_image(images, controls.title_of(stored.name)) - 1]
    presets(where, row)
    left, right = st.columns([2, 5], gap="medium")
    with left:
        change = Change(**{key: controls.slider(key, label, *numbers, help=h) for key, label, *numbers, h in SLIDERS})
    found = cache.probed(*where, row, change)
    with right:
        pictures_of(found)
        st.markdown(what_happens(found, change))
        place(case, found, change)
        scores_of(found)
    st.caption(
        f"**A**: how usual this R is among the training images, on either side (step Band). **T**: all that the forward pass "
        "says, taken together (step Overlap). **p-value**: the fraction of held-out normal images that look at least as "
        f"unusual; here an image is flagged where p is at most {controls.percent(ALPHA)}."
    )


def choose_image(images: np.ndarray, name: str) -> int:
    """The number of the image that is changed, from 1."""
    numbers = [str(i + 1) for i in range(len(images))]
    left, right = st.columns(2, gap="medium", vertical_alignment="bottom")
    with left:
        st.html(pictures.figures([(n, image, f"{name}, image {n}") for n, image in zip(numbers, images)], width=50))
    with right:
        return int(controls.choose(st.segmented_control, "image", "Image", numbers, "1", required=True))


def presets(where: tuple, row: int) -> None:
    """Buttons that set all sliders at once."""
    with st.container(horizontal=True):
        for name, change in PRESETS.items():
            st.button(name, key=f"preset-{name}", on_click=set_sliders, args=(change,))
        st.button(
            LOWEST,
            key=f"preset-{LOWEST}",
            type="primary",
            on_click=set_lowest,
            args=(*where, row),
            help="Tries combinations of contrast, brightness and blur, and sets the one with the lowest R.",
        )


def set_sliders(change: Change) -> None:
    st.session_state.update({key: float(getattr(change, key)) for key, *_ in SLIDERS})


def set_lowest(*image) -> None:
    set_sliders(cache.lowest_change(*image))


def pictures_of(found: Probe) -> None:
    before, after = found.images
    reconstructed = found.reconstructions[1]
    st.html(
        pictures.figures(
            [
                ("as it was", before, "the image as it was"),
                ("changed", after, "the changed image"),
                ("reconstruction", reconstructed, "reconstruction of the changed image"),
                ("difference", pictures.difference_map(after, reconstructed), "difference of changed image and reconstruction"),
            ],
            width=104,
        )
    )


def scores_of(found: Probe) -> None:
    """R, A, T and their p-values before and after."""
    flagged = found.flagged(ALPHA, SHOWN)

    def cell(name: str, i: int) -> str:
        p = f"p {found.scores[f'p_{name}'][i]:.3f}"
        return f"{significant(found.scores[name][i])} ({p}, {'**flagged**' if name in flagged[i] else 'passes'})"

    st.table(
        {
            "": ["as it was", "changed"],
            **{name: [cell(name, i) for i in range(2)] for name in SHOWN},
            "R is higher than that of": [f"{controls.percent(below)} of the training images" for below in found.below],
        },
        hide_index=True,
    )


def what_happens(found: Probe, change: Change) -> str:
    """The sentence of what the change did, from what was measured."""
    (r0, r1), (before, after) = found.scores["R"], found.flagged(ALPHA, SHOWN)
    if change.nothing:
        return (
            f"Nothing is changed yet: R is **{significant(r0)}**, higher than that of {controls.percent(found.below[0])} of "
            f"the training images. {verdicts(before)}"
        )
    if r1 < (1 - MOVED) * r0:
        moved = (
            f"R **fell** from {significant(r0)} to **{significant(r1)}**: the changed image looks *more normal* to "
            f"the raw score than the image itself. {among(found)}"
        )
    elif r1 > (1 + MOVED) * r0:
        moved = f"R **rose** from {significant(r0)} to **{significant(r1)}**, as it should for a changed image. {among(found)}"
    else:
        moved = f"R hardly moved: {significant(r0)} before, **{significant(r1)}** now."
    return f"{moved} {verdicts(after)}"


def among(found: Probe) -> str:
    if not found.below[1]:
        return "No stored training image has a lower R."
    return f"It is higher than that of {controls.percent(found.below[1])} of the training images."


def verdicts(flagged: set[str]) -> str:
    """Which scores flag an image and which let it pass, in words."""
    yes, no = ([name for name in SHOWN if (name in flagged) == whether] for whether in (True, False))
    if not yes:
        return f"None of {controls.listed(SHOWN)} flags it."
    said = f"{controls.listed(yes)} flag{'s' * (len(yes) == 1)} it"
    if not no:
        return f"{said}."
    said += f", {controls.listed(no)} let{'s' * (len(no) == 1)} it pass."
    return f"**{said}**" if "R" in no else said


def place(case: Case, found: Probe, change: Change) -> None:
    """The tick of the image over the density of the training images."""
    r0, r1 = (float(r) for r in found.scores["R"])
    density = cache.train_density(case.view.folder, log=True)
    marks = {f"as it was, R {significant(r0)}": r0, f"changed, R {significant(r1)}": r1}
    if change.nothing:
        marks = {f"the image, R {significant(r0)}": r0}
    controls.chart(
        density_chart(
            density.grid,
            density.curves,
            xlabel="R-score",
            log=True,
            marks=marks,
            height=300,
            labels={"train": "training images"},
            bands=[passes(case)],
            cuts=flags(case),
        ),
        {"R": density.grid, "density_train": density.curves["train"]},
        "lesson-cause",
        f"R of the image on the density of the training images: {significant(r0)} as it was, {significant(r1)} changed.",
    )


def passes(case: Case) -> tuple[str, float, float]:
    return ("A lets pass", *case.view.of_r.band(ALPHA))


def flags(case: Case) -> dict[str, list[float]]:
    return {"R flags right of this": [case.threshold_r]}


def r_of_presets(case: Case) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """R of the images as they are, and after each preset. Raises DataError."""
    stored, rows = source_of(case)
    r = dict(cache.r_changed(case.view.folder, stored.name, stored.split, rows, PRESETS))
    return r.pop(AS_IT_IS), r


def take_away(case: Case) -> str:
    try:
        plain, r = r_of_presets(case)
    except AMAError:
        return "R also depends on simple image properties, such as contrast; measure it where the images are available."
    fell = sum(int((values < (1 - MOVED) * plain).sum()) for values in r.values())
    rose = sum(int((values > (1 + MOVED) * plain).sum()) for values in r.values())
    n = sum(len(values) for values in r.values())
    tried = f"Of the {n} changed images that the presets make of these {len(plain)}, R falls for {fell}"
    if fell:
        return f"{tried}: R measures more than how unusual an image is, and a changed image may look more normal to it."
    tried += f" and rises for {rose}"
    if 2 * rose > n:
        return f"{tried}: for this model the changes make images look more unusual to R, as they should."
    return f"{tried}: for this model most of the changes hardly move R."


def figure(case: Case) -> go.Figure:
    density = cache.train_density(case.view.folder, log=True)
    plain, r = r_of_presets(case)
    rug = [(AS_IT_IS, float(plain[0])), *((name, float(values[0])) for name, values in r.items())]
    return density_chart(
        density.grid,
        density.curves,
        xlabel="R-score",
        log=True,
        rug=rug,
        rug_name="one image, changed (hover over a mark)",
        labels={"train": "training images"},
        bands=[passes(case)],
        cuts=flags(case),
    )
