"""Why raw scores fail: a lesson in six steps on one model and one OOD set, from stored scores alone."""

from dataclasses import dataclass

import access
import cache
import charts
import controls
import numpy as np
import pictures
import streamlit as st
from density_charts import density_chart

from ama_core import AMAError
from ama_core.evaluation.metrics import Confusion, confusion_at, confusion_outside, nearest_the_cut, roc_points, threshold_scale
from ama_core.evaluation.protocol import CLEAR, gain, shows_both, telling_set
from ama_core.storage.bundle import StoredScores

PAPERS_CASE = "svhn"
R_LABEL = "R-score (high: image and redrawing differ)"
EXAMPLES = 4  # images of each kind that are shown
TIE = 0.002  # AUROCs nearer than this are called equal
MENDED = 0.9  # an AUROC from here on is called good
COIN = 0.03  # an AUROC this near to 0.5 is called a coin's


@dataclass(frozen=True)
class Case:
    """What the lesson is about: a model, its normal test scores, and those of one OOD set."""

    view: controls.View
    own: StoredScores
    other: StoredScores
    auroc: dict[str, float]
    aurocs: dict[str, dict[str, float]]  # of every set

    @property
    def ood(self) -> str:
        return f"**{controls.title_of(self.other.name)}**"

    @property
    def threshold_r(self) -> float:
        return self.view.detector.threshold("R", 0.05)

    @property
    def scores(self) -> tuple[str, ...]:
        return self.view.detector.score_names()


def pairs(auroc: float) -> str:
    """An AUROC as a bet on pairs, in words."""
    return f"in {100 * auroc:.0f} of 100 pairs of one anomalous and one normal image the anomalous one has the higher score"


def order(auroc: float) -> str:
    """Which of the two kinds of images scores higher: `ood`, `normal` or `same`."""
    return "same" if abs(auroc - 0.5) <= COIN else "ood" if auroc > 0.5 else "normal"


def examples(case: Case, stored: StoredScores, what: str, rows: np.ndarray) -> None:
    """Some of the images behind stored scores beside what the model makes of them; scores alone where they are not here."""
    rows = tuple(int(i) for i in rows)
    values = [f"{stored.scores['R'][i]:.3g}" for i in rows]
    try:
        source = (case.view.folder, stored.name, stored.split, rows)
        seen, redrawn = cache.stored_pictures(*source), cache.stored_pictures(*source, redrawn=True)
    except AMAError as error:
        missing(error, what, values)
        return
    table = [
        ([
            (a, f"{what}, R {value}"), (b, "what the model redraws of it"), (pictures.difference_map(a, b), "their difference"),
        ], value)
        for a, b, value in zip(seen, redrawn, values)
    ]  # fmt: skip
    st.html(pictures.image_table(["Image", "Redrawn", "Difference", "R"], table))


def missing(error: AMAError, what: str, values: list[str]) -> None:
    """Says plainly that images are not here, and gives the numbers that are."""
    st.info(
        f"The images of {what} are not on this computer, only their scores: R {', '.join(values)}.",
        icon=":material/hide_image:",
    )
    st.caption(str(error))


def densities(case: Case, axis: str, label: str, name: str, **lines) -> None:
    """The densities of the normal training and test images and of the OOD set, with cuts and bands."""
    own, other = case.own, case.other
    splits = {s.split for s in cache.stored(case.view.folder) if s.name == own.name}
    sets = tuple((split, own.name, split) for split in ("train", "test") if split in splits)
    log = controls.switch("log", "Logarithmic axis", True, help="A few very high scores would squeeze all the rest otherwise.")
    found = cache.score_densities(case.view.folder, axis, (*sets, (other.name, other.name, "test")), log)
    medians = "; ".join(f"{which} {value:.3g}" for which, value in found.medians.items())
    controls.chart(
        density_chart(found.grid, found.curves, xlabel=label, log=log, **lines),
        {
            "set": np.repeat(list(found.curves), len(found.grid)), axis: np.tile(found.grid, len(found.curves)),
            "density": np.concatenate(list(found.curves.values())),
        },
        f"lesson-{name}",
        f"Densities of {axis} of training, test and {other.name} images. Medians: {medians}.",
    )  # fmt: skip


