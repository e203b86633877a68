"""Step: what reconstruction error hopes for."""

import controls
import numpy as np
import pictures
import plotly.graph_objects as go
import streamlit as st

from ama_core.evaluation.cases import HOLDS
from lesson import parts
from lesson.case import Case, order, pairs


def show(case: Case) -> None:
    st.markdown(
        "An **autoencoder** is two networks: the encoder **E** turns an image x into a short code z, and the generator **G** "
        "turns the code back into an image, the reconstruction x̂. It learns to reconstruct normal images, and only those. The "
        "hope: *what it has never seen, it reconstructs badly*. AMA lets a third network, the critic **D**, look at the pair "
        "(x, x) and at the pair (x, x̂). How far D's features f of the two lie apart is the **raw score R**: high R should "
        "mean anomaly."
    )
    st.html(pictures.method())
    left, right = st.columns(2, gap="medium")
    places = np.linspace(0, 1, parts.EXAMPLES + 2)[1:-1]  # evenly along R: neither the best nor the worst are picked
    for column, stored, what in (
        (left, case.own, f"{case.normal} (normal test images)"),
        (right, case.other, f"{case.title} (never seen)"),
    ):
        with column:
            st.markdown(f"**{controls.literal(what)}**")
            ranked = np.argsort(stored.scores["R"])
            parts.examples(case, stored, what, ranked[(places * (len(ranked) - 1)).astype(int)])
    st.html(pictures.difference_key())
    st.caption(f"Chosen evenly along R, from low to high, from {case.own.n:,} normal test images and {case.other.n:,} others.")
    st.markdown(
        "All of them at once: each curve shows how the R-scores of one set are spread. The further the curve of the set that "
        "the model has never seen lies to the right of the normal ones, the better R works."
    )
    parts.densities(case, "R", parts.R_LABEL, "hope")
    auroc = case.auroc["R"]
    st.markdown(
        f"One number for that is the **AUROC**: 1 is perfect, 0.5 is chance. Here it is **{auroc:.3f}**: {pairs(auroc)}."
    )
    parts.beside_the_paper(case, ("fashionmnist", "mnist"), ("R",))
    controls.explain(*case.view.scores("R"))


def take_away(case: Case) -> str:
    auroc, normal = case.auroc["R"], case.normal
    if auroc >= HOLDS:
        return f"Here the hope holds: on {case.title} against {normal}, R has an AUROC of {auroc:.3f}."
    if order(auroc) == "ood":
        return f"Here the hope holds only partly: on {case.title} against {normal}, R has an AUROC of {auroc:.3f}."
    return f"Here the hope fails: on {case.title} against {normal}, R has an AUROC of {auroc:.3f}, no better than chance."


def figure(case: Case) -> go.Figure:
    return parts.density_figure(case, "R", parts.R_LABEL, True)[0]
