"""What was measured of a model on OOD sets: the table of its figures beside the paper's, and what they say in words."""

from collections.abc import Mapping, Sequence

import cache
import controls
import pandas as pd
import streamlit as st

from ama_core.evaluation.cases import NEAR_CHANCE, WORKS
from ama_core.evaluation.metrics import REPLICATES
from ama_core.paper import published as paper

METRICS = {
    "AUROC": ("auroc", "The chance that an anomaly looks more anomalous than a normal image: 1 is perfect, 0.5 chance."),
    "AUPRC": (
        "auprc",
        "Area under precision and recall, anomalies positive: a random score has their fraction, n anomalous / n.",
    ),
    "FPR95": ("fpr95", "Normal images flagged when 95 % of the anomalies are: less is better."),
}
ALL = "All three"


def titled(name: str) -> str:
    """What a set is called, in Markdown."""
    return controls.literal(controls.title_of(name))


def verdict_of_all(view: controls.View, aurocs: Mapping[str, Mapping[str, float]]) -> str:
    """What the AUROCs, set -> score -> value, say of several sets together, in Markdown."""
    first = view.detector.score_names()[0]

    def named(sets: Sequence[str], by: str) -> str:
        return controls.listed([f"**{titled(name)}** ({aurocs[name][by]:.3f})" for name in sets])

    below = sorted((name for name in aurocs if aurocs[name][first] < 0.5 - NEAR_CHANCE), key=lambda name: aurocs[name][first])
    if not below:
        lowest = min(aurocs, key=lambda name: aurocs[name][first])
        said = [f"{first} is clearly below 0.5 on none of these {len(aurocs)} sets; lowest is {named([lowest], first)}."]
        if len(aurocs) == 1:
            said = [f"{first} is not clearly below 0.5 on {named([lowest], first)}."]
    else:
        of_all = f"{len(below)} of these {len(aurocs)} sets" if len(aurocs) > 1 else "this set"
        said = [
            f"**{first} fails** on {of_all}: it ranks {named(below, first)} as *more normal* "
            "than the model's own test images (AUROC clearly below 0.5)."
        ]
        if view.of_r:
            corrected = [name for name in below if aurocs[name]["A"] > 0.5 + NEAR_CHANCE]
            left = [name for name in below if name not in corrected]
            said += [f"A, which looks at both sides of R, reverses that on {named(corrected, 'A')}."] if corrected else []
            said += [f"A does not help on {named(left, 'A')}."] if left else []
    hard = [name for name in aurocs if max(aurocs[name].values()) < WORKS]
    if hard:
        best = {name: max(aurocs[name], key=aurocs[name].get) for name in hard}
        worst = controls.listed([f"**{titled(n)}** (best: {best[n]} {aurocs[n][best[n]]:.3f})" for n in hard])
        said.append(f"No score does well on {worst}.")
    return " ".join(said)


def verdict(view: controls.View, name: str, auroc: dict[str, float]) -> str:
    """What the AUROCs of the scores on one set say, in words."""
    first, *rest = view.detector.score_names()
    others = f"{', '.join(f'{score} {auroc[score]:.3f}' for score in rest)}." if rest else ""
    a_fails = ""
    if view.of_r and auroc["A"] < 0.5 - NEAR_CHANCE:
        a_fails = " A fails here: their R lies nearer to μ than that of the test images."
    said = f"{first} has an AUROC of {auroc[first]:.3f} on **{name}**"
    if abs(auroc[first] - 0.5) <= NEAR_CHANCE:
        return f"{said}, near chance (0.5): it cannot tell them from the test images. {others}{a_fails}".strip()
    if auroc[first] > 0.5:
        much = "hardly more" if auroc[first] < 0.6 else "more"
        return f"{said}: it finds them {much} anomalous than the test images. {others}{a_fails}".strip()
    and_c = ", and C adds what the critic sees in the image alone" if "C" in rest else ""
    what = (
        " A asks whether R is unusual on either side, M also in which direction the difference points, T takes all statistics "
        f"together{and_c}: {others}"
        if view.of_r
        else f" {others}"
    )
    return (
        f"{said}, below chance (0.5): it finds them *more normal* than the model's own test images, so a threshold on "
        f"{first} lets them pass.{what}{a_fails}"
    ).strip()


