"""Benchmark: the paper's Tables 1 and 2 and its ablations beside what was measured here (see `ama_core.paper.tables`)."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

import access
import cache
import controls
import numpy as np
import pandas as pd
import paper_tables
import rivals
import streamlit as st
import training_length
from benchmark_summary import dots, models_of, verdicts, what
from density_charts import density_chart

from ama_core import AMAError, Config
from ama_core.detectors.ama.scores import SCORES
from ama_core.evaluation.metrics import auroc_interval
from ama_core.formatting import duration, significant
from ama_core.paper import published as paper
from ama_core.paper.jobs import small_training
from ama_core.paper.records import Record
from ama_core.paper.report import PAPER_NAMES, command, condition_letters, condition_text, figure, task
from ama_core.paper.tables import MISSING, N_CLASSES, Line, Member
from ama_core.paper.verdicts import ALIKE, FEWEST, LEVEL, ablation, signed
from ama_core.runs import queue
from ama_core.runs.folder import Run, list_runs, runs_dir
from ama_core.runs.spec import RunSpec, command_line
from ama_core.runs.status import State

TABLES = {"Table 1": "table1", "Ablations": "ablations", "Table 2": "table2"}
AXES = {"R": "R-score", "A": "|R − μ| / σ (far out: low A)", "M": "M-score", "T": "T-score", "C": "C-score"}
COLUMNS = {
    "paper": st.column_config.TextColumn("paper", help=f"AUROC as printed: {paper.SOURCE}."),
    "out of distribution": st.column_config.TextColumn("out of distribution", width=190),
    "class": st.column_config.TextColumn("class", width=110),
    "model": st.column_config.TextColumn("model", width=165),
    "ours": st.column_config.TextColumn(
        "ours",
        help="AUROC of the score that the paper's row uses, measured here; mean ± standard deviation of several seeds.",
    ),
    "ours: difference": st.column_config.TextColumn(
        "ours: difference",
        width=150,
        help="AUROC by A of AMA minus that of the model without the part, trained alike; without the A-score, A minus R of the "
        f"same models. Student's {100 * LEVEL:.0f} % interval from {FEWEST} seeds on.",
    ),
    "paper: difference": st.column_config.TextColumn(
        "paper: difference", help="What the part adds by the paper's two figures: that of AMA less that without the part."
    ),
    "ours: by T": st.column_config.TextColumn(
        "ours: difference by T", help="The same difference by T, which the paper does not have."
    ),
    "verdict": st.column_config.TextColumn(
        "verdict",
        width=145,
        help=f"Whether the interval lies within what the paper has: a gain above {ALIKE:g}, a loss below −{ALIKE:g}, or "
        "neither.",
    ),
    "95 %": st.column_config.TextColumn(
        "95 % interval",
        help="For one seed: by Hanley & McNeil's standard error and the method of Clopper & Pearson. It covers the sampling of "
        "the test images, not the training seed.",
    ),
    "reduced": st.column_config.TextColumn(
        "below the paper's size", help="In which ways ours is smaller, or trained for less."
    ),
}


def models() -> list[Member]:
    """What the models on this computer were measured on; those that cannot be read are named and left out."""
    found, left_out = paper_tables.members()
    for name, why in left_out.items():
        st.warning(f"**{controls.literal(name)}** is left out. {controls.said(why)}")
    return found


def chosen_lines(table: str) -> list[Line]:
    """The lines of the chosen table that the page shows: those of the paper's rows on its own pairs of sets, and others on
    demand.
    """
    if table == "Table 1":
        beyond = controls.switch("beyond", "Also sets that the paper does not use", False)
        row, more = paper.AMA, paper_tables.other_pairs() if beyond else []
    elif table == "Ablations":
        variants = list(paper.ABLATIONS)
        row, more = (
            controls.choose(st.segmented_control, "variant", "Left out", variants, paper.WITHOUT_MIRRORED, required=True),
            [],
        )
    else:
        st.caption("Trained on one class, tested against the other nine of the same set.")
        return with_means(paper_tables.lines("table2"))
    return [line for line in paper_tables.lines(TABLES[table]) if line.row == row and line.paper is not None] + more


def with_means(found: list[Line]) -> list[Line]:
    """The lines of Table 2, with a mean over its ten classes in any case and none over fewer."""
    shown = []
    for normal in paper.TABLE_2_SETS:
        own = [line for line in found if line.normal == normal and not line.classes]
        means = [line for line in found if line.normal == normal and line.classes == N_CLASSES]
        missing = replace(own[0], label=None, classes=N_CLASSES, paper=paper.table2_mean(normal), members=(), ours=None)
        shown += own + (means or [missing])
    return shown


def cells(line: Line, shown: Sequence[Line], ablated: Sequence[Line]) -> dict:
    """A line as a row of the table: what it is about, the paper's value, and ours where there is one.

    ablated: the lines of the table of ablations, where it is the one that is shown.
    """
    row = {"normal": controls.title_of(line.normal)}
    if line.classes:
        row["class"] = f"mean of {line.classes}"
    elif line.label is not None:
        name = controls.class_name(line.normal, line.label)
        row["class"] = str(line.label) if name == str(line.label) else f"{line.label} {name}"
    else:
        theirs = paper.paper_name(line.ood)
        here = controls.title_of(line.ood)
        row["out of distribution"] = here if theirs == line.ood else f"{PAPER_NAMES.get(theirs, theirs)} (here {here})"
    ours = measured(line) if line.ours else {"ours": not_measured(line, shown)}
    if line.row not in paper.ABLATIONS:
        return row | {"paper": line.paper} | ours
    found = ablation(line, ablated)
    row |= {"ours: difference": str(found or "")}
    row |= {"paper: difference": signed(found.paper) if found and found.paper is not None else ""}
    row |= {"verdict": found.verdict if found else "", "ours": ours.pop("ours")}
    row |= {"paper: AMA": paper.table1(line.normal, paper.paper_name(line.ood)), "paper": line.paper}
    if line.row != paper.WITHOUT_A:
        row["ours: by T"] = str(found and ablation(line, ablated, "T") or "")
    return row | ours


def cell_of(line: Line) -> str:
    """What an address calls a line: names of sets as in files, and its trainings."""
    if line.classes:
        about = f"mean of {line.classes}"
    elif line.label is not None:
        name = controls.class_name(line.normal, line.label)
        about = str(line.label) if name == str(line.label) else f"{line.label} {name}"
    else:
        theirs = paper.paper_name(line.ood)
        about = line.ood if theirs == line.ood else f"{theirs} (here {line.ood})"
    return f"{line.normal} → {about}" + (f", {models_of(line)}" if line.members else "")


def not_measured(line: Line, shown: Sequence[Line]) -> str:
    """What stands in place of a figure; of a mean, how many of its classes there are."""
    classes = {other.label for other in shown if other.normal == line.normal and other.ours and not other.classes}
    return f"{len(classes)} of {N_CLASSES} measured" if line.classes and classes else MISSING


def measured(line: Line) -> dict:
    """The columns of a line that was measured."""
    value, sd = line.auroc("R" if line.row == paper.WITHOUT_A else "A")
    how = alike([trained(member) for member in line.members])
    reduced = " (reduced)" if how["reduced"] else ""
    found = {
        "ours": f"{figure((value, sd))}{reduced}",
        "model": models_of(line),
        **{by: line.auroc(by)[0] for by in line.scores},
    }
    if line.classes:
        return found
    interval = "{:.3f} – {:.3f}".format(*auroc_interval(value, line.n_normal, line.n_ood)) if sd is None else ""
    return found | {"95 %": interval, "seeds": len(line.members), "n normal": line.n_normal, "n OOD": line.n_ood, **how}


def trained(member: Member) -> dict[str, str]:
    """How a model was made, for its columns."""
    config, training = member.spec.config, member.training
    passes = paper.epochs(config, dict(training))
    return {
        "mode": config.mode,
        "reconstruction": config.reconstruction,
        "width E/G/D": f"{config.width_encoder}/{config.width_generator}/{config.width_critic}",
        "steps": str(training.get("steps", "unknown")),
        "epochs": "unknown" if passes is None else f"{passes:.3g}",
        "weights of": f"{member.spec.select} step",
        "precision": training.get("precision", "unknown"),
        "hardware": training.get("device", "unknown"),
        "reduced": member.reductions,
    }


def alike(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """One row of several; several values where they differ."""
    return {key: "; ".join(dict.fromkeys(row[key] for row in rows)) for key in rows[0]}


def show(shown: list[Line], name: str) -> None:
    """The table, its download, and what lies behind the chosen line."""
    ablated = paper_tables.lines("ablations") if any(line.row in paper.ABLATIONS for line in shown) else []
    rows = [cells(line, shown, ablated) for line in shown]
    shown_as = pd.DataFrame([{key: in_words(value) for key, value in row.items()} for row in rows]).fillna("")
    names = [cell_of(line) for line in shown]
    names = [name if name not in names[:i] else f"{name} ({1 + names[:i].count(name)})" for i, name in enumerate(names)]

    def select() -> None:
        if chosen := st.session_state[f"cells-{name}"].selection.rows:
            st.session_state["cell"] = names[chosen[0]]

    controls.grid(
        shown_as,
        width="stretch",
        column_config=COLUMNS,
        on_select=select,
        selection_mode="single-row",
        key=f"cells-{name}",
        height="content",
    )
    controls.download_table("This table (CSV)", pd.DataFrame(rows), name)
    with st.container(border=True):
        labels = {key: f"{what(line)}" + (f": {models_of(line)}" if line.members else "") for key, line in zip(names, shown)}
        cell = controls.choose_shown(
            "cell", "What lies behind a cell (or click its row)", names, names[0], lambda key: labels.get(key, key)
        )
        behind(cell, shown[names.index(cell)])


def in_words(value) -> str:
    """A value as a cell shows it."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def behind(cell: str, line: Line) -> None:
    """What a cell rests on, the way to its densities, and the training that fills it or gives it another seed."""
    if line.classes:
        st.markdown("The mean over the ten classes: ours where all ten were trained with the same settings and measured.")
        return
    if not line.members:
        behind_nothing(cell, line)
        return
    scores = ", ".join(f"{by} {figure(line.auroc(by))}" for by in line.scores)
    n = len(line.members)
    seeds = "one training seed" if n == 1 else f"mean ± standard deviation of {n} training seeds"
    reduced = alike([trained(member) for member in line.members])["reduced"]
    size = f"Below the paper's size: {reduced}." if reduced else "Of the paper's size."
    st.markdown(f"AUROC {scores}; {seeds}. {size}")
    for member in line.members:
        if member.record:
            behind_stored(member.record, line.ood)
        else:
            behind_model(member)
    st.markdown("Train and measure one more, with another seed, for a mean and a standard deviation over seeds:")
    first = line.members[0]
    name = small_training(line.row, line.normal, line.label)[0] if first.record else first.name
    launch(cell, name, first.spec, 1 + max(member.seed for member in line.members))
    evaluate_again(line)


