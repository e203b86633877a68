"""Score densities (the paper's Fig. 4): where normal and anomalous images fall, from stored scores alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cache
import controls
import numpy as np
import pandas as pd
import pictures
import streamlit as st
from density_charts import density_chart

from ama_core import AMAError
from ama_core.analysis.density import Densities, share_below
from ama_core.detectors.ama.scores import a_distance
from ama_core.evaluation.metrics import REPLICATES, nearest_to, threshold_scale
from ama_core.evaluation.protocol import telling_set
from ama_core.paper import published as paper
from ama_core.storage.bundle import StoredScores


@dataclass(frozen=True)
class Axis:
    """What may be on the axis: how the choice is called, the stored entry behind it, its label, what it means, and whether it
    may be logarithmic.
    """

    name: str
    entry: str
    label: str
    meaning: str
    log: bool = True


# What this page says of AMA's scores, and of what else may be stored beside a score; of others it says what they say.
OF_R = {
    "R": Axis("R", "R", "R-score", "High R: the critic tells the image from its reconstruction."),
    "A": Axis(
        "A", cache.A_DISTANCE, "|R − μ| / σ",
        "Far out: low A, since R lies far from the training images' mean, on either side. Nearer than 0.01 counts as 0.01.",
    ),
    "M": Axis("M", "M", "M-score", "High M: the difference vector is unusual."),
    "T": Axis("T", "T", "T-score", "High T: all statistics together are unusual."),
}  # fmt: skip
BESIDE = {
    "z_norm": Axis(
        "‖z‖", "z_norm", "length ‖z‖ of the latent code", "‖z‖ = ‖E(x)‖, how far out the code of the image lies.",
    ),
    "pixel_l1": Axis(
        "pixels", "pixel_l1", "mean |x − x̂|", "Pixel error, the plain autoencoder's score; values run from −1 to 1.",
    ),
}  # fmt: skip
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


def axes_of(view: controls.View) -> dict[str, Axis]:
    """What may be on the axis: the model's scores, and what else it stores of every image."""
    named = OF_R if view.of_r else {}
    found = [
        named.get(score.name)
        or Axis(
            score.name, score.name, score.name,
            f"{'Low' if score.low else 'High'} {score.name} is unusual: {score.meaning}", score.log_axis,
        )
        for score in view.detector.SCORES
    ]  # fmt: skip
    found += [axis for entry, axis in BESIDE.items() if entry in view.detector.STORED]
    return {axis.name: axis for axis in found}


def verdict(view: controls.View, name: str, auroc: dict[str, float]) -> str:
    """What the AUROCs of the scores on one set say, in words."""
    first, *rest = view.detector.score_names()
    others = f"{', '.join(f'{score} {auroc[score]:.2f}' for score in rest)}." if rest else ""
    a_fails = ""
    if view.of_r and auroc["A"] < 0.5:
        a_fails = " A fails here: their R lies nearer to μ than that of the test images."
    said = f"{first} gives {auroc[first]:.2f} on **{name}**"
    if auroc[first] >= 0.5:
        much = "hardly more" if auroc[first] < 0.6 else "more"
        return f"{said}: it finds them {much} anomalous than the test images. {others}{a_fails}".strip()
    what = (
        " A asks whether R is unusual on either side, M also in which direction the difference points, T takes all statistics "
        f"together: {others}"
        if view.of_r else f" {others}"
    )  # fmt: skip
    return (
        f"{said}, below the 0.50 of a coin: it finds them *more normal* than the model's own test images, so a threshold on "
        f"{first} lets them pass.{what}{a_fails}"
    ).strip()


def limits(view: controls.View, axis: Axis) -> dict:
    """What the chart marks on the axis: where scores begin to be flagged, and the spread of the training R."""
    asked = controls.percent(view.alpha)
    if view.of_r and axis.name == "R":
        mu, sigma = view.of_r.mu, view.of_r.sigma
        return {
            "bands": [(f"μ ± {k}σ of training R", mu - k * sigma, mu + k * sigma) for k in (2, 1)],
            "cuts": {
                f"A flags outside (α = {asked})": view.of_r.band(view.alpha),
                f"R flags right of this (α = {asked})": [view.detector.threshold("R", view.alpha)],
            },
        }
    if axis.entry == cache.A_DISTANCE:
        edge = a_distance(view.of_r.band(view.alpha)[1], view.of_r.mu, view.of_r.sigma)
        return {"cuts": {f"A flags right of this (α = {asked})": [float(edge)]}}
    score = next((score for score in view.detector.SCORES if score.name == axis.name and not score.ranks_by), None)
    if score is None:
        return {}
    edge = view.detector.threshold(axis.name, view.alpha)
    if score.low:
        return {"cuts": {f"{axis.name} flags left of this (α = {asked})": [-edge]}}
    return {"cuts": {f"{axis.name} flags right of this (α = {asked})": [edge]}}


