"""Train: a form for a run, the queue of runs, and a live look into each. All that is shown is read from the run folders."""

import dataclasses
import time
from pathlib import Path

import access
import cache
import charts
import controls
import pandas as pd
import pictures
import streamlit as st

from ama_core import AMAError
from ama_core.data import available, catalog
from ama_core.detectors import registry
from ama_core.detectors.base import AnomalyDetector
from ama_core.evaluation.protocol import available_sets
from ama_core.runs import execute as runs
from ama_core.runs import queue
from ama_core.runs import timing as pace
from ama_core.settings import Settings
from ama_core.training.trainer import Curve

OWN = "my own images"
TICK = 2.0  # seconds between looks at a run that goes on
IDLE = 10.0
LAUNCHED = "train-launched"
QUEUED = "train-queued"

GROUPS = ("What is trained", "Images", "Networks", "Objective", "Training", "Calibration")  # of settings, in this order
PRESET_WORDS = {
    "tiny": "For a first look: small networks, {steps}.",
    "small": "For a CPU with patience: wider networks, {steps}.",
    "paper": "The sizes and settings of the paper: for a GPU.",
}
STATES = {
    "queued": "It waits for its turn.",
    "measuring": "It is trained; the data sets that are here are being scored for the other pages.",
    "stopping": "It saves its state at its next report, within about a minute.",
    "paused": "It keeps its place in the queue until it is resumed.",
    "stopped": "Its state is saved.",
    "interrupted": "Its process is gone; it can go on from its last checkpoint.",
    "finished": "Its model is offered by every page.",
}
AUROC = "auroc_"  # begins the name of what is measured with validation anomalies, in the files
# Which share a chart -> its title, its axis, and a value to compare with.
CHARTS = {"loss": ("Losses", "per image", None), "ratio": ("Ratios", "ratio", (1.0, "1"))}
SPEED = Curve("images_per_s", "speed", "training images per second", chart="")


def choose_detector() -> type[AnomalyDetector]:
    """What is trained."""
    found = {}
    for name in registry.names():
        try:
            found[name] = registry.detector_class(name)
        except AMAError as error:  # one from outside
            st.warning(controls.literal(str(error)), icon=":material/warning:")
    titles = {kind.title: kind for kind in found.values()}
    title = controls.choose(
        st.selectbox, "detector", "Detector", list(titles), next(iter(titles)), help="The method that learns what is normal.",
    )  # fmt: skip
    kind = titles[title]
    how = "Trained by gradient steps." if kind.trains() else "Fitted in seconds, without gradient steps."
    st.caption(f"{controls.literal(kind.reference)}. {how}")
    return kind


def choose_preset(kind: type[AnomalyDetector]) -> str:
    """Which of the detector's presets fills the form; none is asked for where all are the same."""
    presets = kind.Settings.PRESETS
    if all(values == next(iter(presets.values())) for values in presets.values()):
        return next(iter(presets))
    name = controls.choose(
        st.selectbox, "preset", "Preset", list(presets), next(iter(presets)),
        help="Fills in every hyper-parameter below; each can then be changed.",
    )  # fmt: skip
    steps = getattr(kind.Settings.preset(name), "max_steps", 0)
    words = PRESET_WORDS.get(name, "") if kind.trains() else ""
    st.caption(words.format(steps=f"{steps:,} steps" if steps else "many steps"))
    return name


def curves_of(folder: Path) -> tuple[Curve, ...]:
    """What the detector of a run says that it measures while it is trained; nothing where the run is damaged."""
    try:
        trainer = registry.detector_class(runs.RunSpec.read(folder).detector).trainer_class
    except AMAError:
        return ()
    return trainer.curves if trainer else ()


def aurocs_in(curves: dict) -> list[Curve]:
    """The validation AUROCs among what a run has measured."""
    names = [name for name in curves if name.startswith(AUROC)]
    return [
        Curve(name, by := name.removeprefix(AUROC), f"AUROC of {by} on held-out normal images against 50 validation anomalies")
        for name in names
    ]