def behind_nothing(cell: str, line: Line) -> None:
    """Why a cell is empty, what was measured instead, and a training that fills it."""
    sets = (line.normal, paper.paper_name(line.ood))
    reason = next((paper.OUT_OF_REACH[name] for name in sets if name in paper.OUT_OF_REACH), None)
    why = f": {reason}" if reason else " yet"
    names = dict.fromkeys(other.ood for other in paper_tables.other_pairs() if other.normal == line.normal)
    others = ", ".join(map(controls.title_of, names))
    own = controls.title_of(line.normal)
    elsewhere = f" Measured for {own} under their own names (switch above): {others}." if others else ""
    st.markdown(f"Not measured{why}.{elsewhere} With the data available locally, this trains and measures a small one:")
    launch(cell, *small_training(line.row, line.normal, line.label), 0)


def behind_model(member: Member) -> None:
    """The densities behind the figures of a model on this computer."""
    st.markdown(f"**{controls.literal(member.name)}**, seed {member.seed}: the densities behind each figure")
    ood = member.found.ood
    with st.container(horizontal=True):
        for by in [by for by in SCORES if by in member.found.scores]:
            value = member.found.scores[by]["auroc"]
            controls.link("densities", f"{by} {value:.3f}", "area_chart", model=member.name, ood=ood, axis=by, score=by)