def matrix(case: Case, counts: Confusion) -> None:
    """The confusion matrix of a rule."""
    st.html(pictures.confusion_table(
        counts.hits, counts.misses, counts.false_alarms, counts.passed, case.other.name, f"{case.own.name} (normal)",
    ))  # fmt: skip


def rule_in_words(counts: Confusion) -> str:
    """What a rule finds and what that costs."""
    found = (
        f"It detects **{controls.percent(counts.detection_rate)}** of the anomalies and raises a false alarm on "
        f"**{controls.percent(counts.false_alarm_rate)}** of the normal images."
    )
    if np.isnan(counts.precision):
        return f"{found} Nothing is flagged at all."
    found += (
        f" Of what is flagged here, {controls.percent(counts.precision)} is anomalous (precision; it falls where anomalies are "
        "rarer than here)."
    )
    if counts.detection_rate < counts.false_alarm_rate:
        found += " **It flags normal images more readily than anomalies: worse than drawing lots.**"
    return found


def hope(case: Case) -> None:
    st.markdown(
        "An autoencoder learns to redraw normal images, and only those. The hope: *what it has never seen, it redraws badly*. "
        "So measure how badly. AMA asks its critic to compare the image with its reconstruction, and calls the answer **R**: "
        "high R should mean anomaly."
    )
    left, right = st.columns(2, gap="medium")
    places = np.linspace(0, 1, EXAMPLES + 2)[1:-1]  # evenly along R: neither the best nor the worst are picked
    for column, stored, what in (
        (left, case.own, f"{case.own.name} (normal test images)"), (right, case.other, f"{case.other.name} (never seen)"),
    ):  # fmt: skip
        with column:
            st.markdown(f"**{controls.literal(what)}**")
            ranked = np.argsort(stored.scores["R"])
            examples(case, stored, what, ranked[(places * (len(ranked) - 1)).astype(int)])
    st.html(pictures.difference_key())
    st.caption(
        f"Drawn evenly along R, from low to high, of {case.own.n:,} normal test images and {case.other.n:,} of "
        f"{case.other.name}."
    )
    controls.explain(*case.view.scores("R"))


def surprise(case: Case) -> None:
    st.markdown(
        f"Here are more images of {case.ood}. The model was trained on *{controls.title_of(case.own.name)}* and has never seen "
        "one of them. **Guess before you look:** which images get the higher R-scores?"
    )
    rows = np.argsort(case.other.scores["R"])[np.linspace(0, case.other.n - 1, 2 * EXAMPLES + 2).astype(int)[1:-1]]
    strip(case, case.other, rows, lambda value: "")
    names = {"ood": case.other.name, "normal": f"the model's own {case.own.name} test images", "same": "about the same"}
    guess = st.pills(
        "Higher R-scores", list(names), format_func=names.get, key=f"guess-{case.view.name}-{case.other.name}",
        persist_state="page",
    )  # fmt: skip
    if guess is None:
        st.caption("The densities appear once you have guessed.")
        return
    auroc, truth = case.auroc["R"], order(case.auroc["R"])
    outcome = "Right" if guess == truth else "Not so"
    if truth == "normal":
        st.warning(
            f"**{outcome}: R fails here.** The AUROC of R is **{auroc:.3f}**, below the 0.5 of a coin: {pairs(auroc)}. Images "
            "that the model has never seen look *more normal* to it than its own test images.",
            icon=":material/trending_down:",
        )
        what_else_moves_r(case)
    elif truth == "same":
        st.warning(
            f"**{outcome}: R cannot tell them apart.** Its AUROC is **{auroc:.3f}**, a coin's 0.5: {pairs(auroc)}.",
            icon=":material/casino:",
        )
    else:
        st.success(
            f"**{outcome}: here the hope holds.** The AUROC of R is **{auroc:.3f}**: {pairs(auroc)}. This set does *not* show "
            "the failure.",
            icon=":material/thumb_up:",
        )
    offer_worse(case)
    densities(case, "R", R_LABEL, "surprise")


