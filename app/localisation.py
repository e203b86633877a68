"""Where a checked image is unusual: a map of its places, and the outline of those that stand out on the photograph."""

from collections.abc import Sequence

import cache
import controls
import pictures
import streamlit as st

from ama_core import AMAError
from ama_core.scoring.localise import MAPS, can_localise
from ama_core.scoring.outlines import Outlines, png

TITLES = {"pixel": "Pixel difference", "critic": "Critic map", "combined": "Both combined"}
Given = Sequence[tuple[str, str, bytes]]


def choose_map(view: controls.View) -> str | None:
    """The map that the reader chose; None, with the reason on the page, where the model has none."""
    if not can_localise(view.detector):
        return None  # a detector of whole images: there is nothing to say
    st.subheader("Where it is unusual")
    try:
        localiser = cache.localiser(view.folder)
    except AMAError as error:
        st.info(controls.said(error), icon=":material/location_off:")
        return None
    if len(localiser.names) == 1:
        return localiser.default
    return controls.choose_shown(
        "map",
        "Marked by",
        localiser.names,
        localiser.default,
        TITLES.get,
        help="; ".join(f"{TITLES[name]}: {MAPS[name]}" for name in localiser.names) + ".",
    )


def show(view: controls.View, batch: cache.Batch, files: Given, i: int, name: str) -> None:
    """Image i at full size with its outlines, and the map behind them."""
    localiser, examined = cache.localiser(view.folder), batch.found.examined.take([i])
    outlines = Outlines(view.detector, localiser, name, view.alpha)
    photograph = cache.photographs(batch, files, [i]).get(i, batch.found.given[i])
    drawn, marked = outlines.draw(photograph, examined)
    said = outlines.sentence()
    if warning := localiser.reach_warning(view.alpha):
        st.info(warning, icon=":material/info:")
    elif not marked:
        st.markdown(f"**No place stands out** at a false-alarm rate of {controls.percent(view.alpha)}.")
    title = batch.found.names[i]
    left, right = st.columns([3, 1], gap="medium")
    with left:
        st.html(pictures.photograph(drawn, f"{title}, {'unusual places outlined' if marked else 'with no place outlined'}"))
        st.caption(said)
    with right:
        share = localiser.share_of_threshold(name, localiser.maps(examined)[name], view.alpha)[0]
        laid_over = pictures.heat_map(examined.images[0], share)
        st.html(pictures.figures([(f"{TITLES[name]}: full colour at the threshold", laid_over, "The map over the image")], 160))
        st.download_button(
            "Outlined (PNG)",
            lambda: png(drawn),
            "outlined.png",
            "image/png",
            icon=":material/download:",
            on_click="ignore",
            key="outlined",
            help="At full size. `python -m ama_core score … --maps DIR` writes all of them.",
        )
