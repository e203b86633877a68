"""Simplex: mixtures of three codes, what the model decodes them to, and what its critic and its scores say of the decode."""

import cache
import charts
import controls
import numpy as np
import pictures
import streamlit as st

from ama_core.analysis.simplex import SIMPLEX_RANGE, path_weights, rebalance, triangle_weights, triangle_xy
from ama_core.detectors.conformal import decidable
from ama_core.evaluation.metrics import more_than_false_alarms
from ama_core.evaluation.protocol import available_sets
from ama_core.formatting import significant

LETTERS = "ABC"
KEYS = ("wa", "wb", "wc")  # of the weights in the URL
START = (0.34, 0.33, 0.33)
PATHS = {"A → B": (0, 1), "B → C": (1, 2), "C → A": (2, 0)}
STEPS = 9
LOW, HIGH = SIMPLEX_RANGE
EQUATION = (
    r"\hat e = \frac{\sum_i w_i E(x_i)}{\sum_i w_i},\quad \hat x_{inter} = G(\hat e),\qquad "
    r"\bar D = \tfrac{1}{3} \sum_i D(x_i, \hat x_{inter})"
)
EQUATION_PLAIN = EQUATION.split(r"\qquad")[0] + r"\qquad D(\hat x_{inter})"


def pictured(view: controls.View, i: int, sets: list[str]) -> tuple[str, int]:
    """The choice of one of the three images: set and number."""
    letter = LETTERS[i]
    number_key = f"n{letter.lower()}"
    name = controls.choose_set(
        f"set{letter.lower()}",
        f"Image {letter}: set",
        sets,
        sets[0],
        on_change=lambda: st.session_state.update({number_key: i}),  # the old number may not exist in the new set
    )
    highest = len(cache.sample_images(view.folder, name)) - 1
    return name, controls.number(number_key, f"Number (0 to {highest:,})", highest, default=i)


def draw(sizes: list[int]) -> None:
    """Three other images of the sets chosen; the n-th draw of a session is always the same."""
    st.session_state["draws"] = st.session_state.get("draws", 0) + 1
    rng = np.random.default_rng(st.session_state["draws"])
    st.session_state.update({f"n{letter.lower()}": int(rng.integers(size)) for letter, size in zip(LETTERS, sizes)})


def set_weights(weights) -> None:
    st.session_state.update(zip(KEYS, (float(w) for w in weights)))


def moved(i: int) -> None:
    """One slider was moved: the other two give or take, so that all three still add up to 1."""
    set_weights(rebalance([st.session_state[key] for key in KEYS], i, LOW, HIGH))


def clicked(points: list) -> None:
    if points:
        set_weights(points[-1])


def words(view: controls.View, found: cache.Decoded, i: int) -> str:
    """R, the p-value and whether that flags the image, for a caption."""
    p = found.scores[f"p_{view.score}"][i]
    return f"R {significant(found.scores['R'][i])}, p {p:.3f}{', flagged' if p <= view.alpha else ''}"


def verdict(view: controls.View, picks: tuple[tuple[str, int], ...]) -> None:
    """How many mixtures inside the triangle the model flags, beside the three images themselves; nothing where it can flag
    none, which the page says above.
    """
    if not decidable(len(view.detector.held_out_scores_[view.score]), view.alpha):
        return
    nodes = triangle_weights()
    mixed = cache.mixed(view.folder, picks, tuple(map(tuple, nodes.tolist())))
    own, by = cache.parents(view.folder, picks), f"p_{view.score}"
    n, of = int((mixed.scores[by] <= view.alpha).sum()), len(nodes)
    unusual = more_than_false_alarms(mixed.scores[by], view.alpha, len(view.detector.held_out_scores_[view.score]))
    parents = int((own.scores[by] <= view.alpha).sum())
    said = (
        f"**{n} of {of} mixtures are flagged** by {view.score} at α = {controls.percent(view.alpha)}; of {of} normal images "
        f"about {significant(view.alpha * of, 2)} would be. Of the three images themselves, "
        f"{parents or 'none'} {'are' if parents > 1 else 'is'} flagged. "
    )
    said += (
        "So what lies between these images decodes to something that the model finds unusual: its training on mixtures has "
        "not filled the space between them."
        if unusual
        else "So between these images the model decodes to what it takes for normal, as its training on mixtures intends."
    )
    (st.warning if unusual else st.success)(said, icon=":material/change_history:")


