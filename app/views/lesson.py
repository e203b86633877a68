"""Why raw scores fail: a lesson on one model, a step a page, each with the set that shows its point."""

import re

import access
import cache
import controls
import streamlit as st
from lesson import parts, save
from lesson.case import AUTO, Case, case_of
from lesson.steps import STEPS, label

CLASS = "docs/teaching.md"  # the 45-minute class, in the repository


def turn(step: str) -> None:
    """Go to a step by a button at the end of another: it is read from its beginning."""
    st.session_state.update({"step": step, "turned": True})


def walk(at: int) -> None:
    """The buttons that lead to the steps before and after."""
    st.divider()
    back, forward, _ = st.columns([2, 2, 3])
    if at > 0:
        previous = list(STEPS)[at - 1]
        back.button(
            f"Back: {previous}",
            icon=":material/arrow_back:",
            on_click=turn,
            args=(previous,),
            width="stretch",
        )
    if at + 1 < len(STEPS):
        following = list(STEPS)[at + 1]
        forward.button(
            f"Next: {following}",
            icon=":material/arrow_forward:",
            type="primary",
            on_click=turn,
            args=(following,),
            width="stretch",
        )


def behind_it(case: Case) -> None:
    """Which images the lesson's figures are of."""
    behind = "of the same"
    if measured := cache.results(case.view.folder).get(case.other.name):
        n, m = measured["n_normal"], measured["n_ood"]
        behind = f"those of the page Score densities, of {n:,} normal test images and {m:,} others"
    st.caption(
        f"Curves and counts of this lesson come from the scores stored with the model: {case.own.n:,} of "
        f"{case.own.n_total:,} normal test images and {case.other.n:,} of {case.other.n_total:,} of {case.title}. AUROCs "
        f"are {behind}."
    )
    for note in case.other.notes:
        st.caption(controls.literal(note))


def to_take_along(case: Case, asked: str) -> None:
    """The lesson as a file, and the class for teachers."""

    def document() -> str:
        chosen = {name: step.choose(case.aurocs) if asked == AUTO else asked for name, step in STEPS.items()}
        return save.document({name: case_of(case.view, ood) for name, ood in chosen.items()})

    st.download_button(
        "Save the lesson as one HTML file",
        document,
        f"lesson-{case.view.name}.html",
        "text/html",
        on_click="ignore",
        icon=":material/download:",
        key="save",
        help="Its charts, interactive without a server, with what each step says.",
    )
    text = (access.ROOT / CLASS).read_text(encoding="utf-8") if (access.ROOT / CLASS).is_file() else ""
    if text:
        with st.expander("For teachers: a class of 45 minutes with this app", icon=":material/co_present:"):
            # Its links name a server of one's own; here they lead to this one.
            st.markdown(re.sub(r"\(http://localhost:8501(/[^)]*)\)", r"(\1)", text.split("\n", 1)[1]))


def main() -> None:
    view = controls.page(
        "Why raw scores fail",
        "Nine short steps, most on one trained model: why its reconstruction error misses obvious anomalies, and what helps.",
        scoring=False,
        needs=("R", "A", "M", "T", "reconstruct"),
    )
    aurocs = cache.aurocs(view.folder)
    if not aurocs:
        st.info("This model has no stored scores to learn from. Measure it, then reload this page:")
        st.code(f"python -m ama_core measure {access.shown(view.folder)}", language="bash")
        st.stop()
    name = controls.choose(
        st.segmented_control,
        "step",
        "Step",
        list(STEPS),
        "Hope",
        required=True,
        label_visibility="collapsed",
    )
    step = STEPS[name]
    chosen = step.choose(aurocs)
    asked = controls.choose_set(
        controls.ONE,
        "Images that the model has never seen",
        [AUTO, *aurocs],
        AUTO,
        help="Every step chooses the set that shows its point; a choice of your own applies to all of them.",
        disabled=not step.of_set,
    )
    ood = chosen if asked == AUTO else asked
    controls.keep_sets([ood], [chosen], one=True)
    case = case_of(view, ood)
    if not step.of_set:
        st.caption("This step uses its own images; the choice applies to the other steps.")
    elif asked == AUTO:
        st.caption(controls.literal(label(case, name)))
    at = list(STEPS).index(name)
    st.subheader(f"{at + 1} of {len(STEPS)}: {step.title}", anchor="step")
    controls.scroll_to("step", st.session_state.pop("turned", False))
    step.show(case)
    if not step.hidden(case):
        parts.take_away(step.take_away(case))
    walk(at)
    if step.of_set:
        behind_it(case)
    to_take_along(case, asked)


with controls.error_panel():
    main()
