"""Train: the run that is looked at, a form for another, the paper's first row, and all runs, all read from run folders."""

import access
import controls
import streamlit as st
from training import form, live, paper_row, run_list

from ama_core.runs import queue
from ama_core.runs.folder import list_runs, runs_dir
from ama_core.runs.status import ACTIVE

TICK = 2.0  # seconds between looks at a run that goes on
IDLE = 10.0
TOP = "run"  # the anchor of the run that is looked at


def current(statuses: dict[str, dict]) -> str:
    """The run to look into at first: one at work, else the newest."""
    return next((name for name, status in statuses.items() if status["state"] in ACTIVE), next(iter(statuses)))


def watch() -> None:
    """The run that is looked at; drawn again at every tick."""
    found = list_runs(runs_dir())
    if not found:
        st.info("No run yet. Set one up below: the size `tiny` on the handwritten digits is the quickest.")
        return
    with controls.error_panel():
        queue.ensure_worker(runs_dir())
    problem = st.session_state.pop("train-problem", None)
    if problem:
        st.error(controls.said(problem), icon=":material/error:")
    statuses = {name: live.status_of(folder) for name, folder in found.items()}
    asked = st.query_params.get("run")
    missing = asked if "run" not in st.session_state and asked not in (None, *found) else None
    if st.session_state.get("run") not in found:
        st.session_state.pop("run", None)
    name = controls.choose(st.selectbox, "run", "Select a run", list(found), current(statuses))
    if missing:
        st.session_state["no-run"] = missing, name
    missing, instead = st.session_state.get("no-run", (None, None))  # kept, since the address soon says it no more
    if instead == name:
        st.warning(f"There is no run called {controls.literal(missing)} here, so this shows **{controls.literal(name)}**.")
    with controls.error_panel():
        live.detail(name, found[name], statuses[name])


def main() -> None:
    access.stop_where_public()
    controls.heading(
        "Train",
        "Teach a model what is normal in images of your choice, and watch it learn. A run continues in a process of its own, "
        "whether this page is open or not; one machine trains one run at a time, the others wait.",
    )
    with st.sidebar:
        controls.reset_button()
    statuses = [live.status_of(folder) for folder in list_runs(runs_dir()).values()]
    busy = any(status["state"] in ("queued", *ACTIVE) for status in statuses)
    queued = st.session_state.pop(form.QUEUED, None)
    if queued:
        st.session_state["run"] = queued  # before its widget is drawn
    if statuses:
        st.subheader("The run", anchor=TOP)
    controls.scroll_to(TOP, queued is not None)
    if queued:
        st.success(f"**{controls.literal(queued)}** was queued: follow it here.", icon=":material/check:")
    st.fragment(watch, run_every=TICK if busy else IDLE)()
    st.subheader("Train a model")
    with controls.error_panel():
        form.new_run()
    st.fragment(paper_row.card, run_every=2 * TICK if busy else None)()
    if statuses:
        st.subheader("All runs")
        st.fragment(run_list.overview, run_every=TICK if busy else IDLE)()
        st.fragment(run_list.compare, run_every=IDLE if busy else None)()


main()
