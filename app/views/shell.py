"""Latent shell (the paper's Fig. 3): where codes lie, whether they follow |z| = sqrt(d), and what lies beside the shell."""

import math
from collections.abc import Mapping

import access
import cache
import charts
import controls
import numpy as np
import pictures
import streamlit as st

from ama_core.analysis.latent_map import CODES, LatentMap, MapEntry, polar
from ama_core.analysis.shell import DIRECTIONS, ShellFacts, norm_range, share_between, shell_band, shell_facts
from ama_core.formatting import significant

MAPS = {"PCA": ("first principal component", "second principal component"), "UMAP": ("UMAP 1", "UMAP 2")}
COLOURS = ("set", "‖z‖ − √d")
SHOWN_FIRST = ("gradients", "house_numbers")
GOOD, ROUGH = 0.9, 0.6  # of the codes in the band of 95 %: keeps to the shell, keeps to it roughly
SHELL, MAP, AGAINST_R = TABS = ("The shell", "Maps of the codes", "Length of a code and R")
GRID = 36  # images of a choice shown at once
ENDS = 18  # images of one end of a set
HOVER = 400  # points that carry their image
POLAR = 1200  # most points of the polar view, which is drawn again at every move of a slider
SCATTERED = 400  # points of a set on the map of ‖z‖ and R
N_ATYPICAL = 8
EQUATION = (
    r"z \sim \mathcal{N}(0, I_d)\ \Rightarrow\ \lVert z \rVert \sim \chi_d \approx \sqrt{d};\qquad "
    r"z_{neg} = r\,u,\quad u \text{ uniform in direction},\quad r \sim U[\sqrt d - \delta, \sqrt d]\ \text{(inward)}"
    r"\ \text{or}\ U[\sqrt d, \sqrt d + \delta]\ \text{(outward)}"
)


def names_of(found: LatentMap, normal: str) -> dict[str, str]:
    """What each set of the map is called in an address -> here; "train" and "test" are the model's own."""
    is_own = [entry.split == CODES or entry.name == normal for entry in found.entries]
    ids = [
        f"atypical {entry.name}" if entry.split == CODES else entry.split if own else entry.name
        for entry, own in zip(found.entries, is_own)
    ]
    titles = {name: name for name, own in zip(ids, is_own) if own}
    titles |= controls.titles_of((name for name, own in zip(ids, is_own) if not own), titles)
    return {name: titles[name] for name in ids}


def verdict(name: str, facts: ShellFacts) -> str:
    """Whether the codes of a set keep to the shell, in words."""
    ratio, share = facts.median_ratio, facts.share_in_band
    off = f"{100 * abs(ratio - 1):.0f} % {'short of' if ratio < 1 else 'beyond'} the shell"
    where = "on the shell" if abs(ratio - 1) < 0.02 else off
    keep = (
        "**keep to the shell**"
        if share >= GOOD
        else "**keep to the shell roughly**"
        if share >= ROUGH
        else ("**do not keep to the shell**")
    )
    return (
        f"The codes of the {name} images {keep}: their median length is {ratio:.2f} √d, {where}, and {100 * share:.0f} % of "
        f"{facts.n:,} lie in the band that would hold 95 % of Gaussian codes."
    )


def negatives(view: controls.View, found: LatentMap, named: Mapping[str, MapEntry], lead: str) -> str:
    """Where the negatives of this model's training lie beside the codes of a set, in words."""
    direction, d = view.detector.settings.atypical, found.codes.shape[1]
    entry = named.get(f"atypical {direction}")
    if entry is None:
        return " It was trained without atypical codes."
    low, high = norm_range(found.codes[entry.rows])
    share = share_between(found.codes[named[lead].rows], low, high)
    if share < 0.05:
        said = f"{100 * share:.0f} % of the {lead} codes lie there, so they are beside the normal ones, as they should be"
    else:
        said = f"{100 * share:.0f} % of the {lead} codes lie there too, so they are among the normal ones, not beside them"
    return (
        f" Its negatives in training, the **atypical** codes ({direction}), have lengths from {low / math.sqrt(d):.2f} to "
        f"{high / math.sqrt(d):.2f} √d; {said}."
    )


def words(named: Mapping[str, MapEntry], title: str, found: LatentMap, row: int, norm: float) -> str:
    """What a point is, for hover and captions."""
    what = "code" if named[title].split == CODES else "image"
    return f"{title}, {what} {found.index[row]}<br>‖z‖ = {norm:.2f}"


