"""Benchmark: the paper's Tables 1 and 2 and its ablations beside what the models at hand measured."""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import access
import cache
import charts
import controls
import numpy as np
import pandas as pd
import streamlit as st
from ama_core.evaluation.metrics import auroc_interval, mean_and_sd

from ama_core import AMAError, Config
from ama_core.detectors.ama.config import PRESETS
from ama_core.detectors.ama.scores import SCORES
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.paper.jobs import Record
from ama_core.paper.tables import condition_text, task
from ama_core.runs import execute as runs
from ama_core.runs import queue
from ama_core.runs.execute import RunSpec, config_for, runs_dir

NOT_MEASURED = "not measured"
TABLES = ("Table 1", "Ablations", "Table 2")
AXES = {"R": "R-score", "A": "|R − μ| / σ (far out: low A)", "M": "M-score", "T": "T-score"}
CHANGES = {  # a row of the paper -> what a run is called after it, and what it changes in a training
    paper.AMA: ([], {}),
    paper.WITHOUT_MIRRORED: (["plain"], {"reconstruction": "plain"}),
    paper.WITHOUT_SIMPLEX: (["no-simplex"], {"lambda_inter": 0.0}),
    paper.WITHOUT_ATYPICAL: (["no-atypical"], {"atypical": "none"}),
    paper.WITHOUT_A: ([], {}),
}
COLUMNS = {
    "paper": st.column_config.TextColumn("paper", help=f"AUROC as printed: {paper.SOURCE}."),
    "out of distribution": st.column_config.TextColumn("out of distribution", width=190),
    "class": st.column_config.TextColumn("class", width=110),
    "model": st.column_config.TextColumn("model", width=165),
    "ours": st.column_config.TextColumn(
        "ours", help="AUROC of the score that the paper's row uses, measured here; mean ± standard deviation of several seeds.",
    ),
    "95 %": st.column_config.TextColumn(
        "95 % interval", help="Hanley & McNeil (1982), for one seed: covers the drawing of the test images, not that of the "
        "training seed.",
    ),
    "reduced": st.column_config.TextColumn("below the paper's size", help="Where ours was trained smaller or shorter."),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A training that can be launched, and a name for it."""

    name: str
    spec: RunSpec


@dataclass(frozen=True)
class Member:
    """One model in a cell: its seed, what was measured of it (a row of `evaluate`), and its training.

    `record`: of a training whose figures are stored and whose weights are not.
    """

    model: str
    row: dict
    recipe: Recipe
    how: dict
    record: Record | None = None

    @property
    def seed(self) -> int:
        return self.recipe.spec.config.seed


@dataclass(frozen=True)
class Hit:
    """What fills a cell: models of the same settings and different seeds, measured on one set."""

    variant: str | None
    normal: str
    label: int | None
    ood: str  # as the catalog calls it
    members: tuple[Member, ...]

    @property
    def models(self) -> str:
        return ", ".join(dict.fromkeys(member.model for member in self.members))

    @property
    def how(self) -> dict:
        """Mode, widths, hardware and so on; several values where the members differ in them."""
        keys = self.members[0].how
        return {key: "; ".join(dict.fromkeys(str(member.how[key]) for member in self.members)) for key in keys}

    def auroc(self, score: str) -> tuple[float, float | None]:
        """Mean over the seeds, and standard deviation where there are several."""
        return mean_and_sd([member.row["scores"][score]["auroc"] for member in self.members])


def measured() -> list[Hit]:
    """Every OOD set that the models at hand were measured on, then the stored results of the command, the longest first.

    Models that cannot be read are named and left out.
    """
    alike: dict[tuple, list[list[Member]]] = defaultdict(list)

    def add(variant: str | None, normal: str, label: int | None, ood: str, member: Member) -> None:
        groups = alike[variant, normal, label, ood, without_seed(member.recipe.spec)]
        group = next((g for g in groups if member.seed not in [m.seed for m in g]), None)  # a seed counts once
        if group is None:
            groups.append([member])
        else:
            group.append(member)

    for name, folder in cache.models().items():
        try:
            info, results = cache.info(folder), cache.results(folder)
            config = Config.from_dict(info["config"])
        except AMAError as error:
            st.warning(f"**{controls.literal(name)}** is left out. {controls.literal(str(error))}")
            continue
        normal, training = info.get("normal"), info.get("training", {})
        if not normal:
            continue
        again, how = Recipe(name, asked(normal, training, config)), trained(config, training)
        # Real anomalies in training are another task than the paper's tables.
        variant = None if again.spec.anomalies else paper.variant(config)
        for row in results.values():
            add(variant, normal["name"], normal.get("label"), row["ood"], Member(name, row, again, how))
    try:
        records = cache.records()
    except AMAError:
        records = []  # the table of all stored runs says what is wrong
    for record in sorted(records, key=lambda record: -record.steps):
        if record.row not in (paper.AMA, *paper.ABLATIONS):
            continue  # directions and other readings stand in the table of all stored runs
        config = Config.from_dict(record.config)
        facts = {"steps": record.steps, "n_train": record.n_images, "precision": record.precision, "device": record.hardware}
        spec = RunSpec(record.normal, config, record.label, validate_ood=record.validation_ood)
        for found in record.results:
            row = {"ood": found.ood, "n_normal": found.n_normal, "n_ood": found.n_ood, "scores": found.scores}
            again = Recipe(recipe(record.normal, record.row, record.label).name, spec)
            member = Member(f"stored, {record.preset}, {record.steps:,} steps", row, again, trained(config, facts), record)
            add(record.row, record.normal, record.label, found.ood, member)
    return [Hit(*key[:4], tuple(group)) for key, groups in alike.items() for group in groups]


def asked(normal: dict, training: dict, config: Config) -> RunSpec:
    """The run that would train a model again."""
    return RunSpec(
        normal["source"], config, normal.get("label"), normal.get("anomalies"), normal.get("validation_ood"),
        training.get("select", "last"),
    )  # fmt: skip


def trained(config: Config, training: dict) -> dict:
    """How a model was made, for its columns."""
    passes = paper.epochs(config, training)
    return {
        "mode": config.mode,
        "reconstruction": config.reconstruction,
        "width E/G/D": f"{config.width_encoder}/{config.width_generator}/{config.width_critic}",
        "steps": str(training.get("steps", "unknown")),
        "epochs": "unknown" if passes is None else f"{passes:.3g}",
        "weights of": f"{training.get('select', 'last')} step",
        "precision": training.get("precision", "unknown"),
        "hardware": training.get("device", "unknown"),
        "reduced": "; ".join(paper.reductions(config, training)),
    }


def line(what: dict, published: float | None, hit: Hit | None, score: str = "A") -> dict:
    """A line of a table: what it is about, the paper's value, and ours where there is one."""
    shown = {**what, "paper": published}
    if hit is None:
        return shown | {"ours": NOT_MEASURED}
    row, how = hit.members[0].row, hit.how
    value, sd = hit.auroc(score)
    interval = "{:.3f} – {:.3f}".format(*auroc_interval(value, row["n_normal"], row["n_ood"])) if sd is None else ""
    return shown | {
        "ours": f"{with_sd(value, sd)}{' (reduced)' if how['reduced'] else ''}", "95 %": interval, "seeds": len(hit.members),
        "model": hit.models, **{by: hit.auroc(by)[0] for by in SCORES},
        "n normal": row["n_normal"], "n OOD": row["n_ood"], **how,
    }  # fmt: skip


def with_sd(value: float, sd: float | None) -> str:
    return f"{value:.3f}" + ("" if sd is None else f" ± {sd:.3f}")


def hits(found: list[Hit], variant: str, normal: str, label: int | None, ood: str) -> Sequence[Hit | None]:
    """What was measured of one cell of the paper; a None where there is nothing."""
    cell = (variant, normal, label, ood)
    return [hit for hit in found if (hit.variant, hit.normal, hit.label, paper.paper_name(hit.ood)) == cell] or [None]


def further(found: list[Hit], normal: str | None = None) -> list[Hit]:
    """What was measured of AMA on pairs of sets that the paper does not have."""
    return [
        hit for hit in found
        if (hit.variant, hit.label) == (paper.AMA, None) and normal in (None, hit.normal)
        and paper.table1(hit.normal, paper.paper_name(hit.ood)) is None
    ]  # fmt: skip


def table_1(found: list[Hit], beyond: bool) -> list[tuple[dict, Hit | None, Recipe | None]]:
    """(line, what we measured, training that it needs): the paper's tasks, then our further ones."""
    lines = []
    for normal, ood in paper.TASKS:
        for hit in hits(found, paper.AMA, normal, None, ood):
            what = {"normal": normal, "out of distribution": seen_as(ood, hit)}
            lines.append((line(what, paper.table1(normal, ood), hit), hit, recipe(normal, paper.AMA)))
    for hit in further(found) if beyond else ():
        lines.append((line({"normal": hit.normal, "out of distribution": hit.ood}, None, hit), hit, None))
    return lines


def ablations(found: list[Hit], variant: str) -> list[tuple[dict, Hit | None, Recipe | None]]:
    lines = []
    trained_as, score = (paper.AMA, "R") if variant == paper.WITHOUT_A else (variant, "A")
    for normal, ood in paper.TASKS:
        for hit in hits(found, trained_as, normal, None, ood):
            what = {"normal": normal, "out of distribution": seen_as(ood, hit), "AMA in the paper": paper.table1(normal, ood)}
            lines.append((line(what, paper.ablation(variant, normal, ood), hit, score), hit, recipe(normal, variant)))
    return lines


def table_2(found: list[Hit]) -> list[tuple[dict, Hit | None, Recipe | None]]:
    lines = []
    for normal in paper.TABLE_2_SETS:
        classes = {label: hits(found, paper.AMA, normal, label, REST) for label in range(10)}
        for label, cell in classes.items():
            name = controls.class_name(normal, label)
            for hit in cell:
                what = {"normal": normal, "class": str(label) if name == str(label) else f"{label} {name}"}
                lines.append((line(what, paper.table2(normal, label), hit), hit, recipe(normal, paper.AMA, label)))
        lines += [(mean, None, None) for mean in means(normal, [hit for cell in classes.values() for hit in cell if hit])]
    return lines


def means(normal: str, measured: list[Hit]) -> list[dict]:
    """The line of the mean over ten classes, one for each of the settings with which all ten were trained."""
    line_of_mean = line({"normal": normal, "class": "mean of 10"}, paper.table2_mean(normal), None)
    alike: dict[tuple, dict[int, Hit]] = defaultdict(dict)
    for hit in measured:
        alike[hit.models if hit.members[0].record else None, seedless(hit)].setdefault(hit.label, hit)
    whole = [list(of.values()) for of in alike.values() if len(of) == 10]
    if not whole:
        classes = len({hit.label for hit in measured})
        return [line_of_mean | ({"ours": f"{classes} of 10 measured"} if classes else {})]
    found = []
    for hits_of_ten in whole:
        mean = {by: mean_and_sd([hit.auroc(by)[0] for hit in hits_of_ten])[0] for by in SCORES}
        reduced = " (reduced)" if any(hit.how["reduced"] for hit in hits_of_ten) else ""
        model = hits_of_ten[0].models if hits_of_ten[0].members[0].record else "ten models"
        found.append(line_of_mean | {"ours": f"{mean['A']:.3f}{reduced}", "model": model, **mean})
    return found


def seedless(hit: Hit) -> Config:
    return without_seed(hit.members[0].recipe.spec).config


def seen_as(ood: str, hit: Hit | None) -> str:
    """The paper's set, with the one that stands in for it here."""
    ours = hit.ood if hit else paper.STAND_INS.get(ood, ood)
    return ood if ours == ood else f"{ood} (here {ours})"


def recipe(normal: str, variant: str, label: int | None = None) -> Recipe:
    """A training that a cell needs, of the size of the bundled models."""
    preset = "small" if normal in ("cifar10", "svhn") else "tiny"
    ending, changes = CHANGES[variant]
    name = "-".join([normal, *([] if label is None else [str(label)]), *ending])
    return Recipe(name, RunSpec(normal, config_for(normal, preset, **changes), label))


def show(lines: list[tuple[dict, Hit | None, Recipe | None]], name: str, found: list[Hit]) -> None:
    """The table, its download, and what lies behind the chosen line."""
    frame = pd.DataFrame([shown for shown, _, _ in lines])
    shown_as = pd.DataFrame([{key: in_words(value) for key, value in shown.items()} for shown, _, _ in lines]).fillna("")
    names = [named(shown, hit) for shown, hit, _ in lines]
    names = [name if name not in names[:i] else f"{name} ({1 + names[:i].count(name)})" for i, name in enumerate(names)]

    def select() -> None:
        if rows := st.session_state[f"cells-{name}"].selection.rows:
            st.session_state["cell"] = names[rows[0]]

    controls.grid(
        shown_as, width="stretch", column_config=COLUMNS, on_select=select, selection_mode="single-row",
        key=f"cells-{name}", height="content",
    )  # fmt: skip
    controls.download_table("This table (CSV)", frame, name)
    with st.container(border=True):
        cell = controls.choose(st.selectbox, "cell", "What lies behind a cell (or click its row)", names, names[0])
        behind(cell, *lines[names.index(cell)], found)


def in_words(value) -> str:
    """A value as a cell shows it."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def named(shown: dict, hit: Hit | None) -> str:
    """A line's name among all lines of its table."""
    task = " → ".join(list(shown.values())[:2])
    model = hit.models if hit else shown.get("model")
    return f"{task}, {model}" if model else task


def behind(cell: str, shown: dict, hit: Hit | None, missing: Recipe | None, found: list[Hit]) -> None:
    """What a cell rests on, the way to its densities, and the training that fills it or gives it another seed."""
    if hit is None and missing is None:
        st.markdown("The mean over the ten classes: ours where all ten were trained with the same settings and measured.")
        return
    if hit is None:
        sets = [shown["normal"], str(shown.get("out of distribution", "")).split(" ")[0]]
        reason = next((paper.OUT_OF_REACH[s] for s in sets if s in paper.OUT_OF_REACH), None)
        why = f": {reason}" if reason else " yet"
        others = ", ".join(dict.fromkeys(other.ood for other in further(found, shown["normal"])))
        elsewhere = f" Measured for {shown['normal']} under their own names (switch above): {others}." if others else ""
        st.markdown(f"Not measured{why}.{elsewhere} With the data at hand, this trains and measures a small one:")
        launch(cell, missing, 0)
        return
    scores = ", ".join(f"{by} {with_sd(*hit.auroc(by))}" for by in SCORES)
    seeds = "one training seed" if len(hit.members) == 1 else f"mean ± standard deviation of {len(hit.members)} training seeds"
    reduced = f"Below the paper's size: {hit.how['reduced']}." if hit.how["reduced"] else "Of the paper's size."
    st.markdown(f"AUROC {scores}; {seeds}. {reduced}")
    for member in hit.members:
        if member.record:
            behind_stored(member.record, hit.ood)
            continue
        st.markdown(f"**{controls.literal(member.model)}**, seed {member.seed}: the densities behind each figure")
        with st.container(horizontal=True):
            for by in SCORES:
                value = member.row["scores"][by]["auroc"]
                controls.link(
                    "densities", f"{by} {value:.3f}", "area_chart", model=member.model, ood=hit.ood, axis=by, score=by,
                )  # fmt: skip
    st.markdown("Train and measure one more, with another seed, for a mean and a standard deviation over seeds:")
    launch(cell, hit.members[0].recipe, 1 + max(member.seed for member in hit.members))
    models = cache.models()
    evaluate = [
        shlex.join(["python", "-m", "ama_core", "evaluate", access.shown(models[m.model]), "--ood", hit.ood])
        for m in hit.members
        if not m.record
    ]
    if evaluate:
        st.markdown("Measure the model that is there anew:")
        st.code("\n".join(evaluate), language="bash", wrap_lines=True)


def behind_stored(record: Record, ood: str) -> None:
    """The densities behind a figure that the command stored, and the command itself."""
    st.markdown(
        f"Stored by `{record.command}`, seed {record.seed}: {record.status}, {record.steps:,} steps in "
        f"{controls.duration(record.seconds)} on {controls.literal(record.hardware)}. Its weights are not kept."
    )
    scores = {s.name: s for s in cache.record_scores(record)}
    if ood not in scores or record.normal not in scores:
        st.caption("Only its figures are stored; run again, the command stores the scores behind them as well.")
        return
    with st.container(border=True):
        key = f"stored-axis-{record.name}"
        axis = st.segmented_control("Densities of", list(AXES), default="R", required=True, key=key)
        field = cache.A_DISTANCE if axis == "A" else axis
        found = cache.record_densities(record, ood, field)
        medians = "; ".join(f"{name} {value:.3g}" for name, value in found.medians.items())
        controls.chart(
            charts.density_chart(found.grid, found.curves, xlabel=AXES[axis], log=found.log),
            {"set": np.repeat(list(found.curves), len(found.grid)), field: np.tile(found.grid, len(found.curves)),
             "density": np.concatenate(list(found.curves.values()))},
            f"stored-{record.name}-{ood}-{field}",
            f"Densities of {AXES[axis]} for the normal test images and {ood}. Medians: {medians}.",
        )  # fmt: skip
        counted = "; ".join(f"{title} {scores[name].n:,} of {scores[name].n_total:,}"
                            for title, name in (("test", record.normal), (ood, ood)))  # fmt: skip
        st.caption(f"Medians: {medians}. Images behind each curve: {counted}.")


def launch(cell: str, recipe: Recipe, seed: int) -> None:
    """A button that queues a training, the same as a command, and those of its kind that are on their way."""
    if access.public():
        return
    seed = st.number_input(
        "Training seed", 0, 2**31 - 1, seed, key=f"seed-{cell}", help="The same seed repeats the same training.",
    )  # fmt: skip
    spec = replace(recipe.spec, config=recipe.spec.config.replace(seed=seed))
    name = queue.free_name(runs_dir(), recipe.name if seed == recipe.spec.config.seed else f"{recipe.name}-seed{seed}")
    commands = [runs.command_line(spec, preset, runs_dir() / name) for preset in PRESETS]
    st.code(min(commands, key=len), language="bash", wrap_lines=True)
    if st.button("Queue this training here", icon=":material/playlist_add:", key="queue"):
        with controls.error_panel():
            queue.submit(runs_dir(), name, spec)
            st.success(f"**{controls.literal(name)}** is queued. Once finished it stands in this table.")
    for run, state in under_way(spec):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{controls.literal(run)}** is {state}.")
            controls.link("train", "Watch it", "model_training", run=run)


def under_way(spec: RunSpec) -> list[tuple[str, str]]:
    """(name, state) of the runs of these settings, of any seed, that wait or run."""
    found = []
    for name, folder in runs.list_runs(runs_dir()).items():
        try:
            state, other = runs.read_status(folder)["state"], RunSpec.read(folder)
        except AMAError:
            continue  # the page that trains says what is wrong with it
        if state in ("queued", *runs.ACTIVE) and without_seed(other) == without_seed(spec):
            found.append((name, state))
    return found


def without_seed(spec: RunSpec) -> RunSpec:
    return replace(spec, config=paper.seedless(spec.config))


def stored(table: str) -> None:
    """What the command has trained and stored for a table, of which RESULTS.md is made."""
    key = {"Table 1": "table1", "Ablations": "ablations", "Table 2": "table2"}[table]
    with st.expander("All runs of this table by one command, with simple scores beside them", icon=":material/terminal:"):
        st.code(f"python -m ama_core benchmark {key}", language="bash")
        lines = cache.table_lines(key)
        st.caption(
            "It trains what is missing, goes on where it was stopped, and stores one small file a training, from which "
            f"RESULTS.md is made as well. {'Stored here:' if lines else 'Nothing of this table is stored here yet.'}"
        )
        if not lines:
            return
        conditions = {line.condition: line for line in lines}
        letters = {condition: chr(ord("a") + i) for i, condition in enumerate(conditions)}
        columns = [
            {
                "task": task(line), "row": line.row, "paper": line.paper,
                **{by: with_sd(*line.ours[by]) for by in SCORES if by in line.ours},
                **{name: with_sd(*value) for name, value in (line.simple or {}).items()},
                "seeds": len(line.seeds), "size": f"{line.status} ({letters[line.condition]})",
            }
            for line in lines
        ]  # fmt: skip
        config = {"paper": st.column_config.NumberColumn("paper", format="%.3f")}
        controls.grid(pd.DataFrame(columns), width="stretch", column_config=config)
        for condition, line in conditions.items():
            st.caption(f"({letters[condition]}) {condition_text(line.records)}")


def baselines(table: int) -> None:
    """The other methods' rows, as the paper prints them."""
    with st.expander("The paper's other methods", icon=":material/table_rows:"):
        if table == 1:
            cells = {f"{a} → {b}": [paper.table1(a, b, m) for m in paper.methods(1)] for a, b in paper.TASKS}
        else:
            cells = {f"mean over {s}": [paper.table2_mean(s, m) for m in paper.methods(2)] for s in paper.TABLE_2_SETS}
        frame = pd.DataFrame({"method": paper.methods(table), **cells})
        config = {c: st.column_config.NumberColumn(c, format="%.3f") for c in frame.columns[1:]}
        controls.grid(frame, width="stretch", column_config=config)
        st.markdown("\n".join(f"- {controls.literal(caveat)}" for caveat in paper.CAVEATS))


with controls.error_panel():
    controls.heading(
        "Benchmark",
        "The paper's numbers beside ours. Ours are AUROCs of the models on this computer and of stored trainings, as they are: "
        "never the better of several scores, never chosen by the result.",
    )
    with st.sidebar:
        controls.reset_button()
    found = measured()
    table = controls.choose(st.segmented_control, "table", "Table", TABLES, TABLES[0], required=True)
    if table == TABLES[0]:
        beyond = controls.switch("beyond", "Also sets that the paper does not use", False)
        show(table_1(found, beyond), "table-1", found)
        baselines(1)
    elif table == TABLES[1]:
        variant = controls.choose(
            st.segmented_control, "variant", "Left out", list(paper.ABLATIONS), paper.WITHOUT_MIRRORED, required=True
        )
        show(ablations(found, variant), "ablations", found)
    else:
        st.caption("Trained on one class, tested against the other nine of the same set.")
        show(table_2(found), "table-2", found)
        baselines(2)
    stored(table)
    st.caption(
        f"paper: {paper.SOURCE}, one number a cell, by the A-score. ours: every official normal test image against anomalies "
        "of 20 % of that number, drawn with seed 0; “reduced” = narrower or shorter trained than the paper. "
        "Each of ours has its mode, widths, epochs, seeds and hardware in its line. Nothing is estimated."
    )
