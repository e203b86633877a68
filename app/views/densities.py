"""Score densities (the paper's Fig. 4): where normal and anomalous images fall, from stored scores alone."""

import cache
import charts
import controls
import numpy as np
import streamlit as st

from ama_core.density import a_band
from ama_core.scores import SCORES

# What may be on the axis -> (name of the stored score, label, meaning).
AXES = {
    "R": ("R", "R-score", "High R: the critic tells the image from its reconstruction."),
    "A": ("log_A", "log A", "Low log A: R is unusual, on either side."),
    "M": ("M", "M-score", "High M: the difference vector is unusual."),
    "T": ("T", "T-score", "High T: all statistics together are unusual."),
    "‖z‖": ("z_norm", "length ‖z‖ of the latent code", "‖z‖ = ‖E(x)‖, how far out the code of the image lies."),
    "pixels": ("pixel_l1", "mean |x − x̂|", "Pixel error, the plain autoencoder's score; values run from −1 to 1."),
}
METRICS = {
    "AUROC": ("auroc", "The chance that an anomaly looks more anomalous than a normal image: 1 is perfect, 0.5 a coin."),
    "AUPRC": ("auprc", "Area under precision and recall, anomalies positive: a coin gets their share n anomalous / n."),
    "FPR95": ("fpr95", "Normal images flagged when 95 % of the anomalies are: less is better."),
}
SHOWN_FIRST = ("gradients", "house_numbers")


def verdict(name: str, auroc: dict[str, float]) -> str:
    """What the AUROCs of R, A, M and T on one set say, in words."""
    others = ", ".join(f"{score} {auroc[score]:.2f}" for score in SCORES[1:])
    a_fails = " A fails here: their R lies nearer to μ than that of the test images." if auroc["A"] < 0.5 else ""
    r = f"R gives {auroc['R']:.2f} on **{name}**"
    if auroc["R"] >= 0.5:
        much = "hardly more" if auroc["R"] < 0.6 else "more"
        return f"{r}: it finds them {much} anomalous than the test images. {others}.{a_fails}"
    return (
        f"{r}, below the 0.50 of a coin: it finds them *more normal* than the model's own test images, so a threshold on R "
        f"lets them pass. A asks whether R is unusual on either side, M also in which direction the difference points, T takes "
        f"all statistics together: {others}.{a_fails}"
    )


with controls.error_panel():
    view = controls.page(
        "Score densities",
        "An anomaly detector hopes that anomalies score higher than normal images. Here is where they really fall.",
    )
    calibration = view.detector.calibration_
    normal = (view.detector.info_.get("normal") or {}).get("name")
    stored = {(s.name, s.split): s for s in cache.stored(view.folder)}
    results = cache.results(view.folder)
    sets = [name for name, split in stored if name != normal and split == "test"]
    choices = [*sets, *(name for name in results if name not in sets)]

    first = [name for name in SHOWN_FIRST if name in choices] or choices[:2]
    chosen = controls.choose(
        st.multiselect, "ood", "Sets to compare with the normal images", choices, first, placeholder="Choose sets",
    )  # fmt: skip
    st.caption("; ".join(f"{name}: {controls.literal(controls.title_of(name))}" for name in chosen))
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        axis = controls.choose(st.segmented_control, "axis", "On the axis", list(AXES), "R", required=True)
    with right:
        log = controls.switch("log", "Logarithmic axis", False, disabled=axis == "A") and axis != "A"

    on_chart = [(split, normal, split) for split in ("train", "test") if (normal, split) in stored]
    on_chart += [(name, name, "test") for name in chosen if name in sets]
    if not on_chart:
        st.info("This model has no stored scores; `python -m ama_core measure` makes them. Shown: R of its training images.")
        axis = "R"
    key, label, meaning = AXES[axis]
    measured = cache.score_densities(view.folder, key, tuple(on_chart), log) if on_chart else None
    found = measured or cache.train_density(view.folder, log)

    bands, cuts, percent = [], {}, controls.percent(view.alpha)
    if axis == "R":
        mu, sigma = calibration.mu, calibration.sigma
        bands = [(f"μ ± {k}σ of training R", mu - k * sigma, mu + k * sigma) for k in (2, 1)]
        cuts[f"A flags outside (α = {percent})"] = a_band(calibration, view.alpha)
        cuts[f"R flags right of this (α = {percent})"] = [calibration.threshold("R", view.alpha)]
    elif axis == "A":
        cuts[f"A flags left of this (α = {percent})"] = [-calibration.threshold("A", view.alpha)]
    elif axis in SCORES:
        cuts[f"{axis} flags right of this (α = {percent})"] = [calibration.threshold(axis, view.alpha)]

    medians = "; ".join(f"{name} {value:.3g}" for name, value in found.medians.items())
    controls.chart(
        charts.density_chart(found.grid, found.curves, xlabel=label, log=log, bands=bands, cuts=cuts),
        {
            "set": np.repeat(list(found.curves), len(found.grid)),
            key: np.tile(found.grid, len(found.curves)),
            "density": np.concatenate(list(found.curves.values())),
        },
        f"densities-{view.name}-{key}",
        f"Densities of {axis} for {len(found.curves)} sets. Medians: {medians}.",
    )
    behind = [(title, stored[name, split]) for title, name, split in on_chart]
    counts = "; ".join(f"{title} {s.n:,} of {s.n_total:,}" for title, s in behind)
    st.caption(f"{meaning} Medians: {medians}. Images behind each curve: {counts or 'all that were kept'}. One grid for all, "
               "Silverman's bandwidth for each.")  # fmt: skip
    for note in dict.fromkeys(note for _, s in behind for note in s.notes):
        st.caption(controls.literal(note))

    st.subheader("How well each score tells them apart")
    rows = [results[name] for name in chosen if name in results]
    if not rows:
        st.info("Choose at least one set that was measured with this model.")
    else:
        metric = controls.choose(st.segmented_control, "metric", "Measure", list(METRICS), "AUROC", required=True)
        field, says = METRICS[metric]
        st.table(
            {
                "Set": [row["ood"] for row in rows],
                **{score: [f"{row['scores'][score][field]:.3f}" for row in rows] for score in SCORES},
                "n": [f"{row['n_normal']:,} + {row['n_ood']:,}" for row in rows],
            },
            hide_index=True,
        )
        st.caption(f"{metric}. {says} n = normal test images + anomalies drawn from each set.")
        for row in rows:
            st.markdown("- " + verdict(row["ood"], {score: row["scores"][score]["auroc"] for score in SCORES}))
    controls.explain("R", "A", "M", "T")
