"""Reconstructions (the paper's Fig. 2): images, what a model and its counterpart reconstruct, and whether that is the image."""

import html

import cache
import controls
import numpy as np
import pictures
import streamlit as st

from ama_core.analysis.fidelity import FAITHFUL, LOOSE, Fidelity
from ama_core.evaluation.cases import shows_both, telling_set
from ama_core.formatting import significant

NEEDS = ("reconstruct",)
ROWS = 6
COME = "stored order"
DECIDING = "the deciding score"  # keeps its meaning, and the link, when another score decides
ORDERS = ("most anomalous first", "most normal first")
EVERY = "all classes"
SIDES = ("all", "flagged", "passed")
MORE = {"pixel error": "pixel_l1", "‖z‖": "z_norm"}  # what images can be ordered by beside scores, where a model stores it
SCORES, DIFFERENCES, MAPS = EXTRAS = ("scores", "differences", "critic maps")
NOTHING = "no other set"


def siblings(view: controls.View) -> dict:
    """The chosen model and, of AMA, its counterpart with the other reconstruction loss, where that is here."""
    if view.of_r is None:
        return {"Model": view.folder}
    base, models = view.name.removesuffix(controls.PLAIN), cache.models()
    pair = {"Mirrored": base, "Plain": base + controls.PLAIN}
    own = "Plain" if view.detector.settings.reconstruction == "plain" else "Mirrored"
    pair[own] = view.name
    return {title: models[name] for title, name in pair.items() if name in models and not controls.lacking(models[name], NEEDS)}


def steps_of(folders: dict) -> dict[str, int | None]:
    """How many steps each model was trained for; None where it does not say."""
    return {title: cache.info(folder).get("training", {}).get("steps") for title, folder in folders.items()}


def what_order(by: str, order: str) -> str:
    """What an order means for a score, in words."""
    if by == COME:
        return ""
    if by == "‖z‖":
        return f"Ordered by ‖z‖, the length of the latent code, the {'longest' if order == ORDERS[0] else 'shortest'} first."
    if by == "pixel error":
        first = "largest" if order == ORDERS[0] else "smallest"
        return f"Ordered by pixel error, the mean |x − x̂| where values run from −1 to 1, the {first} first."
    return f"Ordered by {by}, the {order}."


# What it comes to


def follows(facts: Fidelity) -> str:
    """What the outputs of a model have to do with the images, in words."""
    if facts.ratio <= FAITHFUL:
        return "reconstructs the image it was given"
    return "follows its image only loosely" if facts.ratio <= LOOSE else "reconstructs a similar image, not this one"


def verdict(normal: dict[str, Fidelity], beside: dict[str, Fidelity], ood: str) -> tuple[bool, str]:
    """Whether the page's point holds of the normal test images, and the sentences that say so."""
    who = [f"the {title.lower()} model {follows(facts)}" for title, facts in normal.items()]
    percent, holds = controls.percent, True
    said = f"**{'; '.join(who)}.** ".replace("**the", "**The")
    said += (
        "; ".join(
            f"{title}: for {percent(facts.found)} of {facts.n} images its own reconstruction is the nearest of all; pixel "
            f"error {percent(facts.error)} of the full scale ({percent(facts.other)} with another image's reconstruction)"
            for title, facts in normal.items()
        )
        + "."
    )
    if len(normal) == 2:
        mirrored, plain = normal["Mirrored"], normal["Plain"]
        holds = mirrored.ratio <= FAITHFUL and plain.ratio > LOOSE
        said += (
            f" The plain outputs differ among themselves by {percent(plain.spread)}, the images by "
            f"{percent(plain.input_spread)}: the plain loss matches the *set*, the mirrored one the *image*."
            if holds
            else " So the paper's point, that plain matches the set and mirrored the image, does not hold for this pair."
        )
    for title, facts in list(beside.items())[:1]:
        own = normal[title].error
        if facts.error <= own:
            said += (
                f" But the {title.lower()} model reconstructs {ood}, which it has never seen, no worse than its own set "
                f"({percent(facts.error)} against {percent(own)}): the error alone does not tell them apart."
            )
        else:
            said += f" {ood}, which it has never seen, it misses by {percent(facts.error)}."
    return holds, said


def first_beside(view: controls.View, others: list[str]) -> str:
    """The set to begin with beside the normal images: one that R takes for normal, else the paper's first for this set."""
    aurocs = cache.aurocs(view.folder)
    telling = telling_set(aurocs, controls.LEADING) if view.of_r and aurocs else None
    if telling in others and shows_both(aurocs[telling]):
        return telling
    return next((name for name in (*controls.papers_sets(view), telling) if name in others), next(iter(others), NOTHING))