def choose_data() -> tuple[str, str | None]:
    """The data set: its name for the form, and what the engine calls it; None while that is missing, with the way to get it."""
    ready = [name for name, info in catalog().items() if info.normal_ok and "train" in available(name)]
    missing = [name for name, info in catalog().items() if info.normal_ok and name not in ready]

    chosen = controls.choose(
        st.selectbox, "data", "Normal images", [*ready, OWN, *missing], ready[0],
        help="The model learns these alone; whatever differs from them will be an anomaly. The last ones need a download.",
    )  # fmt: skip
    if chosen in missing:
        info = catalog()[chosen]
        st.info(
            f"{info.title} is not on this computer yet (about {info.download_mb} MB). {info.source} Fetch it in a terminal:",
            icon=":material/download:",
        )
        st.code(f"python -m ama_core datasets --download {chosen}", language="bash")
        return chosen, None
    if chosen != OWN:
        info = catalog()[chosen]
        st.caption(f"**{info.title}.** {info.description} {info.source}")
        return chosen, chosen
    remembered("train-path", "")
    path = st.text_input(
        "Path of a folder, .zip or .npz on this computer", key="train-path", placeholder="/home/me/pictures",
        help="A folder may have subfolders train and test; otherwise it is divided 80 : 20 by a fixed seed. An .npz file holds "
        "`images`, uint8 (N, H, W, C).",
    )  # fmt: skip
    file = controls.upload("or upload a .zip or .npz", list(queue.UPLOAD_TYPES), f"train-upload-{controls.generation()}")
    if file:
        try:
            saved = queue.save_upload(runs.runs_dir(), file.name, file.getvalue())
        except AMAError as error:
            st.error(controls.literal(str(error)), icon=":material/error:")
            return OWN, None
        st.caption(f"Kept on this computer as {controls.literal(str(saved))}.")
        return OWN, str(saved)
    if not path.strip():
        return OWN, None
    try:
        return OWN, str(access.allowed(path))
    except AMAError as error:
        st.error(controls.literal(str(error)), icon=":material/error:")
        return OWN, None


def own_images(source: str) -> None:
    """What the reader's own images are like, on demand, before anything is trained on them."""
    with st.expander("Look at these images first: sizes, unreadable files, duplicates", icon=":material/fact_check:"):
        if not st.toggle("Read them all", key="train-inspect"):
            return
        with controls.error_panel():
            found = cache.inspect_own(Path(source))
            st.markdown("\n".join(f"- {controls.literal(access.without_paths(line))}" for line in found.sentences()))
            if found.preview:
                st.html(pictures.figures([("", image, f"Image {i + 1}") for i, image in enumerate(found.preview)], 72))


def remembered(key: str, default) -> None:
    """Gives the widget `key` what was typed before: Streamlit forgets a widget while another page is open."""
    kept = st.session_state.setdefault("train-kept", {})
    if key not in st.session_state:
        st.session_state[key] = kept.get(key, default)
    kept[key] = st.session_state[key]


def fill(kind: type[AnomalyDetector], data: str, preset_name: str) -> Settings:
    """Fill the form: with the preset when that, or the detector, was chosen or reset, with what suits the data when those were.
    """
    suited = runs.config_for(data, preset_name, kind.name)
    kept = st.session_state.setdefault("train-kept", {})
    asked, before = (kind.name, preset_name, controls.generation(), data), kept.get("asked")
    if before is None or before[:3] != asked[:3]:
        renewed = suited.to_dict()
    else:
        renewed = {"channels": suited.channels, "fit": suited.fit} if before != asked else {}
    for name, value in renewed.items():
        st.session_state[f"hp-{name}"] = kept[f"hp-{name}"] = value
    kept["asked"] = asked
    return suited


