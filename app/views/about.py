"""About the model: its architecture, its equations with the code that computes them, its settings, card and calibration."""

import dataclasses
import inspect
import math
from pathlib import Path

import access
import cache
import charts
import controls
import numpy as np
import pictures
import streamlit as st
from training.words import explained

import ama_core
from ama_core.detectors.ama import latent, losses, scores
from ama_core.detectors.ama.networks import Critic, Encoder, Generator
from ama_core.detectors.base import Score
from ama_core.detectors.conformal import conformal_p_value, conformal_threshold
from ama_core.detectors.modules import gradient_penalty
from ama_core.evaluation.metrics import CURVE_ALPHAS, SOUND, false_alarm_band, false_alarm_curve

SOURCE = Path(ama_core.__file__).parent
NAMES = {"E": "E, the encoder", "G": "G, the generator", "D": "D, the critic"}

# What AMA minimises: (title, sentence, equation, the code that computes it).
OBJECTIVE = [
    (
        "Mirrored Wasserstein loss (Eq. 1)",
        "The critic learns to tell the pair (x, x) from (x, x̂); E and G learn to make that impossible. y is 1 for a normal "
        "row and −λ_neg for a synthetic negative.",
        r"\min_{E, G} \max_D\ \ \mathbb{E}\big[y\, D(x, x)\big] - \mathbb{E}\big[y\, D(x, \hat x)\big], \quad \hat x = G(E(x))",
        [losses.critic_wasserstein, losses.autoencoder_wasserstein, losses.signs],
    ),
    (
        "Simplex interpolation",
        "Mixtures of k codes must decode to images that the critic takes for normal ones: it fills the gaps between the codes.",
        r"\hat e = \sum_{i=1}^{k} w_i E(x_i) \Big/ \sum_{i=1}^{k} w_i, \quad w_i \sim U[0, 0.5]",
        [latent.simplex_weights, latent.simplex_interpolation, losses.critic_simplex, losses.autoencoder_simplex],
    ),
    (
        "Atypical selection",
        "Codes from beside the shell of radius √d are decoded to synthetic negatives, which are un-learned: they enter Eq. 1 "
        "with the opposite sign.",
        r"x_\text{neg} = G(z_\text{neg}), \quad \lVert z_\text{neg} \rVert \sim U[\sqrt d - \delta, \sqrt d]\ \text{(inward)}"
        r"\ \text{or}\ U[\sqrt d, \sqrt d + \delta]\ \text{(outward)}",
        [latent.atypical_codes],
    ),
    (
        "Gradient penalty",
        "Keeps the critic's slope near 1, as a Wasserstein distance needs.",
        r"\lambda_\text{gp}\ \mathbb{E}\big(\lVert \nabla D(x, a x + (1 - a) \hat x) \rVert_2 - 1\big)^2, \quad a \sim U[0, 1]",
        [gradient_penalty],
    ),
    (
        "Drift term (Karras et al. 2018; not in the paper)",
        "Keeps near zero the offset that all values of the critic share. The Wasserstein loss leaves it free; where it grows, "
        "rounding to bf16 hides the differences between them.",
        r"\lambda_\text{drift}\ \mathbb{E}\big[D(x, x)^2\big]",
        [losses.critic_drift],
    ),
    (
        "Latent regulariser",
        "Keeps the codes of normal images together: either all of them short, or none outside the shell (hinge).",
        r"\lambda_\text{reg}\ \mathbb{E}\lVert E(x) \rVert_2 \quad \text{or} \quad \lambda_\text{reg}\ "
        r"\mathbb{E}\max(\lVert E(x) \rVert_2 - \sqrt d, 0)",
        [losses.latent_regulariser],
    ),
]
# The code of AMA's scores, by name.
CODE_OF_R = {
    "R": [scores.r_score],
    "A": [scores.log_a_score],
    "M": [scores.Gaussian],
    "T": [scores.t_vector, scores.Gaussian],
    "C": [scores.Combination],
}


