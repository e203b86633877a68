"""Score densities (the paper's Fig. 4): where normal and anomalous images fall, from stored scores alone."""

from collections.abc import Mapping, Sequence

import cache
import charts
import controls
import numpy as np
import pandas as pd
import streamlit as st
from ama_core.evaluation.metrics import REPLICATES, nearest_to, threshold_scale

from ama_core import AMAError
from ama_core.analysis.density import Densities, share_below
from ama_core.detectors.ama.scores import SCORES, a_distance
from ama_core.evaluation.protocol import telling_set
from ama_core.paper import published as paper
from ama_core.storage.bundle import StoredScores

# What may be on the axis -> (name of the stored score, label, meaning).
AXES = {
    "R": ("R", "R-score", "High R: the critic tells the image from its reconstruction."),
    "A": (
        cache.A_DISTANCE,
        "|R − μ| / σ",
        "Far out: low A, since R lies far from the training images' mean, on either side. Nearer than 0.01 counts as 0.01.",
    ),
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
ALL = "All three"
ALSO_FIRST = ("gradients", "house_numbers")  # beside the set with which the lesson begins
TYPES = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]
MOST = 50  # uploads on the axis at once
AROUND = 8  # images of each set that are shown around a score


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


def limits(view: controls.View, axis: str) -> dict:
    """What the chart marks on the axis: where A and R and the others begin to flag, and the spread of the training R."""
    calibration, asked = view.detector.calibration_, controls.percent(view.alpha)
    if axis == "R":
        mu, sigma = calibration.mu, calibration.sigma
        return {
            "bands": [(f"μ ± {k}σ of training R", mu - k * sigma, mu + k * sigma) for k in (2, 1)],
            "cuts": {
                f"A flags outside (α = {asked})": calibration.band(view.alpha),
                f"R flags right of this (α = {asked})": [calibration.threshold("R", view.alpha)],
            },
        }
    if axis == "A":
        edge = a_distance(calibration.band(view.alpha)[1], calibration.mu, calibration.sigma)
        return {"cuts": {f"A flags right of this (α = {asked})": [float(edge)]}}
    if axis in SCORES:
        return {"cuts": {f"{axis} flags right of this (α = {asked})": [calibration.threshold(axis, view.alpha)]}}
    return {}


def uploads(view: controls.View) -> list[tuple[str, dict[str, float]]]:
    """The reader's own images, (file name, scores); they live in this session alone."""
    with st.expander("Your own images on this axis", icon=":material/upload:"):
        files = controls.upload(
            "Images to place on the axis", TYPES, f"rug-{controls.generation()}", accept_multiple_files=True,
            help="They are scored on this computer, kept for this visit only, and shown to nobody else.",
        )  # fmt: skip
        found = []
        for file in files[:MOST]:
            try:
                scores = cache.upload_scores(view.folder, file.getvalue())
                scores |= {cache.A_DISTANCE: float(cache.on_axis(view.folder, cache.A_DISTANCE, scores))}
                found.append((file.name, scores))
            except AMAError as error:
                name = controls.literal(file.name)
                st.error(f"**{name}** could not be scored. {controls.literal(str(error))}", icon=":material/broken_image:")
        if len(files) > MOST:
            st.info(f"{len(files)} images were given; the first {MOST} are placed.")
        if found:
            columns = {axis: [scores[key] for _, scores in found] for axis, (key, *_) in AXES.items()}
            columns = {AXES["A"][1] if axis == "A" else axis: values for axis, values in columns.items()}
            p = {f"p-value by {view.score}": [scores[f"p_{view.score}"] for _, scores in found]}
            frame = pd.DataFrame({"file": [name for name, _ in found], **columns, **p})
            config = {c: st.column_config.NumberColumn(format="%.4g") for c in frame.columns[1:]}
            controls.grid(frame, width="stretch", column_config=config)
            st.caption(
                "Yellow signs under the curves, one an image; a triangle at the end of the axis stands for a score beyond it. "
                + controls.MEANING["p"][0]
            )
        elif not files:
            st.caption("Drop a few and see where they fall among the sets.")
    return found