def choose_hyper_parameters(suited: Settings) -> dict:
    """Every setting in its group, with its explanation and its bounds."""
    grouped: dict[str, list[dataclasses.Field]] = {group: [] for group in GROUPS}
    for field in dataclasses.fields(suited):
        grouped.setdefault(field.metadata["group"], []).append(field)
    values = {}
    for group, members in grouped.items():
        if not members:
            continue
        for field in members:
            remembered(f"hp-{field.name}", getattr(suited, field.name))
        names = ", ".join(field.name for field in members).replace("_", r"\_")
        with st.expander(f"**{group}** · {names}"):
            for start in range(0, len(members), 3):  # a row at a time: what stands side by side begins at one height
                for column, field in zip(st.columns(3), members[start : start + 3]):
                    with column:
                        values[field.name] = input_for(field)
                        st.caption(controls.literal(field.metadata["doc"]))
    changed = [f"{name} = {value}" for name, value in values.items() if value != getattr(suited, name)]
    # Not in a heading of the expanders, and always something: one whose label or place changes closes.
    st.caption(f"Changed from the preset: {controls.literal(', '.join(changed))}." if changed else "All as the preset has it.")
    return values


def input_for(field: dataclasses.Field):
    """The widget that suits a field."""
    meta, key = field.metadata, f"hp-{field.name}"
    if meta["choices"]:
        return st.selectbox(field.name, meta["choices"], key=key)
    kind = type(field.default)
    low, high = (None if bound is None else kind(bound) for bound in (meta["low"], meta["high"]))
    if kind is int:
        return st.number_input(field.name, low, high, step=1, key=key)
    size = field.default or high or 1.0
    step = 10.0 ** int(f"{size / 2:e}".split("e")[1])  # a small fraction of the default: 1 for 10, 1e-4 for 3e-4
    return st.number_input(field.name, low, high, step=step, format="%.6g", key=key)


def choose_extras(kind: type[AnomalyDetector], data: str, source: str | None) -> dict:
    """What a run has beside its hyper-parameters: the fields of RunSpec."""
    classes = catalog()[data].classes if data in catalog() else ()
    trainer, extras = kind.trainer_class, {}
    title = "One class, anomalies while training, and afterwards" if trainer else "One class, and afterwards"
    with st.expander(f"**{title}** · optional"):
        left, right = st.columns(2)
        with left:
            if classes:
                extras["one_class"] = optional(
                    "train-class", "One class as normal (Table 2)", list(range(len(classes))),
                    "Trains on this class alone; the other classes are then the anomalies called `rest`.",
                    placeholder="all classes", format_func=lambda label: f"{label}: {classes[label]}",
                )  # fmt: skip
            if trainer and trainer.uses_anomalies:
                extras |= choose_anomalies(source)
        if trainer and trainer.validated_by:
            with right:
                extras |= choose_validation(source, trainer.validated_by)
        remembered("train-measure", True)
        extras["measure"] = st.toggle(
            "Afterwards score every data set that is here", key="train-measure",
            help="Stored with the model, so that the pages on densities and benchmarks have something to show.",
        )  # fmt: skip
    return extras


def choose_anomalies(source: str | None) -> dict:
    """Real anomalies to train with."""
    here = [name for name in available_sets() if name != source and "train" in available(name)]
    found = optional(
        "train-anomalies", "Real anomalies as negatives", here,
        "The semi-supervised case: a few real anomalies take the place of the synthetic negatives.",
    )  # fmt: skip
    return {"anomalies": own_anomalies("train-anomalies-path", "or own images as negatives") or found}


def choose_validation(source: str | None, by: str) -> dict:
    """Anomalies to follow the training by, and whether they choose the weights, by the AUROC of a score."""
    found = optional(
        "train-validate", "Validation anomalies", [name for name in available_sets() if name != source],
        "50 images of this set are used to follow the AUROC while training; they are never tested.",
    )  # fmt: skip
    found = own_anomalies("train-validate-path", "or own images as validation anomalies") or found
    remembered("train-select", "last")
    select = st.selectbox(
        "Weights to keep", ("last", "validated"), key="train-select", disabled=not found,
        help=f"The last step's, as the paper's setting is judged here, or those with the best AUROC of {by} on the "
        "validation anomalies.",
    )  # fmt: skip
    return {"validate_ood": found, "select": select if found else "last"}