def what_else_moves_r(case: Case) -> None:
    """What was measured of R beside strangeness, for this model and these images; nothing where nothing was measured."""
    found = cache.response(case.view.folder)
    if found is None:
        return
    changed = ", ".join(f"{controls.literal(change)}: {r:.3g}" for change, r in found.changed.items())
    st.markdown(
        f"**R answers to more than strangeness.** {found.n:,} of the model's own test images have a median R of {found.r:.3g}; "
        f"the same images, changed: {changed}."
    )
    own, other = found.sets.get(case.own.name), found.sets.get(case.other.name)
    if own is None or other is None:
        return
    properties = (
        ("deviation", "the standard deviation of an image's pixel values", "{:.3g}"),
        ("length", "an image's losslessly compressed length", "{:,.0f} bytes"),
    )
    for name, words, form in properties:
        expected = found.expected(case.other.name, name)
        if expected is None:
            continue
        here, there = (form.format(getattr(facts, name)) for facts in (other, own))
        r = own.correlation(name)
        so = {
            "low": "By that, a *low* R is to be expected of them.",
            "high": "By that, a *high* R is to be expected of them: it does not explain why theirs is low.",
            "weak": "That is too weak to expect anything of them.",
            "alike": "In that the two are much alike, so it says little of why R is low.",
        }[expected]
        st.markdown(
            f"- Over its own test images, log R goes with {words} by a correlation of {r:.2f}. The median is {here} "
            f"for {controls.literal(case.other.name)}, {there} for the own test images. {so}"
        )


def offer_worse(case: Case) -> None:
    """Where another set shows the failure and this one does not, leads to it."""
    if case.auroc["R"] < 0.5:
        return
    worst = min(case.aurocs, key=lambda name: case.aurocs[name]["R"])
    r = case.aurocs[worst]["R"]
    if worst == case.other.name:
        st.caption(f"It is already the set with the lowest AUROC of R for this model, {r:.3f}: none falls below 0.5.")
        return
    fails = "there R fails" if r < 0.5 else "even there R stays above a coin; another model may fail"
    offer(worst, f"AUROC of R {r:.3f} ({fails})")


def offer(name: str, why: str) -> None:
    """A button that leads to another set."""
    st.button(
        f"Look at {name} instead: {why}", icon=":material/swap_horiz:", on_click=change, args=(controls.ONE, name),
    )  # fmt: skip


def strip(case: Case, stored: StoredScores, rows: np.ndarray, words) -> None:
    """A row of images with words made of their R."""
    rows = tuple(int(i) for i in rows)
    captions = [words(stored.scores["R"][i]) for i in rows]
    try:
        images = cache.stored_pictures(case.view.folder, stored.name, stored.split, rows)
    except AMAError as error:
        missing(error, stored.name, [f"{stored.scores['R'][i]:.3g}" for i in rows])
        return
    st.html(pictures.figures([(c, image, f"{stored.name} {c}") for c, image in zip(captions, images)], width=84))


@st.fragment
def threshold(case: Case) -> None:
    own, other = case.own.scores["R"], case.other.scores["R"]
    st.markdown(
        "Suppose R is all you have. Draw a line: what lies right of it is flagged. **Drag it** and try to catch the anomalies "
        "without flagging half of the normal images."
    )
    low, high, step = threshold_scale(*np.percentile(np.concatenate([own, other]), [0, 99.8]))
    first = float(np.clip(round(case.threshold_r / step) * step, low, high))
    if not low <= st.session_state.get("cut", first) <= high:  # of another model
        st.session_state["cut"] = first
    cut = st.slider(
        "Threshold on R", low, high, first, step, key="cut", bind="query-params",
        format="%.4g", help="It starts where 5 % of the held-out normal images would be flagged.",
    )  # fmt: skip
    counts = confusion_at(own, other, cut)
    densities(case, "R", R_LABEL, "threshold", cuts={f"your threshold, {cut:.4g}: flagged right of it": [cut]})
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**What your line does**")
        matrix(case, counts)
        st.markdown(rule_in_words(counts))
    with right:
        st.markdown(f"**Every line at once: the ROC of R, AUROC {case.auroc['R']:.3f}**")
        x, y = roc_points(own, other)
        controls.chart(
            charts.roc_chart({other_name(case): (x, y)}, {"your threshold": (counts.false_alarm_rate, counts.detection_rate)}),
            {"false_alarm_rate": x, "detection_rate": y}, "lesson-roc",
            f"ROC of R on {case.other.name}; your threshold detects {counts.detection_rate:.1%} at "
            f"{counts.false_alarm_rate:.1%} false alarms.",
        )  # fmt: skip
        if case.auroc["R"] < 0.5:
            st.caption("It runs below the diagonal: no place of the line beats drawing lots by much.")
    st.markdown("**The images at the line**")
    for stored, right_word in ((case.own, "false alarm"), (case.other, "detected")):
        passed, flagged = nearest_the_cut(stored.scores["R"], cut, EXAMPLES)
        rows = np.concatenate([passed[::-1], flagged])
        st.caption(f"{controls.literal(stored.name)}: last to pass, then first to be flagged ({right_word})")
        if len(rows):
            strip(case, stored, rows, lambda r, cut=cut: f"R {r:.4g} {'flagged' if r > cut else 'passed'}")


