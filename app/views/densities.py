"""Score densities (the paper's Fig. 4): where normal and anomalous images fall, from stored scores alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import access
import cache
import controls
import numpy as np
import pandas as pd
import pictures
import streamlit as st
from density_charts import density_chart
from results_table import table, titled, verdict_of_all

from ama_core import AMAError
from ama_core.analysis.density import Densities, share_below
from ama_core.detectors.ama.scores import a_distance
from ama_core.evaluation.cases import telling_sets
from ama_core.evaluation.metrics import nearest_to, round_step
from ama_core.formatting import significant
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
        "A",
        cache.A_DISTANCE,
        "|R − μ| / σ",
        "Far out: low A, since R lies far from the training images' mean, on either side. Nearer than 0.01 counts as 0.01.",
    ),
    "M": Axis("M", "M", "M-score", "High M: the difference vector is unusual."),
    "T": Axis("T", "T", "T-score", "High T: all statistics together are unusual."),
    "C": Axis("C", "C", "C-score", "High C: all statistics, together with what the critic sees in the image alone."),
}
BESIDE = {
    "z_norm": Axis(
        "‖z‖",
        "z_norm",
        "length ‖z‖ of the latent code",
        "‖z‖ = ‖E(x)‖, how far out the code of the image lies.",
    ),
    "pixel_l1": Axis(
        "pixels",
        "pixel_l1",
        "mean |x − x̂|",
        "Pixel error, the plain autoencoder's score; values run from −1 to 1.",
    ),
}
FIG_4 = "R and A (Fig. 4)"  # instead of an axis: both, side by side
MAX_UPLOADS = 50  # uploads on the axis at once
AROUND = 8  # images of each set that are shown around a score


def axes_of(view: controls.View) -> dict[str, Axis]:
    """What may be on the axis: the model's scores, and what else it stores of every image."""
    named = OF_R if view.of_r else {}
    found = [
        named.get(score.name)
        or Axis(
            score.name,
            score.name,
            score.name,
            f"{'Low' if score.low else 'High'} {score.name} is unusual: {score.meaning}",
            score.log_axis,
        )
        for score in view.detector.SCORES
    ]
    found += [axis for entry, axis in BESIDE.items() if entry in view.detector.STORED]
    return {axis.name: axis for axis in found}


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
    edge = score.from_anomaly(view.detector.threshold(axis.name, view.alpha))
    return {"cuts": {f"{axis.name} flags {'left' if score.low else 'right'} of this (α = {asked})": [edge]}}


def uploads(view: controls.View, axes: Mapping[str, Axis]) -> list[tuple[str, dict[str, float]]]:
    """The reader's own images, (file name, scores); they live in this session alone."""
    with st.expander("Your own images on this axis", icon=":material/upload:"):
        files = controls.upload(
            "Images to place on the axis",
            controls.IMAGE_TYPES,
            f"rug-{controls.generation()}",
            accept_multiple_files=True,
            help="They are scored on this computer, kept for this visit only, and shown to nobody else.",
        )
        found = []
        for file in files[:MAX_UPLOADS]:
            try:
                scores = cache.upload_scores(view.folder, file.getvalue())
                found.append(
                    (
                        file.name,
                        scores | {axis.entry: float(cache.on_axis(view.folder, axis.entry, scores)) for axis in axes.values()},
                    )
                )
            except AMAError as error:
                name = controls.literal(file.name)
                st.error(f"**{name}** could not be scored. {controls.said(error)}", icon=":material/broken_image:")
        if len(files) > MAX_UPLOADS:
            st.info(f"{len(files)} images were given; the first {MAX_UPLOADS} are placed.")
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
                "Yellow marks under the curves, one per image; a triangle at the end of the axis stands for a score beyond it. "
                + controls.P_VALUE
            )
        elif not files:
            st.caption("Drop a few and see where they fall among the sets.")
    return found


@dataclass(frozen=True)
class Drawn:
    """What the charts show beside the curves, and whether their axes are logarithmic."""

    log: bool
    histogram: bool
    bands: bool
    cuts: bool


