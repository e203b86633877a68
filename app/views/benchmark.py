"""Benchmark: the paper's Tables 1 and 2 and its ablations beside what the models at hand measured."""

import shlex
from dataclasses import dataclass

import cache
import controls
import pandas as pd
import streamlit as st

from ama_core import AMAError, Config, paper, queue
from ama_core.evaluation import REST, auroc_interval
from ama_core.runs import RunSpec, config_for, runs_dir
from ama_core.scores import SCORES

NOT_MEASURED = "not measured"
TABLES = ("Table 1", "Ablations", "Table 2")
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
    "ours": st.column_config.TextColumn("ours", help="AUROC of the score that the paper's row uses, measured here."),
    "95 %": st.column_config.TextColumn(
        "95 % interval", help="Hanley & McNeil (1982): covers the drawing of the test images, not that of the training seed.",
    ),
    "reduced": st.column_config.TextColumn("below the paper's size", help="Where ours was trained smaller or shorter."),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A training that can be launched: a name for it, what it is, and the same as a command."""

    name: str
    spec: RunSpec
    command: str | None


def measured() -> list[dict]:
    """One entry for every (model, OOD set) that was measured; models that cannot be read are named and left out."""
    found = []
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
        passes = paper.epochs(config, training)
        how = {
            "mode": config.mode,
            "reconstruction": config.reconstruction,
            "width E/G/D": f"{config.width_encoder}/{config.width_generator}/{config.width_critic}",
            "steps": training.get("steps"),
            "epochs": "" if passes is None else f"{passes:.3g}",
            "seeds": 1,
            "weights of": f"{training.get('select', 'last')} step",
            "precision": training.get("precision", "unknown"),
            "hardware": training.get("device", "unknown"),
            "reduced": "; ".join(paper.reductions(config, training)),
        }
        found += [
            {
                "model": name, "normal": normal["name"], "label": normal.get("label"), "ood": paper.paper_name(row["ood"]),
                "as": row["ood"], "variant": paper.variant(config), "row": row, **how,
                "recipe": Recipe(name, RunSpec(normal["source"], config, normal.get("label")), training.get("command")),
            }
            for row in results.values()
        ]  # fmt: skip
    return found


def line(what: dict, published: float | None, hit: dict | None, score: str = "A") -> dict:
    """A line of a table: what it is about, the paper's value, and ours where there is one."""
    shown = {**what, "paper": published}
    if hit is None:
        return shown | {"ours": NOT_MEASURED}
    row = hit["row"]
    value = row["scores"][score]["auroc"]
    low, high = auroc_interval(value, row["n_normal"], row["n_ood"])
    values = {by: row["scores"][by]["auroc"] for by in SCORES}
    return shown | {
        "ours": f"{value:.3f}{' (reduced)' if hit['reduced'] else ''}", "95 %": f"{low:.3f} – {high:.3f}",
        "model": hit["model"], **values, "n normal": row["n_normal"], "n OOD": row["n_ood"],
        **{key: hit[key] for key in ("mode", "reconstruction", "width E/G/D", "steps", "epochs", "seeds", "weights of",
                                     "precision", "hardware", "reduced")},
    }  # fmt: skip


def hits(found: list[dict], variant: str, normal: str, label: int | None, ood: str) -> list[dict | None]:
    """What was measured of one cell, by every model that fits it; a None where there is nothing."""
    cell = (variant, normal, label, ood)
    return [m for m in found if (m["variant"], m["normal"], m["label"], m["ood"]) == cell] or [None]


def table_1(found: list[dict], beyond: bool) -> list[tuple[dict, dict | None, Recipe | None]]:
    """(line, what we measured, training that it needs): the paper's tasks, then our further ones."""
    lines = []
    for normal, ood in paper.TASKS:
        for hit in hits(found, paper.AMA, normal, None, ood):
            what = {"normal": normal, "out of distribution": seen_as(ood, hit)}
            lines.append((line(what, paper.table1(normal, ood), hit), hit, recipe(normal, paper.AMA)))
    for hit in found if beyond else ():
        if (hit["variant"], hit["label"]) == (paper.AMA, None) and paper.table1(hit["normal"], hit["ood"]) is None:
            lines.append((line({"normal": hit["normal"], "out of distribution": hit["as"]}, None, hit), hit, None))
    return lines