def uploads(view: controls.View, axes: Mapping[str, Axis]) -> list[tuple[str, dict[str, float]]]:
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
                found.append((file.name, scores | {
                    axis.entry: float(cache.on_axis(view.folder, axis.entry, scores)) for axis in axes.values()
                }))  # fmt: skip
            except AMAError as error:
                name = controls.literal(file.name)
                st.error(f"**{name}** could not be scored. {controls.literal(str(error))}", icon=":material/broken_image:")
        if len(files) > MOST:
            st.info(f"{len(files)} images were given; the first {MOST} are placed.")
        if found:
            columns = {
                axis.label if axis.entry == cache.A_DISTANCE else name: [scores[axis.entry] for _, scores in found]
                for name, axis in axes.items()
            }
            p = {f"p-value by {view.score}": [scores[f"p_{view.score}"] for _, scores in found]}
            frame = pd.DataFrame({"file": [name for name, _ in found], **columns, **p})
            config = {c: st.column_config.NumberColumn(format="%.4g") for c in frame.columns[1:]}
            controls.grid(frame, width="stretch", column_config=config)
            st.caption(
                "Yellow signs under the curves, one an image; a triangle at the end of the axis stands for a score beyond it. "
                + controls.P_VALUE
            )
        elif not files:
            st.caption("Drop a few and see where they fall among the sets.")
    return found


