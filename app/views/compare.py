"""Compare: models trained on the same normal images beside each other, and any two of them on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cache
import controls
import numpy as np
import pandas as pd
import pictures
import streamlit as st
from comparison_charts import heat_colours, pair_chart

from ama_core import AMAError
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.evaluation.comparison import (
    DECIDES,
    KINDS,
    HeatTable,
    NormalKey,
    agreement,
    disagreements,
    heat_table,
    normal_key,
    same_images,
    which_score,
)
from ama_core.evaluation.protocol import REST
from ama_core.formatting import duration
from ama_core.storage.bundle import FIRST

DRAWN = 600  # images of a set on the chart of two models
SHOWN = 9  # images of a disagreement, or of a choice
P_VALUES, SCORES = ("p-values", "scores")


@dataclass(frozen=True)
class Peer:
    """A model among those trained on the same images: what it is, and the score that is looked at."""

    name: str
    folder: Path
    kind: type[AnomalyDetector]
    by: str
    training: Mapping

    @property
    def is_ama(self) -> bool:
        return self.kind.name == FIRST


@dataclass(frozen=True)
class Group:
    """Models that were trained on the same normal images: model -> folder, and what the images are called."""

    normal: NormalKey
    folders: dict[str, Path]
    label: str


def groups() -> dict[str, Group]:
    """By what the address calls them, those with the most models first. Of one's own images it holds no path: where several are
    called alike, they are numbered in the order of their paths.
    """
    found: dict[NormalKey, dict[str, Path]] = {}
    for name, folder in cache.models().items():
        try:
            key = normal_key(cache.info(folder))
            cache.kind_of(folder)
        except AMAError as error:
            st.warning(f"**{controls.literal(name)}** is left out. {controls.said(error)}")
            continue
        if key and cache.results(folder):
            found.setdefault(key, {})[name] = folder
    titled: dict[str, Group] = {}
    for key in sorted(found, key=lambda key: (key.name, key.path, -1 if key.label is None else key.label)):
        title = NormalData(key.name, label=key.label).title
        number = 1 + sum(group.normal[:2] == key[:2] for group in titled.values())
        suffix = f" ({number})" if number > 1 else ""
        titled[title + suffix] = Group(key, found[key], key.title + suffix)
    return dict(sorted(titled.items(), key=lambda item: -len(item[1].folders)))


def peers(folders: Mapping[str, Path], kind: str) -> list[Peer]:
    """The models of a group that have a score of this kind, those of AMA first."""
    found = []
    for name, folder in folders.items():
        of = cache.kind_of(folder)
        by = which_score(cache.score_names(folder), of.decides, kind)
        if by is not None:
            found.append(Peer(name, folder, of, by, cache.info(folder).get("training", {})))
    return sorted(found, key=lambda peer: not peer.is_ama)


def ordinal(n: int) -> str:
    return f"{n}{'th' if 10 <= n % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def named(models: list[str]) -> str:
    """Models as they are listed in a sentence."""
    return controls.listed([controls.literal(model) for model in models])


# The heat table


def verdict(found: HeatTable, these: list[Peer], papers: Sequence[str]) -> None:
    """Who is ahead, and the place of AMA, in computed sentences.

    papers: the sets that the paper tests such models on.
    """
    if not found.shared:
        st.info("No set was measured for all of these models, so there is no common rank.", icon=":material/info:")
        return
    lowest = found.mean_rank.min()
    first = [name for name, rank in zip(found.models, found.mean_rank) if rank == lowest]
    said = [
        f"Over the {found.shared} sets on which all {len(these)} were measured, **{named(first)}** "
        f"{'have' if len(first) > 1 else 'has'} the best mean rank ({lowest:.2f})"
    ]
    own = [peer for peer in these if peer.is_ama]
    said += [
        f"{controls.literal(peer.name)} (AMA, {peer.by}) is {ordinal(found.place(peer.name))} of {len(these)} "
        f"({found.mean_rank[found.models.index(peer.name)]:.2f})"
        for peer in own
        if peer.name not in first
    ]
    lines = [f"{'; '.join(said)}."]
    for name in papers:
        if name in found.sets:
            at = found.sets.index(name)
            column = found.auroc[:, at]
            highest = np.nanmax(column)
            ahead = named([model for model, auroc in zip(found.models, column) if auroc == highest])
            places = [
                f"{controls.literal(peer.name)} {column[found.models.index(peer.name)]:.3f}, "
                f"{ordinal(found.place_on(peer.name, at))}"
                for peer in own
                if np.isfinite(column[found.models.index(peer.name)])
            ]
            lines.append(
                f"On **{controls.title_of(name)}**, a pair of the paper: the highest AUROC, {highest:.3f}, is that of {ahead}"
                + (f"; of AMA {'; '.join(places)}." if places else ".")
            )
    st.markdown("\n".join(f"- {line}" for line in lines))


def costs(these: list[Peer], timed: bool) -> dict[str, list]:
    """What each model costs: seconds of training, milliseconds an image here, parameters."""
    seconds = [peer.training.get("seconds") for peer in these]
    columns: dict[str, list] = {
        "training": ["" if value is None else duration(value) if value >= 1 else "< 1 s" for value in seconds],
        "parameters": [f"{cache.parameters(peer.folder):,}" for peer in these],
    }
    if timed:
        columns["ms an image"] = [milliseconds(peer) for peer in these]
    return columns


def milliseconds(peer: Peer) -> str:
    try:
        return f"{1000 * cache.seconds_per_image(peer.folder):.3g}"
    except AMAError:
        return "its images are not here"


def table(found: HeatTable, these: list[Peer], timed: bool) -> None:
    """The heat table with ranks and costs; a click on a cell chooses it."""
    paid = costs(these, timed)
    taken = ("model", "detector: score", "mean rank", "other classes", *paid)
    of = controls.titles_of((name for name in found.sets if name != REST), taken)
    titles = {of.get(name, "other classes"): j for j, name in enumerate(found.sets)}
    columns = {"model": list(found.models), "detector: score": [f"{peer.kind.title}: {peer.by}" for peer in these]}
    columns["mean rank"] = ["" if np.isnan(rank) else f"{rank:.2f}" for rank in found.mean_rank]
    for title, j in titles.items():
        figures = zip(found.auroc[:, j], found.low[:, j], found.high[:, j])
        columns[title] = ["" if np.isnan(auroc) else f"{auroc:.3f} ({low:.3f}–{high:.3f})" for auroc, low, high in figures]
    columns |= paid

    def style(frame: pd.DataFrame):
        colours = pd.DataFrame("", frame.index, frame.columns)
        for title, j in titles.items():
            colours[title] = [heat_colours(value) for value in found.auroc[:, j]]
        return frame.style.apply(lambda _: colours, axis=None)

    def select() -> None:
        for row, column in st.session_state["heat"].selection.cells[:1]:
            st.session_state["of"] = found.models[row]
            if column in titles:
                st.session_state["on"] = found.sets[titles[column]]

    controls.grid(
        columns,
        style=style,
        width="stretch",
        key="heat",
        on_select=select,
        selection_mode="single-cell",
        height="content",
        column_config={"model": st.column_config.TextColumn("model", pinned=True)},
    )
    st.caption(
        "AUROC of telling the normal test images from each set, in brackets its 95 % interval over the sampling of the images: "
        "1 blue, chance (0.5) white, below it orange. Rank 1 is the best of a set; the mean is over the sets measured for all "
        "models. Training times are those of the machine used for training. Click a cell to see what lies behind it."
    )
    values = zip(
        *[
            (model, name, found.auroc[i, j], found.low[i, j], found.high[i, j], found.ranks[i, j])
            for i, model in enumerate(found.models)
            for j, name in enumerate(found.sets)
        ]
    )
    names = ("model", "out of distribution", "auroc", "low", "high", "rank")
    controls.download_table("This table (CSV)", dict(zip(names, map(list, values))), "compare")


def cell(found: HeatTable, these: list[Peer]) -> None:
    """What lies behind one cell, and the way to its densities."""
    with st.container(border=True):
        one, two = st.columns(2)
        with one:
            of = controls.choose(st.selectbox, "of", "Cell: model", list(found.models), found.models[0])
        with two:
            on = controls.choose_set("on", "Cell: other set", list(found.sets), found.sets[0])
        peer, i, j = these[found.models.index(of)], found.models.index(of), found.sets.index(on)
        if np.isnan(found.auroc[i, j]):
            st.caption("Not measured.")
            return
        scores = cache.results(peer.folder)[on]["scores"]
        every = ", ".join(f"{name} {values['auroc']:.3f}" for name, values in scores.items())
        st.markdown(
            f"{controls.literal(peer.kind.title)}, score {peer.by}: AUROC **{found.auroc[i, j]:.3f}**, 95 % "
            f"{found.low[i, j]:.3f} to {found.high[i, j]:.3f}, rank {found.ranks[i, j]:g}. All its scores: {every}."
        )
        st.caption(controls.meaning(next(score for score in peer.kind.SCORES if score.name == peer.by)))
        controls.link("densities", "Open its densities", "area_chart", model=of, ood=on, axis=peer.by, score=peer.by)


# Two models on the same images


def samples(first: Peer, second: Peer, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of two models' stored scores of the test images of a set that are of the same images. Raises DataError."""
    both = [next((s for s in cache.stored(p.folder) if (s.name, s.split) == (name, "test")), None) for p in (first, second)]
    if None in both:
        raise controls.AMAError("One of these models has no stored scores for this set.")
    return same_images(*both, [cache.info(peer.folder) for peer in (first, second)])[:2]


