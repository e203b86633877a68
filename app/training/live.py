"""The run that is looked at: what it makes of images, how it tells them apart, and what it measures, while it trains."""

import time
from pathlib import Path

import access
import cache
import charts
import controls
import pandas as pd
import pictures
import simple_methods
import streamlit as st
from density_charts import density_chart

from ama_core import AMAError
from ama_core.detectors import registry
from ama_core.evaluation.cases import NEAR_CHANCE
from ama_core.formatting import duration, of_100, significant
from ama_core.runs import queue
from ama_core.runs.folder import Run, read_sample, read_watched
from ama_core.runs.spec import RunSpec
from ama_core.runs.status import ACTIVE
from ama_core.training.trainer import Curve

STATES = {
    "queued": "It waits for its turn.",
    "measuring": "It is trained; the sets that it is measured against are being scored for the other pages.",
    "stopping": "It saves its state at its next report, within about a minute.",
    "paused": "It keeps its place in the queue until it is resumed.",
    "stopped": "Its state is saved.",
    "interrupted": "Its process has ended; it can be resumed from its last checkpoint.",
    "finished": "Its model can be chosen on every page.",
}
AUROC, WATCHED = "auroc_", "watched_"  # begin the names of AUROCs in the files: of validation and of watched images
# Which share a chart -> its title, its axis, and a value to compare with.
CHARTS = {"loss": ("Losses", "per image", None), "ratio": ("Ratios", "ratio", (1.0, "1"))}


def detail(name: str, folder: Path, status: dict) -> None:
    """Everything about one run, what matters first."""
    state, shown = status["state"], shown_state(folder, status)
    st.markdown(f"**{controls.literal(name)}**: {shown}. {STATES.get(shown, '')}")
    if status.get("error"):
        st.error(controls.said(status["error"]), icon=":material/error:")
    if status.get("warning"):
        st.warning(controls.said(status["warning"]), icon=":material/warning:")
    progress(state, status)
    buttons(name, folder, shown)
    try:
        spec = RunSpec.read(folder)
    except AMAError as error:
        st.error(controls.said(error), icon=":material/error:")
        spec = None
    if state == "finished":
        onward(folder)
        with controls.error_panel():
            simple_methods.after_training(name, folder)
    curves = cache.curves(folder)
    watching = bool(spec) and any(name.startswith(WATCHED) for name in curves)
    if watching:
        watched(name, folder, spec, curves)
    else:
        show_samples(name, folder)
    with st.expander("Losses and all other curves", expanded=not watching, icon=":material/show_chart:"):
        show_curves(folder, curves)
    log = Run(folder).read_log()
    with st.expander("Log", icon=":material/article:"):
        st.code(access.without_paths(log) or "Nothing yet.", language=None, wrap_lines=True)
    if spec:
        with st.expander("Run settings", icon=":material/tune:"):
            st.json(spec.to_json())


def onward(folder: Path) -> None:
    """From a finished run to the pages that show its model."""
    model = next((model for model, path in cache.models().items() if path.resolve() == folder.resolve()), None)
    if model:
        with st.container(horizontal=True):
            controls.link("check", "Check images with it", "image_search", model=model)
            controls.link("densities", "Its score densities", "area_chart", model=model)
            if not controls.lacking(folder, ("reconstruct",)):
                controls.link("reconstructions", "Its reconstructions", "compare", model=model)


# The state, and what can be done


def status_of(folder: Path) -> dict:
    """The status of a run as a plain dictionary, also of one that cannot be read."""
    try:
        return Run(folder).status().to_dict()
    except AMAError as error:
        return {"state": "damaged", "error": str(error)}


def progress_of(status: dict) -> float:
    """How far the training is; whole where a run has finished without a single step."""
    if status["state"] == "finished":
        return 1.0
    return status["step"] / status["total_steps"] if status.get("total_steps") else 0.0


def shown_state(folder: Path, status: dict) -> str:
    """The state, or `stopping` where a stop was asked for and not yet done."""
    return "stopping" if status["state"] in ACTIVE and Run(folder).stop_asked() else status["state"]


def progress(state: str, status: dict) -> None:
    """How far a run is, where it works, and how fast."""
    if status.get("total_steps"):
        left = f", about {duration(status['eta_s'])} left" if state == "running" and "eta_s" in status else ""
        st.progress(min(1.0, progress_of(status)), f"step {status['step']:,} of {status['total_steps']:,}{left}")
    if state == "measuring" and status.get("sets_to_measure", 0) > 0:
        k, n = max(0, int(status.get("measured_sets", 0))), max(1, int(status["sets_to_measure"]))
        what = f": {controls.literal(controls.title_of(str(status['measuring'])))}" if status.get("measuring") else ""
        place = f", set {int(status['set_number'])} of {int(status['sets'])}" if status.get("sets") else ""
        st.progress(min(1.0, k / n), f"measuring{place}{what}")
    facts = [
        status.get("device"),
        f"{status['images_per_s']:,.0f} images per second" if "images_per_s" in status else None,
        f"{duration(status['seconds'])} of training" if status.get("seconds") else None,
    ]
    if state in ACTIVE and time.time() - status.get("heartbeat", 0) > 120:
        facts.append(f"last report {duration(time.time() - status['heartbeat'])} ago")
    st.caption(" · ".join(fact for fact in facts if fact))


