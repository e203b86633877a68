"""Check images: from files, a photo or samples to what the model says of each, in plain words."""

import access
import cache
import controls
import localisation
import numpy as np
import pictures
import streamlit as st
import trust
from density_charts import density_chart
from training.form import OWN

from ama_core.analysis.density import share_below
from ama_core.detectors.conformal import decidable, smallest_alpha
from ama_core.formatting import share, significant
from ama_core.runs import queue
from ama_core.runs.folder import runs_dir
from ama_core.scoring.check import drift_warning

SAMPLES = 8  # images of a set that are shown at first
NEAREST = 5
NAMED = 3  # files that a sentence names
KEPT = 100 << 20  # bytes of files that a session keeps when the reader leaves the page
REASONS = 6  # why files could not be read, as the page tells; the table for download tells it of each


def in_words(p: float, n: int) -> str:
    """A conformal p-value from n calibration images, as a sentence."""
    if p <= smallest_alpha(n):
        return f"None of the {n:,} normal images set aside looks this unusual to the model (p ≤ {p:.2g})."
    return f"Of normal images, about {share(p)} look at least this unusual to the model (p = {p:.2g})."


def verdict(p: float, n: int, alpha: float) -> str:
    """The same in a few words, with what follows from it."""
    decided = "Flagged" if p <= alpha else "Not flagged" if decidable(n, alpha) else "Cannot be decided"
    return f"{decided}: {f'none of {n:,}' if p <= smallest_alpha(n) else share(p)}"


Given = list[tuple[str, str, bytes]]  # files that the reader gave: (identity, name, contents)


def files_from_before(key: int) -> Given:
    """What the reader gave before leaving this page, which empties the uploader; nothing after a reset, which changes `key`."""
    generation, given = st.session_state.get("check-files", (key, []))
    if generation != key:
        given = []
    if f"upload-{key}" not in st.session_state:  # just arrived
        st.session_state["check-before"] = given
    return st.session_state["check-before"]


def keep_files(key: int, given: Given) -> None:
    """Keeps what was given for this session, and says so where it is too much for that."""
    fits = sum(len(content) for *_, content in given) <= KEPT
    st.session_state["check-files"] = key, given if fits else []
    if not fits:
        st.caption(f"Together these files exceed {KEPT >> 20} MB, so they are forgotten when you leave this page.")


def forget_files() -> None:
    st.session_state["check-before"] = []


def named(given: Given) -> str:
    """The first files by their names, the others counted."""
    names = [controls.literal(name) for _, name, _ in given[:NAMED]]
    return controls.listed([*names, f"{len(given) - NAMED:,} more"] if len(given) > NAMED else names) + "."


def uploads(view: controls.View) -> tuple[cache.Batch | None, Given]:
    """What the reader gave, checked, and its files; None where nothing was given."""
    key = controls.generation()
    before = files_from_before(key)
    files = controls.upload(
        "Images to check, or a zip of images", [*controls.IMAGE_TYPES, "zip"], f"upload-{key}", accept_multiple_files=True
    )
    given = [*before, *((file.file_id, file.name, file.getvalue()) for file in files)]
    # Not in the address: a link must not ask for the camera.
    if st.toggle("Use the camera", key=f"camera-on-{key}", help="Asks your browser for the camera; the photo stays here.") and (
        photo := st.camera_input("Take a photo", key=f"camera-{key}")
    ):
        given.append((photo.file_id, "camera photo.jpg", photo.getvalue()))
    if before:
        with st.container(horizontal=True, vertical_alignment="center"):
            n = len(before)
            st.markdown(f"{n:,} {'file' if n == 1 else 'files'} from before: {named(before)}", width="content")
            st.button("Remove", icon=":material/delete:", key="remove-before", on_click=forget_files)
    keep_files(key, given)
    if not given:
        st.session_state.pop("checked", None)
        return None, given
    bar = st.progress(0.0, "Reading and scoring …")
    batch = cache.check_uploads(
        view.folder, given, lambda done, total: bar.progress(done / total, f"{done:,} of {total:,} read and scored")
    )
    bar.empty()
    return batch, given