def other_name(case: Case) -> str:
    return f"{case.other.name} against {case.own.name}"


@st.fragment
def band(case: Case) -> None:
    of_r = case.view.of_r
    own, other = case.own.scores, case.other.scores
    st.markdown(
        "If unusually *low* R is suspicious too, why not flag both sides? That is the paper's **A-score**: it asks how usual "
        f"this R is among the training images, whose R has mean μ = {of_r.mu:.3g} and standard deviation σ = "
        f"{of_r.sigma:.3g}. On the axis of R, A is a band: what falls outside is flagged."
    )
    alpha = controls.false_alarm_rate()
    low, high = of_r.band(alpha)
    cut = case.view.detector.threshold("R", alpha)
    asked = controls.percent(alpha)
    densities(
        case, "R", R_LABEL, "band", bands=[(f"A passes, α = {asked}", low, high)],
        cuts={f"R alone flags right of this, α = {asked}": [cut]},
    )  # fmt: skip
    one, two = confusion_at(own["R"], other["R"], cut), confusion_outside(own["R"], other["R"], low, high)
    left, right = st.columns(2, gap="large")
    for column, title, counts in ((left, "R: one side", one), (right, "A: both sides", two)):
        with column:
            st.markdown(f"**{title}**, AUROC {case.auroc[title[0]]:.3f}")
            matrix(case, counts)
            st.markdown(rule_in_words(counts))
    below = controls.percent(float(np.mean(other["R"] < low)))
    above = controls.percent(float(np.mean(other["R"] > high)))
    a, r = case.auroc["A"], case.auroc["R"]
    verdict = (
        f"A {'mends it' if a >= MENDED else 'helps, without mending it'}: its AUROC is {a:.3f}, where R had {r:.3f}."
        if a > max(r, 0.5) + COIN
        else f"A loses here: its AUROC is {a:.3f}, R alone had {r:.3f}. Where anomalies have a *usual* R, A passes them."
        if a < r - COIN
        else f"A changes little here: AUROC {a:.3f}, R had {r:.3f}."
    )  # fmt: skip
    st.info(f"Of {case.ood}, {below} fall below the band and {above} above it. {verdict}", icon=":material/straighten:")
    controls.explain(*case.view.scores("R", "A"))


@st.fragment
def overlap(case: Case) -> None:
    detector = case.view.detector
    st.markdown(
        "Where two densities of R lie *on top of each other*, no rule on R can part them, one-sided or two-sided. But R is a "
        "sum of magnitudes: it forgets in which direction the critic's features moved. **M** keeps the direction, **T** adds "
        "the other things that the same forward pass says. And since none of these scales means anything by itself, each is "
        "turned into a **p-value**: the fraction of held-out normal images that look at least as unusual."
    )
    alpha = controls.false_alarm_rate()
    asked = controls.percent(alpha)
    own, other = detector.anomaly_scores(case.own.scores), detector.anomaly_scores(case.other.scores)
    counts = {by: confusion_at(own[by], other[by], detector.threshold(by, alpha)) for by in case.scores}
    st.markdown(f"**Flag where p ≤ α = {asked}.** Measured on this model's stored test scores:")
    st.table(
        {
            "Score": list(case.scores),
            "False alarms": [f"{100 * c.false_alarm_rate:.1f} %" for c in counts.values()],
            f"{case.other.name} detected": [f"{100 * c.detection_rate:.1f} %" for c in counts.values()],
            "AUROC": [f"{case.auroc[by]:.3f}" for by in case.scores],
        },
        hide_index=True,
    )
    st.caption(
        f"n = {case.own.n:,} normal and {case.other.n:,} {case.other.name} images; calibrated on "
        f"{len(detector.held_out_scores_['T']):,} others. False alarms should come near {asked}, whichever score decides."
    )
    r, m, t = (case.auroc[by] for by in "RMT")
    if max(m, t) < 0.5 + COIN:
        st.info("Nothing in this model tells these images apart: M and T are no better than a coin either.")
    elif gain(case.auroc) > CLEAR:
        st.success(
            f"By AUROC, M ({m:.3f}) or T ({t:.3f}) sees what R ({r:.3f}) and A ({case.auroc['A']:.3f}) do not.",
            icon=":material/visibility:",
        )
    else:
        a = case.auroc["A"]
        st.info(f"On this set M ({m:.3f}) and T ({t:.3f}) find no more than the better of R ({r:.3f}) and A ({a:.3f}).")
    if gain(case.auroc) <= CLEAR:
        most = max(case.aurocs, key=lambda name: gain(case.aurocs[name]))
        if gain(case.aurocs[most]) > CLEAR:
            offer(most, "AUROC " + ", ".join(f"{by} {case.aurocs[most][by]:.3f}" for by in case.scores))
    by = controls.choose(st.segmented_control, "by", "Look at", ("M", "T"), "T", required=True)
    densities(
        case, by, f"{by}-score: high = unusual", f"overlap-{by}",
        cuts={f"flagged right of this, p ≤ {asked}": [detector.threshold(by, alpha)]},
    )  # fmt: skip
    controls.explain(*case.view.scores("R", "A", "M", "T"), p=True)