def chart(
    view: controls.View, found: Densities, axis: str, histogram: bool, at: float | None, own: Sequence[tuple[str, float]]
) -> str:
    """The densities, with whatever else is on the axis; returns the medians in words."""
    key, label, _ = AXES[axis]
    medians = "; ".join(f"{name} {value:.3g}" for name, value in found.medians.items())
    marks = {f"images around {at:.4g} below": at} if at is not None and found.grid[0] <= at <= found.grid[-1] else {}
    placed = f" Your images: {'; '.join(f'{name} {value:.3g}' for name, value in own)}." if own else ""
    columns = {"density": found.curves} | ({"histogram": found.histograms} if histogram else {})
    controls.chart(
        charts.density_chart(
            found.grid, found.curves, xlabel=label, log=found.log, marks=marks, rug=own,
            histograms=found.histograms if histogram else None, **limits(view, axis),
        ),
        {
            "set": np.repeat(list(found.curves), len(found.grid)),
            key: np.tile(found.grid, len(found.curves)),
            **{name: np.concatenate(list(values.values())) for name, values in columns.items()},
        },
        f"densities-{view.name}-{key}",
        f"Densities of {axis} for {len(found.curves)} sets. Medians: {medians}.{placed}",
        select=("points",), on_select=look_at,
    )  # fmt: skip
    return medians


def look_at(places: list) -> None:
    """Remembers where a curve was clicked."""
    if places:
        st.session_state["at"] = float(f"{places[0]:.4g}")


def look_nowhere() -> None:
    """Forgets the place, which means nothing on another axis."""
    st.session_state["at"] = None


def images_around(view: controls.View, key: str, at: float | None, sets: Sequence[tuple[str, StoredScores]]) -> None:
    """The images of each set whose scores are nearest to `at`."""
    if at is None:
        st.caption("Click on a curve above, or give a score, and see the images there.")
        return
    for title, stored in sets:
        values = cache.on_axis(view.folder, key, stored.scores)
        rows = nearest_to(values, at, AROUND)
        below = controls.percent(share_below(at, values))
        st.markdown(f"**{controls.literal(title)}**: {below} of its {stored.n:,} images score lower")
        try:
            images = cache.stored_pictures(view.folder, stored.name, stored.split, tuple(int(i) for i in rows))
        except AMAError as error:
            scores = ", ".join(f"{values[i]:.3g}" for i in rows)
            st.info(f"These images are not on this computer, only their scores: {scores}.", icon=":material/hide_image:")
            st.caption(controls.literal(str(error)))
            continue
        captions = [f"{values[i]:.4g}" for i in rows]
        st.html(charts.figures([(c, image, f"{title}, score {c}") for c, image in zip(captions, images)], width=84))


def figures(view: controls.View, rows: Sequence[Mapping]) -> pd.DataFrame:
    """Every figure of some results: one line a set and score, with intervals, and the paper's value where it has one."""
    normal = view.detector.info_.get("normal") or {}
    lines = []
    for row in rows:
        published = paper.published(view.detector.config, normal.get("name"), normal.get("label"), row["ood"])
        intervals = cache.intervals(view.folder, row["ood"])
        for score in SCORES:
            line = {"set": row["ood"], "score": score, "n normal": row["n_normal"], "n anomalous": row["n_ood"]}
            for field, _ in METRICS.values():
                low, high = intervals[score].get(field, (None, None))
                line |= {field: row["scores"][score][field], f"{field} low": low, f"{field} high": high}
            lines.append(line | {"paper auroc": published.get(score)})
    return pd.DataFrame(lines)


def cell(line: Mapping, field: str) -> str:
    """A figure and its interval."""
    low, high = line[f"{field} low"], line[f"{field} high"]
    return f"{line[field]:.3f}" + ("" if pd.isna(low) else f" :gray[({low:.3f}–{high:.3f})]")