def samples(view: controls.View) -> cache.Batch:
    """Test images of a set in a row."""
    first, second, third = st.columns([3, 1, 1])
    with first:
        sets = controls.image_sets(view)
        chosen = controls.choose_set("sample_set", "Or samples of", sets, sets[0])
    total = len(cache.sample_images(view.folder, chosen).images)
    with second:
        start = controls.number("sample", f"From number (0 to {total - 1:,})", total - 1)
    with third:
        n = controls.number("n", "How many", 24, lowest=1, default=SAMPLES)
    return cache.check_samples(view.folder, chosen, start, start + n)


def drift(view: controls.View, batch: cache.Batch) -> None:
    """Says so where the images as a whole are not like those of the calibration."""
    model = cache.deciding(view.folder, view.score)
    if warning := drift_warning(model, batch.found.examined.scores):
        st.warning(
            f"**{warning}** Another camera, lighting or crop may be the cause: then train on images like these, or take "
            f"p-values from normal ones among them: `python -m ama_core calibrate {access.shown(view.folder)} GOOD --out NEW`.",
            icon=":material/trending_up:",
        )


def table(view: controls.View, batch: cache.Batch) -> int:
    """Every image as a row, the most anomalous first; returns which image is chosen."""
    found, detector = batch.found, view.detector
    scores, p_values = found.examined.scores, found.examined.scores[f"p_{view.score}"]
    n = len(detector.held_out_scores_[view.score])
    order = np.argsort(-detector.anomaly_scores(scores)[view.score], kind="stable")
    of_r = {"R above": [100 * share_below(scores["R"][i], view.of_r.train_r) for i in order]} if view.of_r else {}
    told = f"Verdict at α = {controls.percent(view.alpha)}"
    columns = {
        "Image": [batch.icons[i] for i in order],
        "Name": [found.names[i] for i in order],
        told: [verdict(p_values[i], n, view.alpha) for i in order],
        f"p by {view.score}": p_values[order],
        **{name: scores[name][order] for name in detector.score_names()},
        **of_r,
        "Preprocessing": ["; ".join((*found.notes[i], *(["⚠ see below"] if found.concerns[i] else []))) for i in order],
    }
    small = st.column_config.NumberColumn
    # Another order or batch begins with its first row, chosen by nobody: where a row is marked from the start, as in
    # "single-row-required" too, the grid lets no key choose another.
    key = f"table-{controls.generation()}-{view.score}-{hash(found.names)}"
    state = controls.grid(
        columns,
        row_height=52,
        height=min(40 + 52 * len(order), 456),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        alt=f"{len(order)} images with their verdicts and scores, the most anomalous first",
        column_config={
            "Image": st.column_config.ImageColumn(width=52, pinned=True, help="As the model sees it."),
            "Name": st.column_config.TextColumn(width=110),
            told: st.column_config.TextColumn(help="How many normal images look at least as unusual."),
            f"p by {view.score}": small(format="%.3g", help=controls.P_VALUE),
            **{score.name: small(format="%.3g", help=controls.meaning(score)) for score in detector.SCORES},
            "R above": small(format="%.0f %%", help="The fraction of the training images whose R is lower."),
        },
    )
    rows = state["selection"]["rows"]
    return int(order[rows[0] if rows and rows[0] < len(order) else 0])


def download(view: controls.View, batch: cache.Batch) -> None:
    """Everything that is known of every image, and why the others could not be read, as CSV."""
    found, rest = batch.found, len(batch.found.refused)
    columns = {"file": [*found.names, *(name for name, _ in found.refused)]}
    if len(found):
        scores = found.examined.scores
        decided = decidable(len(view.detector.held_out_scores_[view.score]), view.alpha)
        flagged = (scores[f"p_{view.score}"] <= view.alpha).tolist() if decided else [None] * len(found)
        columns |= {name: [*values.tolist(), *[None] * rest] for name, values in scores.items()}
        if view.of_r:
            above = [share_below(r, view.of_r.train_r) for r in scores["R"]]
            columns["R_above_fraction_of_training"] = [*above, *[None] * rest]
        columns[f"flagged_by_{view.score}_at_{view.alpha:g}"] = [*flagged, *[None] * rest]
    columns["done_to_it"] = [*("; ".join(notes) for notes in found.notes), *[""] * rest]
    columns["may_cause_the_score"] = [*(" ".join(found) for found in found.concerns), *[""] * rest]
    columns["error"] = [*[""] * len(found), *(why for _, why in found.refused)]
    controls.download_table("The whole table (CSV)", columns, f"checked-{view.name}")