def say(view: controls.View, folders: dict, facts: dict[str, dict[str, Fidelity]], set_name: str) -> None:
    """The verdict above the pictures, and what to know of the two models."""
    normal, beside = facts.get(cache.NORMAL), facts.get(set_name, {}) if set_name != cache.NORMAL else {}
    if normal:
        holds, words = verdict(normal, beside, f"**{controls.title_of(set_name)}**")
        (st.success if holds else st.warning)(words, icon=":material/compare:" if holds else ":material/report:")
    steps = steps_of(folders)
    if len(set(steps.values())) > 1:
        said = " and ".join(f"{title.lower()} {n:,} steps" if n else f"{title.lower()} unknown" for title, n in steps.items())
        st.caption(
            f":material/warning: The two were not trained alike: {said}. Part of what differs may be due to that; train the "
            "shorter one for as many steps to see the losses alone."
        )
    if view.of_r and len(folders) == 1:
        counterpart = view.name.removesuffix(controls.PLAIN) + ("" if view.name.endswith(controls.PLAIN) else controls.PLAIN)
        st.caption(f"A model called {controls.literal(counterpart)} would be shown beside this one.")


def numbers(facts: dict[str, dict[str, Fidelity]]) -> None:
    """The figures behind the verdict, for every set that is shown."""
    columns = {
        "Set": [controls.title_of(name) for name, models in facts.items() for _ in models],
        "Model": [title for models in facts.values() for title in models],
    }
    every = [f for models in facts.values() for f in models.values()]
    columns |= {
        "misses its image by": [controls.percent(f.error) for f in every],
        "… another's output by": [controls.percent(f.other) for f in every],
        "own output nearest": [controls.percent(f.found) for f in every],
        "outputs apart": [controls.percent(f.spread) for f in every],
        "images apart": [controls.percent(f.input_spread) for f in every],
        "images": [f.n for f in every],
    }
    with st.expander("The numbers behind this", icon=":material/table_rows:"):
        controls.grid(columns, width="stretch")
        st.caption(
            "All distances are mean absolute differences of pixels, 100 % being the difference between black and white. A "
            "model whose output is the nearest of all to its image reconstructs that image; one whose outputs are no nearer to "
            "it than those of other images only draws something similar. *Apart*: the mean over pairs."
        )


# The pictures


def table(view: controls.View, found: cache.Gallery, set_name: str, chosen: np.ndarray, steps: dict, by: str, extras) -> str:
    """Some images of a gallery as rows of pictures, as HTML; `extras`: which of EXTRAS stand beside them."""
    scores, p_values, first = found.scores, found.scores[f"p_{view.score}"], view.detector.SCORES[0].name
    titles = [title for title, seen in found.seen.items() if seen.images.shape == found.images.shape]
    mapped = [title for title in titles if MAPS in extras and found.seen[title].maps is not None]
    who = "critic" if view.of_r else "model"
    rows = []
    for i in chosen:
        what = controls.class_name(set_name, int(found.labels[i]))
        cells = [(found.images[i], f"Input: {what}, number {found.index[i]}")]
        cells += [(found.seen[title].reconstructions[i], f"{title} reconstruction of {what}") for title in titles]
        for title in titles:
            if DIFFERENCES in extras:
                reconstructed = found.seen[title].reconstructions[i]
                cells.append((pictures.difference_map(found.images[i], reconstructed), f"{title} reconstruction minus input"))
            if title in mapped:
                laid_over = pictures.critic_map(found.images[i], found.seen[title].maps[i], found.mean_score[title])
                cells.append((laid_over, f"Where the {title.lower()} {who} sees it"))
        lines = [f"<small>{html.escape(what)} #{found.index[i]}</small>"]
        if SCORES in extras:
            named = [name for name in dict.fromkeys((first, view.score, by)) if name != COME]
            lines = [f"{html.escape(name)} {significant(scores[MORE.get(name, name)][i])}" for name in named]
            lines += [f"p {p_values[i]:.3f}", *(["<b>flagged</b>"] if p_values[i] <= view.alpha else [])]
            lines.append(f"<small>{html.escape(what)} #{found.index[i]}</small>")
        rows.append((cells, "<br>".join(lines)))
    heads = ["Input", *(f"{title}, {steps[title]:,} steps" if steps.get(title) else title for title in titles)]
    for title in titles:
        heads += [f"Difference, {title.lower()}"] if DIFFERENCES in extras else []
        heads += [f"{who.capitalize()}, {title.lower()}"] if title in mapped else []
    return pictures.image_table([*heads, "Scores" if SCORES in extras else ""], rows)


