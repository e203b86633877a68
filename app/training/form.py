"""The form for a new run: three plain controls, all other settings under "Expert", and what is wrong said in a sentence."""

import dataclasses
from contextlib import suppress
from pathlib import Path

import access
import cache
import controls
import pictures
import streamlit as st

from ama_core import AMAError
from ama_core.data import available, catalog
from ama_core.detectors import registry
from ama_core.detectors.base import AnomalyDetector
from ama_core.evaluation.protocol import available_sets
from ama_core.formatting import duration
from ama_core.paper import published
from ama_core.runs import queue, timing
from ama_core.runs.folder import runs_dir
from ama_core.runs.spec import RunSpec, command_line, config_for, suited_to_few
from ama_core.settings import Settings
from training import words

OWN = "my own images"
LAUNCHED = "train-launched"
QUEUED = "train-queued"

GROUPS = ("What is trained", "Images", "Networks", "Objective", "Training", "Calibration")  # of settings, in this order
PLAIN = ("max_steps", "atypical")  # settings with a place of their own above, where the detector has them
SUITED = ("channels", "fit", "batch_size", "calibration_fraction", "k")  # settings that follow the images
PRESET_WORDS = {
    "tiny": "For a first look: small networks, {steps}.",
    "small": "For a CPU, if you can wait: wider networks, {steps}.",
    "fast64": "For photographs: 64 pixels at the cost of 32 (the networks see 2×2 pixels as channels), {steps}.",
    "paper": "The sizes and settings of the paper: for a GPU.",
}
HELP = {
    "max_steps": "More steps take longer. What they gain depends on the score and the images: the page Benchmark has figures "
    "for FashionMNIST under “How long to train”. 0: the passes over the images decide (see Expert).",
    "atypical": "Images that the model makes up from codes that no normal image has, and learns *not* to reconstruct: they "
    "stand for anomalies that nobody has seen yet.",
}


def new_run() -> None:
    """The form; whatever is wrong in it is said in a sentence, and all that was typed stays."""
    left, right = st.columns(2, gap="large")
    with left:
        data, source = choose_data()
    with right:
        kind = choose_detector()
        watch = choose_watched(kind, data, source)
    with st.container():  # there in any case: an expander whose place changes closes
        if data == OWN and source:
            own_images(source)
    size, *plain = st.columns(3)
    with size:
        preset_name = choose_preset(kind)
    suited = fill(kind, data, preset_name, source)
    values = plain_settings(suited, plain)
    go = st.container()
    with st.expander("**Expert**: all other settings, one class, known anomalies, the name of the run", icon=":material/tune:"):
        values |= other_settings(suited)
        extras = choose_extras(kind, data, source)
        name = choose_name(kind, data, preset_name)
        if source and kind.trains():
            preset_times(kind, data, source)
    with go:
        try:
            spec = RunSpec(source or "", kind.Settings.from_dict(values), detector=kind.name, watch=watch, **extras)
        except AMAError as error:
            st.error(controls.said(error), icon=":material/error:")
            return
        if source:
            show_time(spec)
        if st.button("Train", type="primary", icon=":material/play_arrow:", disabled=data != OWN and source is None):
            submit(name, spec)
    if source:
        with st.expander("The same from a terminal"):
            st.code(command_line(spec, runs_dir() / name, preset_name), language="bash", wrap_lines=True)


# What is trained, and on what


def choose_data() -> tuple[str, str | None]:
    """The data set: its name for the form, and what the engine calls it; None while that is missing, with the way to get it."""
    ready = [name for name, info in catalog().items() if info.normal_ok and "train" in available(name)]
    missing = [name for name, info in catalog().items() if info.normal_ok and name not in ready]

    kept = st.session_state.setdefault("train-kept", {})
    if "data" in kept and "data" not in st.session_state and "data" not in st.query_params:  # back from another page
        st.query_params["data"] = st.session_state["data"] = kept["data"]
    kept["data"] = chosen = controls.choose_set(
        "data",
        "Normal images",
        [*ready, OWN, *missing],
        ready[0],
        help="The model learns these alone; whatever differs from them will be an anomaly. The last ones need a download.",
    )
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
    return OWN, own_source()