def neighbours(view: controls.View, batch: cache.Batch, i: int) -> None:
    """The training images that the model sees most like image i."""
    sees, features = (
        ("the critic sees", "the critic's standardised features f(x, x)")
        if view.of_r
        else (
            "the model sees",
            "the model's standardised features",
        )
    )
    st.subheader(f"The most similar training images, as {sees} them")
    stored = cache.nearest(view.folder)
    if stored is None:
        st.info(
            "This model has no sample of its training images to compare with. "
            f"`python -m ama_core measure {access.shown(view.folder)}` makes one where the training images are available."
        )
        return
    positions, distances = (a[0] for a in stored.nearest(batch.found.examined.features[i : i + 1], NEAREST))
    captions = [
        f"{controls.class_name(view.normal, int(stored.labels[j]))} #{stored.index[j]}: distance {d:.2g}"
        for j, d in zip(positions, distances)
    ]
    try:
        images = cache.nearest_images(view.folder)[positions]
    except controls.AMAError as error:
        st.markdown("\n".join(f"- {controls.literal(caption)}" for caption in captions))
        st.info(f"Their pictures cannot be shown. {controls.said(error)}")
    else:
        st.html(pictures.figures([(c, image, f"Training image {c}") for c, image in zip(captions, images)], 112))
    st.caption(
        f"The nearest {len(positions)} of {len(stored):,} training images that the model knows, by the Euclidean distance of "
        f"{features}. The first lies at {distances[0] / (stored.typical or 1):.1f} times the "
        f"distance at which a training image typically has its own nearest neighbour among them ({stored.typical:.2g})."
    )


def verdict_in_full(view: controls.View, batch: cache.Batch, i: int) -> None:
    """Whether image i is flagged, how unusual that makes it, and what else may have caused its score."""
    p, n = float(batch.found.examined.scores[f"p_{view.score}"][i]), len(view.detector.held_out_scores_[view.score])
    rate = controls.percent(view.alpha)
    if not decidable(n, view.alpha):
        st.info(
            f"**Cannot be decided** at a false-alarm rate of {rate}, for which {n:,} calibration images are too few. "
            f"{in_words(p, n)}",
            icon=":material/help:",
        )
    elif p <= view.alpha:
        st.warning(f"**Flagged as anomalous** at a false-alarm rate of {rate}. {in_words(p, n)}", icon=":material/flag:")
    else:
        st.success(f"**Not flagged** at a false-alarm rate of {rate}. {in_words(p, n)}", icon=":material/check_circle:")
    if batch.found.concerns[i]:
        st.warning(
            f"{' '.join(batch.found.concerns[i])} This alone may cause the score: the model saw other images in training.",
            icon=":material/warning:",
        )


def images(view: controls.View, batch: cache.Batch, i: int) -> None:
    """Image i as given and as the model sees it; where it can, its reconstruction, and a map of what it finds unusual."""
    found, examined, name = batch.found, batch.found.examined, batch.found.names[i]
    seen = examined.images[i]
    parts = [
        ("Given", found.given[i], f"The image as given, {name}"),
        (f"What the model sees, {seen.shape[1]}×{seen.shape[0]}", seen, "The prepared image"),
    ]
    if examined.reconstructions is not None:
        reconstructed = examined.reconstructions[i]
        parts.append(("Its reconstruction", reconstructed, "What the model reconstructs"))
        parts.append(("Difference", pictures.difference_map(seen, reconstructed), "Reconstruction minus image"))
    if examined.maps is not None:
        where, of = ("the critic", "R") if view.of_r else ("the model", "its score")
        laid_over = pictures.critic_map(seen, examined.maps[i], cache.mean_score(view.detector))
        parts.append((f"Where {where} sees it", laid_over, f"What each place of {where}'s grid adds to {of}, over the image"))
    st.html(pictures.figures(parts, 148))