def architecture(view: controls.View) -> None:
    """The stages of AMA's networks; of other models, what they keep."""
    if not callable(getattr(view.detector, "stages", None)):
        kept(view)
        return
    st.html(pictures.method())
    stages = cache.stages(view.folder)
    drawn = []
    for network, name in NAMES.items():
        own = [(s.name, s.shape, s.parameters) for s in stages if s.network == network]
        drawn.append((f"{name}: {sum(p for _, _, p in own):,} parameters", own))
    st.markdown(
        f"Three networks, {sum(s.parameters for s in stages):,} parameters in all. Each box is what a layer hands on: its "
        "height stands for the grid, its width for the channels, both on a logarithmic scale."
    )
    st.html(pictures.architecture(drawn))
    columns = {
        "network": [s.network for s in stages],
        "stage": [s.name for s in stages],
        "output (channels × height × width)": [" × ".join(map(str, s.shape)) for s in stages],
        "parameters": [s.parameters for s in stages],
    }
    with st.expander("The same as a table, and the code", icon=":material/table_rows:"):
        controls.grid(columns, width="stretch", height="content")
        for network in (Encoder, Generator, Critic):
            code(network)


def kept(view: controls.View) -> None:
    """What a model keeps for scoring, array by array, and the code of its detector."""
    detector = view.detector
    tensors, arrays = detector.state()
    sizes = {name: tuple(value.shape) for name, value in (tensors | arrays).items()}
    total = sum(math.prod(shape) for shape in sizes.values())
    title, reference = controls.literal(detector.title), controls.literal(detector.reference)
    st.markdown(f"**{title}** ({reference}). {summary_of(type(detector))}")
    trained = "trained by gradient steps" if detector.trains() else "fitted without gradient steps"
    st.markdown(f"It is {trained}, and stores {total:,} numbers:")
    controls.grid(
        {
            "name": list(sizes),
            "kind": ["weights" if name in tensors else "statistics" for name in sizes],
            "shape": [" × ".join(map(str, shape)) or "one number" for shape in sizes.values()],
            "numbers": [math.prod(shape) for shape in sizes.values()],
        },
        width="stretch",
        height=min(400, 38 + 35 * len(sizes)),
    )
    with st.expander("The code", icon=":material/code:"):
        code(type(detector))


def summary_of(kind: type) -> str:
    """The first sentence of a class's documentation."""
    return controls.literal((inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " "))


def equations(view: controls.View) -> None:
    """Every equation of the model beside the lines that compute it."""
    st.markdown("Every formula is in the code once. Open one to see the lines that compute it.")
    if view.of_r:
        for title, sentence, formula, functions in OBJECTIVE:
            equation(title, sentence, formula, functions)
    for score in view.detector.SCORES:
        functions = CODE_OF_R[score.name] if view.of_r else [type(view.detector).raw_scores]
        equation(source_of(view, score), controls.meaning(score), score.equation, functions)
    title = "Beyond the paper" if view.of_r else "Calibration"
    equation(title, controls.P_VALUE, controls.P_EQUATION, [conformal_p_value, conformal_threshold])


def source_of(view: controls.View, score: Score) -> str:
    """Where a score comes from."""
    return score.source or ("Beyond the paper" if view.of_r else controls.literal(view.detector.title))


def equation(title: str, sentence: str, formula: str, functions: list) -> None:
    st.markdown(f"**{title}.** {sentence}")
    st.latex(formula)
    with st.expander(f"Code: {', '.join(f.__qualname__ for f in functions)}", icon=":material/code:"):
        for function in functions:
            code(function)


def code(thing) -> None:
    """The source of a function or class, with the place where it stands."""
    lines, first = cache.source_lines(thing)
    file = Path(inspect.getsourcefile(thing))
    place = file.relative_to(SOURCE) if file.is_relative_to(SOURCE) else file.name  # of a detector from outside
    st.caption(f"{place}, line {first}")
    st.code("".join(lines), language="python", line_numbers=False)


def settings(view: controls.View) -> None:
    config, usual = view.detector.settings, type(view.detector.settings)()
    whose = "paper's" if view.of_r else "default"
    fields = dataclasses.fields(config)
    changed = controls.switch("changed", f"Only what differs from the {whose} settings", False)
    shown = [f for f in fields if not changed or getattr(config, f.name) != getattr(usual, f.name)]
    if not shown:
        st.info(f"This model has the {whose} settings throughout.")
        return
    st.table(
        {
            "setting": [f"`{f.name}`" for f in shown],
            "value": [beside(getattr(config, f.name), getattr(usual, f.name)) for f in shown],
            "meaning": [controls.literal(explained(f.metadata["doc"])) for f in shown],
        },
        hide_index=True,
    )
    st.caption(
        ("The defaults are the paper's or, where it is silent, its released code's. " if view.of_r else "")
        + "Where a meaning names its source, it is the paper, the authors' released code, or a decision made here. Each can be "
        "set: `--set name=value`."
    )