def act(action, folder: Path, **more) -> None:
    """Carry out what a button asks for, and draw the page again."""
    try:
        action(folder, **more)
    except AMAError as error:
        st.session_state["train-problem"] = str(error)
    st.rerun()


def buttons(name: str, folder: Path, state: str) -> None:
    """Pause, stop, resume, skip, delete: those that make sense now."""

    def button(label: str, icon: str, usable: bool, meaning: str) -> bool:
        key = f"{label.lower().replace(' ', '-')}-{name}"
        return st.button(label, icon=f":material/{icon}:", key=key, disabled=not usable, help=meaning)

    with st.container(horizontal=True):
        stoppable = state in ("queued", *ACTIVE)
        if button("Pause", "pause", stoppable, "Saves the state and keeps the run's place in the queue."):
            act(queue.stop, folder, pause=True)
        if button("Stop", "stop", stoppable, "Saves the state and leaves the queue."):
            act(queue.stop, folder)
        if button("Resume", "play_arrow", state in queue.RESUMABLE, "Queues the run to continue from where it was last saved."):
            act(queue.resume, folder)
        if state == "measuring":
            asked = Run(folder).skip_asked()
            meaning = (
                "Stops measuring once the current item is scored: the model is finished, and what has been measured is kept."
            )
            if button("Skip the rest", "skip_next", not asked, meaning):
                act(queue.skip, folder)
        with st.popover("Delete …", icon=":material/delete:", disabled=state in (*ACTIVE, "stopping")):
            st.markdown(f"Delete **{controls.literal(name)}** with its model, curves and samples? This cannot be undone.")
            if st.button(f"Yes, delete {controls.literal(name)}", type="primary", key=f"delete-{name}"):
                act(queue.delete, folder)


# Watching it learn


def watched(name: str, folder: Path, spec: RunSpec, curves: dict) -> None:
    """What the model makes of normal and of other images, how its score parts them, and how the AUROC grows."""
    kind = registry.detector_class(spec.detector)
    title = controls.title_of(spec.watch) if spec.watch else "the others"
    scores = [key.removeprefix(WATCHED) for key in curves if key.startswith(WATCHED)]
    st.markdown(verdict(title, {score: curves[f"{WATCHED}{score}"] for score in scores}))
    run = Run(folder)
    at, drawn = run.watched(), run.watched_pictures()
    step = choose_step(name, list(at)) if at else None
    left, right = st.columns(2, gap="large")
    with left:
        if step in drawn:
            normal = controls.title_of(spec.dataset)
            alt = f"Step {step}: four normal images and four of {title} above, their reconstructions below"
            st.html(pictures.strip(read_sample(drawn[step]), alt))
            st.caption(
                f"Above: four normal images ({controls.literal(normal)}), then four of {controls.literal(title)}. Below: what "
                f"the model reconstructs of them after step {step:,}."
            )
        else:
            show_samples(name, folder)
        lines = {score: curves[f"{WATCHED}{score}"] for score in scores}
        newest = ", ".join(f"{score} {y[-1]:.3f}" for score, (_, y) in lines.items())
        controls.chart(
            charts.line_chart(lines, "step", f"AUROC against {title}", level=(0.5, "chance (0.5)"), height=280),
            table_of(lines),
            f"{folder.name}-watched-auroc",
            f"AUROC against {title} over the steps; newest: {newest}.",
        )
    with right:
        if step is not None:
            density(folder, at[step], scores[0], title, step)
    first = next(score for score in kind.SCORES if score.name == scores[0])
    meanings = [controls.meaning(score) for score in kind.SCORES if score.name in scores] or [controls.meaning(first)]
    st.caption(
        f"{' '.join(meanings)} AUROC: in how many of 100 pairs of an anomalous and a normal image the anomalous one looks more "
        f"anomalous, from {step_words(at)}; 0.5 is chance. Nothing is chosen by these images."
    )


def step_words(at: dict[int, Path]) -> str:
    """How many images stand behind the newest figures."""
    try:
        normal, others = next(iter(read_watched(list(at.values())[-1]).values()))
    except (AMAError, IndexError, StopIteration):
        return "the watched images"
    return f"{len(others):,} images against {len(normal):,} held-out normal ones"


