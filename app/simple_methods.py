"""What would something simpler do? A model of one's own images beside simple methods on the same images, and one kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import access
import cache
import controls
import jobs
import numpy as np
import streamlit as st
from comparison_charts import dot_chart
from palette import BLUE

from ama_core.data.defects import NAME as MADE
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.detectors.conformal import reachable_alpha
from ama_core.detectors.registry import detector_class
from ama_core.evaluation.recommendation import Compared, Comparison, at_rate
from ama_core.runs import comparing
from ama_core.runs.folder import runs_dir

TITLE = "What would something simpler do?"
SERIES = "AUROC, 95 % interval"
POLL = 1.0  # seconds between two looks at a comparison that goes on
OWN = "This model"
ASKED = "simpler-asked"  # of the session: which model's comparison is to open Check, at which rate and by which score
LINE = 24  # characters of a line of a name on the chart


@dataclass(frozen=True)
class Result:
    """A comparison, its detectors by name, fitted, and where each was kept, once it was."""

    found: Comparison
    detectors: Mapping[str, AnomalyDetector]
    kept: dict[str, Path]


def own_normal(folder: Path) -> NormalData | None:
    """What a model was trained on, where that is a user's own and this server may compare; else None. Raises BundleError."""
    normal = None if access.public() else NormalData.of(cache.info(folder))
    return normal if normal and normal.is_own else None


def after_training(name: str, folder: Path) -> None:
    """The section below a finished run; nothing where it is not of one's own images."""
    if own_normal(folder) is None:
        return
    with st.container(border=True):
        st.markdown(f"##### {TITLE}")
        _section(name, folder, cache.false_alarm_rate(folder))


def in_trust_panel(view: controls.View) -> None:
    """The same, folded, for a model of one's own images that are on this computer."""
    normal = own_normal(view.folder)
    if normal is None or not Path(normal.source).expanduser().exists():
        return
    with st.expander(TITLE, expanded=jobs.find(_key(view.folder)) is not None, icon=":material/balance:"):
        _section(view.name, view.folder, view.alpha)


def _key(folder: Path) -> tuple:
    return cache.stamp(folder, cache.MODEL)


def _keeping_key(folder: Path) -> tuple:
    return (*_key(folder), "keep")


def _at_work(folder: Path) -> jobs.Job | None:
    """What goes on for this model: a comparison, or the keeping of one of its detectors."""
    return next((job for key in (_key(folder), _keeping_key(folder)) if (job := jobs.find(key)) and job.running), None)


def _section(name: str, folder: Path, alpha: float) -> None:
    running = _at_work(folder) is not None
    st.fragment(_draw, run_every=POLL if running else None)(name, folder, alpha, running)


def _draw(name: str, folder: Path, alpha: float, was_running: bool) -> None:
    """The comparison as it now stands; drawn again at every tick while it goes on."""
    job = _at_work(folder)
    if was_running != (job is not None):
        st.rerun()  # with ticks while it goes on, else without
    if job:
        st.progress(job.fraction, job.doing or "beginning")
        label = "Stop comparing" if job is jobs.find(_key(folder)) else "Cancel saving"
        if st.button(label, icon=":material/stop:", key=f"simpler-stop-{folder.name}"):
            job.stop()
        return
    _open_kept(folder)
    job = jobs.find(_key(folder))
    if job and job.result:
        with controls.error_panel():
            _show(name, folder, job.result, alpha)
        return
    _say_end(job, "The comparison was stopped. Nothing of it was saved.")
    _offer(folder)


def _say_end(job: jobs.Job | None, stopped: str) -> None:
    """Why a job has no result."""
    if job and job.error:
        st.error(controls.said(job.error), icon=":material/error:")
    if job and job.stopped:
        st.info(stopped, icon=":material/stop_circle:")


def _offer(folder: Path) -> None:
    """What would be compared, and the button that begins it."""
    st.markdown(
        "Nearest neighbours, principal components and two plainer methods are fitted to the same training images in seconds, "
        "and tested beside this model on the same held-out normal images and on the bad images that were named for its "
        f"training. Where none were named, {MADE} are used: cuts, blots, scratches and foreign patches painted on the normal "
        "ones."
    )
    _start(folder, "Compare with simple methods", f"simpler-start-{folder.name}")