def chart(
    view: controls.View,
    found: Densities,
    axis: Axis,
    drawn: Drawn,
    at: float | None,
    own: Sequence[tuple[str, float]],
    *,
    clicked: bool = True,
) -> str:
    """The densities, with whatever else is on the axis; returns the medians in words. `clicked`: a click looks at a score."""
    medians = "; ".join(f"{called(name)} {significant(value)}" for name, value in found.medians.items())
    marks = {f"images around {at:.4g} below": at} if at is not None and found.grid[0] <= at <= found.grid[-1] else {}
    placed = f" Your images: {'; '.join(f'{name} {significant(value)}' for name, value in own)}." if own else ""
    columns = {"density": found.curves} | ({"histogram": found.histograms} if drawn.histogram else {})
    marked = {kind: what for kind, what in limits(view, axis).items() if getattr(drawn, kind)}
    controls.chart(
        density_chart(
            found.grid,
            found.curves,
            xlabel=axis.label,
            log=found.log,
            marks=marks,
            rug=own,
            histograms=found.histograms if drawn.histogram else None,
            labels=names(view, axis, found),
            **marked,
        ),
        {
            "set": np.repeat(list(found.curves), len(found.grid)),
            axis.entry: np.tile(found.grid, len(found.curves)),
            **{name: np.concatenate(list(values.values())) for name, values in columns.items()},
        },
        f"densities-{view.name}-{axis.entry}",
        f"Densities of {axis.name} for {len(found.curves)} sets. Medians: {medians}.{placed}",
        **({"select": ("points",), "on_select": look_at} if clicked else {}),
    )
    return medians


def names(view: controls.View, axis: Axis, found: Densities) -> dict[str, str]:
    """How each curve is called: the OOD sets with their AUROC by the score on the axis."""
    aurocs = cache.aurocs(view.folder)
    return {
        name: called(name) + (f" {aurocs[name][axis.name]:.3f}" if axis.name in aurocs.get(name, ()) else "")
        for name in found.curves
    }


def called(name: str) -> str:
    """What a curve is of, in words."""
    return {"train": "training images", "test": "normal test images"}.get(name) or controls.title_of(name)


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
        st.markdown(f"**{controls.literal(called(title))}**: {below} of its {stored.n:,} images score lower")
        try:
            images = cache.stored_pictures(view.folder, stored.name, stored.split, tuple(int(i) for i in rows))
        except AMAError as error:
            scores = ", ".join(significant(values[i]) for i in rows)
            st.info(f"These images are not on this computer, only their scores: {scores}.", icon=":material/hide_image:")
            st.caption(controls.said(error))
            continue
        captions = [significant(values[i], 4) for i in rows]
        st.html(pictures.figures([(c, image, f"{called(title)}, score {c}") for c, image in zip(captions, images)], width=84))


def choose_sets(view: controls.View, choices: list[str]) -> list[str]:
    """The OOD sets to show; at first those that show most together, or, of a model without the scores of AMA, any."""
    aurocs = cache.aurocs(view.folder)
    first = telling_sets(aurocs, controls.FAILING, controls.HOPEFUL) if aurocs and view.of_r else choices[:2]
    chosen = controls.choose_sets(
        controls.MANY,
        "Sets to compare with the normal images",
        choices,
        first,
        placeholder="Choose sets",
    )
    controls.keep_sets(chosen, first)
    return chosen


def choose_axis(view: controls.View, axes: Mapping[str, Axis]) -> tuple[list[Axis], Drawn]:
    """What is on the axis, of Fig. 4 on both axes; and what is drawn."""
    offered = [*([FIG_4] if view.of_r else []), *axes]
    name = controls.choose(
        st.segmented_control,
        "axis",
        "On the axis",
        offered,
        next(iter(axes)),
        required=True,
        on_change=look_nowhere,
    )
    chosen = [axes["R"], axes["A"]] if name == FIG_4 else [axes[name]]
    with st.container(horizontal=True):
        log = controls.switch("log", "Logarithmic axis", True, disabled=not chosen[0].log) and chosen[0].log
        histogram = controls.switch("histogram", "Histogram", False, help="Bins on the same axis, under the smooth curves.")
        bands = controls.switch("bands", "Bands", False, help="On R: μ ± σ and μ ± 2σ of the training images.")
        cuts = controls.switch("cuts", "Cuts", False, help="The values beyond which a score flags at the false-alarm rate α.")
    return chosen, Drawn(log, histogram, bands, cuts)