def own_anomalies(key: str, label: str) -> str | None:
    """A typed path of a few known bad images."""
    remembered(key, "")
    typed = st.text_input(
        label, key=key, placeholder="path of a folder, .zip or .npz", help="Takes the place of the set above.",
    )  # fmt: skip
    with controls.error_panel():
        return str(access.allowed(typed)) if typed.strip() else None


def optional(key: str, label: str, options: list, meaning: str, placeholder: str = "none", **more):
    """A selection that may be left empty, which `placeholder` then names."""
    remembered(key, None)
    if st.session_state[key] not in options:
        st.session_state[key] = None
    return st.selectbox(label, options, None, key=key, help=meaning, placeholder=placeholder, **more)


def preset_times(kind: type[AnomalyDetector], data: str, source: str) -> None:
    """How long each preset takes here, as measured; a button where that is not known."""
    presets, folder = list(kind.Settings.PRESETS), runs.runs_dir()
    try:
        configs = {name: runs.config_for(data, name, kind.name) for name in presets}
        specs = {name: runs.RunSpec(source, config, detector=kind.name) for name, config in configs.items()}
        found = {name: pace.known(config, folder) for name, config in configs.items()}
        unknown = [name for name in presets if not found[name]]
        if unknown and st.button(
            "Time the presets on this machine",
            icon=":material/timer:",
            help="Times a few steps of each, in about half a minute.",
        ):
            with st.spinner("Timing a few steps of each …"):
                found |= {name: pace.measure(configs[name], folder) for name in unknown}
        times = [
            f"{name} about {controls.duration(found[name].whole_run(configs[name], cache.training_size(specs[name])))}"
            for name in presets if found[name]
        ]  # fmt: skip
        if times:
            st.caption(f"Training time on this machine, measured: {', '.join(times)}.")
    except AMAError as error:
        st.caption(controls.literal(str(error)))


def show_time(spec: runs.RunSpec) -> None:
    """How much there is to train and how long that takes here, as measured; a button where it is not known."""
    try:
        n = cache.training_size(spec)
        if not registry.detector_class(spec.detector).trains():
            st.markdown(f"Fitted in seconds on {n:,} images, without gradient steps.")
            return
        amount = f"{pace.run_steps(spec.config, n):,} steps on {n:,} images"
        found = pace.known(spec.config, runs.runs_dir())
        left, right = st.columns([1, 2], vertical_alignment="center")
        asked = left.button(
            "Measure the time again" if found else "Measure how long it takes here", icon=":material/timer:", width="stretch",
            help="Times a few steps with these settings on random images, in a few seconds.",
        )  # fmt: skip
        if asked:
            with st.spinner("Timing a few steps …"):
                found = pace.measure(spec.config, runs.runs_dir())
        if found:
            words = controls.duration(found.whole_run(spec.config, n))
            right.markdown(f"{amount}: **about {words}** of training on this machine ({found.device}; {found.how})")
        else:
            right.caption(f"{amount}. How long that takes on this machine has not been measured yet.")
    except AMAError as error:
        st.warning(controls.literal(str(error)), icon=":material/warning:")


def new_run() -> None:
    """The form; whatever is wrong in it is said in a sentence, and all that was typed stays."""
    left, right = st.columns(2, gap="large")
    with left:
        data, source = choose_data()
    with right:
        kind = choose_detector()
        preset_name = choose_preset(kind)
        if source and kind.trains():
            preset_times(kind, data, source)
        name = choose_name(kind, data, preset_name)
    if data == OWN and source:
        own_images(source)
    st.markdown("##### Hyper-parameters")
    st.caption(r"\[P\]: as the paper states it. \[C\]: as the authors' released code has it. \[D\]: our decision.")
    values = choose_hyper_parameters(fill(kind, data, preset_name))
    extras = choose_extras(kind, data, source)
    try:
        spec = runs.RunSpec(source or "", kind.Settings.from_dict(values), detector=kind.name, **extras)
    except AMAError as error:
        st.error(str(error), icon=":material/error:")
        return
    if source:
        show_time(spec)
    if st.button("Train", type="primary", icon=":material/play_arrow:", disabled=data != OWN and source is None):
        submit(name, spec)
    if QUEUED in st.session_state:
        st.success(f"**{st.session_state.pop(QUEUED)}** is queued. [Watch it below](#runs).", icon=":material/check:")
    if source:
        with st.expander("The same from a terminal"):
            st.code(runs.command_line(spec, preset_name, runs.runs_dir() / name), language="bash", wrap_lines=True)