def beside(value, usual) -> str:
    """A setting, with the default where it is another."""
    return str(value) if value == usual else f"{value} (default {usual})"


def calibration(view: controls.View) -> None:
    st.markdown(
        "p-values control the false-alarm rate: flag what has p ≤ α, and at most a fraction α of *normal* images is flagged. "
        "Here is whether that holds for normal test images, which took no part in training or calibration."
    )
    own = next((s for s in cache.stored(view.folder) if (s.name, s.split) == (view.normal, "test")), None)
    if own is None:
        st.info("This model has no stored scores of its normal test images. Measure it, then reload this page:")
        st.code(f"python -m ama_core measure {access.shown(view.folder)}", language="bash")
        return
    detector, alphas = view.detector, CURVE_ALPHAS
    n, names = len(detector.calibration_scores_), list(detector.score_names())
    first = list(dict.fromkeys((names[0], detector.decides)))
    chosen = controls.choose(st.pills, "scores", "Scores", names, first, selection_mode="multi") or [detector.decides]
    p_values = detector.with_p_values(own.scores)
    measured = {by: false_alarm_curve(p_values[f"p_{by}"], alphas) for by in names if by in chosen}
    low, high = false_alarm_band(alphas, own.n, n)
    at = int(np.searchsorted(alphas, 0.05))
    at_5 = ", ".join(f"{by} {100 * values[at]:.1f} %" for by, values in measured.items())
    controls.chart(
        charts.calibration_chart(alphas, measured, low, high, "95 % of sound calibrations"),
        {"alpha": alphas, **measured, "low": low, "high": high},
        "calibration",
        f"Measured against nominal false-alarm rate. At 5 %: {at_5}.",
    )
    most = false_alarm_band(alphas[[at]], own.n, n, SOUND)[1][0]
    outside = [by for by, values in measured.items() if values[at] > most]
    st.markdown(
        f"At α = 5 %, flagged of the normal test images: {at_5}; a sound calibration stays between {100 * low[at]:.1f} % and "
        f"{100 * high[at]:.1f} % in 95 of 100 cases."
        + (
            f" **{controls.listed(outside)} flag{'s' * (len(outside) == 1)} more than chance explains:** the rate holds only "
            "for images of the same source as the held-out training images, and these test images most likely differ from them "
            "(such as other regions of a photograph, or other writers)."
            if outside
            else " No score flags more than chance explains."
        )
    )
    st.caption(
        f"{own.n:,} of {own.n_total:,} normal test images; {n:,} calibration images. The band is binomial, widened "
        "(beta-binomial) for the fact that a finite calibration set knows the true rate only roughly."
    )


def card(view: controls.View) -> None:
    if not access.public():
        st.download_button(
            "Share this model (.zip)",
            lambda: cache.shared(view.folder),
            f"{view.folder.name}.zip",
            "application/zip",
            icon=":material/ios_share:",
            on_click="ignore",
            key="share",
            help="Weights, settings, calibration and stored scores. Once unpacked, its folder can be named as a model; the "
            "app offers it if it is among the runs or in a folder named by AMA_MODELS_DIR.",
        )
    text = cache.card(view.folder)
    if text is None:
        st.info("This model has no card (README.md).")
        return
    # One level down, under this page's own headings.
    st.markdown("\n".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines()))


PARTS = {
    "Architecture": architecture,
    "Equations": equations,
    "Settings": settings,
    "Calibration": calibration,
    "Card": card,
}


def main() -> None:
    view = controls.page(
        "About the model",
        "How the chosen model is built, what it minimises, how it was set, and whether its false-alarm rate holds.",
        scoring=False,
    )
    part = controls.choose(st.segmented_control, "part", "Part", list(PARTS), "Architecture", required=True)
    PARTS[part](view)


with controls.error_panel():
    main()