def picks(view: controls.View, named: Mapping[str, MapEntry], rows: list[int], norms: np.ndarray) -> None:
    """The images behind some codes; a sentence for those whose set is not on this computer."""
    parts, absent = [], {}
    for row in rows[:GRID]:
        title = next(t for t, entry in named.items() if entry.start <= row < entry.stop)
        entry = named[title]
        try:
            image = cache.latent_images(view.folder, entry)[row - entry.start]
        except controls.AMAError as error:
            absent[title] = controls.said(error)
            continue
        what = f"{title} {cache.latents(view.folder).index[row]}"
        parts.append((f"{what}: {norms[row]:.1f}", image, f"Image of {what}, norm of its code {norms[row]:.2f}"))
    if parts:
        st.html(pictures.figures(parts, 76))
        st.caption(
            f"{len(parts)} of {len(rows):,} chosen codes with their images and ‖z‖."
            + (
                " Atypical codes stand for no image: shown is what the model decodes them to."
                if any(named[t].split == CODES and any(named[t].start <= r < named[t].stop for r in rows[:GRID]) for t in named)
                else ""
            )
        )
    for title, message in absent.items():
        st.info(f"The images of {controls.literal(title)} cannot be shown here. {message}")


def hover_points(view: controls.View, named, chosen: list[str], xy: np.ndarray, norms: np.ndarray) -> dict[str, list]:
    """An even sample of the chosen sets with pictures, as columns of `charts.hover_map`."""
    found = cache.latents(view.folder)
    columns: dict[str, list] = {key: [] for key in ("x", "y", "set", "what", "norm", "image")}
    for title in chosen:
        entry = named[title]
        try:
            images = cache.latent_images(view.folder, entry)
        except controls.AMAError:
            images = None
        most = min(HOVER // len(chosen), entry.stop - entry.start)
        for i in np.linspace(0, entry.stop - entry.start - 1, most).astype(int):
            row = entry.start + int(i)
            picture = pictures.data_uri(images[i], 3) if images is not None else ""
            values = (float(xy[row, 0]), float(xy[row, 1]), title, f"{title} {found.index[row]}", float(norms[row]), picture)
            for column, value in zip(columns.values(), values):
                column.append(value)
    return columns


@st.fragment
def norms_and_scores(view: controls.View, named: Mapping[str, MapEntry], chosen: list[str], root: float) -> None:
    """‖z‖ against R, from the stored scores of the chosen sets."""
    with controls.error_panel():
        stored = {(s.name, s.split): s for s in cache.stored(view.folder)}
        behind = {title: stored.get((named[title].name, named[title].split)) for title in chosen}
        behind = {title: s for title, s in behind.items() if s is not None}
        if not behind:
            st.info("None of the chosen sets has stored scores.")
            return
        groups = {}
        for title, s in behind.items():
            rows = np.linspace(0, s.n - 1, min(SCATTERED, s.n)).astype(int)
            groups[title] = (s.scores["z_norm"][rows], s.scores["R"][rows], [[title, int(row)] for row in rows])
        left, right = st.columns([3, 2], gap="large")
        with left:
            picked = controls.chart(
                charts.score_map(groups, root),
                {
                    "set": [title for title, (norms, *_) in groups.items() for _ in norms],
                    "norm": np.concatenate([norms for norms, *_ in groups.values()]),
                    "R": np.concatenate([r for _, r, _ in groups.values()]),
                },
                f"shell-scores-{view.name}",
                f"R over ‖z‖ of {', '.join(groups)}.",
                select=("points", "box", "lasso"),
            )
        with right:
            st.caption(
                "Each point is an image: how long its code is, and its R, how differently the critic sees it and its "
                "reconstruction. If the sets separate only along the R axis, code length adds nothing to R. At most "
                f"{SCATTERED} images of each set are drawn. Click a point, or use the lasso, to see the images."
            )
            parts = []
            for title, row in picked[:ENDS]:
                s = behind[title]
                try:
                    image = cache.stored_pictures(view.folder, s.name, s.split, (row,))[0]
                except controls.AMAError as error:
                    st.info(f"The images of {controls.literal(title)} cannot be shown here. {controls.said(error)}")
                    break
                norm, r = s.scores["z_norm"][row], s.scores["R"][row]
                words = f"{title}: ‖z‖ {norm:.1f}, R {significant(r)}"
                parts.append((words, image, f"Image of {words}"))
            if parts:
                st.html(pictures.figures(parts, 76))


@st.fragment
def polar_view(view: controls.View, found: LatentMap, named: Mapping[str, MapEntry], chosen: list[str]) -> None:
    """The polar view with atypical codes that move with the sliders, and their decodes."""
    with controls.error_panel():
        st.markdown("**The shell from above**: every point is a code, its distance from the middle is its length")
        place = st.container()
        drawn = cache.atypical(view.folder, N_ATYPICAL, *atypical_choice(view, found.codes.shape[1]))
        with place:
            polar_map(view, found, named, [title for title in chosen if named[title].split != CODES], drawn)
        atypical_decodes(view, found, drawn)


def atypical_choice(view: controls.View, d: int) -> tuple[str, float, int]:
    """Which atypical codes are drawn: direction, thickness of the layer, and seed."""
    config = view.detector.settings
    direction = controls.choose(
        st.segmented_control,
        "direction",
        "Atypical codes",
        DIRECTIONS,
        config.atypical if config.atypical in DIRECTIONS else DIRECTIONS[0],
        required=True,
        help="Codes beside the shell, which AMA draws in training as its anomalies: just inside the shell (inward), just "
        "outside it (outward), or, after Sipple (2020), from a cube around 0 (sipple).",
    )
    first, second = st.columns([3, 1], vertical_alignment="bottom")
    with first:
        delta = controls.slider(
            "delta",
            "δ: thickness of the layer",
            0.0,
            float(math.ceil(max(math.sqrt(d), config.delta))),
            float(config.delta),
            0.1,
            disabled=direction == "sipple",
            help=f"This model was trained with {config.atypical}, δ = {config.delta:g}.",
        )
    with second:
        return direction, delta, controls.number("seed", "Seed", 9999)


def polar_map(
    view: controls.View, found: LatentMap, named: Mapping[str, MapEntry], shown: list[str], drawn: cache.Decoded
) -> None:
    """Codes of the sets `shown` and the atypical ones, by length and by angle on the PCA map."""
    d = found.codes.shape[1]
    low, high = (bound / math.sqrt(d) for bound in shell_band(d))
    radius, angle = polar(drawn.codes, found.pca)
    step = max(1, -(-sum(named[t].stop - named[t].start for t in shown) // POLAR))
    groups = {title: polar(found.codes[named[title].rows][::step], found.pca) for title in shown}
    controls.chart(
        charts.polar_chart(groups, (radius, angle), (low, high)),
        {
            "set": [t for t, (r, _) in groups.items() for _ in r] + ["atypical"] * N_ATYPICAL,
            "radius": np.concatenate([*(r for r, _ in groups.values()), radius]),
            "angle": np.concatenate([*(a for _, a in groups.values()), angle]),
        },
        f"shell-polar-{view.name}",
        f"Polar view: radius ‖z‖/√d, angle from PCA. Atypical codes at {', '.join(f'{r:.2f}' for r in radius)} √d.",
    )
    st.caption(
        "Radius: the length ‖z‖ as a multiple of √d, true. Angle: that on the PCA map, **only a view** of d dimensions. "
        "Dotted: the band of 95 % of Gaussian codes." + (f" One code in {step} is drawn." if step > 1 else "")
    )


def atypical_decodes(view: controls.View, found: LatentMap, drawn: cache.Decoded) -> None:
    """What the model makes of the atypical codes, numbered as on the map, with R and p."""
    radius, _ = polar(drawn.codes, found.pca)
    scores, by = drawn.scores, view.score
    st.markdown("What the model **decodes** the numbered atypical codes to, that is, the images that it makes of them:")
    st.html(
        pictures.figures(
            [
                (
                    f"{i + 1}: {r:.2f} √d, R {significant(scores['R'][i])}, p {scores[f'p_{by}'][i]:.4f}",
                    image,
                    f"Decode of atypical code {i + 1}, radius {r:.2f} root d",
                )
                for i, (r, image) in enumerate(zip(radius, drawn.images))
            ],
            84,
        )
    )
    st.caption(
        "Training tells the model to reconstruct *these* images badly, so that what lies beside the shell is anomalous. "
        f"R (how differently the critic sees an image and its reconstruction) and p (by {by}: the fraction of held-out "
        "normal images that look at least as unusual) are those of each decode, taken as an input image."
    )


def latent_map(
    view: controls.View, found: LatentMap, named, chosen: list[str], norms: np.ndarray, kind: str, colour: str, hover: bool
) -> list[int]:
    """The map of the codes, with images on hover or as points to choose; returns the rows that are chosen."""
    root = math.sqrt(found.codes.shape[1])
    xy = found.umap if kind == "UMAP" else found.pca.project(found.codes)
    if kind == "PCA":
        st.caption(
            f"PCA, principal component analysis: the codes seen from the side on which they are spread most; this plane keeps "
            f"{100 * found.pca.explained.sum():.0f} % of their variance. A code near the middle may still be long."
        )
    else:
        st.caption(
            "UMAP places codes that are neighbours in d dimensions near each other, and **loses the radius**: do not judge the "
            "shell by it."
        )
    if hover:
        points = hover_points(view, named, chosen, xy, norms)
        st.altair_chart(charts.hover_map(points, MAPS[kind]), width="stretch")
        del points["image"]
        controls.download_table(
            "Data of this map (CSV)",
            points,
            f"shell-{kind}-hover-{view.name}",
            help="As a standalone page: turn the images on hover off, and download that map.",
        )
        return []
    rows = {title: np.arange(named[title].start, named[title].stop) for title in chosen}
    return controls.chart(
        charts.map_chart(
            {t: (xy[r], r, norms[r] - root, [words(named, t, found, i, norms[i]) for i in r]) for t, r in rows.items()},
            axes=MAPS[kind],
            by_excess=colour == COLOURS[1],
        ),
        {
            "set": [t for t, r in rows.items() for _ in r],
            "index": np.concatenate([found.index[r] for r in rows.values()]),
            "x": np.concatenate([xy[r, 0] for r in rows.values()]),
            "y": np.concatenate([xy[r, 1] for r in rows.values()]),
            "norm": np.concatenate([norms[r] for r in rows.values()]),
        },
        f"shell-{kind}-{view.name}",
        f"{kind} map of the codes of {', '.join(chosen)}.",
        select=("points", "box", "lasso"),
    )


def norm_histogram(view: controls.View, found: LatentMap, named, facts: Mapping[str, ShellFacts]) -> list[int]:
    """How long the codes are, beside how long Gaussian ones would be; returns the rows of the bins that are chosen."""
    d, chosen = found.codes.shape[1], list(facts)
    low, high = shell_band(d)
    st.markdown("**How long the codes are**, beside how long Gaussian ones would be")
    norms = cache.norms(view.folder, tuple((title, named[title]) for title in chosen))
    bins = controls.chart(
        charts.norm_chart(norms.edges, norms.densities, (norms.grid, norms.chi), (math.sqrt(d), low, high)),
        {
            "set": np.repeat(list(norms.densities), len(norms.edges) - 1),
            "norm_from": np.tile(norms.edges[:-1], len(chosen)),
            "norm_to": np.tile(norms.edges[1:], len(chosen)),
            "density": np.concatenate(list(norms.densities.values())),
        },
        f"shell-norms-{view.name}",
        "Histogram of code norms. " + "; ".join(f"{t}: median {f.median_ratio:.2f} √d" for t, f in facts.items()),
        select=("points",),
    )
    st.caption(
        f"The curve is $\\chi_d$, the density of the length of a Gaussian vector in d = {d} dimensions: it has its peak at "
        f"about √d = {math.sqrt(d):.2f}, and 95 % lie between {low:.2f} and {high:.2f}. Click a bar to see the images below."
    )
    st.table(
        {
            "Set": list(facts),
            "median ‖z‖/√d": [f"{f.median_ratio:.2f}" for f in facts.values()],
            "in the 95 % band": [f"{100 * f.share_in_band:.0f} %" for f in facts.values()],
            "codes": [f"{f.n:,}" for f in facts.values()],
        },
        hide_index=True,
    )
    return [named[chosen[at]].start + int(i) for at, b in bins for i in norms.rows[chosen[at]][b]]


def behind_the_codes(
    view: controls.View, found: LatentMap, names: Mapping[str, str], named, norms: np.ndarray, picked: list[int]
) -> None:
    """The images of the chosen codes; of one end of a set where none is chosen."""
    st.subheader("Images behind the codes")
    if picked:
        picks(view, named, sorted(set(picked)), norms)
        return
    st.caption(
        "Click a bar of the histogram; on the map, click a point, or use the lasso or the box above it; or look at one end of "
        "a set:"
    )
    one, two = st.columns(2)
    with one:
        first = "test" if "test" in names else next(name for name in names if named[names[name]].split != CODES)
        of = names[controls.choose_set("of", "Set", list(names), first)]
    with two:
        ends = ("shortest codes", "longest codes", "closest to √d")
        end = controls.choose(st.selectbox, "end", "Which", ends, ends[0])
    members = np.arange(named[of].start, named[of].stop)
    root = math.sqrt(found.codes.shape[1])
    key = {ends[0]: norms, ends[1]: -norms, ends[2]: np.abs(norms - root)}[end][members]
    picks(view, named, [int(i) for i in members[np.argsort(key, kind="stable")][:ENDS]], norms)


def explanation(view: controls.View, found: LatentMap) -> None:
    """What the shell is, and how the map was made."""
    with st.expander("What this means, with its equation", icon=":material/function:"):
        st.markdown(
            "In many dimensions nearly all of a Gaussian lies in a thin shell around ‖z‖ = √d, and $\\chi_d$ says how thin. "
            "The paper says that its latent regulariser ‖E(x)‖ brings normal codes there; shrinking every code does not do "
            f"that by itself, so it is measured here. This model was trained with `reg = {view.detector.settings.reg}`."
        )
        st.latex(EQUATION)
    info = found.info.get("umap")
    st.caption(
        "Codes of at most 500 images of each normal split and 200 of each other set, drawn with seed "
        f"{found.info.get('seed')}; 100 atypical codes of each direction. "
        + (
            f"UMAP: {info}."
            if isinstance(info, str)
            else f"UMAP {info['versions']['umap-learn']}, {info['n_neighbors']} neighbours, min_dist {info['min_dist']}, "
            f"seed {info['random_state']}."
            if info
            else ""
        )
    )


def map_tab(view: controls.View, found: LatentMap, named, chosen: list[str], norms: np.ndarray) -> list[int]:
    """The map and its choices; returns the rows that are chosen on it."""
    one, two, three = st.columns([1, 1, 1], vertical_alignment="bottom")
    with one:
        maps = list(MAPS) if found.umap is not None else ["PCA"]
        kind = controls.choose(st.segmented_control, "map", "Map", maps, "PCA", required=True)
    with two:
        colour = controls.choose(st.segmented_control, "colour", "Colour", COLOURS, COLOURS[0], required=True)
    with three:
        hover = controls.switch("hover", "Images on hover", False, help=f"Draws at most {HOVER} points, each with its image.")
    return latent_map(view, found, named, chosen, norms, kind, colour, hover)


def main() -> None:
    view = controls.page(
        "Latent shell",
        "The encoder turns every image into d numbers, its **code** z. In many dimensions nearly all Gaussian vectors have "
        "almost the same length ‖z‖, about √d: they lie in a thin **shell**. AMA assumes that the codes of normal images "
        "lie there, and draws its negatives, the artificial anomalies of training, from just inside or outside it. This page "
        "shows whether that holds for this model.",
        scoring=False,
        needs=("encode", "decode", "critic", "R"),
    )
    found = cache.latents(view.folder)
    if found is None:
        st.info("This model has no stored codes yet. Make them, then reload this page:", icon=":material/blur_circular:")
        st.code(f"python -m ama_core measure {access.shown(view.folder)}", language="bash")
        st.stop()
    names = names_of(found, view.normal or "")
    named = dict(zip(names.values(), found.entries))
    sets = [name for name in names if named[names[name]].split != CODES]
    norms = np.linalg.norm(found.codes, axis=1)

    lead = "test" if "test" in named else names[sets[0]]
    of_lead = shell_facts(found.codes[named[lead].rows])
    (st.success if of_lead.share_in_band >= GOOD else st.warning)(
        verdict(lead, of_lead) + negatives(view, found, named, lead), icon=":material/radio_button_checked:"
    )
    own = ("train", "test")
    others = dict.fromkeys((*controls.papers_sets(view), *SHOWN_FIRST, *(name for name in sets if name not in own)))
    first = [*own, *[name for name in others if name in sets][:2]]
    chosen = [
        names[n]
        for n in controls.choose_sets("sets", "Sets", list(names), [n for n in first if n in names], placeholder="Choose sets")
    ]
    if not chosen:
        st.info("Choose at least one set.")
        st.stop()
    facts = {title: shell_facts(found.codes[named[title].rows]) for title in chosen}
    on_map = any(key in st.query_params for key in ("map", "colour", "hover"))  # a link to a map opens it
    shell_tab, maps_tab, r_tab = st.tabs(TABS, default=MAP if on_map else SHELL)
    with shell_tab:
        left, right = st.columns([1, 1], gap="large")
        with left:
            polar_view(view, found, named, chosen)
        with right:
            picked = norm_histogram(view, found, named, facts)
    with maps_tab:
        picked = map_tab(view, found, named, chosen, norms) + picked
    with r_tab:
        norms_and_scores(view, named, chosen, math.sqrt(found.codes.shape[1]))
    behind_the_codes(view, found, names, named, norms, picked)
    explanation(view, found)


with controls.error_panel():
    main()