def figures_of(peer: Peer, name: str, rows: np.ndarray, what: str) -> np.ndarray:
    """p-values, or the score itself, of some stored images."""
    if what == P_VALUES:
        return cache.stored_p_values(peer.folder, name, "test", peer.by)[rows]
    return next(s for s in cache.stored(peer.folder) if (s.name, s.split) == (name, "test")).scores[peer.by][rows]


def can_flag(peer: Peer, alpha: float) -> bool:
    """Whether a model can flag anything at a false-alarm rate; says so where it cannot."""
    n = len(cache.detector(peer.folder).held_out_scores_[peer.by])
    return controls.within_reach(n, alpha, f"**{controls.literal(peer.name)}** can flag nothing")


def show_images(first: Peer, second: Peer, name: str, rows: tuple, p: tuple[np.ndarray, np.ndarray], at: list[int]) -> None:
    """Pictures of some images with the p-values of both models."""
    try:
        shown = cache.stored_pictures(first.folder, name, "test", tuple(int(rows[0][i]) for i in at))
    except AMAError as error:
        st.info(f"The images cannot be shown here. {controls.said(error)}")
        return
    st.html(
        pictures.figures(
            [
                (
                    f"p {p[0][i]:.3f} and {p[1][i]:.3f}",
                    image,
                    f"Image with p {p[0][i]:.3f} by {first.name}, {p[1][i]:.3f} by {second.name}",
                )
                for i, image in zip(at, shown)
            ],
            84,
        )
    )