@st.fragment
def triangle(view: controls.View, picks: tuple[tuple[str, int], ...], outside: bool) -> None:
    """Clickable triangle, sliders, and the decode of the chosen mixture."""
    with controls.error_panel():
        left, right = st.columns([3, 2], gap="large")
        with right:
            st.markdown("**Weights** w: move one and the other two adjust, so that they add up to 1")
            weights = tuple(
                controls.slider(key, f"Weight of {LETTERS[i]}", LOW, HIGH, START[i], 0.01, on_change=moved, args=(i,))
                for i, key in enumerate(KEYS)
            )
            mixture(view, picks, weights)
        with left:
            decodes(view, picks, weights, outside or min(weights) < 0)


def mixture(view: controls.View, picks: tuple[tuple[str, int], ...], weights: tuple[float, ...]) -> None:
    """The decode of one mixture beside its parents, and what the critic and the scores say of it."""
    of, found = cache.parents(view.folder, picks), cache.mixed(view.folder, picks, (weights,))
    plain = view.detector.settings.reconstruction == "plain"
    st.html(
        pictures.figures(
            [
                ("Decode of the mixture", found.images[0], f"Decode of the mixture with weights {weights}"),
                *((f"{LETTERS[i]}, weight {weights[i]:.2f}", of.images[i], f"Image {LETTERS[i]}") for i in range(3)),
            ],
            110,
        )
    )
    one, two, three = st.columns(3)
    one.metric(
        "critic D" if plain else "critic D̄",
        f"{found.critic[0]:.3g}",
        help=(
            "The plain critic sees the decode alone: high = it takes it for a real image."
            if plain
            else "The critic's value of the pairs (parent, decode), averaged over the three parents: high = it takes the "
            "decode for the parent itself."
        ),
    )
    two.metric("R", significant(found.scores["R"][0], 4), help=controls.meaning(*view.scores("R")))
    p = found.scores[f"p_{view.score}"][0]
    three.metric(f"p by {view.score}", f"{p:.3f}", help=controls.P_VALUE)
    st.caption(
        f"For comparison, the critic on the parents themselves: "
        f"{', '.join(f'{letter} {value:.3g}' for letter, value in zip(LETTERS, of.critic))}. R and p are those of the decode, "
        f"taken as an input image: it is {'**flagged**' if p <= view.alpha else 'not flagged'} at "
        f"α = {controls.percent(view.alpha)}."
    )
    if min(weights) < 0:
        st.warning(
            "This point lies **outside the simplex**: at least one weight is negative. Training mixed images with positive "
            "weights only, so here the model extrapolates.",
            icon=":material/call_made:",
        )


def decodes(view: controls.View, picks: tuple[tuple[str, int], ...], weights: tuple[float, ...], outside: bool) -> None:
    """The triangle of decodes, in which a click chooses a mixture; `outside`: also beyond its edges."""
    low, high, side, fine_side = (LOW, HIGH, 9, 41) if outside else (0.0, 1.0, 6, 21)
    nodes = triangle_weights(side, low, high)
    shown = cache.mixed(view.folder, picks, tuple(map(tuple, nodes.tolist())))
    fine = triangle_weights(fine_side, low, high)
    controls.chart(
        charts.triangle_chart(
            triangle_xy(np.eye(3)), triangle_xy(nodes), shown.images, triangle_xy(fine), fine, triangle_xy([weights])[0]
        ),
        {
            "weight_a": nodes[:, 0],
            "weight_b": nodes[:, 1],
            "weight_c": nodes[:, 2],
            "critic": shown.critic,
            "R": shown.scores["R"],
            f"p_{view.score}": shown.scores[f"p_{view.score}"],
        },
        f"simplex-{view.name}",
        f"Triangle of {len(nodes)} decodes between the images A, B and C; the ring marks the weights "
        + ", ".join(f"{w:.2f}" for w in weights),
        select=("points",),
        on_select=clicked,
    )
    inside = shown.critic[nodes.min(axis=1) >= 0]
    st.caption(
        f"{len(nodes)} decodes; click anywhere to mix there. The critic's values inside the triangle run from "
        f"{inside.min():.3g} to {inside.max():.3g}."
    )