def evaluate_again(line: Line) -> None:
    """The commands that measure the models of a line again."""
    places = cache.models()
    names = [member.name for member in line.members if not member.record]
    if names:
        words = [["python", "-m", "ama_core", "evaluate", access.shown(places[name]), "--ood", line.ood] for name in names]
        st.markdown("Measure the model that is there again:")
        st.code("\n".join(map(shlex.join, words)), language="bash", wrap_lines=True)


def behind_stored(record: Record, ood: str) -> None:
    """The densities behind a figure that the command stored, and the command itself."""
    st.markdown(
        f"Stored by `{record.command}`, seed {record.seed}: {record.status}, {record.steps:,} steps in "
        f"{duration(record.seconds)} on {controls.literal(record.hardware)}. Its weights are not kept."
    )
    scores = {s.name: s for s in paper_tables.record_scores(record)}
    if ood not in scores or record.normal not in scores:
        st.caption("Only its figures are stored; run again, the command stores the scores behind them as well.")
        return
    with st.container(border=True):
        key = f"stored-axis-{record.name}"
        stored = [by for by in AXES if by in scores[ood].scores and by in scores[record.normal].scores]
        axis = st.segmented_control("Densities of", stored, default="R", required=True, key=key)
        field = cache.A_DISTANCE if axis == "A" else axis
        found = paper_tables.record_densities(record, ood, field)
        medians = "; ".join(f"{name} {significant(value)}" for name, value in found.medians.items())
        controls.chart(
            density_chart(found.grid, found.curves, xlabel=AXES[axis], log=found.log),
            {
                "set": np.repeat(list(found.curves), len(found.grid)),
                field: np.tile(found.grid, len(found.curves)),
                "density": np.concatenate(list(found.curves.values())),
            },
            f"stored-{record.name}-{ood}-{field}",
            f"Densities of {AXES[axis]} for the normal test images and {ood}. Medians: {medians}.",
        )
        counted = "; ".join(
            f"{title} {scores[name].n:,} of {scores[name].n_total:,}" for title, name in (("test", record.normal), (ood, ood))
        )
        st.caption(f"Medians: {medians}. Images behind each curve: {counted}.")