def quiz(case: Case) -> None:
    st.markdown(f"Five questions about this model and {case.ood}; where they can, the answers come from its own measurements.")
    for i, (question, options, right, reason) in enumerate(questions(case)):
        answer = st.radio(
            f"**{i + 1}.** {question}", options, index=None, key=f"quiz-{i}-{case.view.name}-{case.other.name}",
            persist_state="page",
        )  # fmt: skip
        if answer in right:
            st.success(f"Right. {reason}", icon=":material/check:")
        elif answer is not None:
            st.error(f"No, rather: “{right[0]}”. {reason}", icon=":material/close:")
    st.subheader("Go on with this model")
    name, ood = case.view.name, case.other.name
    controls.link("densities", "All score densities", "area_chart", model=name, ood=ood)
    controls.link("reconstructions", "What the model redraws well and badly", "compare", model=name, set=ood)
    controls.link("shell", "Where its codes lie", "blur_circular", model=name)
    controls.link("simplex", "Mixtures of three images", "change_history", model=name)
    controls.link("check", "Check images of your own", "image_search", model=name, sample_set=ood)
    controls.link("benchmark", "The paper's numbers beside ours", "leaderboard")
    controls.link("about", "How the model is built", "schema", model=name)


def questions(case: Case) -> list[tuple[str, list[str], list[str], str]]:
    """(question, options, the right ones, reason), from what was measured."""
    of_r, ood = case.view.of_r, case.other.name
    r, truth = case.auroc["R"], order(case.auroc["R"])
    caught = confusion_at(case.own.scores["R"], case.other.scores["R"], case.threshold_r).detection_rate
    bucket = 0 if caught < 0.05 else 1 if caught < 0.5 else 2
    low = max(of_r.mu - 3 * of_r.sigma, 0.0)
    best = [by for by in case.scores if case.auroc[by] > max(case.auroc.values()) - TIE]
    means = {
        "ood": "These anomalies mostly score higher than normal images",
        "normal": "These anomalies mostly score lower than normal images",
        "same": "R sees next to no difference",
    }
    catches = ["Fewer than 5", "5 to 50", "More than 50"]
    unusual = "Unusual: R lies far from that of the training images"
    p_means = "About 3 in 100 normal images look at least as unusual"
    return [
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
            f"Measured: {100 * caught:.1f}. A false-alarm rate says nothing of how many anomalies are found.",
        ),
        (
            f"The training images have R = {of_r.mu:.3g} ± {of_r.sigma:.3g}. An image has R = {low:.3g}. What "
            "does A say?",
            ["Very normal: the reconstruction is excellent", unusual, "Nothing: A looks only at high R"],
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
            f"Which score parts {ood} from the normal images best here?",
            list(case.scores),
            best,
            f"AUROC: {', '.join(f'{by} {case.auroc[by]:.3f}' for by in case.scores)}. But choosing the score by such a table "
            "would use anomalies that a detector has never seen; that is why T was fixed beforehand, and all four are always "
            "shown.",
        ),
    ]  # fmt: skip


