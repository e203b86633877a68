"""The paper's first row, trained here: mirrored and plain on FashionMNIST, and how near their AUROCs come to the paper's."""

from pathlib import Path

import cache
import charts
import controls
import paper_tables
import streamlit as st

from ama_core import AMAError
from ama_core.data import available, catalog
from ama_core.detectors.ama.config import Config
from ama_core.formatting import duration
from ama_core.paper import published
from ama_core.paper.lengths import CONDITION, NORMAL, PRESET, curve
from ama_core.paper.report import figure
from ama_core.runs import queue, timing
from ama_core.runs.folder import list_runs, runs_dir
from ama_core.runs.spec import RunSpec, config_for
from training.live import WATCHED, status_of, table_of

OOD = "mnist"
STEPS = 2000  # minutes on a CPU, and T hardly grows after them
KINDS = ("mirrored", "plain")
SCORE = "A"
BESIDE = "T"  # the score whose stored figures stand beside those of SCORE


def spec_of(kind: str) -> RunSpec:
    """The run of one of KINDS."""
    config = config_for(NORMAL, PRESET, max_steps=STEPS, reconstruction=kind)
    return RunSpec(NORMAL, config, watch=OOD)


def papers(kind: str) -> float | None:
    """The paper's AUROC of one of KINDS."""
    return published.table1(NORMAL, OOD) if kind == "mirrored" else published.ablation(published.WITHOUT_MIRRORED, NORMAL, OOD)


def runs_here() -> dict[str, Path]:
    """The newest run of each of KINDS with these settings, whatever it is called and whichever its seed."""
    found: dict[str, Path] = {}
    wanted = {kind: published.seedless(spec_of(kind).config) for kind in KINDS}
    for folder in list_runs(runs_dir()).values():
        try:
            spec = RunSpec.read(folder)
        except AMAError:
            continue
        if (spec.dataset, spec.watch, spec.one_class, spec.anomalies) != (NORMAL, OOD, None, None):
            continue
        if isinstance(spec.config, Config):
            for kind, config in wanted.items():
                if published.seedless(spec.config) == config:
                    found.setdefault(kind, folder)
    return found


def card() -> None:
    """What the paper has, what is to be expected here, a button that starts both, and their curves."""
    with st.container(border=True):
        st.markdown("##### The paper's first row, here")
        mirrored, plain = (papers(kind) for kind in KINDS)
        st.markdown(
            f"Train AMA on {controls.title_of(NORMAL)}, and ask whether {controls.title_of(OOD)} is anomalous: the paper has "
            f"AUROC **{mirrored:.3f}** with its mirrored loss and **{plain:.3f}** without it (plain). "
            f"{came_to()}"
        )
        needed = {NORMAL: {"train", "test"}, OOD: {"test"}}
        missing = [name for name, splits in needed.items() if not splits <= {*available(name)}]
        if missing:
            st.caption("The images are not on this computer yet. Fetch them in a terminal:")
            st.code(f"python -m ama_core datasets --download {' '.join(missing)}", language="bash")
            return
        found = runs_here()
        start(found)
        curves = {kind: cache.curves(folder).get(f"{WATCHED}{SCORE}") for kind, folder in found.items()}
        draw({kind: curves[kind] for kind in KINDS if curves.get(kind)})
        states = [f"{kind}: {controls.literal(f.name)}, {status_of(f)['state']}" for kind, f in sorted(found.items())]
        if states:
            st.caption(f"{'; '.join(states)}. Choose one at the top of this page to inspect it or to stop it.")


def came_to() -> str:
    """What stored trainings of as many steps came to; empty where none is stored."""
    runs, said = paper_tables.training_lengths(), []
    for kind in KINDS:
        found = {by: at for by in (SCORE, BESIDE) for at in curve(runs, kind, OOD, by) if at.steps == STEPS}
        if found:
            n = max(at.seeds for at in found.values())
            values = controls.listed([f"{by} {figure((at.auroc, at.sd))}" for by, at in found.items()])
            said.append(f"{kind} {values} ({n} training{'s' * (n > 1)})")
    if not said:
        return ""
    return f"Our stored trainings of {STEPS:,} steps ({CONDITION}) reached AUROC {'; '.join(said)}."


def start(found: dict[str, Path]) -> None:
    """The button that queues those that are not there yet, and how long they take here."""
    to_start = [kind for kind in KINDS if kind not in found]
    if not to_start:
        return
    label = "Train both" if len(to_start) == 2 else f"Train the {to_start[0]} one"
    meaning = "Queued at once, trained one after the other."
    if st.button(label, icon=":material/play_arrow:", key="paper-row", help=meaning):
        try:
            for kind in to_start:
                queue.submit(runs_dir(), queue.free_name(runs_dir(), f"first-row-{kind}"), spec_of(kind))
        except AMAError as error:
            st.error(controls.said(error), icon=":material/error:")
            return
        st.rerun()
    known = timing.known(spec_of(KINDS[0]).config, runs_dir())
    if known:
        words = duration(STEPS * known.seconds * len(to_start))
        st.caption(f"About {words} of training on this machine ({known.device}; {known.how}).")


def draw(lines: dict) -> None:
    """The AUROCs of both over the steps, and the paper's lines that they grow towards."""
    if not lines:
        return
    said = []
    for kind, (steps, values) in lines.items():
        apart = values[-1] - papers(kind)
        near = "the paper's" if abs(apart) < 0.005 else f"{abs(apart):.3f} {'above' if apart > 0 else 'below'} the paper's"
        said.append(f"{kind} {values[-1]:.3f} after {steps[-1]:,} of {STEPS:,} steps, {near} {papers(kind):.3f}")
    st.markdown(f"**A separates {catalog()[OOD].title} from {catalog()[NORMAL].title}:** {'; '.join(said)}.")
    levels = {f"paper, {kind}": papers(kind) for kind in lines}
    controls.chart(
        charts.line_chart(lines, "step", f"AUROC of {SCORE}", levels=levels, height=340),
        table_of(lines),
        "paper-row",
        f"AUROC of {SCORE} of the mirrored and the plain model over the steps: {'; '.join(said)}.",
    )
    st.caption(
        "While they train, 200 held-out normal images are compared with 200 of MNIST, so a value is accurate to about ±.02; "
        f"the model's own pages have it on all test images. {SCORE} asks how usual an image's raw score R is among the "
        "training images."
    )