def choose_name(kind: type[AnomalyDetector], data: str, preset_name: str) -> str:
    """How the run is called: as was typed, else by its data, its detector and its preset."""
    words = [data, *([] if kind.name == registry.names()[0] else [kind.name]), *([preset_name] if kind.trains() else [])]
    wish = queue.free_name(runs.runs_dir(), "-".join(words))
    key = f"train-name-{st.session_state.get(LAUNCHED, 0)}"
    remembered(key, "")
    typed = st.text_input(
        "Name of the run", key=key, placeholder=wish, help="Letters, digits, - and _. Left empty: the name in grey.",
    )  # fmt: skip
    return typed.strip() or wish


def submit(name: str, spec: runs.RunSpec) -> None:
    """Queue the run, and look into it from then on."""
    try:
        if not spec.dataset:
            raise AMAError("Say where your own images are: give a path or upload an archive.")
        queue.submit(runs.runs_dir(), name, spec)
    except AMAError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.session_state[LAUNCHED] = st.session_state.get(LAUNCHED, 0) + 1
    st.session_state["run"] = name
    st.session_state[QUEUED] = name
    st.rerun()


def status_of(folder: Path) -> dict:
    try:
        return runs.read_status(folder)
    except AMAError as error:
        return {"state": "damaged", "error": str(error)}


def overview(found: dict[str, Path], statuses: dict[str, dict]) -> None:
    """The list of runs."""
    places = {run.name: i + 1 for i, run in enumerate(queue.waiting(runs.runs_dir()))}
    rows = []
    for name in found:
        status = statuses[name]
        state, running = shown_state(found[name], status), status["state"] == "running"
        rows.append({
            "Run": name,
            "State": f"{state}, number {places[name]}" if name in places else state,
            "Progress": progress_of(status),
            "Time left": controls.duration(status["eta_s"]) if running and "eta_s" in status else "",
            "Images per s": f"{status['images_per_s']:,.0f}" if "images_per_s" in status else "",
            "Device": status.get("device", ""),
        })  # fmt: skip
    controls.grid(
        pd.DataFrame(rows), width="stretch", height=min(400, 38 + 35 * len(rows)),
        column_config={"Progress": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)},
        alt="Runs: " + "; ".join(f"{row['Run']} {row['State']}, {row['Progress']:.0%}" for row in rows),
    )  # fmt: skip


def progress_of(status: dict) -> float:
    """How far the training is; whole where a run has finished without a single step."""
    if status["state"] == "finished":
        return 1.0
    return status["step"] / status["total_steps"] if status.get("total_steps") else 0.0


def shown_state(folder: Path, status: dict) -> str:
    """The state, or `stopping` where a stop was asked for and not yet done."""
    return "stopping" if status["state"] in runs.ACTIVE and runs.stop_asked(folder) else status["state"]


def act(action, folder: Path, **more) -> None:
    """Carry out what a button asks for, and draw the page again."""
    try:
        action(folder, **more)
    except AMAError as error:
        st.session_state["train-problem"] = str(error)
    st.rerun()