def keys(view: controls.View, found: cache.Gallery, extras) -> None:
    """The colour keys of what stands beside the pictures."""
    if DIFFERENCES in extras:
        st.html(pictures.difference_key())
    maps = next(iter(found.seen.values())).maps
    if MAPS in extras and maps is None:
        st.caption("This model gives no maps.")
    elif MAPS in extras:
        st.html(pictures.critic_key(*(() if view.of_r else ("Map", view.detector.decides))))
        who, score = ("The critic", "R") if view.of_r else ("The model", f"its {view.detector.decides}")
        st.caption(
            f"{who} sees a grid of {maps.shape[1]}×{maps.shape[2]} places; what they add to {score} sums to the image's "
            f"{score}, and each model's colours are relative to its own training images."
        )


# Which images


def choose_sets(view: controls.View) -> tuple[str, str, list[str]]:
    """The set, the one beside it, and what stands beside the pictures."""
    sets = controls.image_sets(view)
    first, second, third = st.columns([2, 2, 3])
    with first:
        chosen = controls.choose_set("set", "Images", sets, sets[0])
    others = [name for name in sets if name != chosen]
    first_other = cache.NORMAL if chosen != cache.NORMAL and cache.NORMAL in others else first_beside(view, others)
    with second:
        beside = controls.choose_set("beside", "Other set", [*others, NOTHING], first_other)
    with third:
        extras = controls.choose(st.pills, "show", "Show as well", EXTRAS, [], selection_mode="multi")
    return chosen, beside, extras


def choose_order(view: controls.View) -> tuple[str, str]:
    """What images are ordered by, and which end comes first."""
    first, second = st.columns(2)
    with first:
        stored = [name for name, entry in MORE.items() if entry in view.detector.STORED]
        options = [COME, DECIDING, *view.detector.score_names(), *stored]
        # A link from before images came as they are says which end comes first, and leaves out the deciding score.
        start = DECIDING if "order" in st.query_params else COME
        by = controls.choose(st.selectbox, "sort", "Order by", options, start)
    with second:
        order = controls.choose(st.selectbox, "order", "Which end first", ORDERS, ORDERS[0], disabled=by == COME)
    return view.score if by == DECIDING else by, order


def choose_some(view: controls.View, found: cache.Gallery, set_name: str) -> tuple[np.ndarray, str, str]:
    """Which images of a gallery are shown, (N,) bool; their class and their side of the threshold; asked for in two columns."""
    classes = {controls.class_name(set_name, int(label)): label for label in np.unique(found.labels)}
    first, second = st.columns(2)
    with first:
        options = [EVERY, *classes] if len(classes) > 1 else [EVERY]
        label = f"Class of {controls.title_of(set_name)}"
        only = controls.choose(st.selectbox, "class", label, options, EVERY, disabled=len(classes) < 2)
    with second:
        side = controls.choose(
            st.segmented_control,
            "side",
            f"Side of the threshold, {view.score} at α = {controls.percent(view.alpha)}",
            SIDES,
            SIDES[0],
            required=True,
        )
    return np.ones(len(found.labels), bool) if only == EVERY else found.labels == classes[only], only, side


def ranked_by(view: controls.View, found: cache.Gallery, by: str, order: str, side: str, kept: np.ndarray) -> np.ndarray:
    """The images of a gallery that are `kept` and lie on a side of the threshold, in the order that was chosen, as indices."""
    flagged = found.scores[f"p_{view.score}"] <= view.alpha
    kept = kept & {"all": np.ones(len(flagged), bool), "flagged": flagged, "passed": ~flagged}[side]
    ranked = np.arange(len(kept))
    if by != COME:
        turned = view.detector.anomaly_scores(found.scores)
        ranked = np.argsort(-(turned[by] if by in turned else found.scores[MORE[by]]), kind="stable")
        ranked = ranked if order == ORDERS[0] else ranked[::-1]
    return ranked[kept[ranked]]