def of_held_out(view: controls.View, axes: Mapping[str, Axis], log: bool) -> tuple[Axis, Densities]:
    """What can be drawn of a model without stored scores."""
    missing = f"This model has no stored scores; `python -m ama_core measure {access.shown(view.folder)}` makes them."
    if view.of_r:
        st.info(f"{missing} Shown: R of its training images.")
        return axes["R"], cache.train_density(view.folder, log)
    st.info(f"{missing} Shown: its held-out normal images.")
    (score,) = view.scores(view.score)
    axis = replace(axes[score.name], entry=score.ranks_by or score.name, label=score.ranks_by or score.name)
    positive = bool((score.from_anomaly(view.detector.held_out_scores_[score.name]) > 0).all())
    return axis, cache.held_out_density(view.folder, score.name, log and positive)


def on_one_axis(
    view: controls.View, axis: Axis, on_chart: list[tuple[str, str, str]], behind: list[tuple[str, StoredScores]], log: bool
) -> Densities:
    """The densities of one score; linear, with a word on it, where scores are not positive."""
    positive = all((cache.on_axis(view.folder, axis.entry, s.scores) > 0).all() for _, s in behind)
    if log and not positive:
        st.caption("Some of these scores are 0 or less, so the axis is linear.")
    return cache.score_densities(view.folder, axis.entry, tuple(on_chart), log and positive)


def main() -> None:
    view = controls.page(
        "Score densities",
        "An anomaly detector hopes that anomalies score higher than normal images. Here is where they really fall.",
    )
    stored = {(s.name, s.split): s for s in cache.stored(view.folder)}
    results = cache.results(view.folder)
    sets = [name for name, split in stored if name != view.normal and split == "test"]
    chosen = choose_sets(view, [*sets, *(name for name in results if name not in sets)])
    rows = [results[name] for name in chosen if name in results]
    if rows:
        said = {row["ood"]: {by: row["scores"][by]["auroc"] for by in view.detector.score_names()} for row in rows}
        st.info(verdict_of_all(view, said), icon=":material/gavel:")
    axes = axes_of(view)
    shown, drawn = choose_axis(view, axes)

    on_chart = [(split, view.normal, split) for split in ("train", "test") if (view.normal, split) in stored]
    on_chart += [(name, name, "test") for name in chosen if name in sets]
    behind = [(title, stored[name, split]) for title, name, split in on_chart]
    if on_chart:
        found = [on_one_axis(view, axis, on_chart, behind, drawn.log) for axis in shown]
    else:
        shown, found = zip(*[of_held_out(view, axes, drawn.log)])
    axis = shown[0]

    picture, at = st.container(), None
    own = uploads(view, axes)
    if on_chart:
        with st.container(border=True):
            step = round_step(float(found[0].grid[0]), float(found[0].grid[-1]))
            at = controls.optional_number("at", f"Look at the images around this {axis.label}", step, placeholder="a score")
            images_around(view, axis.entry, at, behind)
    with picture:
        places = st.columns(len(shown), gap="medium") if len(shown) > 1 else [st.container()]
        for i, (place, one, densities) in enumerate(zip(places, shown, found)):
            with place:
                if len(shown) > 1:
                    st.markdown(f"**{one.name}**, on the axis {controls.literal(one.label)}")
                placed = [(name, scores[one.entry]) for name, scores in own]
                medians = chart(view, densities, one, drawn, at if i == 0 else None, placed, clicked=i == 0)
                st.caption(f"{one.meaning} Medians: {medians}.")
        counts = "; ".join(f"{called(title)} {s.n:,} of {s.n_total:,}" for title, s in behind)
        st.caption(
            f"The number after a curve's name is its AUROC by the score on the axis. Images behind each curve: "
            f"{counts or 'all that were kept'}. One grid for all, Silverman's bandwidth for each."
        )
        for note in dict.fromkeys(note for _, s in behind for note in s.notes):
            st.caption(controls.literal(note))
        if bare := [name for name in chosen if name not in sets]:
            st.caption(f"Measured, but without stored scores and so without a curve: {', '.join(map(titled, bare))}.")

    st.subheader("How well each score tells them apart")
    if rows:
        table(view, rows)
    else:
        st.info("Choose at least one set that was measured with this model.")
    controls.explain(*view.scores())


with controls.error_panel():
    main()