def own_source() -> str | None:
    """Where the reader's own images are: a typed path or an upload."""
    remembered("train-path", "")
    path = st.text_input(
        "Path of a folder, .zip or .npz on this computer",
        key="train-path",
        placeholder="/home/me/pictures",
        help="A folder may have subfolders train and test; otherwise it is divided 80 : 20 by a fixed seed. An .npz file holds "
        "`images`, uint8 (N, H, W, C).",
    )
    file = controls.upload("or upload a .zip or .npz", list(queue.UPLOAD_TYPES), f"train-upload-{controls.generation()}")
    try:
        if file:
            saved = queue.save_upload(runs_dir(), file.name, file.getvalue())
            st.caption(f"Kept on this computer as {controls.literal(str(saved))}.")
            return str(saved)
        return str(access.allowed(path)) if path.strip() else None
    except AMAError as error:
        st.error(controls.said(error), icon=":material/error:")
        return None


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


def choose_detector() -> type[AnomalyDetector]:
    """The method."""
    found = {}
    for name in registry.names():
        try:
            found[name] = registry.detector_class(name)
        except AMAError as error:  # one from outside
            st.warning(controls.said(error), icon=":material/warning:")
    titles = {kind.title: kind for kind in found.values()}
    title = controls.choose(
        st.selectbox,
        "detector",
        "Detector",
        list(titles),
        next(iter(titles)),
        help="The method that learns what is normal.",
    )
    kind = titles[title]
    how = "Trained by gradient steps." if kind.trains() else "Fitted in seconds, without gradient steps."
    st.caption(f"{controls.literal(kind.reference)}. {how}")
    return kind


def choose_watched(kind: type[AnomalyDetector], data: str, source: str | None) -> str | None:
    """Anomalies that are looked at while the model trains, where it can be looked at, and by which nothing is chosen."""
    can_be_watched = kind.trains() and kind.trainer_class.can_be_watched()
    if data == OWN:
        looked = "Looked at while the model trains, and measured" if can_be_watched else "Measured"
        return own_anomalies(
            "train-watch-path",
            "A few bad images, if you have some",
            f"{looked} when it is trained. The model learns nothing from them.",
        )
    if not can_be_watched:
        return None
    others = [name for name in available_sets() if name != source]
    kept = st.session_state.setdefault("train-kept", {})
    if kept.get("watched-for") != data:
        kept["watched-for"] = data
        kept["train-watch"] = st.session_state["train-watch"] = telling_anomalies(data, others)
    return optional(
        "train-watch",
        "Test against during training",
        others,
        "200 images of this set are scored from the first step on, beside 200 normal ones that were held out. Nothing is "
        "chosen by them.",
        placeholder="nothing",
        format_func=controls.title_of,
    )


def telling_anomalies(data: str, others: list[str]) -> str | None:
    """What to watch a training on `data` against first: as the paper has it, else real images of as many channels."""
    papers = [published.STAND_INS.get(ood, ood) for normal, ood in published.TASKS if normal == data]
    info = catalog()[data]
    real = [name for name in others if catalog()[name].kind != "procedural" and catalog()[name].channels == info.channels]
    leading = controls.LEADING if info.channels == 3 else ()
    return next((name for name in (*papers, *leading, *real, *others) if name in others), None)


# Settings


def choose_preset(kind: type[AnomalyDetector]) -> str:
    """Which of the detector's presets fills the form; none is asked for where all are the same."""
    presets = kind.Settings.PRESETS
    if all(values == next(iter(presets.values())) for values in presets.values()):
        return next(iter(presets))
    name = controls.choose(
        st.selectbox,
        "preset",
        "Size",
        list(presets),
        next(iter(presets)),
        help="How large the networks are. It fills in every other setting as well; each can then be changed.",
    )
    steps = getattr(kind.Settings.preset(name), "max_steps", 0)
    said = PRESET_WORDS.get(name, "") if kind.trains() else ""
    st.caption(said.format(steps=f"{steps:,} steps" if steps else "many steps"))
    return name


