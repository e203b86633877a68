"""All runs as a table, and one measured value of several of them on one chart."""

from pathlib import Path

import cache
import charts
import controls
import pandas as pd
import streamlit as st

from ama_core.formatting import duration
from ama_core.runs import queue
from ama_core.runs.folder import list_runs, runs_dir
from ama_core.training.trainer import Curve
from training.live import WATCHED, aurocs_in, curves_of, progress_of, shown_state, status_of

SPEED = Curve("images_per_s", "speed", "training images per second", chart="")


def overview() -> None:
    """The list of runs."""
    found = list_runs(runs_dir())
    places = {run.name: i + 1 for i, run in enumerate(queue.waiting(runs_dir()))}
    rows = []
    for name, folder in found.items():
        status = status_of(folder)
        state, running = shown_state(folder, status), status["state"] == "running"
        rows.append(
            {
                "Run": name,
                "State": f"{state}, number {places[name]}" if name in places else state,
                "Progress": progress_of(status),
                "Time left": duration(status["eta_s"]) if running and "eta_s" in status else "",
                "Images per s": f"{status['images_per_s']:,.0f}" if "images_per_s" in status else "",
                "Device": status.get("device", ""),
            }
        )
    if rows:
        controls.grid(
            pd.DataFrame(rows),
            width="stretch",
            height=min(400, 38 + 35 * len(rows)),
            column_config={"Progress": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)},
            alt="Runs: " + "; ".join(f"{row['Run']} {row['State']}, {row['Progress']:.0%}" for row in rows),
        )


def comparable(found: dict[str, Path]) -> dict[str, Curve]:
    """What these runs may have measured, by its name in the list."""
    values: dict[str, Curve] = {}
    for folder in found.values():
        for curve in curves_of(folder):
            values.setdefault(curve.label, curve)
        curves = cache.curves(folder)
        for curve in aurocs_in(curves):
            values.setdefault(f"validation AUROC of {curve.label}", curve)
        for curve in aurocs_in(curves, WATCHED):
            values.setdefault(f"watched AUROC of {curve.label}", curve)
    return values | {SPEED.label: SPEED}


def compare() -> None:
    """One measured value of several runs on one chart."""
    found = list_runs(runs_dir())
    if not found:
        return
    st.subheader("Compare runs")
    left, right = st.columns(2)
    with left:
        chosen = controls.choose(st.multiselect, "compare", "Runs", list(found), list(found)[:2], placeholder="Choose runs")
    with right:
        values = comparable(found)
        label = controls.choose(st.selectbox, "value", "Value", list(values), next(iter(values)))
    key = values[label].name
    lines = {name: curves[key] for name in chosen if key in (curves := cache.curves(found[name]))}
    without = [name for name in chosen if name not in lines]
    if lines:
        data = pd.concat([pd.DataFrame({"run": name, "step": x, key: y}) for name, (x, y) in lines.items()])
        newest = ", ".join(f"{name} {y[-1]:.3g}" for name, (_, y) in lines.items())
        controls.chart(
            charts.line_chart(lines, "step", label),
            data.to_dict("list"),
            f"compare-{key}",
            f"{label} of {len(lines)} runs over the steps; newest: {newest}.",
        )
        st.caption(f"{label}: {values[label].meaning}.")
    if without:
        st.caption(f"Not measured yet, or not at all: {', '.join(map(controls.literal, without))}.")
    elif not lines:
        st.info("Choose at least one run.")