def numbers(view: controls.View, batch: cache.Batch, i: int) -> None:
    """The scores of image i with their p-values, and what was done to it."""
    found = batch.found
    scores = {key: float(values[i]) for key, values in found.examined.scores.items()}
    names, lead = view.detector.score_names(), view.detector.SCORES[0]
    left, right = st.columns([1, 1], gap="large")
    with left:
        done = controls.literal("; ".join(found.notes[i]))
        st.caption(f"Preprocessing: {done}." if done else "No preprocessing was needed: the image fits the model as it is.")
        if found.examined.reconstructions is not None:
            st.html(pictures.difference_key())
        if found.examined.maps is not None:
            st.html(pictures.critic_key(*(() if view.of_r else ("Map", view.detector.decides))))
        first, second = st.columns(2)
        first.metric(lead.name, significant(scores[lead.name], 4), help=controls.meaning(lead))
        second.metric(f"p-value by {view.score}", f"{scores[f'p_{view.score}']:.4f}", help=controls.P_VALUE)
    with right:
        st.table(
            {
                "Score": list(names),
                "Value": [significant(scores[score], 4) for score in names],
                "p-value": [f"{scores[f'p_{score}']:.4f}" for score in names],
                f"At α = {controls.percent(view.alpha)}": [
                    verdict(scores[f"p_{score}"], len(view.detector.held_out_scores_[score]), view.alpha).split(":")[0].lower()
                    for score in names
                ],
            },
            hide_index=True,
        )
        if view.of_r:
            below = share_below(scores["R"], view.of_r.train_r)
            st.caption(f"Its R is higher than that of {controls.percent(below)} of the training images.")


def among_training(view: controls.View, r: float) -> None:
    """R of an image among the training images."""
    st.subheader("Its R among the training images")
    density = cache.train_density(view.folder, log=True)
    mu, sigma = view.of_r.mu, view.of_r.sigma
    controls.chart(
        density_chart(
            density.grid,
            density.curves,
            xlabel="R-score",
            log=True,
            marks={"this image": r},
            bands=[(f"μ ± {k}σ of training R", mu - k * sigma, mu + k * sigma) for k in (2, 1)],
        ),
        {"R": density.grid, "density_train": density.curves["train"], "R_of_image": np.full(len(density.grid), r)},
        f"check-{view.name}",
        f"R of this image, {significant(r)}, on the density of the training images, median "
        f"{significant(density.medians['train'])}.",
    )


def among_held_out(view: controls.View, value: float) -> None:
    """The deciding score of an image among those of the held-out normal images."""
    (score,) = view.scores(view.score)
    name = score.ranks_by or score.name
    st.subheader(f"Its {controls.literal(name)} among the held-out normal images")
    held_out = view.detector.held_out_scores_[score.name]
    log = score.log_axis and not score.low and value > 0 and bool((held_out > 0).all())
    density = cache.held_out_density(view.folder, score.name, log)
    cuts = {}
    if decidable(len(held_out), view.alpha):
        edge = score.from_anomaly(view.detector.threshold(score.name, view.alpha))
        side = "left" if score.low else "right"
        cuts = {f"flagged {side} of this (α = {controls.percent(view.alpha)})": [edge]}
    controls.chart(
        density_chart(
            density.grid,
            density.curves,
            xlabel=name,
            log=log,
            marks={"this image": value},
            cuts=cuts,
        ),
        {
            name: density.grid,
            "density_held_out": density.curves[cache.HELD_OUT],
            f"{name}_of_image": np.full(len(density.grid), value),
        },
        f"check-{view.name}",
        f"{name} of this image, {significant(value)}, on the density of held-out normal images, median "
        f"{significant(density.medians[cache.HELD_OUT])}.",
    )


def show(view: controls.View, batch: cache.Batch, files: Given, i: int) -> str | None:
    """One image with its verdict, what was done to it, its scores, its place among normal images, and its like.

    Returns the map that outlines come from; None where there is none.
    """
    scores = batch.found.examined.scores
    st.subheader(controls.literal(batch.found.names[i]))
    verdict_in_full(view, batch, i)
    if view.of_r:
        trust.disagreement(view, scores, i)
    images(view, batch, i)
    numbers(view, batch, i)
    if by_map := localisation.choose_map(view):
        localisation.show(view, batch, files, i, by_map)
    if batch.found.examined.features is not None:
        with controls.error_panel():
            neighbours(view, batch, i)
    if view.of_r:
        among_training(view, float(scores["R"][i]))
    else:
        (score,) = view.scores(view.score)
        among_held_out(view, float(scores[score.ranks_by or score.name][i]))
    return by_map