def remembered(key: str, default) -> None:
    """Gives the widget `key` what was typed before: Streamlit forgets a widget while another page is open."""
    kept = st.session_state.setdefault("train-kept", {})
    if key not in st.session_state:
        st.session_state[key] = kept.get(key, default)
    kept[key] = st.session_state[key]


def fill(kind: type[AnomalyDetector], data: str, preset_name: str, source: str | None) -> Settings:
    """Fill the form: with the preset when that, or the detector, was chosen or reset, with what suits the data when those were.

    One's own images may be few: then batches are smaller, and more of them are held out.
    """
    suited = config_for(data, preset_name, kind.name)
    if data == OWN and source:
        with suppress(AMAError):  # said where the time is told
            suited = suited_to_few(suited, cache.training_size(RunSpec(source, suited, detector=kind.name)))
    kept = st.session_state.setdefault("train-kept", {})
    asked, before = (kind.name, preset_name, controls.generation(), data, source), kept.get("asked")
    if before is None or before[:3] != asked[:3]:
        renewed = suited.to_dict()
    else:
        renewed = {name: getattr(suited, name) for name in SUITED if hasattr(suited, name)} if before != asked else {}
    for name, value in renewed.items():
        st.session_state[f"hp-{name}"] = kept[f"hp-{name}"] = value
    kept["asked"] = asked
    return suited


def plain_settings(suited: Settings, columns) -> dict:
    """The settings of PLAIN that the detector has."""
    fields = {field.name: field for field in dataclasses.fields(suited)}
    values = {}
    for column, name in zip(columns, [name for name in PLAIN if name in fields]):
        with column:
            remembered(f"hp-{name}", getattr(suited, name))
            values[name] = input_for(fields[name], help=HELP[name])
    return values


def other_settings(suited: Settings) -> dict:
    """Every other setting in its group, with its explanation and its bounds."""
    grouped: dict[str, list[dataclasses.Field]] = {group: [] for group in GROUPS}
    for field in dataclasses.fields(suited):
        if field.name not in PLAIN:
            grouped.setdefault(field.metadata["group"], []).append(field)
    grouped = {group: members for group, members in grouped.items() if members}
    values = {}
    for tab, members in zip(st.tabs(list(grouped)), grouped.values()):
        with tab:
            for field in members:
                remembered(f"hp-{field.name}", getattr(suited, field.name))
            for start in range(0, len(members), 3):  # a row at a time: what stands side by side begins at one height
                for column, field in zip(st.columns(3), members[start : start + 3]):
                    with column:
                        values[field.name] = input_for(field)
                        st.caption(controls.literal(words.explained(field.metadata["doc"])))
    plain = {name: st.session_state[f"hp-{name}"] for name in PLAIN if hasattr(suited, name)}
    changed = [
        f"{words.name_of(name)}: {words.choice_in_words(name, value)}"
        for name, value in (plain | values).items()
        if value != getattr(suited, name)
    ]
    said = f"Changed from the preset: {controls.literal('; '.join(changed))}." if changed else "No changes from the preset."
    st.caption(said)
    return values


def input_for(field: dataclasses.Field, **more):
    """The widget that suits a field."""
    meta, key, label = field.metadata, f"hp-{field.name}", words.name_of(field.name)
    if meta["choices"]:
        return st.selectbox(
            label, meta["choices"], key=key, format_func=lambda value: words.choice_in_words(field.name, value), **more
        )
    kind = type(field.default)
    low, high = (None if bound is None else kind(bound) for bound in (meta["low"], meta["high"]))
    if kind is int:
        return st.number_input(label, low, high, step=100 if field.name == "max_steps" else 1, key=key, **more)
    size = field.default or high or 1.0
    step = 10.0 ** int(f"{size / 2:e}".split("e")[1])  # a small fraction of the default: 1 for 10, 1e-4 for 3e-4
    return st.number_input(label, low, high, step=step, format="%.6g", key=key, **more)


