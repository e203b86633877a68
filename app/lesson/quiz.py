"""Step: questions, answered from the model's own measurements."""

import controls
import numpy as np
import streamlit as st

from ama_core.evaluation.metrics import confusion_at
from ama_core.formatting import significant
from lesson.case import Case, order, pairs

TIE = 0.002  # AUROCs nearer than this are called equal


def show(case: Case) -> None:
    st.markdown(f"Questions about this model and {case.ood}; where they can, the answers come from its own measurements.")
    for i, (question, options, right, reason) in enumerate(questions(case)):
        answer = st.radio(
            f"**{i + 1}.** {question}",
            options,
            index=None,
            key=f"quiz-{i}-{case.view.name}-{case.other.name}",
            persist_state="page",
        )
        if answer in right:
            st.success(f"Right. {reason}", icon=":material/check:")
        elif answer is not None:
            st.error(f"Not quite. The answer is “{right[0]}”. {reason}", icon=":material/close:")
    st.subheader("Continue with this model")
    name, ood = case.view.name, case.other.name
    controls.link("densities", "All score densities", "area_chart", model=name, ood=ood)
    controls.link("reconstructions", "What the model reconstructs well and badly", "compare", model=name, set=ood)
    controls.link("shell", "Where its codes lie", "blur_circular", model=name)
    controls.link("simplex", "Mixtures of three images", "change_history", model=name)
    controls.link("check", "Check images of your own", "image_search", model=name, sample_set=ood)
    controls.link("benchmark", "The paper's numbers beside ours", "leaderboard")
    controls.link("about", "How the model is built", "schema", model=name)


def questions(case: Case) -> list[tuple[str, list[str], list[str], str]]:
    """(question, options, the right ones, reason), from what was measured."""
    of_r, ood = case.view.of_r, case.title
    r, truth = case.auroc["R"], order(case.auroc["R"])
    caught = confusion_at(case.own.scores["R"], case.other.scores["R"], case.threshold_r).detection_rate
    bucket = 0 if caught < 0.05 else 1 if caught <= 0.5 else 2
    below = of_r.mu > 3 * of_r.sigma  # R is never negative
    far = of_r.mu + (-3 if below else 3) * of_r.sigma
    best = [by for by in case.scores if case.auroc[by] > max(case.auroc.values()) - TIE]
    means = {
        "ood": "These anomalies mostly score higher than normal images",
        "normal": "These anomalies mostly score lower than normal images",
        "same": "R sees next to no difference",
    }
    catches = ["Fewer than 5", "5 to 50", "More than 50"]
    unusual = "Unusual: R lies far from that of the training images"
    p_means = "About 3 in 100 normal images look at least as unusual"
    found = [
        (
            f"The AUROC of R on {ood} is {r:.2f}. What does that say?",
            list(means.values()),
            [means[truth]],
            f"An AUROC is a bet on pairs: {pairs(r)}.",
        ),
        (
            f"A threshold on R flags 5 in 100 normal images. How many of 100 {ood} images does it catch?",
            catches,
            [catches[bucket]],
            f"Measured: {100 * caught:.1f}. A false-alarm rate says nothing about how many anomalies are found.",
        ),
        (
            f"The training images have R = {significant(of_r.mu)} ± {significant(of_r.sigma)}. An "
            f"image has R = {significant(far)}. What does A say?",
            ["Very normal: R is what it should be", unusual, f"Nothing: A looks only at {'high' if below else 'low'} R"],
            [unusual],
            "A is a Gaussian density of R: it falls on both sides of μ, and low A is suspicious.",
        ),
        (
            "An image gets p = 0.03. What is true?",
            ["It is anomalous with a probability of 97 %", p_means, "3 % of the anomalies look like it"],
            [p_means],
            "A p-value is made from normal images alone. How probable an anomaly is depends also on how rare anomalies are.",
        ),
        (
            f"Which score separates {ood} from the normal images best here?",
            list(case.scores),
            best,
            f"AUROC: {', '.join(f'{by} {case.auroc[by]:.3f}' for by in case.scores)}. But choosing the score by a table like "
            "this would use anomalies that a detector has never seen; that is why T was fixed beforehand, and all scores are "
            "always shown.",
        ),
    ]
    return found if np.isfinite(case.threshold_r) else [found[0], *found[2:]]  # of too few images no threshold flags 5 in 100


def take_away(case: Case) -> str:
    fails = [name for name, aurocs in case.aurocs.items() if order(aurocs["R"]) == "normal"]
    return (
        f"A score is what it measures, not what it is called: with this model, R ranks the anomalies of {len(fails)} of "
        f"{len(case.aurocs)} measured sets as more normal than normal images. Calibrate, look on both sides, and measure."
    )