def published(view: controls.View, ood: str) -> dict[str, float]:
    """What the paper prints for a model like this on this set, score -> AUROC."""
    normal = view.detector.normal
    if view.of_r is None or normal is None:
        return {}
    return paper.published(view.detector.settings, normal.name, normal.label, ood)


def figures(view: controls.View, rows: Sequence[Mapping]) -> pd.DataFrame:
    """Every figure of some results: one line a set and score, with intervals, and the paper's value where it has one."""
    lines = []
    for row in rows:
        printed, intervals = published(view, row["ood"]), cache.intervals(view.folder, row["ood"])
        for score in view.detector.score_names():
            line = {"set": row["ood"], "score": score, "n normal": row["n_normal"], "n anomalous": row["n_ood"]}
            for field, _ in METRICS.values():
                low, high = intervals[score].get(field, (None, None))
                line |= {field: row["scores"][score][field], f"{field} low": low, f"{field} high": high}
            lines.append(line | {"paper auroc": printed.get(score)})
    return pd.DataFrame(lines)


def cell(line: Mapping, field: str) -> str:
    """A figure and its interval."""
    low, high = line[f"{field} low"], line[f"{field} high"]
    return f"{line[field]:.3f}" + ("" if pd.isna(low) else f" :gray[({low:.3f}–{high:.3f})]")


def table(view: controls.View, rows: Sequence[Mapping]) -> None:
    """How well each score tells the sets apart, with n, intervals and the paper's values; and a sentence for each set."""
    metric = controls.choose(st.segmented_control, "metric", "Measure", [*METRICS, ALL], "AUROC", required=True)
    frame, scores = figures(view, rows), view.detector.score_names()
    counted = [f"{n:,} + {m:,}" for n, m in zip(frame["n normal"], frame["n anomalous"])]
    printed = ["" if pd.isna(value) else f"{value:.3f}" for value in frame["paper auroc"]]
    lines = frame.to_dict("records")
    if metric == ALL:
        shown = {
            "Set": frame["set"].map(controls.title_of),
            "Score": frame["score"],
            **{name: [cell(line, field) for line in lines] for name, (field, _) in METRICS.items()},
            **({} if len(set(counted)) == 1 else {"n": counted}),
        }
        if any(printed):
            shown["paper, AUROC"] = printed
    else:
        field = METRICS[metric][0]
        shown = {"Set": [controls.title_of(row["ood"]) for row in rows]}
        shown |= {score: [cell(line, field) for line in lines if line["score"] == score] for score in scores}
        shown |= {} if len(set(counted)) == 1 else {"n": counted[:: len(scores)]}
        for i, score in enumerate(scores):
            if metric == "AUROC" and any(printed[i :: len(scores)]):
                shown[f"paper, {score}"] = printed[i :: len(scores)]
    st.table(shown, hide_index=True)
    for name in METRICS if metric == ALL else [metric]:
        st.caption(f"{name}. {METRICS[name][1]}")
    st.caption(
        f"n = {f'{counted[0]}, ' if len(set(counted)) == 1 else ''}normal test images + anomalies drawn from each set. In "
        "brackets: 95 % interval by the method of Clopper & Pearson, from a bootstrap standard error "
        f"({REPLICATES} resamples of the stored scores). It covers the sampling of the test images, not the training seed."
    )
    if frame["auprc low"].isna().any():
        st.caption(
            "Where no scores are stored only AUROC has an interval, by Hanley & McNeil's standard error and the method of "
            "Clopper & Pearson."
        )
    if any(printed):
        st.caption(f"paper = what {paper.SOURCE} prints for this pair of sets, by its own protocol and with larger networks.")
    controls.download_table("All these figures (CSV)", frame, f"figures-{view.name}")
    for row in rows:
        name = titled(row["ood"])
        st.markdown("- " + verdict(view, name, {score: row["scores"][score]["auroc"] for score in scores}))