def buttons(name: str, folder: Path, state: str) -> None:
    """Pause, stop, resume, delete: those that make sense now."""

    def button(label: str, icon: str, usable: bool, meaning: str) -> bool:
        key = f"{label.lower()}-{name}"
        return st.button(label, icon=f":material/{icon}:", key=key, disabled=not usable, help=meaning)

    with st.container(horizontal=True):
        stoppable = state in ("queued", *runs.ACTIVE)
        if button("Pause", "pause", stoppable, "Saves the state and keeps the run's place in the queue."):
            act(queue.stop, folder, pause=True)
        if button("Stop", "stop", stoppable, "Saves the state and leaves the queue."):
            act(queue.stop, folder)
        if button("Resume", "play_arrow", state in queue.RESUMABLE, "Queues the run to go on where it was last saved."):
            act(queue.resume, folder)
        with st.popover("Delete …", icon=":material/delete:", disabled=state in (*runs.ACTIVE, "stopping")):
            st.markdown(f"Delete **{name}** with its model, curves and samples? This cannot be undone.")
            if st.button(f"Yes, delete {name}", type="primary", key=f"delete-{name}"):
                act(queue.delete, folder)


def curve_chart(title: str, folder: Path, curves: dict, wanted: list[Curve], ylabel: str, level: tuple | None = None) -> None:
    """A chart of those of the `wanted` values that the run has measured."""
    wanted = [curve for curve in wanted if curve.name in curves]
    lines = {curve.label: curves[curve.name] for curve in wanted}
    if not lines:
        return
    st.markdown(f"**{title}**")
    data = pd.concat([pd.DataFrame({"value": label, "step": x, "measured": y}) for label, (x, y) in lines.items()])
    newest = ", ".join(f"{label} {y[-1]:.3g}" for label, (_, y) in lines.items())
    controls.chart(
        charts.line_chart(lines, "step", ylabel, level=level), data.to_dict("list"),
        f"{folder.name}-{title.lower().replace(' ', '-')}", f"{title} over the steps; newest: {newest}.",
    )  # fmt: skip
    st.caption("; ".join(f"{curve.label}: {curve.meaning}" for curve in wanted) + ".")


def show_curves(folder: Path) -> None:
    """What the run measures, in the charts that its detector asks for."""
    curves, declared = cache.curves(folder), curves_of(folder)
    places = st.columns(2, gap="large")
    for (name, (title, ylabel, level)), place in zip(CHARTS.items(), places):
        with place:
            curve_chart(title, folder, curves, [curve for curve in declared if curve.chart == name], ylabel, level)
    with places[-1]:
        curve_chart("Validation AUROC", folder, curves, aurocs_in(curves), "AUROC", (0.5, "a coin"))


def show_samples(name: str, folder: Path) -> None:
    """The reconstructions of fixed images; the newest until an earlier step is chosen."""
    samples = runs.list_samples(folder)
    if not samples:
        return
    steps, key = list(samples), f"sample-{name}"
    if st.session_state.get(key) not in steps or st.session_state.get(f"{key}-newest") == st.session_state.get(key):
        st.session_state[key] = steps[-1]
    st.session_state[f"{key}-newest"] = steps[-1]
    st.markdown("**Reconstructions of fixed training images**")
    step = steps[-1]
    if len(steps) > 1:
        step = st.select_slider("Step", steps, key=key, help="The right end follows the training.")
    alt = f"Step {step}: eight training images above, their reconstructions below"
    st.html(pictures.strip(runs.read_sample(samples[step]), alt))
    st.caption(f"Above: eight training images. Below: their reconstructions after step {step:,}.")


def progress(state: str, status: dict) -> None:
    """How far a run is, where it works, and how fast."""
    if status.get("total_steps"):
        left = f", about {controls.duration(status['eta_s'])} left" if state == "running" and "eta_s" in status else ""
        st.progress(min(1.0, progress_of(status)), f"step {status['step']:,} of {status['total_steps']:,}{left}")
    if state == "measuring" and status.get("sets_to_measure", 0) > 0:
        k, n = max(0, int(status.get("measured_sets", 0))), max(1, int(status["sets_to_measure"]))
        what = f": {controls.literal(str(status['measuring']))}" if status.get("measuring") else ""
        st.progress(min(1.0, k / n), f"measuring, {k} of {n}{what}")
    facts = [status.get("device"), f"{status['images_per_s']:,.0f} images per second" if "images_per_s" in status else None,
             f"{controls.duration(status['seconds'])} of training" if status.get("seconds") else None]  # fmt: skip
    if state in runs.ACTIVE and time.time() - status.get("heartbeat", 0) > 120:
        facts.append(f"last report {controls.duration(time.time() - status['heartbeat'])} ago")
    st.caption(" · ".join(fact for fact in facts if fact))