# What a run has beside its settings


def choose_extras(kind: type[AnomalyDetector], data: str, source: str | None) -> dict:
    """What a run has beside its settings: fields of RunSpec."""
    classes = catalog()[data].classes if data in catalog() else ()
    trainer, extras = kind.trainer_class, {}
    st.markdown("**One class, known anomalies, and afterwards**" if trainer else "**One class, and afterwards**")
    left, right = st.columns(2)
    with left:
        if classes:
            extras["one_class"] = optional(
                "train-class",
                "One class as normal (Table 2)",
                list(range(len(classes))),
                "Trains on this class alone; the other classes are then the anomalies called `rest`.",
                placeholder="all classes",
                format_func=lambda label: f"{label}: {classes[label]}",
            )
        if trainer and trainer.uses_anomalies:
            extras |= choose_anomalies(source)
    if trainer and trainer.validated_by:
        with right:
            extras |= choose_validation(source, trainer.validated_by)
    remembered("train-measure", True)
    extras["measure"] = st.toggle(
        "Afterwards measure it against the bad images that were named"
        if data == OWN
        else "Afterwards score every data set that is here",
        key="train-measure",
        help="Stored with the model, so that the pages on densities and benchmarks have something to show. It can be skipped "
        "while it is running.",
    )
    return extras


def choose_anomalies(source: str | None) -> dict:
    """Real anomalies to train with."""
    here = [name for name in available_sets() if name != source and "train" in available(name)]
    found = optional(
        "train-anomalies",
        "Real anomalies as negatives",
        here,
        "The semi-supervised case: a few real anomalies take the place of the synthetic negatives.",
        format_func=controls.title_of,
    )
    return {"anomalies": own_anomalies("train-anomalies-path", "or own images as negatives") or found}


def choose_validation(source: str | None, by: str) -> dict:
    """Anomalies to follow the training by, and whether they choose the weights, by the AUROC of a score."""
    found = optional(
        "train-validate",
        "Validation anomalies",
        [name for name in available_sets() if name != source],
        "50 images of this set are used to follow the AUROC while training; they are never tested.",
        format_func=controls.title_of,
    )
    found = own_anomalies("train-validate-path", "or own images as validation anomalies") or found
    remembered("train-select", "last")
    select = st.selectbox(
        "Weights to keep",
        ("last", "validated"),
        key="train-select",
        disabled=not found,
        help=f"Those of the last step, by which the paper's setting is judged here, or those with the best AUROC of {by} on "
        "the validation anomalies.",
    )
    return {"validate_ood": found, "select": select if found else "last"}


def own_anomalies(key: str, label: str, meaning: str = "Replaces the set above.") -> str | None:
    """A typed path of a few known bad images."""
    remembered(key, "")
    typed = st.text_input(label, key=key, placeholder="path of a folder, .zip or .npz", help=meaning)
    with controls.error_panel():
        return str(access.allowed(typed)) if typed.strip() else None


def optional(key: str, label: str, options: list, meaning: str, placeholder: str = "none", **more):
    """A selection that may be left empty, which `placeholder` then names."""
    remembered(key, None)
    if st.session_state[key] not in options:
        st.session_state[key] = None
    return st.selectbox(label, options, None, key=key, help=meaning, placeholder=placeholder, **more)


def choose_name(kind: type[AnomalyDetector], data: str, preset_name: str) -> str:
    """How the run is called: as was typed, else by its data, its detector and its preset."""
    parts = [data, *([] if kind.name == registry.names()[0] else [kind.name]), *([preset_name] if kind.trains() else [])]
    wish = queue.free_name(runs_dir(), "-".join(parts))
    key = f"train-name-{st.session_state.get(LAUNCHED, 0)}"
    remembered(key, "")
    typed = st.text_input(
        "Name of the run",
        key=key,
        placeholder=wish,
        help="Letters, digits, - and _. If left empty, the name in grey is used.",
    )
    return typed.strip() or wish