STEPS = {
    "Hope": ("What reconstruction error hopes for", hope),
    "Surprise": ("The surprise", surprise),
    "Threshold": ("A line on R", threshold),
    "Band": ("Two sides: the A-score", band),
    "Overlap": ("When even that fails", overlap),
    "Quiz": ("What have we learned?", quiz),
}


def change(key: str, value: str) -> None:
    st.session_state[key] = value


def turn(step: str) -> None:
    """Go to a step by a button at the end of another: it is read from its beginning."""
    change("step", step)
    st.session_state["turned"] = True


def why_this_set(aurocs: dict[str, dict[str, float]], first: str) -> str:
    """By what rule the set was chosen with which the lesson starts."""
    absent = "" if PAPERS_CASE in aurocs else "The paper's example is SVHN, which was not measured with this model. "
    if shows_both(aurocs[first]):
        return (
            f"{absent}The lesson starts with {controls.title_of(first)}, which is chosen to show its points: R fails on it, "
            f"and M or T does better than R and A. So it is for {sum(map(shows_both, aurocs.values()))} of the {len(aurocs)} "
            "sets measured with this model."
        )
    even_so = "" if aurocs[first]["R"] < 0.5 else " Even so, R stays above a coin here."
    return f"{absent}The lesson starts with the set on which R does worst, {controls.title_of(first)}.{even_so}"


def walk(at: int) -> None:
    """The buttons that lead to the steps before and after."""
    st.divider()
    back, forward, _ = st.columns([2, 2, 3])
    if at > 0:
        previous = list(STEPS)[at - 1]
        back.button(
            f"Back: {previous}", icon=":material/arrow_back:", on_click=turn, args=(previous,), width="stretch",
        )  # fmt: skip
    if at + 1 < len(STEPS):
        following = list(STEPS)[at + 1]
        forward.button(
            f"Next: {following}", icon=":material/arrow_forward:", type="primary", on_click=turn, args=(following,),
            width="stretch",
        )  # fmt: skip


def behind_it(case: Case) -> None:
    """Which images the lesson's figures are of."""
    ood = case.other.name
    behind = "of the same"
    if measured := cache.results(case.view.folder).get(ood):
        n, m = measured["n_normal"], measured["n_ood"]
        behind = f"those of the page Score densities, of {n:,} normal test images and {m:,} others"
    st.caption(
        f"Curves, counts and shares of this lesson come from the scores stored with the model: {case.own.n:,} of "
        f"{case.own.n_total:,} normal test images and {case.other.n:,} of {case.other.n_total:,} of {ood}. AUROCs are {behind}."
    )
    for note in case.other.notes:
        st.caption(controls.literal(note))


def main() -> None:
    view = controls.page(
        "Why raw scores fail",
        "Six short steps on one trained model: why its reconstruction error misses obvious anomalies, and what mends that.",
        scoring=False,
        needs=("R", "A", "M", "T", "reconstruct"),
    )
    stored = {(s.name, s.split): s for s in cache.stored(view.folder)}
    aurocs = cache.aurocs(view.folder)
    if not aurocs:
        st.info("This model has no stored scores to learn from. Measure it, then reload this page:")
        st.code(f"python -m ama_core measure {access.shown(view.folder)}", language="bash")
        st.stop()
    step = controls.choose(
        st.segmented_control, "step", "Step", list(STEPS), "Hope", required=True, label_visibility="collapsed",
    )  # fmt: skip
    first = telling_set(aurocs, controls.LEADING)
    ood = controls.choose(st.selectbox, controls.ONE, "Images that the model has never seen", list(aurocs), first)
    controls.keep_sets([ood], [first], one=True)
    case = Case(view, stored[view.normal, "test"], stored[ood, "test"], aurocs[ood], aurocs)
    if step == "Hope" and ood == first != PAPERS_CASE:
        st.caption(why_this_set(aurocs, first))
    at = list(STEPS).index(step)
    title, show = STEPS[step]
    st.subheader(f"{at + 1} of {len(STEPS)}: {title}", anchor="step")
    controls.scroll_to("step", st.session_state.pop("turned", False))
    show(case)
    walk(at)
    behind_it(case)


with controls.error_panel():
    main()