def verdict(title: str, lines: dict) -> str:
    """What the newest AUROCs say, in one sentence; low ones of the raw score are what the paper is about."""
    step, aurocs = next(iter(lines.values()))[0][-1], {score: y[-1] for score, (_, y) in lines.items()}
    said = []
    for score, auroc in aurocs.items():
        if abs(auroc - 0.5) <= NEAR_CHANCE:
            said.append(f"by {score} it cannot tell them from normal images (AUROC {auroc:.2f}, chance is 0.5)")
        elif auroc > 0.5:
            said.append(f"{score} finds them more anomalous in {of_100(auroc)} of 100 pairs (AUROC {auroc:.2f})")
        else:
            said.append(
                f"{score} finds them *more normal* than normal images in {of_100(1 - auroc)} of 100 pairs (AUROC {auroc:.2f})"
            )
    both = ""
    if {"R", "A"} <= set(aurocs) and aurocs["A"] - aurocs["R"] > NEAR_CHANCE and aurocs["R"] < 0.5:
        both = " The raw score R is wrong here, and A, which asks how usual R is, sees it."
    return f"**Step {step:,}, against {controls.literal(title)}:** {'; '.join(said)}.{both}"


def choose_step(name: str, steps: list[int]) -> int:
    """Which step is looked at: the newest until an earlier one is chosen."""
    key = f"sample-{name}"
    if st.session_state.get(key) not in steps or st.session_state.get(f"{key}-newest") == st.session_state.get(key):
        st.session_state[key] = steps[-1]
    st.session_state[f"{key}-newest"] = steps[-1]
    if len(steps) == 1:
        return steps[0]
    return st.select_slider("Step", steps, key=key, help="At the right end it follows the training.")


def density(folder: Path, file: Path, score: str, title: str, step: int) -> None:
    """The density of a score of normal images against that of the others."""
    with controls.error_panel():
        found, log = cache.watched_density(file, score, title)
        medians = "; ".join(f"{which} {significant(value)}" for which, value in found.medians.items())
        controls.chart(
            density_chart(
                found.grid,
                found.curves,
                xlabel=f"{score}, step {step:,}",
                log=log,
                height=470,
                labels={cache.HELD_OUT: "normal", title: title},
            ),
            {
                score: found.grid,
                "density_normal": found.curves[cache.HELD_OUT],
                "density_others": found.curves[title],
            },
            f"{folder.name}-watched-{score}",
            f"Densities of {score} of held-out normal images and of {title} after step {step}. Medians: {medians}.",
        )


def show_samples(name: str, folder: Path) -> None:
    """The reconstructions of fixed images; the newest until an earlier step is chosen."""
    samples = Run(folder).samples()
    if not samples:
        return
    st.markdown("**Reconstructions of fixed training images**")
    step = choose_step(name, list(samples))
    alt = f"Step {step}: eight training images above, their reconstructions below"
    st.html(pictures.strip(read_sample(samples[step]), alt))
    st.caption(f"Above: eight training images. Below: their reconstructions after step {step:,}.")


# Curves


def curves_of(folder: Path) -> tuple[Curve, ...]:
    """What the detector of a run says that it measures while it is trained; nothing where the run is damaged."""
    try:
        trainer = registry.detector_class(RunSpec.read(folder).detector).trainer_class
    except AMAError:
        return ()
    return trainer.curves if trainer else ()


def aurocs_in(curves: dict, begins: str = AUROC) -> list[Curve]:
    """The AUROCs among what a run has measured: of validation images, or of watched ones."""
    of = "held-out normal images against 50 validation anomalies" if begins == AUROC else "normal images against watched ones"
    return [
        Curve(name, by := name.removeprefix(begins), f"AUROC of {by} on {of}") for name in curves if name.startswith(begins)
    ]


def table_of(lines: dict) -> dict[str, list]:
    """The points of lines, name -> (x, y), as columns."""
    parts = [pd.DataFrame({"value": name, "step": x, "measured": y}) for name, (x, y) in lines.items()]
    return pd.concat(parts).to_dict("list")


def curve_chart(title: str, folder: Path, curves: dict, wanted: list[Curve], ylabel: str, level: tuple | None = None) -> None:
    """A chart of those of the `wanted` values that the run has measured."""
    wanted = [curve for curve in wanted if curve.name in curves]
    lines = {curve.label: curves[curve.name] for curve in wanted}
    if not lines:
        return
    st.markdown(f"**{title}**")
    newest = ", ".join(f"{label} {y[-1]:.3g}" for label, (_, y) in lines.items())
    controls.chart(
        charts.line_chart(lines, "step", ylabel, level=level),
        table_of(lines),
        f"{folder.name}-{title.lower().replace(' ', '-')}",
        f"{title} over the steps; newest: {newest}.",
    )
    st.caption("; ".join(f"{curve.label}: {curve.meaning}" for curve in wanted) + ".")


def show_curves(folder: Path, curves: dict) -> None:
    """What the run measures, in the charts that its detector asks for."""
    declared = curves_of(folder)
    places = st.columns(2, gap="large")
    for (name, (title, ylabel, level)), place in zip(CHARTS.items(), places):
        with place:
            curve_chart(title, folder, curves, [curve for curve in declared if curve.chart == name], ylabel, level)
    with places[-1]:
        curve_chart("Validation AUROC", folder, curves, aurocs_in(curves), "AUROC", (0.5, "chance (0.5)"))