# How long it takes, and off it goes


def preset_times(kind: type[AnomalyDetector], data: str, source: str) -> None:
    """How long each preset takes here, as measured; a button where that is not known."""
    presets, folder = list(kind.Settings.PRESETS), runs_dir()
    try:
        configs = {name: config_for(data, name, kind.name) for name in presets}
        spec = RunSpec(source, configs[presets[0]], detector=kind.name)  # of as many images as with any other preset
        if data == OWN:
            n = cache.training_size(spec)
            configs = {name: suited_to_few(config, n) for name, config in configs.items()}
        found = {name: timing.known(config, folder) for name, config in configs.items()}
        unknown = [name for name in presets if not found[name]]
        if unknown and st.button(
            "Time the presets on this machine",
            icon=":material/timer:",
            help="Times a few steps of each, in about half a minute.",
        ):
            with st.spinner("Timing a few steps of each …"):
                found |= {name: timing.measure(configs[name], folder) for name in unknown}
        if any(found.values()):
            n = cache.training_size(spec)
            times = [f"{name} about {duration(of.whole_run(configs[name], n))}" for name, of in found.items() if of]
            st.caption(f"Training time on this machine, measured: {', '.join(times)}.")
    except AMAError as error:
        st.caption(controls.said(error))


def show_time(spec: RunSpec) -> None:
    """How much there is to train and how long that takes here, as measured; a button where it is not known."""
    try:
        n = cache.training_size(spec)
        few_images(spec, n)
        if not registry.detector_class(spec.detector).trains():
            st.markdown(f"Fitted in seconds on {n:,} images, without gradient steps.")
            return
        amount = f"{timing.run_steps(spec.config, n):,} steps on {n:,} images"
        found = timing.known(spec.config, runs_dir())
        left, right = st.columns([1, 2], vertical_alignment="center")
        asked = left.button(
            "Measure the time again" if found else "Measure how long it takes here",
            icon=":material/timer:",
            width="stretch",
            help="Times a few steps with these settings on random images, in a few seconds.",
        )
        if asked:
            with st.spinner("Timing a few steps …"):
                found = timing.measure(spec.config, runs_dir())
        if found:
            said = duration(found.whole_run(spec.config, n))
            right.markdown(
                f"{amount}: **about {said}** of training on this machine ({found.device}; {controls.literal(found.how)})"
            )
        else:
            right.caption(f"{amount}. How long that takes on this machine has not been measured yet.")
    except AMAError as error:
        st.warning(controls.said(error), icon=":material/warning:")


def few_images(spec: RunSpec, n: int) -> None:
    """Says so where so few images are held out that the false-alarm rate asked for is out of reach. Raises DataError."""
    least, held = timing.reachable_rate(spec.config, n)
    if least > spec.config.false_alarm_rate:
        st.info(
            f"{n:,} images are for training, and {held:,} of them can be set aside for the p-values, so that nothing is "
            f"flagged at a false-alarm rate below 1/{held + 1} = {controls.percent(least)}. More normal images lower it. With "
            "so few, also try a method without training, such as nearest neighbours (see Detector): Check images shows what "
            "each finds.",
            icon=":material/info:",
        )


def submit(name: str, spec: RunSpec) -> None:
    """Queue the run, and look into it from then on."""
    try:
        if not spec.dataset:
            raise AMAError("Say where your own images are: give a path or upload an archive.")
        queue.submit(runs_dir(), name, spec)
    except AMAError as error:
        st.error(controls.said(error), icon=":material/error:")
        return
    st.session_state[LAUNCHED] = st.session_state.get(LAUNCHED, 0) + 1
    st.session_state[QUEUED] = name
    st.rerun()
