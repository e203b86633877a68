"""Reconstructions (the paper's Fig. 2): images, what a model and its counterpart redraw, and where the two differ."""

import html

import cache
import controls
import numpy as np
import pictures
import streamlit as st

NEEDS = ("reconstruct",)
ROWS = 12
DECIDING = "the deciding score"  # keeps its meaning, and the link, when another score decides
ORDERS = ("most anomalous first", "most normal first")
EVERY = "all classes"
SIDES = ("all", "flagged", "passed")
MORE = {"pixel error": "pixel_l1", "‖z‖": "z_norm"}  # what images can be ordered by beside scores, where a model stores it


def siblings(view: controls.View) -> dict:
    """The chosen model and, of AMA, its counterpart with the other reconstruction loss, where that is here."""
    if view.of_r is None:
        return {"Model": view.folder}
    base, models = view.name.removesuffix(controls.PLAIN), cache.models()
    pair = {"Mirrored": base, "Plain": base + controls.PLAIN}
    own = "Plain" if view.detector.settings.reconstruction == "plain" else "Mirrored"
    pair[own] = view.name
    return {title: models[name] for title, name in pair.items() if name in models and not controls.lacking(models[name], NEEDS)}


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
    scores, p_values, first = found.scores, found.scores[f"p_{view.score}"], view.detector.SCORES[0].name
    mapped = [title for title in titles if found.seen[title].maps is not None]
    who = "critic" if view.of_r else "model"
    rows = []
    for i in chosen:
        what = controls.class_name(set_name, int(found.labels[i]))
        cells = [(found.images[i], f"Input: {what}, number {found.index[i]}")]
        for title in titles:
            redrawn = found.seen[title].reconstructions[i]
            cells.append((redrawn, f"{title} reconstruction of {what}"))
            cells.append((pictures.difference_map(found.images[i], redrawn), f"{title} reconstruction minus input"))
            if title in mapped:
                laid_over = pictures.critic_map(found.images[i], found.seen[title].maps[i], found.mean_score[title])
                cells.append((laid_over, f"Where the {title.lower()} {who} sees it"))
        named = dict.fromkeys((first, view.score, by))
        lines = [f"{html.escape(name)} {scores[MORE.get(name, name)][i]:.3g}" for name in named]
        lines += [f"p {p_values[i]:.3f}", *(["<b>flagged</b>"] if p_values[i] <= view.alpha else [])]
        lines.append(f"<small>{html.escape(what)} #{found.index[i]}</small>")
        rows.append((cells, "<br>".join(lines)))
    heads = [
        head
        for title in titles
        for head in (title, f"Δ {title.lower()}", *([f"{who}, {title.lower()}"] if title in mapped else []))
    ]
    st.html(pictures.difference_key())
    if mapped:
        st.html(pictures.critic_key(*(() if view.of_r else ("Map", view.detector.decides))))
    st.html(pictures.image_table(["Input", *heads, "Scores"], rows))


def choose_images(view: controls.View) -> tuple[str, str, str]:
    """The set, what its images are ordered by, and which end comes first."""
    sets = controls.image_sets(view)
    first, second, third = st.columns(3)
    with first:
        chosen = controls.choose(st.selectbox, "set", "Images", sets, sets[0])
    with second:
        stored = [name for name, entry in MORE.items() if entry in view.detector.STORED]
        by = controls.choose(st.selectbox, "sort", "Order by", [DECIDING, *view.detector.score_names(), *stored], DECIDING)
    with third:
        order = controls.choose(st.selectbox, "order", "Which end first", ORDERS, ORDERS[0])
    return chosen, view.score if by == DECIDING else by, order


def choose_some(view: controls.View, found: cache.Gallery, set_name: str, first, second) -> tuple[np.ndarray, str, str]:
    """Which images of a gallery are shown, (N,) bool; their class and their side of the threshold; asked for in two columns."""
    classes = {controls.class_name(set_name, int(label)): label for label in np.unique(found.labels)}
    with first:
        options = [EVERY, *classes] if len(classes) > 1 else [EVERY]
        only = controls.choose(st.selectbox, "class", "Class", options, EVERY, disabled=len(classes) < 2)
    with second:
        side = controls.choose(
            st.segmented_control, "side", f"Side of the threshold, {view.score} at α = {controls.percent(view.alpha)}", SIDES,
            SIDES[0], required=True,
        )  # fmt: skip
    return np.ones(len(found.labels), bool) if only == EVERY else found.labels == classes[only], only, side


def ranked_by(view: controls.View, found: cache.Gallery, by: str, order: str) -> np.ndarray:
    """All images of a gallery in the order that was chosen, as indices."""
    turned = view.detector.anomaly_scores(found.scores)
    ranked = np.argsort(-(turned[by] if by in turned else found.scores[MORE[by]]), kind="stable")
    return ranked if order == ORDERS[0] else ranked[::-1]


def remarks(view: controls.View, found: cache.Gallery, titles: list[str]) -> None:
    """What the figures are of, and what is not shown."""
    maps = found.seen[titles[0]].maps
    said = f"Scores, and p-values by {view.score}, of the chosen model. "
    if maps is not None:
        who, score = ("The critic", "R") if view.of_r else ("The model", f"its {view.detector.decides}")
        said += (
            f"{who} sees a grid of {maps.shape[1]}×{maps.shape[2]} places; what they add to {score} sums to the image's "
            f"{score}, and each model's colours are relative to its own training images. "
        )
    st.caption(said + "; ".join(found.notes))
    if len(titles) == 1 and view.of_r:
        counterpart = view.name.removesuffix(controls.PLAIN) + ("" if view.name.endswith(controls.PLAIN) else controls.PLAIN)
        st.caption(f"A model called {controls.literal(counterpart)} would be shown beside this one.")


def main() -> None:
    view = controls.page(
        "Reconstructions",
        "The model can only redraw what it has learned. What it redraws badly should be an anomaly; look whether that holds.",
        needs=NEEDS,
    )
    chosen, by, order = choose_images(view)
    try:
        found = cache.gallery(view.folder, chosen, siblings(view))
    except controls.AMAError as error:
        st.error(str(error), icon=":material/error:")
        st.info("The other sets in the list above need no download.")
        st.stop()

    set_name = view.normal if chosen == cache.NORMAL else chosen
    first, second, third = st.columns([2, 2, 1])
    kept, only, side = choose_some(view, found, set_name, first, second)
    flagged = found.scores[f"p_{view.score}"] <= view.alpha
    of_class, n_flagged = int(kept.sum()), int((kept & flagged).sum())
    kept &= {"all": True, "flagged": flagged, "passed": ~flagged}[side]
    ranked = ranked_by(view, found, by, order)
    ranked = ranked[kept[ranked]]
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
        show(view, found, set_name, ranked[(page - 1) * ROWS : page * ROWS], titles, by)
    else:
        st.info(
            f"No image here is {side}. Choose another α or score on the left, another class, or all sides of the threshold.",
            icon=":material/filter_alt_off:",
        )
    remarks(view, found, titles)
    controls.download_table(
        "Every image and score in this order (CSV)",
        {
            "number": found.index[ranked],
            "class": [controls.class_name(set_name, int(label)) for label in found.labels[ranked]],
            **{name: column[ranked] for name, column in found.scores.items()},
        },
        f"reconstructions-{view.name}",
    )
    controls.explain(*view.scores(view.detector.SCORES[0].name, view.score), p=True)


with controls.error_panel():
    main()