def counted(view: controls.View, found: cache.Gallery, kept: np.ndarray, ranked: np.ndarray, only: str) -> str:
    """How many images are shown, of how many, and how many are flagged."""
    n_flagged = int((kept & (found.scores[f"p_{view.score}"] <= view.alpha)).sum())
    drawn = f", drawn with seed 0 from {found.n_total:,}" if found.n_total > len(kept) else ""
    share = f" ({controls.percent(n_flagged / kept.sum())})" if n_flagged else ""
    of = "" if only == EVERY else f" of class {controls.literal(only)}"
    return (
        f"Shown: {len(ranked):,} of {len(kept):,} images{drawn}. {n_flagged:,} of {kept.sum():,}{of} are flagged by "
        f"{view.score} at α = {controls.percent(view.alpha)}{share}."
    )


def gallery(view: controls.View, set_name: str, folders: dict) -> cache.Gallery | None:
    """The images of a set; None, and why, where they are not here."""
    try:
        return cache.gallery(view.folder, set_name, folders)
    except controls.AMAError as error:
        st.error(controls.said(error), icon=":material/error:")
        st.info("The other sets in the list above need no download.")
        return None


def block(view, found: cache.Gallery, name: str, ranked: np.ndarray, page: int, steps: dict, by: str, extras, words) -> None:
    """The pictures of one set under its name."""
    set_name = view.normal if name == cache.NORMAL else name
    own = f"{controls.title_of(set_name)}: " if name == cache.NORMAL else ""
    st.markdown(f"**{own}{controls.title_of(name)}**")
    here = ranked[(page - 1) * ROWS : page * ROWS]
    if len(here):
        st.html(table(view, found, set_name, here, steps, by, extras))
    elif len(ranked):
        st.caption("No more images of this set.")
    st.caption(" ".join([words, *(f"{note[:1].upper()}{note[1:]}." for note in found.notes)]))


def main() -> None:
    view = controls.page(
        "Reconstructions",
        "An autoencoder is trained on normal images alone. Does it reconstruct the image that it is given, or merely a "
        "similar image? AMA's **mirrored** critic compares the pairs (x, x) and (x, x̂) of an image and its reconstruction; a "
        "**plain** critic sees x̂ alone, and asks only whether it looks like the set.",
        needs=NEEDS,
    )
    chosen, beside, extras = choose_sets(view)
    folders = siblings(view)
    names = [name for name in (chosen, beside) if name != NOTHING]
    shown = {name: found for name in names if (found := gallery(view, name, folders))}
    if chosen not in shown:
        st.stop()
    facts = {name: cache.reconstructed(view.folder, name, folders) for name in shown}
    say(view, folders, facts, next((name for name in shown if name != cache.NORMAL), cache.NORMAL))

    choosing = any(key in st.query_params for key in ("sort", "order", "class", "side"))
    set_name = view.normal if chosen == cache.NORMAL else chosen
    with st.expander("Choose and order the images", icon=":material/filter_list:", expanded=choosing):
        by, order = choose_order(view)
        kept, only, side = choose_some(view, shown[chosen], set_name)
    keeps = {name: kept if name == chosen else np.ones(len(found.labels), bool) for name, found in shown.items()}
    ranked = {name: ranked_by(view, found, by, order, side, keeps[name]) for name, found in shown.items()}
    pages = max(1, -(-len(ranked[chosen]) // ROWS))
    if not len(ranked[chosen]):
        st.info(
            f"No image here is {side}. Choose another α or score on the left, another class, or all sides of the threshold.",
            icon=":material/filter_alt_off:",
        )
    if what_order(by, order):
        st.markdown(what_order(by, order))
    steps, places = steps_of(folders), st.columns(len(shown), gap="large") if not extras else [st.container() for _ in shown]
    keys(view, shown[chosen], extras)
    with st.columns(4)[0]:
        page = controls.number("page", f"Page (1 to {pages})", pages, lowest=1)
    for name, place in zip(shown, places):
        with place:
            words = counted(view, shown[name], keeps[name], ranked[name], only if name == chosen else EVERY)
            block(view, shown[name], name, ranked[name], page, steps, by, extras, words)
    numbers(facts)
    for name, found in shown.items():
        rows, of = ranked[name], view.normal if name == cache.NORMAL else name
        controls.download_table(
            f"Every image and score of {controls.title_of(of)} in this order (CSV)",
            {
                "number": found.index[rows],
                "class": [controls.class_name(of, int(label)) for label in found.labels[rows]],
                **{key: column[rows] for key, column in found.scores.items()},
            },
            f"reconstructions-{view.name}-{of}",
        )
    controls.explain(*view.scores(view.detector.SCORES[0].name, view.score), p=True)


with controls.error_panel():
    main()