def launch(cell: str, name: str, spec: RunSpec, seed: int) -> None:
    """A button that queues a training, the same as a command, and those of its kind that are on their way."""
    if access.public():
        return
    seed = st.number_input(
        "Training seed",
        0,
        2**31 - 1,
        seed,
        key=f"seed-{cell}",
        help="The same seed repeats the same training.",
    )
    name = queue.free_name(runs_dir(), name if seed == spec.config.seed else f"{name}-seed{seed}")
    spec = replace(spec, config=spec.config.replace(seed=seed))
    st.code(command_line(spec, runs_dir() / name), language="bash", wrap_lines=True)
    if st.button("Queue this training here", icon=":material/playlist_add:", key="queue"):
        with controls.error_panel():
            queue.submit(runs_dir(), name, spec)
            st.success(f"**{controls.literal(name)}** is queued. Once finished, it appears in this table.")
    for run, state in under_way(spec):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{controls.literal(run)}** is {state}.")
            controls.link("train", "Watch it", "model_training", run=run)


def under_way(spec: RunSpec) -> list[tuple[str, State]]:
    """(name, state) of the runs of these settings, of any seed, that wait or run."""
    found = []
    for run in map(Run, list_runs(runs_dir()).values()):
        try:
            state, other = run.status().state, run.spec()
        except AMAError:
            continue  # the page that trains says what is wrong with it
        if (state == State.QUEUED or state.is_active) and without_seed(other) == without_seed(spec):
            found.append((run.name, state))
    return found


def without_seed(spec: RunSpec) -> RunSpec:
    return replace(spec, config=spec.config.replace(seed=Config().seed))


def stored(table: str) -> None:
    """What the command has trained and stored for a table, of which RESULTS.md is made."""
    key = TABLES[table]
    with st.expander("All runs of this table by one command, with simple scores beside them", icon=":material/terminal:"):
        found = paper_tables.table_lines(key)
        most = max((line.records for line in found), key=lambda records: (len(records), records[0].steps), default=())
        st.code(command(most) if most else f"python -m ama_core benchmark {key}", language="bash", wrap_lines=True)
        st.caption(
            "It trains what is missing, continues where it was stopped, and stores one small file per training, from which "
            f"RESULTS.md is made as well. {'Stored here:' if found else 'Nothing of this table is stored here yet.'}"
        )
        if not found:
            return
        conditions = {line.condition: line for line in found}
        letters = condition_letters([record for line in found for record in line.records])
        columns = [
            {
                "task": task(line),
                "row": line.row,
                "paper": line.paper,
                **{by: figure(line.ours[by]) for by in SCORES if by in line.ours},
                **{name: figure(value) for name, value in (line.simple or {}).items()},
                "seeds": len(line.seeds),
                "size": f"{line.status} ({letters[line.condition]})",
            }
            for line in found
        ]
        config = {"paper": st.column_config.NumberColumn("paper", format="%.3f")}
        controls.grid(pd.DataFrame(columns), width="stretch", column_config=config)
        for condition in sorted(conditions, key=list(letters).index):
            st.caption(f"({letters[condition]}) {condition_text(conditions[condition].records)}")


def main() -> None:
    controls.heading(
        "Benchmark",
        "The paper's numbers beside ours. Ours are AUROCs of the models on this computer and of stored trainings, as they are: "
        "never the better of several scores, never chosen by the result.",
    )
    with st.sidebar:
        controls.reset_button()
    models()
    names = list(TABLES)
    table = controls.choose(st.segmented_control, "table", "Table", names, names[0], required=True)
    shown, name = chosen_lines(table), table.lower().replace(" ", "-")
    verdicts(TABLES[table], shown)
    dots(shown, name)
    show(shown, name)
    if table != "Ablations":
        rivals.main(1 if table == "Table 1" else 2)
    if table != "Table 2":
        training_length.main()
    stored(table)
    st.caption(
        f"paper: {paper.SOURCE}, one number a cell, by the A-score. ours: every official normal test image against anomalies "
        "of 20 % of that number (all, where there are fewer), drawn with seed 0; “reduced” = narrower or shorter trained than "
        "the paper. Each of ours has its mode, widths, epochs, seeds and hardware in its line. Nothing is estimated."
    )


with controls.error_panel():
    main()