@st.fragment
def two(these: list[Peer], normal: str, sets: list[str]) -> None:
    """Two models on the same images, linked: a chart of both, and the pictures of what is chosen, or of where they differ."""
    with controls.error_panel():
        names = [peer.name for peer in these]
        columns = st.columns(3)
        with columns[0]:
            first = these[names.index(controls.choose(st.selectbox, "first", "First model", names, names[0]))]
        with columns[1]:
            others = [name for name in names if name != first.name]
            other = next((peer.name for peer in these if not peer.is_ama and peer.name != first.name), others[0])
            second = these[names.index(controls.choose(st.selectbox, "second", "Second model", others, other))]
        with columns[2]:
            ood = controls.choose_set("against", "Other set", sets, sets[0])
        columns = st.columns(3)
        with columns[0]:
            what = controls.choose(st.segmented_control, "axes", "Axes", (P_VALUES, SCORES), P_VALUES, required=True)
        with columns[1]:
            alpha = controls.false_alarm_rate()

        parts = {name: samples(first, second, name) for name in (normal, ood)}
        p = {
            name: tuple(figures_of(peer, name, rows, P_VALUES) for peer, rows in zip((first, second), both))
            for name, both in parts.items()
        }
        reached = all([can_flag(peer, alpha) for peer in (first, second)])  # a list: each says it for itself
        said = agreement(*p[ood], alpha)
        flagged = (
            f", at α = {controls.percent(alpha)}: flagged by both {said.both:,}, by {controls.literal(first.name)} alone "
            f"{said.first_only:,}, by {controls.literal(second.name)} alone {said.second_only:,}, by neither {said.neither:,}"
        )
        st.markdown(
            f"Of the same **{said.n:,} images of {controls.title_of(ood)}**{flagged}."
            if reached
            else f"Both saw the same **{said.n:,} images of {controls.title_of(ood)}**."
        )
        if np.isfinite(said.correlation):
            st.markdown(f"Rank correlation of their p-values on these images: Spearman's ρ = {said.correlation:.2f}.")
        groups = {}
        for name in (normal, ood):
            drawn = np.linspace(0, len(parts[name][0]) - 1, min(DRAWN, len(parts[name][0]))).astype(int)
            x, y = (figures_of(peer, name, rows, what)[drawn] for peer, rows in zip((first, second), parts[name]))
            title = f"{controls.title_of(name)}, test" if name == normal else controls.title_of(name)
            groups[title] = (x, y, [[name, int(i)] for i in drawn])
        axes = tuple(f"{'p by' if what == P_VALUES else ''} {peer.name} ({peer.by})".strip() for peer in (first, second))
        positive = all((np.asarray(v) > 0).all() for x, y, _ in groups.values() for v in (x, y))
        left, right = st.columns([3, 2], gap="large")
        with left:
            chosen = controls.chart(
                pair_chart(groups, axes, (alpha, alpha) if what == P_VALUES and reached else None, log=positive),
                {
                    "set": [name for name, (x, *_) in groups.items() for _ in x],
                    "first": np.concatenate([x for x, *_ in groups.values()]),
                    "second": np.concatenate([y for _, y, _ in groups.values()]),
                },
                f"compare-{first.name}-{second.name}-{ood}",
                f"{axes[1]} over {axes[0]} for {', '.join(groups)}.",
                select=("points", "box", "lasso"),
            )
        with right:
            linked(first, second, ood, parts, p, alpha if reached else None, chosen)