def _start(folder: Path, label: str, key: str) -> None:
    """The button that begins a comparison, and the choice of whether the autoencoder is in it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        asked = st.button(label, icon=":material/balance:", key=key)
        longer = st.toggle(
            "Also an autoencoder",
            key=f"{key}-autoencoder",
            help="It is trained by gradient steps, like the model, which takes a minute or more.",
        )
    if not asked:
        return
    with controls.error_panel():
        model = cache.detector(folder)
        chosen = (*comparing.SIMPLE, comparing.TRAINED) if longer else comparing.SIMPLE
        jobs.start(_key(folder), lambda job: _compared(job, model, chosen))
        st.rerun()


def _compared(job: jobs.Job, model: AnomalyDetector, chosen: tuple[str, ...]) -> Result:
    """The work of a job: it tells which detector is at what, and how much of all is done."""
    total = 2 + 2 * len([name for name in chosen if name != model.name])  # reading; the model; each other is trained, scores
    done, doing = -1, ""

    def progress(title: str, what: str) -> None:
        nonlocal done, doing
        done, doing = done + 1, f"{title}: {what}"
        job.tell(done / total, doing)

    found, detectors = comparing.compare_model(
        model, chosen, progress=progress, tick=lambda part: job.tell((done + part) / total, doing)
    )
    return Result(found, detectors, {})


def _show(name: str, folder: Path, result: Result, wanted: float) -> None:
    """The recommendation with its reason, the chart, the table, and the way to Check. Raises ConfigError, BundleError."""
    model = cache.detector(folder)
    alpha = reachable_alpha(len(model.calibration_scores_), wanted, controls.ALPHAS) or max(controls.ALPHAS)
    found = at_rate(result.found, result.detectors, alpha)
    titles = {one.name: f"{OWN}: {one.title}" if one.name == model.name else one.title for one in found.detectors}
    best = detector_class(found.recommended).title + (f", {OWN.lower()}" if found.recommended == model.name else "")
    st.markdown(f"**Recommended: {controls.literal(best)}.** {controls.literal(found.reason)}")
    _images(found, model.normal)
    _chart(folder, found, titles)
    _table(found, titles, wanted)
    _use(name, folder, result, found, titles, alpha)
    _start(folder, "Compare again", f"simpler-again-{folder.name}")


def _images(found: Comparison, normal: NormalData) -> None:
    """Which images this is of."""
    if found.made:
        against = f"{MADE}, one painted on each of them: a cut, a blot, a scratch or a foreign patch"
        named = next(filter(None, (normal.watch, normal.validation_ood, normal.anomalies)), None)
        why = f" The bad images that its training named, {named}, are not on this computer." if named else ""
    else:
        against, why = f"bad images ({controls.title_of(found.against)})", ""
    st.caption(
        f"{found.n_normal:,} normal images that no detector was trained on, against {found.n_anomalous:,} "
        f"{controls.literal(against)}.{controls.literal(why)}"
    )


def _chart(folder: Path, found: Comparison, titles: Mapping[str, str]) -> None:
    """AUROC with its interval, a row a detector."""
    rows = [(titles[one.name], {SERIES: (one.auroc, one.low, one.high)}) for one in found.detectors]
    controls.chart(
        dot_chart(rows, {SERIES: (BLUE, "circle")}, "AUROC (higher is better)", level=(0.5, "chance (0.5)"), line=LINE),
        {
            "detector": [one.name for one in found.detectors],
            **{key: [getattr(one, key) for one in found.detectors] for key in ("auroc", "low", "high")},
        },
        f"simpler-{folder.name}",
        "AUROC with its 95 % interval, a row a detector: "
        + "; ".join(f"{titles[one.name]} {one.auroc:.3f}, {_interval(one)}" for one in found.detectors),
    )


def _interval(one: Compared) -> str:
    return f"{one.low:.3f} to {one.high:.3f}"


def _table(found: Comparison, titles: Mapping[str, str], wanted: float) -> None:
    """Every detector with what it finds and what it costs."""
    these, alpha = found.detectors, found.detectors[0].alpha
    number, rate = st.column_config.NumberColumn, controls.percent(alpha)
    controls.grid(
        {
            "Detector": [titles[one.name] for one in these],
            "AUROC": [one.auroc for one in these],
            "95 % interval": [_interval(one) for one in these],
            f"Found at α = {rate}": [100 * one.detected for one in these],
            "False alarms": [100 * one.false_alarms for one in these],
            "Training (s)": [one.seconds_train if np.isfinite(one.seconds_train) else None for one in these],
            "ms an image": [one.ms_per_image for one in these],
        },
        height="content",
        column_config={
            "Detector": st.column_config.TextColumn(width="medium"),
            "AUROC": number(format="%.3f"),
            f"Found at α = {rate}": number(format="%.0f %%", help="The fraction of the bad images that is flagged."),
            "False alarms": number(format="%.0f %%", help="The fraction of the normal images that is flagged."),
            "Training (s)": number(format="%.1f", help="Seconds; for this model, as recorded by its training."),
            "ms an image": number(format="%.1f", help="Milliseconds to score an image, measured now on this computer."),
        },
        alt="Detectors with AUROC, what each flags, and how long it takes",
    )
    scores = controls.listed([f"{one.title} by {one.score}" for one in these])
    raised = "" if alpha == wanted else f" At {controls.percent(wanted)} there are too few held-out images to flag anything."
    st.caption(
        f"All detectors are calibrated on the same number of held-out normal images. Flagged: p ≤ {rate}.{raised} The scores "
        f"that decide: {controls.literal(scores)}."
    )


def _use(name: str, folder: Path, result: Result, found: Comparison, titles: Mapping[str, str], alpha: float) -> None:
    """The choice of a detector, and the button that opens Check with it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = [one.name for one in found.detectors]
        chosen = st.selectbox(
            "Detector to use",
            names,
            names.index(found.recommended),
            key=f"simpler-use-{folder.name}",
            format_func=titles.get,
            help="It is saved as a model among the runs, under its own name; nothing is replaced.",
        )
        own = result.detectors[chosen].name == cache.kind_of(folder).name
        short = OWN.lower() if own else result.detectors[chosen].title.partition(",")[0]  # fits on a telephone
        asked = st.button(
            f"Use {short} in Check",
            type="primary",
            icon=":material/image_search:",
            key=f"simpler-check-{folder.name}",
        )
    if not asked:
        return
    model = cache.detector(folder)
    place = folder if own else result.kept.get(chosen)
    if place and (place / "config.json").exists():
        _open(place, alpha, result.detectors[chosen].by)
        return
    jobs.start(_keeping_key(folder), lambda job: _kept(job, model, result, chosen, f"{name}-{chosen}"))
    st.session_state[ASKED] = (str(folder), alpha, result.detectors[chosen].by)
    st.rerun()


