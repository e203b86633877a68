"""Check an image: from a file to what the model says of it, in plain words."""

import cache
import charts
import controls
import numpy as np
import streamlit as st

from ama_core.density import share_below
from ama_core.scores import SCORES

TYPES = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]
MOST = 12  # images shown at once


def in_words(p: float, n: int) -> str:
    """A conformal p-value from n calibration images, as a sentence."""
    if p <= 1 / (n + 1):
        return f"None of the {n:,} normal images set aside looks this unusual to the model (p ≤ {p:.2g})."
    share = f"{100 * p:.0f} in 100" if p >= 0.01 else f"{1000 * p:.0f} in 1,000"
    return f"About {share} normal images look at least this unusual to the model (p = {p:.2g})."


def show(view: controls.View, name: str, found: cache.Checked, key: str) -> None:
    """One image with its verdict, what was done to it, its scores and its place among the training images."""
    scores, calibration = found.scores, view.detector.calibration_
    p, n = scores[f"p_{view.score}"], len(calibration.scores[view.score])
    st.subheader(controls.literal(name))
    if p <= view.alpha:
        st.warning(f"**Flagged as anomalous** at a false-alarm rate of {controls.percent(view.alpha)}. {in_words(p, n)}",
                   icon=":material/flag:")  # fmt: skip
    else:
        st.success(f"**Not flagged** at a false-alarm rate of {controls.percent(view.alpha)}. {in_words(p, n)}",
                   icon=":material/check_circle:")  # fmt: skip
    left, right = st.columns([1, 1], gap="large")
    with left:
        side = found.seen.shape[0]
        st.html(charts.figures([
            ("Given", found.given, f"The image as given, {name}"),
            (f"What the model sees, {side}×{side}", found.seen, "The prepared image"),
            ("Its reconstruction", found.reconstruction, "What the model redraws"),
            ("Difference", charts.difference_map(found.seen, found.reconstruction), "Reconstruction minus image"),
        ]))  # fmt: skip
        st.html(charts.difference_key())
        if found.notes:
            st.caption(f"Done to the image: {controls.literal('; '.join(found.notes))}. This alone can change its scores.")
        else:
            st.caption("The image fits the model as it is: nothing was done to it.")
    with right:
        first, second = st.columns(2)
        first.metric("R", f"{scores['R']:.4g}", help=controls.MEANING["R"][0])
        second.metric(f"p-value by {view.score}", f"{p:.4f}", help=controls.MEANING["p"][0])
        st.table(
            {
                "Score": list(SCORES),
                "Value": [f"{scores[score]:.4g}" for score in SCORES],
                "p-value": [f"{scores[f'p_{score}']:.4f}" for score in SCORES],
                f"At α = {controls.percent(view.alpha)}": [
                    "flagged" if scores[f"p_{score}"] <= view.alpha else "not flagged" for score in SCORES
                ],
            },
            hide_index=True,
        )
        below = share_below(scores["R"], calibration.train_r)
        st.caption(f"Its R is higher than that of {controls.percent(below)} of the training images.")
    density = cache.train_density(view.folder, log=True)
    mu, sigma = calibration.mu, calibration.sigma
    controls.chart(
        charts.density_chart(
            density.grid, density.curves, xlabel="R-score", log=True, marks={"this image": scores["R"]},
            bands=[(f"μ ± {k}σ of training R", mu - k * sigma, mu + k * sigma) for k in (2, 1)],
        ),
        {"R": density.grid, "density_train": density.curves["train"], "R_of_image": np.full(len(density.grid), scores["R"])},
        f"check-{key}",
        f"R of this image, {scores['R']:.3g}, on the density of the training images, median {density.medians['train']:.3g}.",
    )  # fmt: skip


with controls.error_panel():
    view = controls.page(
        "Check an image",
        "Drop an image of your own, or take a sample. It stays on this computer.",
    )
    files = st.file_uploader(
        "Images to check", TYPES, accept_multiple_files=True, key=f"upload-{controls.generation()}",
    )  # fmt: skip
    if not files:
        first, second = st.columns([3, 1])
        with first:
            sets = controls.image_sets(view)
            chosen = controls.choose(st.selectbox, "sample_set", "Or a sample of", sets, sets[0])
        samples = cache.sample_images(view.folder, chosen)
        with second:
            index = controls.number("sample", f"Number (0 to {len(samples) - 1:,})", len(samples) - 1)
        show(view, f"{chosen} #{index}", cache.check(view.folder, samples.images[index]), "sample")

    if len(files) > MOST:
        st.info(f"{len(files)} images were given; the first {MOST} are shown. `python -m ama_core score` takes any number.")
    for i, file in enumerate(files[:MOST]):
        try:
            found = cache.check_file(view.folder, file.getvalue())
        except controls.AMAError as error:
            st.error(f"**{controls.literal(file.name)}** could not be scored. {error}", icon=":material/broken_image:")
        else:
            show(view, file.name, found, str(i))
    controls.explain("R", "A", "M", "T", "p")