def ablations(found: list[dict], variant: str) -> list[tuple[dict, dict | None, Recipe | None]]:
    lines = []
    trained, score = (paper.AMA, "R") if variant == paper.WITHOUT_A else (variant, "A")
    for normal, ood in paper.TASKS:
        for hit in hits(found, trained, normal, None, ood):
            what = {"normal": normal, "out of distribution": seen_as(ood, hit), "AMA in the paper": paper.table1(normal, ood)}
            lines.append((line(what, paper.ablation(variant, normal, ood), hit, score), hit, recipe(normal, variant)))
    return lines


def table_2(found: list[dict]) -> list[tuple[dict, dict | None, Recipe | None]]:
    lines = []
    for normal in paper.TABLE_2_SETS:
        for label in range(10):
            name = controls.class_name(normal, label)
            for hit in hits(found, paper.AMA, normal, label, REST):
                what = {"normal": normal, "class": str(label) if name == str(label) else f"{label} {name}"}
                lines.append((line(what, paper.table2(normal, label), hit), hit, recipe(normal, paper.AMA, label)))
    return lines


def seen_as(ood: str, hit: dict | None) -> str:
    """The paper's set, with the one that stands in for it here."""
    ours = hit["as"] if hit else paper.STAND_INS.get(ood, ood)
    return ood if ours == ood else f"{ood} (here {ours})"


def recipe(normal: str, variant: str, label: int | None = None) -> Recipe:
    """A training that a cell needs, of the size of the bundled models."""
    preset = "small" if normal in ("cifar10", "svhn") else "tiny"
    ending, changes = CHANGES[variant]
    name = "-".join([normal, *([] if label is None else [str(label)]), *ending])
    options = [] if label is None else ["--one-class", str(label)]
    options += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    command = ["python", "-m", "ama_core", "train", normal, "--preset", preset, *options, "--out", f"runs/{name}"]
    return Recipe(name, RunSpec(normal, config_for(normal, preset, **changes), label), shlex.join(command))


def show(lines: list[tuple[dict, dict | None, Recipe | None]], name: str) -> None:
    """The table, its download, and what lies behind the chosen line."""
    frame = pd.DataFrame([shown for shown, _, _ in lines])
    shown_as = pd.DataFrame([{key: in_words(value) for key, value in shown.items()} for shown, _, _ in lines]).fillna("")
    names = [named(shown, hit) for shown, hit, _ in lines]

    def select() -> None:
        if rows := st.session_state[f"cells-{name}"].selection.rows:
            st.session_state["cell"] = names[rows[0]]

    st.dataframe(
        shown_as, hide_index=True, width="stretch", column_config=COLUMNS, on_select=select, selection_mode="single-row",
        key=f"cells-{name}", height="content",
    )  # fmt: skip
    st.download_button(
        "This table (CSV)", frame.to_csv(index=False), f"{name}.csv", "text/csv", icon=":material/download:", on_click="ignore",
        key=f"csv-{name}",
    )  # fmt: skip
    with st.container(border=True):
        cell = controls.choose(st.selectbox, "cell", "What lies behind a cell (or click its row)", names, names[0])
        behind(*lines[names.index(cell)])


def in_words(value) -> str:
    """A value as a cell shows it."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def named(shown: dict, hit: dict | None) -> str:
    """A line's name among all lines of its table."""
    task = " → ".join(list(shown.values())[:2])
    return f"{task}, {hit['model']}" if hit else task