def _kept(job: jobs.Job, model: AnomalyDetector, result: Result, chosen: str, wish: str) -> Path:
    """The work of a job: a detector kept as a run; returns where."""
    detector = result.detectors[chosen]
    job.tell(0.0, f"Saving {detector.title}: reading the images")
    place = comparing.keep_beside(
        model,
        detector,
        runs_dir(),
        wish,
        lambda part, name: job.tell(part, f"Saving {detector.title}: measuring {controls.title_of(name)}"),
    )
    result.kept[chosen] = place
    return place


def _open_kept(folder: Path) -> None:
    """Opens Check on what this reader asked to keep, once it is; or says why it was not kept."""
    asked, alpha, by = st.session_state.get(ASKED, ("", 0.0, ""))
    if asked != str(folder):
        return
    del st.session_state[ASKED]
    job = jobs.find(_keeping_key(folder))
    if job and job.result:
        _open(job.result, alpha, by)
    else:
        _say_end(job, "It was not saved.")


def _open(place: Path, alpha: float, by: str) -> None:
    """Opens Check on the model in this folder and this score, where this server offers it."""
    shown = next((model for model, path in cache.models().items() if path.resolve() == place.resolve()), None)
    if shown is None:
        st.success(
            f"It was saved in {controls.literal(access.shown(place))}. This server offers only the models of "
            f"{cache.MODELS_VARIABLE}: add that folder to see it in Check.",
            icon=":material/check:",
        )
        return
    controls.open_check(shown, alpha, by)