@st.fragment
def path(view: controls.View, picks: tuple[tuple[str, int], ...], outside: bool) -> None:
    """The strip of decodes on the way from one image to another."""
    with controls.error_panel():
        way = controls.choose(st.segmented_control, "path", "From image to image", list(PATHS), "A → B", required=True)
        weights = path_weights(*PATHS[way], STEPS, *(SIMPLEX_RANGE if outside else (0.0, 1.0)))
        found = cache.mixed(view.folder, picks, tuple(map(tuple, weights.tolist())))
        t = weights[:, PATHS[way][1]]
        st.html(
            pictures.figures(
                [
                    (f"t = {t[i]:.3g}: {words(view, found, i)}", found.images[i], f"Decode at {t[i]:.3g} of the way {way}")
                    for i in range(STEPS)
                ],
                78,
            )
        )
        st.caption(
            f"{STEPS} decodes of (1 − t) · E({way[0]}) + t · E({way[-1]})"
            + ("; t below 0 and above 1 lies beyond the two images." if outside else ".")
            + f" R and p by {view.score}, each decode taken as an input."
        )


def main() -> None:
    view = controls.page(
        "Simplex",
        "The encoder turns an image into a **code**, the generator **decodes** a code into an image. AMA also trains on "
        "mixtures of three codes, so that the space *between* normal images decodes to something its critic accepts. Mix three "
        "images and look: R says how differently the critic sees a decode and its reconstruction, p how unusual that is.",
        needs=("encode", "decode", "critic", "R"),
    )
    sets = [cache.NORMAL, *(name for name in available_sets() if name != view.normal)]
    try:
        cache.sample_images(view.folder, cache.NORMAL)
    except controls.AMAError as error:
        sets = sets[1:]
        st.info(f"The model's own test images are not on this computer, so these are others. {controls.said(error)}")
    columns = st.columns(3)
    picks = []
    for i, column in enumerate(columns):
        with column:
            picks.append(pictured(view, i, sets))
    one, two = st.columns([1, 2], vertical_alignment="center")
    one.button(
        "Draw three others",
        icon=":material/casino:",
        on_click=draw,
        args=([len(cache.sample_images(view.folder, name)) for name, _ in picks],),
        width="stretch",
    )
    with two:
        outside = controls.switch(
            "outside",
            "Show the outside as well",
            False,
            help="Also draws mixtures with weights from −0.5 to 1.5, and paths that run on beyond both images.",
        )
    verdict(view, tuple(picks))
    triangle(view, tuple(picks), outside)
    st.subheader("A path from one image to another")
    path(view, tuple(picks), outside)
    with st.expander("What this means, with its equation", icon=":material/function:"):
        plain = view.detector.settings.reconstruction == "plain"
        st.markdown(
            "Training draws three images and three weights, decodes the weighted mean of their codes, and lets the critic "
            "judge "
            + (
                "the decode alone."
                if plain
                else "the decode beside each of its parents; the encoder and generator get its gradient."
            )
            + f" This model's weight of that term is λ_inter = {view.detector.settings.lambda_inter:g}."
        )
        st.latex(EQUATION_PLAIN if plain else EQUATION)
    controls.explain(*view.scores("R"), p=True)


with controls.error_panel():
    main()
