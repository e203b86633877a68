"""The part of the page Benchmark about how long to train: AUROC against the steps of whole runs."""

import controls
import paper_tables
import streamlit as st
from charts import line_chart

from ama_core.paper.lengths import CONDITION, LOSSES, Length, curve, of_several_lengths
from ama_core.paper.report import figure

SHOWN = ("T", "A")
NAMES = {"mirrored": "mirrored loss", "plain": "plain loss"}


def main() -> None:
    """The sets to choose, the chart of A and T for both losses, and what it says."""
    by_set = of_several_lengths(paper_tables.training_lengths())
    if not by_set:
        return
    st.subheader("How long to train")
    left, right = st.columns(2)
    with left:
        normal = controls.choose_set("length_normal", "Trained on", list(by_set), next(iter(by_set)))
    runs = by_set[normal]
    sets = list(dict.fromkeys(ood for run in runs for ood in run.aurocs))
    with right:
        ood = controls.choose_set("length_set", "Other set", sets, sets[0])
    curves = {(loss, by): curve(runs, loss, ood, by, normal) for by in SHOWN for loss in LOSSES.values()}
    curves = {key: found for key, found in curves.items() if found}
    lines = {
        f"{NAMES[loss]}, {by}": ([x.steps for x in found], [x.auroc for x in found]) for (loss, by), found in curves.items()
    }
    spreads = {f"{NAMES[loss]}, {by}": [x.sd or 0.0 for x in found] for (loss, by), found in curves.items()}
    chart = line_chart(
        lines, "training steps", "AUROC (higher is better)", level=(0.5, "chance (0.5)"), spreads=spreads, height=380
    )
    steps = sorted({x.steps for found in curves.values() for x in found})
    chart.update_xaxes(type="log", tickvals=steps, ticktext=[f"{at:,}" for at in steps])
    said = summary(curves)
    rows = [(loss, by, x.steps, x.auroc, x.sd, x.seeds) for (loss, by), found in curves.items() for x in found]
    controls.chart(
        chart,
        dict(zip(("loss", "score", "steps", "auroc", "sd", "seeds"), zip(*rows))),
        f"length-{ood}",
        f"AUROC against {controls.title_of(ood)} by length of training. {said}",
    )
    st.markdown(said)
    few = [x.seeds for found in curves.values() for x in found]
    least, most = min(few), max(few)
    of = f"{most} seed{'s' * (most > 1)}" if least == most else f"{least} to {most} seeds"
    spread = max((x.sd for found in curves.values() for x in found if x.sd is not None), default=None)
    st.caption(
        f"{controls.title_of(normal)}, {CONDITION}. Every point is a whole run, with its own fall of the learning rate, by "
        f"the weights of its last step, of {of}."
        + (f" Bars: ± the standard deviation over seeds, at most {spread:.3f}: judge the trend." if spread else "")
    )


def summary(curves: dict[tuple[str, str], list[Length]]) -> str:
    """What every curve of several lengths does from the first to the last."""
    parts = []
    for (loss, by), found in curves.items():
        first, last = found[0], found[-1]
        if first is last:
            continue
        parts.append(
            f"**{by}, {NAMES[loss]}**: {figure((first.auroc, first.sd))} after {first.steps:,} steps, "
            f"{figure((last.auroc, last.sd))} after {last.steps:,}"
        )
    return "; ".join(parts) + "." if parts else ""
