"""Reconstructions (the paper's Fig. 2): input, mirrored and plain, their differences, and where the critic sees them."""

import html

import cache
import charts
import controls
import numpy as np
import streamlit as st

from ama_core.detectors.ama.scores import SCORES, anomaly_scores

ROWS = 12
DECIDING = "the deciding score"  # keeps its meaning, and the link, when another score decides
ORDERS = ("most anomalous first", "most normal first")
EVERY = "all classes"
SIDES = ("all", "flagged", "passed")
MORE = {"pixel error": "pixel_l1", "‖z‖": "z_norm"}  # what the images can be ordered by beside R, A, M and T


def siblings(view: controls.View) -> dict:
    """The chosen model and its counterpart with the other reconstruction loss, where that is at hand."""
    base, models = view.name.removesuffix(controls.PLAIN), cache.models()
    pair = {"Mirrored": base, "Plain": base + controls.PLAIN}
    own = "Plain" if view.detector.config.reconstruction == "plain" else "Mirrored"
    pair[own] = view.name
    return {title: models[name] for title, name in pair.items() if name in models}


def what_order(by: str, order: str) -> str:
    """What an order means for a score, in words."""
    if by == "‖z‖":
        return f"Ordered by ‖z‖, the length of the latent code, the {'longest' if order == ORDERS[0] else 'shortest'} first."
    if by == "pixel error":
        first = "largest" if order == ORDERS[0] else "smallest"
        return f"Ordered by pixel error, the mean |x − x̂| where values run from −1 to 1, the {first} first."
    return f"Ordered by {by}, the {order}."


def show(view: controls.View, found: cache.Gallery, set_name: str, chosen: np.ndarray, titles: list[str], by: str) -> None:
    """Some images of a gallery as rows of pictures with their scores."""
    scores, p_values = found.scores, found.scores[f"p_{view.score}"]
    rows = []
    for i in chosen:
        what = controls.class_name(set_name, int(found.labels[i]))
        cells = [(found.images[i], f"Input: {what}, number {found.index[i]}")]
        for title in titles:
            redrawn, shares = found.seen[title].reconstructions[i], found.seen[title].maps[i]
            cells += [
                (redrawn, f"{title} reconstruction of {what}"),
                (charts.difference_map(found.images[i], redrawn), f"{title} reconstruction minus input"),
                (charts.critic_map(found.images[i], shares, found.mean_r[title]), f"Where the {title.lower()} critic sees it"),
            ]
        lines = [f"{name} {scores[MORE.get(name, name)][i]:.3g}" for name in dict.fromkeys(("R", view.score, by))]
        lines += [f"p {p_values[i]:.3f}", *(["<b>flagged</b>"] if p_values[i] <= view.alpha else [])]
        lines.append(f"<small>{html.escape(what)} #{found.index[i]}</small>")
        rows.append((cells, "<br>".join(lines)))
    heads = [head for title in titles for head in (title, f"Δ {title.lower()}", f"critic, {title.lower()}")]
    st.html(charts.image_table(["Input", *heads, "Scores"], rows))


with controls.error_panel():
    view = controls.page(
        "Reconstructions",
        "The model can only redraw what it has learned. What it redraws badly should be an anomaly; look whether that holds.",
    )
    sets = controls.image_sets(view)
    first, second, third = st.columns(3)
    with first:
        chosen = controls.choose(st.selectbox, "set", "Images", sets, sets[0])
    with second:
        by = controls.choose(st.selectbox, "sort", "Order by", [DECIDING, *SCORES, *MORE], DECIDING)
        by = view.score if by == DECIDING else by
    with third:
        order = controls.choose(st.selectbox, "order", "Which end first", ORDERS, ORDERS[0])

    try:
        found = cache.gallery(view.folder, chosen, siblings(view))
    except controls.AMAError as error:
        st.error(str(error), icon=":material/error:")
        st.info("The other sets in the list above need no download.")
        st.stop()

    set_name = (view.detector.info_.get("normal") or {}).get("name") if chosen == cache.NORMAL else chosen
    classes = {controls.class_name(set_name, int(label)): label for label in np.unique(found.labels)}
    first, second, third = st.columns([2, 2, 1])
    with first:
        options = [EVERY, *classes] if len(classes) > 1 else [EVERY]
        only = controls.choose(st.selectbox, "class", "Class", options, EVERY, disabled=len(classes) < 2)
    with second:
        side = controls.choose(
            st.segmented_control, "side", f"Side of the threshold, {view.score} at α = {controls.percent(view.alpha)}", SIDES,
            SIDES[0], required=True,
        )  # fmt: skip
    flagged = found.scores[f"p_{view.score}"] <= view.alpha
    kept = np.ones(len(flagged), bool) if only == EVERY else found.labels == classes[only]
    of_class, n_flagged = int(kept.sum()), int((kept & flagged).sum())
    kept &= {"all": True, "flagged": flagged, "passed": ~flagged}[side]

    values = anomaly_scores(found.scores).get(by, found.scores.get(MORE.get(by)))
    ranked = np.argsort(-values, kind="stable")
    ranked = ranked[kept[ranked]]
    if order == ORDERS[1]:
        ranked = ranked[::-1]
    pages = max(1, -(-len(ranked) // ROWS))
    with third:
        page = controls.number("page", f"Page of {pages}", pages, lowest=1)

    drawn = f", drawn with seed 0 from {found.n_total:,}" if found.n_total > len(flagged) else ""
    share = f" ({controls.percent(n_flagged / of_class)})" if n_flagged else ""
    of = "" if only == EVERY else f" of class {controls.literal(only)}"
    st.markdown(
        f"Shown: **{len(ranked):,} of {len(flagged):,} images**{drawn}. **{n_flagged:,} of {of_class:,}{of} are flagged** by "
        f"{view.score} at α = {controls.percent(view.alpha)}{share}. {what_order(by, order)}"
    )
    titles = [title for title, seen in found.seen.items() if seen.images.shape == found.images.shape]
    if len(ranked):
        st.html(charts.difference_key())
        st.html(charts.critic_key())
        show(view, found, set_name, ranked[(page - 1) * ROWS : page * ROWS], titles, by)
    else:
        st.info(
            f"No image here is {side}. Choose another α or score on the left, another class, or all sides of the threshold.",
            icon=":material/filter_alt_off:",
        )
    height, width = found.seen[titles[0]].maps.shape[1:]
    st.caption(
        f"Scores, and p-values by {view.score}, of the chosen model. The critic sees a grid of {height}×{width} places; what "
        "they add to R sums to the image's R, and each model's colours are relative to its own training images. "
        + "; ".join(found.notes)
    )
    if len(titles) == 1:
        counterpart = view.name.removesuffix(controls.PLAIN) + ("" if view.name.endswith(controls.PLAIN) else controls.PLAIN)
        st.caption(f"A model called {controls.literal(counterpart)} would be shown beside this one.")
    controls.download_table(
        "Every image and score in this order (CSV)",
        {
            "number": found.index[ranked],
            "class": [controls.class_name(set_name, int(label)) for label in found.labels[ranked]],
            **{name: column[ranked] for name, column in found.scores.items()},
        },
        f"reconstructions-{view.name}",
    )
    controls.explain(*dict.fromkeys(("R", view.score, "p")))