def linked(first: Peer, second: Peer, ood: str, parts: Mapping, p: Mapping, alpha: float | None, chosen: list) -> None:
    """The pictures of the chosen points; where none is chosen, those on which the two models differ most.

    alpha: None where one of the two can flag nothing.
    """
    if chosen:
        st.markdown(
            f"**The {min(len(chosen), 2 * SHOWN)} of {len(chosen):,} chosen images**, p by the first and the second model:"
        )
        for name in dict.fromkeys(name for name, _ in chosen):
            st.caption(controls.title_of(name))
            at = [i for other, i in chosen if other == name][: 2 * SHOWN]
            show_images(first, second, name, parts[name], p[name], at)
        return
    meaning = "p-value: the fraction of held-out normal images that look at least as unusual"
    choose = "Click a point, or use the lasso or the box above the chart, to see images."
    if alpha is None:
        st.caption(f"{meaning}. {choose}")
        return
    st.caption(f"{meaning}; dotted lines: α. {choose} Where the two differ most:")
    for peer, at in zip((first, second), disagreements(*p[ood], alpha, SHOWN)):
        st.markdown(f"**Flagged by {controls.literal(peer.name)} alone**")
        if len(at):
            show_images(first, second, ood, parts[ood], p[ood], [int(i) for i in at])
        else:
            st.caption("none")


def main() -> None:
    controls.heading(
        "Compare",
        "Models of any detectors that were trained on the same normal images, under one protocol: no labels, the last step, "
        "the same test images. Everything is as stored with the models: nothing is chosen by its result.",
    )
    found = groups()
    with st.sidebar:
        kind = controls.choose(
            st.selectbox,
            "kind",
            "Score",
            KINDS,
            DECIDES,
            help="The score that decides was fixed before anything was measured. The raw score: a detector's first score, "
            "such as R of AMA or a likelihood. Its two-sided version: how far that score lies from its mean over the training "
            "images, on either side, as AMA's A does with R.",
        )
        controls.reset_button()
    if not found:
        st.info(
            "No measured model is here yet. Train two on the same images, then reload this page:", icon=":material/balance:"
        )
        st.code(
            "\n".join(
                f"python -m ama_core train fashionmnist --preset tiny --detector {name} --out runs/{name}"
                for name in ("ama", "deepsvdd")
            ),
            language="bash",
        )
        st.stop()
    title = controls.choose_shown("normal", "Normal images", list(found), next(iter(found)), lambda title: found[title].label)
    these, normal = peers(found[title].folders, kind), found[title].normal
    if not these:
        st.info("None of these models has a score of this kind. Choose another on the left.")
        st.stop()
    results = {peer.name: cache.results(peer.folder) for peer in these}
    measured = dict.fromkeys(name for rows in results.values() for name in rows)
    papers = () if normal.path else controls.papers_sets_of(normal.name)
    first = [name for name in papers if name in measured]
    heat = heat_table(results, {peer.name: peer.by for peer in these}, [*first, *(n for n in measured if n not in first)])
    verdict(heat, these, first)
    timed = controls.switch(
        "timed", "Time them here", False, help=f"Scores {cache.TIMED} images with each model; slow ones take a minute."
    )
    table(heat, these, timed)
    cell(heat, these)
    st.subheader("Two models on the same images")
    if len(these) < 2:
        st.info(
            "Only one model here was trained on these images. Train another detector on them to set the two beside each other."
        )
        st.stop()
    two(these, normal.name, list(heat.sets))


with controls.error_panel():
    main()