def behind(shown: dict, hit: dict | None, missing: Recipe | None) -> None:
    """What a cell rests on, the way to its densities, and the command that measures it anew."""
    if hit is None:
        sets = [shown["normal"], str(shown.get("out of distribution", "")).split(" ")[0]]
        reason = next((paper.OUT_OF_REACH[s] for s in sets if s in paper.OUT_OF_REACH), None)
        why = f": {reason}" if reason else " yet"
        st.markdown(f"Not measured{why}. With the data at hand, this trains and measures a small one:")
        launch(missing)
        return
    row = hit["row"]
    st.markdown(
        f"AUROC R {row['scores']['R']['auroc']:.3f}, A {row['scores']['A']['auroc']:.3f}, M {row['scores']['M']['auroc']:.3f}, "
        f"T {row['scores']['T']['auroc']:.3f}; one training seed. "
        + (f"Below the paper's size: {hit['reduced']}." if hit["reduced"] else "Of the paper's size.")
    )
    controls.link("densities", "The densities behind it", "area_chart", model=hit["model"], ood=hit["as"])
    st.markdown("Train and measure it anew:")
    launch(hit["recipe"])
    st.markdown("Measure the model that is there anew:")
    evaluate = ["python", "-m", "ama_core", "evaluate", str(cache.models()[hit["model"]]), "--ood", hit["as"]]
    st.code(shlex.join(evaluate), language="bash", wrap_lines=True)


def launch(recipe: Recipe) -> None:
    """The command of a training, and a button that queues the same."""
    if recipe.command:
        st.code(recipe.command, language="bash", wrap_lines=True)
    if st.button("Queue this training here", icon=":material/playlist_add:", key="queue"):
        name = queue.free_name(runs_dir(), recipe.name)
        with controls.error_panel():
            queue.submit(runs_dir(), name, recipe.spec)
            st.success(f"**{controls.literal(name)}** is queued. Once finished it stands in this table.")
            controls.link("train", "Watch it train", "model_training", run=name)


def baselines(table: int) -> None:
    """The other methods' rows, as the paper prints them."""
    with st.expander("The paper's other methods", icon=":material/table_rows:"):
        if table == 1:
            cells = {f"{a} → {b}": [paper.table1(a, b, m) for m in paper.methods(1)] for a, b in paper.TASKS}
        else:
            cells = {f"mean over {s}": [paper.table2_mean(s, m) for m in paper.methods(2)] for s in paper.TABLE_2_SETS}
        frame = pd.DataFrame({"method": paper.methods(table), **cells})
        config = {c: st.column_config.NumberColumn(c, format="%.3f") for c in frame.columns[1:]}
        st.dataframe(frame, hide_index=True, width="stretch", column_config=config)
        st.markdown("\n".join(f"- {controls.literal(caveat)}" for caveat in paper.CAVEATS))


with controls.error_panel():
    controls.heading(
        "Benchmark",
        "The paper's numbers beside ours. Ours are AUROCs of the models on this computer, as they are: never the better of "
        "several scores, never chosen by the result.",
    )
    with st.sidebar:
        controls.reset_button()
    found = measured()
    table = controls.choose(st.segmented_control, "table", "Table", TABLES, TABLES[0], required=True)
    if table == TABLES[0]:
        beyond = controls.switch("beyond", "Also sets that the paper does not use", False)
        show(table_1(found, beyond), "table-1")
        baselines(1)
    elif table == TABLES[1]:
        variant = controls.choose(
            st.segmented_control, "variant", "Left out", list(paper.ABLATIONS), paper.WITHOUT_MIRRORED, required=True
        )
        show(ablations(found, variant), "ablations")
    else:
        st.caption("Trained on one class, tested against the other nine of the same set.")
        show(table_2(found), "table-2")
        baselines(2)
    st.caption(
        f"paper: {paper.SOURCE}, one number a cell, by the A-score. ours: every official normal test image against anomalies "
        "of 20 % of that number, drawn with seed 0; one training seed; “reduced” = narrower or shorter trained than the paper. "
        "Nothing is estimated."
    )