def detail(name: str, folder: Path, status: dict) -> None:
    """Everything about one run."""
    state, shown = status["state"], shown_state(folder, status)
    st.markdown(f"**{controls.literal(name)}**: {shown}. {STATES.get(shown, '')}")
    if status.get("error"):
        st.error(controls.literal(status["error"]), icon=":material/error:")
    buttons(name, folder, shown)
    progress(state, status)
    if state == "finished":
        model = next((model for model, path in cache.models().items() if path.resolve() == folder.resolve()), None)
        if model:
            with st.container(horizontal=True):
                controls.link("densities", "Its score densities", "area_chart", model=model)
                if not controls.lacking(folder, ("reconstruct",)):
                    controls.link("reconstructions", "Its reconstructions", "compare", model=model)
                controls.link("check", "Check images with it", "image_search", model=model)
    show_samples(name, folder)
    show_curves(folder)
    log = runs.read_log(folder)
    with st.expander("Log", icon=":material/article:"):
        st.code(log or "Nothing yet.", language=None, wrap_lines=True)
    with st.expander("What was asked", icon=":material/tune:"):
        try:
            st.json(runs.RunSpec.read(folder).to_json())
        except AMAError as error:
            st.error(str(error), icon=":material/error:")


def watch() -> None:
    """List and detail; drawn again at every tick."""
    found = runs.list_runs(runs.runs_dir())
    if not found:
        st.info("No run yet. Set one up above: the preset `tiny` on the digits is the quickest.")
        return
    with controls.error_panel():
        queue.ensure_worker(runs.runs_dir())
    problem = st.session_state.pop("train-problem", None)
    if problem:
        st.error(problem, icon=":material/error:")
    statuses = {name: status_of(folder) for name, folder in found.items()}
    overview(found, statuses)
    names = list(found)
    if st.session_state.get("run") not in names:
        st.session_state.pop("run", None)
    name = controls.choose(st.selectbox, "run", "Look into a run", names, names[0])
    with controls.error_panel():
        detail(name, found[name], statuses[name])


def comparable(found: dict[str, Path]) -> dict[str, Curve]:
    """What these runs may have measured, by its name in the list."""
    values: dict[str, Curve] = {}
    for folder in found.values():
        for curve in curves_of(folder):
            values.setdefault(curve.label, curve)
        for curve in aurocs_in(cache.curves(folder)):
            values.setdefault(f"validation AUROC of {curve.label}", curve)
    return values | {SPEED.label: SPEED}


def compare() -> None:
    """One measured value of several runs on one chart."""
    found = runs.list_runs(runs.runs_dir())
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
            charts.line_chart(lines, "step", label), data.to_dict("list"), f"compare-{key}",
            f"{label} of {len(lines)} runs over the steps; newest: {newest}.",
        )  # fmt: skip
        st.caption(f"{label}: {values[label].meaning}.")
    if without:
        st.caption(f"Not measured yet, or not at all: {', '.join(without)}.")
    elif not lines:
        st.info("Choose at least one run.")


def main() -> None:
    access.stop_where_public()
    controls.heading(
        "Train",
        "Teach a model what is normal in images of your choice. A run goes on in a process of its own, whether this page is "
        "open or not; one machine trains one run at a time, the others wait.",
    )
    with st.sidebar:
        controls.reset_button()
    with controls.error_panel():
        new_run()
    st.subheader("Runs")
    found = runs.list_runs(runs.runs_dir())
    busy = any(status_of(folder)["state"] in ("queued", *runs.ACTIVE) for folder in found.values())
    st.fragment(watch, run_every=TICK if busy else IDLE)()
    st.fragment(compare, run_every=IDLE if busy else None)()


main()