def chart(
    view: controls.View, found: Densities, axis: Axis, histogram: bool, at: float | None, own: Sequence[tuple[str, float]]
) -> str:
    """The densities, with whatever else is on the axis; returns the medians in words."""
    medians = "; ".join(f"{name} {value:.3g}" for name, value in found.medians.items())
    marks = {f"images around {at:.4g} below": at} if at is not None and found.grid[0] <= at <= found.grid[-1] else {}
    placed = f" Your images: {'; '.join(f'{name} {value:.3g}' for name, value in own)}." if own else ""
    columns = {"density": found.curves} | ({"histogram": found.histograms} if histogram else {})
    controls.chart(
        density_chart(
            found.grid, found.curves, xlabel=axis.label, log=found.log, marks=marks, rug=own,
            histograms=found.histograms if histogram else None, **limits(view, axis),
        ),
        {
            "set": np.repeat(list(found.curves), len(found.grid)),
            axis.entry: np.tile(found.grid, len(found.curves)),
            **{name: np.concatenate(list(values.values())) for name, values in columns.items()},
        },
        f"densities-{view.name}-{axis.entry}",
        f"Densities of {axis.name} for {len(found.curves)} sets. Medians: {medians}.{placed}",
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
        st.html(pictures.figures([(c, image, f"{title}, score {c}") for c, image in zip(captions, images)], width=84))


def published(view: controls.View, ood: str) -> dict[str, float]:
    """What the paper prints for a model like this on this set, score -> AUROC."""
    normal = view.detector.normal
    if view.of_r is None or normal is None:
        return {}
    return paper.published(view.detector.settings, normal.name, normal.label, ood)


def figures(view: controls.View, rows: Sequence[Mapping]) -> pd.DataFrame:
    """Every figure of some results: one line a set and score, with intervals, and the paper's value where it has one."""
    lines = []
    for row in rows:
        printed, intervals = published(view, row["ood"]), cache.intervals(view.folder, row["ood"])
        for score in view.detector.score_names():
            line = {"set": row["ood"], "score": score, "n normal": row["n_normal"], "n anomalous": row["n_ood"]}
            for field, _ in METRICS.values():
                low, high = intervals[score].get(field, (None, None))
                line |= {field: row["scores"][score][field], f"{field} low": low, f"{field} high": high}
            lines.append(line | {"paper auroc": printed.get(score)})
    return pd.DataFrame(lines)


def cell(line: Mapping, field: str) -> str:
    """A figure and its interval."""
    low, high = line[f"{field} low"], line[f"{field} high"]
    return f"{line[field]:.3f}" + ("" if pd.isna(low) else f" :gray[({low:.3f}–{high:.3f})]")


def table(view: controls.View, rows: Sequence[Mapping]) -> None:
    """How well each score tells the sets apart, with n, intervals and the paper's values; and a sentence for each set."""
    metric = controls.choose(st.segmented_control, "metric", "Measure", [*METRICS, ALL], "AUROC", required=True)
    frame, scores = figures(view, rows), view.detector.score_names()
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
        shown |= {score: [cell(line, field) for line in lines if line["score"] == score] for score in scores}
        shown["n"] = counted[:: len(scores)]
        for i, score in enumerate(scores):
            if metric == "AUROC" and any(printed[i :: len(scores)]):
                shown[f"paper, {score}"] = printed[i :: len(scores)]
    st.table(shown, hide_index=True)
    for name in METRICS if metric == ALL else [metric]:
        st.caption(f"{name}. {METRICS[name][1]}")
    st.caption(
        "n = normal test images + anomalies drawn from each set. In brackets: 95 % interval, from drawing the stored scores "
        f"{REPLICATES} times again; it covers the drawing of the test images, not that of the training seed, and has no width "
        "where no drawing changes the figure."
    )
    if frame["auprc low"].isna().any():
        st.caption("Where no scores are stored only AUROC has an interval (Hanley & McNeil, 1982).")
    if any(printed):
        st.caption(f"paper = what {paper.SOURCE} prints for this pair of sets, by its own protocol and with larger networks.")
    controls.download_table("All these figures (CSV)", frame, f"figures-{view.name}")
    for row in rows:
        name = controls.literal(row["ood"])
        st.markdown("- " + verdict(view, name, {score: row["scores"][score]["auroc"] for score in scores}))


def choose_sets(view: controls.View, choices: list[str]) -> list[str]:
    """The OOD sets to show; at first the one that the lesson begins with, or, of a model without a lesson, any."""
    aurocs = cache.aurocs(view.folder)
    telling = [telling_set(aurocs, controls.LEADING)] if aurocs and view.of_r else []
    first = list(dict.fromkeys([*telling, *(name for name in ALSO_FIRST if name in choices)])) or choices[:2]
    chosen = controls.choose(
        st.multiselect, controls.MANY, "Sets to compare with the normal images", choices, first, placeholder="Choose sets",
    )  # fmt: skip
    controls.keep_sets(chosen, first)
    st.caption("; ".join(f"{name}: {controls.literal(controls.title_of(name))}" for name in chosen))
    return chosen


def choose_axis(axes: Mapping[str, Axis]) -> tuple[Axis, bool, bool]:
    """What is on the axis, whether it is logarithmic, and whether histograms are drawn."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        axis = controls.choose(
            st.segmented_control, "axis", "On the axis", list(axes), next(iter(axes)), required=True, on_change=look_nowhere,
        )  # fmt: skip
    with right, st.container(horizontal=True):
        log = controls.switch("log", "Logarithmic axis", True, disabled=not axes[axis].log) and axes[axis].log
        histogram = controls.switch("histogram", "Histogram", False, help="Bins on the same axis, under the smooth curves.")
    return axes[axis], log, histogram


def of_held_out(view: controls.View, axes: Mapping[str, Axis], log: bool) -> tuple[Axis, Densities]:
    """What can be drawn of a model without stored scores."""
    missing = "This model has no stored scores; `python -m ama_core measure` makes them."
    if view.of_r:
        st.info(f"{missing} Shown: R of its training images.")
        return axes["R"], cache.train_density(view.folder, log)
    st.info(f"{missing} Shown: its held-out normal images.")
    (score,) = view.scores(view.score)
    axis = replace(axes[score.name], entry=score.ranks_by or score.name, label=score.ranks_by or score.name)
    positive = bool((view.detector.held_out_scores_[score.name] * (-1 if score.low else 1) > 0).all())
    return axis, cache.held_out_density(view.folder, score.name, log and positive)


def main() -> None:
    view = controls.page(
        "Score densities",
        "An anomaly detector hopes that anomalies score higher than normal images. Here is where they really fall.",
    )
    stored = {(s.name, s.split): s for s in cache.stored(view.folder)}
    results = cache.results(view.folder)
    sets = [name for name, split in stored if name != view.normal and split == "test"]
    chosen = choose_sets(view, [*sets, *(name for name in results if name not in sets)])
    axes = axes_of(view)
    axis, log, histogram = choose_axis(axes)

    on_chart = [(split, view.normal, split) for split in ("train", "test") if (view.normal, split) in stored]
    on_chart += [(name, name, "test") for name in chosen if name in sets]
    behind = [(title, stored[name, split]) for title, name, split in on_chart]
    if on_chart:
        positive = all((cache.on_axis(view.folder, axis.entry, s.scores) > 0).all() for _, s in behind)
        found = cache.score_densities(view.folder, axis.entry, tuple(on_chart), log and positive)
        if log and not positive:
            st.caption("Some of these scores are 0 or less, so the axis is linear.")
    else:
        axis, found = of_held_out(view, axes, log)

    picture, at = st.container(), None
    own = [(name, scores[axis.entry]) for name, scores in uploads(view, axes)]
    if on_chart:
        with st.container(border=True):
            step = threshold_scale(float(found.grid[0]), float(found.grid[-1]))[2]
            at = controls.optional_number("at", f"Look at the images around this {axis.label}", step, placeholder="a score")
            images_around(view, axis.entry, at, behind)
    with picture:
        medians = chart(view, found, axis, histogram, at, own)
        counts = "; ".join(f"{title} {s.n:,} of {s.n_total:,}" for title, s in behind)
        st.caption(f"{axis.meaning} Medians: {medians}. Images behind each curve: {counts or 'all that were kept'}. One grid "
                   "for all, Silverman's bandwidth for each.")  # fmt: skip
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
    controls.explain(*view.scores())


with controls.error_panel():
    main()