def refusals(view: controls.View, batch: cache.Batch) -> None:
    """Which files could not be read, and why; where reading stopped."""
    found = batch.found
    reasons: dict[str, list[str]] = {}
    for name, why in found.refused:
        reasons.setdefault(why, []).append(controls.literal(name))
    lines = []
    for why, names in list(reasons.items())[:REASONS]:
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        lines.append(f"- **{', '.join(names[:3])}**{more} could not be scored: {controls.said(why)}")
    if len(reasons) > REASONS:
        lines.append("- The others are listed in the table for download.")
    if lines:
        st.error("\n".join(lines), icon=":material/broken_image:")
    if found.more:
        st.info(
            f"The first {len(found):,} images are shown. `python -m ama_core score {view.name} FILE …` takes any number of "
            "files and folders and writes a CSV table."
        )


def summary(view: controls.View, batch: cache.Batch) -> None:
    """How many images are flagged, and on how many the raw score disagrees."""
    found = batch.found.examined.scores
    flagged, total = int((found[f"p_{view.score}"] <= view.alpha).sum()), len(batch.found)
    apart = int(sum(trust.disagrees(view, found, i) for i in range(total))) if view.of_r else 0
    n = len(view.detector.held_out_scores_[view.score])
    choose = "Choose a row, by its box or with the arrow keys and Shift + Space, to see more of it."
    if not decidable(n, view.alpha):
        st.markdown(f"**Which of these images are anomalous cannot be decided** at this false-alarm rate. {choose}")
        return
    disagree = f" On {apart:,} of the {total:,} R disagrees with A or T: their own verdicts below say how." if apart else ""
    st.markdown(
        f"**{flagged:,} of {total:,} {'image' if total == 1 else 'images'} {'is' if flagged == 1 else 'are'} flagged** by "
        f"{view.score} at a false-alarm rate α of {controls.percent(view.alpha)}; of the same number of normal images, about "
        f"{significant(view.alpha * total, 2)} would be.{disagree} {choose}"
    )


def train_on(files: Given, n: int) -> None:
    """A button that keeps the given images on this computer and opens the page that trains with them."""
    if st.button(
        "These are normal for me: train on them",
        icon=":material/model_training:",
        key="train-on",
        help=f"Saves these {n:,} images in the folder of runs and opens the page Train with their path filled in.",
    ):
        path, _ = queue.save_images(runs_dir(), [(name, data) for _, name, data in files], cache.MAX_CHECKED)
        kept = st.session_state.setdefault("train-kept", {})
        kept["train-path"] = st.session_state["train-path"] = str(path)
        st.switch_page("views/train.py", query_params={"data": OWN})


def main() -> None:
    view = controls.page(
        "Check images",
        "Drop images of your own, or a zip of them, take a photo, or look at samples. They stay on this computer.",
    )
    trust.panel(view)
    batch, files = uploads(view)
    batch = batch or samples(view)
    refusals(view, batch)
    if len(batch.found):
        summary(view, batch)
        drift(view, batch)
        chosen = table(view, batch)
        actions = st.container(horizontal=True)  # filled last: the report has what is chosen below
        by_map = show(view, batch, files, chosen)
        with actions:
            download(view, batch)
            st.download_button(
                "Report (HTML)",
                lambda: cache.report(view.folder, view.name, view.score, view.alpha, batch, files, by_map),
                f"report-{view.name}.html",
                "text/html",
                icon=":material/article:",
                on_click="ignore",
                key="report",
                help="One file with verdicts, pictures and outlines, to send or to keep.",
            )
            if files and not access.public():
                train_on(files, len(batch.found))
    elif files:
        download(view, batch)
    controls.explain(*view.scores(), p=True)


with controls.error_panel():
    main()
