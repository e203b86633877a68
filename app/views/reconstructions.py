"""Reconstructions (the paper's Fig. 2): input, mirrored and plain side by side, ordered by a score."""

import html

import cache
import charts
import controls
import numpy as np
import streamlit as st

from ama_core.data import catalog
from ama_core.scores import anomaly_scores

ROWS = 12
ORDERS = ("most anomalous first", "most normal first")


def siblings(view: controls.View) -> dict:
    """The chosen model and its counterpart with the other reconstruction loss, where that is at hand."""
    base, models = view.name.removesuffix(controls.PLAIN), cache.models()
    pair = {"Mirrored": base, "Plain": base + controls.PLAIN}
    own = "Plain" if view.detector.config.reconstruction == "plain" else "Mirrored"
    pair[own] = view.name
    return {title: models[name] for title, name in pair.items() if name in models}


with controls.error_panel():
    view = controls.page(
        "Reconstructions",
        "The model can only redraw what it has learned. What it redraws badly should be an anomaly; look whether that holds.",
    )
    normal = (view.detector.info_.get("normal") or {}).get("name")
    sets = controls.image_sets(view)
    first, second, third = st.columns([2, 2, 1])
    with first:
        chosen = controls.choose(st.selectbox, "set", "Images", sets, sets[0])
    with second:
        order = controls.choose(st.selectbox, "order", f"Order by {view.score}", ORDERS, ORDERS[0])

    try:
        found = cache.gallery(view.folder, chosen, siblings(view))
    except controls.AMAError as error:
        st.error(str(error), icon=":material/error:")
        st.info("The other sets in the list above need no download.")
        st.stop()

    ranked = np.argsort(-anomaly_scores(found.scores)[view.score], kind="stable")
    if order == ORDERS[1]:
        ranked = ranked[::-1]
    pages = -(-len(ranked) // ROWS)
    with third:
        page = controls.number("page", f"Page of {pages}", pages, lowest=1)

    titles = [title for title, images in found.reconstructions.items() if images.shape == found.images.shape]
    info = catalog().get(normal if chosen == cache.NORMAL else chosen)
    names = info.classes if info else ()
    rows = []
    for i in ranked[(page - 1) * ROWS : page * ROWS]:
        what = names[found.labels[i]] if names else chosen
        redrawn = {title: found.reconstructions[title][i] for title in titles}
        cells = [(found.images[i], f"Input: {what}, number {found.index[i]}")]
        cells += [(image, f"{title} reconstruction of {what}") for title, image in redrawn.items()]
        cells += [(charts.difference_map(found.images[i], image), f"{t} minus input") for t, image in redrawn.items()]
        p = found.scores[f"p_{view.score}"][i]
        lines = [f"{score} {found.scores[score][i]:.3g}" for score in dict.fromkeys(("R", view.score))]
        lines += [f"p {p:.3f}", *(["<b>flagged</b>"] if p <= view.alpha else [])]
        lines.append(f"<small>{html.escape(what)} #{found.index[i]}</small>")
        rows.append((cells, "<br>".join(lines)))
    st.html(charts.difference_key())
    st.html(charts.image_table(["Input", *titles, *(f"Δ {title.lower()}" for title in titles), "Scores"], rows))
    drawn = ", drawn with seed 0" if found.n_total > len(ranked) else ""
    st.caption(
        f"{len(ranked):,} of {found.n_total:,} images{drawn}. Scores, and p-values by {view.score}, of the chosen model. "
        + "; ".join(found.notes)
    )
    if len(titles) == 1:
        counterpart = view.name.removesuffix(controls.PLAIN) + ("" if view.name.endswith(controls.PLAIN) else controls.PLAIN)
        st.caption(f"A model called {controls.literal(counterpart)} would be shown beside this one.")
    controls.explain(*dict.fromkeys(("R", view.score, "p")))