def table(view: controls.View, rows: Sequence[Mapping]) -> None:
    """How well each score tells the sets apart, with n, intervals and the paper's values; and a sentence for each set."""
    metric = controls.choose(st.segmented_control, "metric", "Measure", [*METRICS, ALL], "AUROC", required=True)
    frame = figures(view, rows)
    counted = [f"{n:,} + {m:,}" for n, m in zip(frame["n normal"], frame["n anomalous"])]
    printed = ["" if pd.isna(value) else f"{value:.3f}" for value in frame["paper auroc"]]
    lines = frame.to_dict("records")
    if metric == ALL:
        shown = {
            "Set": frame["set"], "Score": frame["score"],
            **{name: [cell(line, field) for line in lines] for name, (field, _) in METRICS.items()}, "n": counted,
        }  # fmt: skip
        if any(printed):
            shown["paper, AUROC"] = printed
    else:
        field = METRICS[metric][0]
        shown = {"Set": [row["ood"] for row in rows]}
        shown |= {score: [cell(line, field) for line in lines if line["score"] == score] for score in SCORES}
        shown["n"] = counted[:: len(SCORES)]
        for i, score in enumerate(SCORES):
            if metric == "AUROC" and any(printed[i :: len(SCORES)]):
                shown[f"paper, {score}"] = printed[i :: len(SCORES)]
    st.table(shown, hide_index=True)
    for name in METRICS if metric == ALL else [metric]:
        st.caption(f"{name}. {METRICS[name][1]}")
    st.caption(
        "n = normal test images + anomalies drawn from each set. In brackets: 95 % interval, from drawing the stored scores "
        f"{REPLICATES} times anew; it covers the drawing of the test images, not that of the training seed, and has no width "
        "where no drawing changes the figure."
    )
    if frame["auprc low"].isna().any():
        st.caption("Where no scores are stored only AUROC has an interval (Hanley & McNeil, 1982).")
    if any(printed):
        st.caption(f"paper = what {paper.SOURCE} prints for this pair of sets, by its own protocol and with larger networks.")
    controls.download_table("All these figures (CSV)", frame, f"figures-{view.name}")
    for row in rows:
        name = controls.literal(row["ood"])
        st.markdown("- " + verdict(name, {score: row["scores"][score]["auroc"] for score in SCORES}))


with controls.error_panel():
    view = controls.page(
        "Score densities",
        "An anomaly detector hopes that anomalies score higher than normal images. Here is where they really fall.",
    )
    normal = (view.detector.info_.get("normal") or {}).get("name")
    stored = {(s.name, s.split): s for s in cache.stored(view.folder)}
    results = cache.results(view.folder)
    sets = [name for name, split in stored if name != normal and split == "test"]
    choices = [*sets, *(name for name in results if name not in sets)]

    aurocs = cache.aurocs(view.folder)
    telling = [telling_set(aurocs, controls.LEADING)] if aurocs else []
    first = list(dict.fromkeys([*telling, *(name for name in ALSO_FIRST if name in choices)])) or choices[:2]
    chosen = controls.choose(
        st.multiselect, controls.MANY, "Sets to compare with the normal images", choices, first, placeholder="Choose sets",
    )  # fmt: skip
    controls.keep_sets(chosen, first)
    st.caption("; ".join(f"{name}: {controls.literal(controls.title_of(name))}" for name in chosen))
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        axis = controls.choose(
            st.segmented_control, "axis", "On the axis", list(AXES), "R", required=True, on_change=look_nowhere,
        )  # fmt: skip
    with right, st.container(horizontal=True):
        log = controls.switch("log", "Logarithmic axis", True)
        histogram = controls.switch("histogram", "Histogram", False, help="Bins on the same axis, under the smooth curves.")

    on_chart = [(split, normal, split) for split in ("train", "test") if (normal, split) in stored]
    on_chart += [(name, name, "test") for name in chosen if name in sets]
    if not on_chart:
        st.info("This model has no stored scores; `python -m ama_core measure` makes them. Shown: R of its training images.")
        axis = "R"
    key, _, meaning = AXES[axis]
    found = cache.score_densities(view.folder, key, tuple(on_chart), log) if on_chart else cache.train_density(view.folder, log)
    behind = [(title, stored[name, split]) for title, name, split in on_chart]

    picture, at = st.container(), None
    own = [(name, scores[key]) for name, scores in uploads(view)]
    if on_chart:
        with st.container(border=True):
            step = threshold_scale(float(found.grid[0]), float(found.grid[-1]))[2]
            at = controls.optional_number("at", f"Look at the images around this {AXES[axis][1]}", step, placeholder="a score")
            images_around(view, key, at, behind)
    with picture:
        medians = chart(view, found, axis, histogram, at, own)
        counts = "; ".join(f"{title} {s.n:,} of {s.n_total:,}" for title, s in behind)
        st.caption(f"{meaning} Medians: {medians}. Images behind each curve: {counts or 'all that were kept'}. One grid for "
                   "all, Silverman's bandwidth for each.")  # fmt: skip
        for note in dict.fromkeys(note for _, s in behind for note in s.notes):
            st.caption(controls.literal(note))
        if bare := [name for name in chosen if name not in sets]:
            st.caption(f"Measured, but without stored scores and so without a curve: {controls.literal(', '.join(bare))}.")

    st.subheader("How well each score tells them apart")
    rows = [results[name] for name in chosen if name in results]
    if rows:
        table(view, rows)
    else:
        st.info("Choose at least one set that was measured with this model.")
    controls.explain("R", "A", "M", "T")
