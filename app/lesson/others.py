"""Step: other detectors are fooled as well, and the two-sided idea carries over to their scores."""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import cache
import controls
import plotly.graph_objects as go
import streamlit as st
from comparison_charts import dot_chart
from palette import BLUE, VERMILLION

from ama_core import AMAError
from ama_core.detectors.registry import detector_class
from ama_core.evaluation.comparison import (
    TWO_SIDED,
    NormalKey,
    TwoSidedGain,
    most_fooling,
    normal_key,
    two_sided_gains,
    which_score,
)
from ama_core.evaluation.metrics import auroc_interval
from ama_core.storage.bundle import FIRST
from lesson.case import Case

FEW = 2  # other detectors that the step needs
STYLES = {"raw score": (VERMILLION, "circle"), "the same, two-sided": (BLUE, "diamond")}
GAIN = 0.05  # of AUROC: less is not called a help


@dataclass(frozen=True)
class Group:
    """Models of several detectors, trained on the same normal images, on the set that fools the most of them.

    Attributes:
        normal: what they were trained on. ood: the set. gains: model -> its scores there.
        titles: model -> detector, with the name where there are several. sizes: model -> (n normal, n OOD) images.
    """

    normal: NormalKey
    ood: str
    gains: dict[str, TwoSidedGain]
    titles: dict[str, str]
    sizes: dict[str, tuple[int, int]]

    @property
    def fooled(self) -> list[str]:
        return [name for name, of in self.gains.items() if of.fooled]

    @property
    def helped(self) -> list[str]:
        """Models whose two-sided score does better by more than GAIN."""
        return [name for name, of in self.gains.items() if of.gain > GAIN]

    @property
    def harmed(self) -> list[str]:
        return [name for name, of in self.gains.items() if of.gain < -GAIN]


def group() -> Group | None:
    """The normal images on which most other detectors were trained here; None where there are fewer than FEW."""
    found: dict[tuple, dict[str, tuple]] = {}
    for name, folder in cache.models().items():
        try:
            key, kind, names = normal_key(cache.info(folder)), cache.kind_of(folder), cache.score_names(folder)
            two_sided = which_score(names, kind.decides, TWO_SIDED)
            if key and two_sided and cache.results(folder):
                found.setdefault(key, {})[name] = (folder, kind, (names[0], two_sided))
        except AMAError:
            continue  # the other pages say what is wrong with it
    found = {key: models for key, models in found.items() if others(models) >= FEW}
    if not found:
        return None
    key = max(found, key=lambda key: others(found[key]))
    results = {name: cache.results(folder) for name, (folder, *_) in found[key].items()}
    scores = {name: pair for name, (_, _, pair) in found[key].items()}
    ood = most_fooling(results, scores)
    sizes = {name: (rows[ood]["n_normal"], rows[ood]["n_ood"]) for name, rows in results.items() if ood in rows}
    several = Counter(kind.name for _, kind, _ in found[key].values())
    titles = {}
    for name, (_, kind, _) in found[key].items():
        short = "AMA" if kind.name == FIRST else kind.title
        titles[name] = f"{short}: {name}" if several[kind.name] > 1 else short
    return Group(key, ood, two_sided_gains(results, scores, ood), titles, sizes)


def others(models: dict[str, tuple]) -> int:
    """How many detectors but AMA are among the models."""
    return len({kind.name for _, kind, _ in models.values()} - {FIRST})


def show(case: Case) -> None:
    st.markdown(
        "Is AMA alone in this? The paper compares it with nine other detectors. Each gives an image one number, and flags what "
        "is **high**: an improbable image, a badly reconstructed one, one far from normal ones. None of them saw an anomaly."
    )
    found = group()
    if found is None:
        st.info(
            "Fewer than two other detectors with a two-sided score are here. Train some on the same images, then reload:",
            icon=":material/balance:",
        )
        names = ("deepsvdd", "pixelcnn", "glow")
        st.code(
            "\n".join(f"python -m ama_core train fashionmnist --detector {name} --out runs/{name}" for name in names),
            language="bash",
        )
        return
    ood = controls.title_of(found.ood)
    st.markdown(
        f"Below are {len(found.gains)} models, all trained on **{controls.literal(found.normal.title)}** alone and tested on "
        f"**{controls.literal(ood)}**: {why(found)}. Left of the dotted line a score calls images that were never seen *more "
        "normal* than the model's own test images. The second mark is the same score made two-sided, as AMA's A makes R: how "
        "far it lies from its mean over the training images, on either side."
    )
    controls.chart(
        figure_of(found),
        {
            "model": list(found.gains),
            "detector": [found.titles[name] for name in found.gains],
            "raw": [of.auroc_raw for of in found.gains.values()],
            "two_sided": [of.auroc_two_sided for of in found.gains.values()],
        },
        "lesson-others",
        f"AUROC on {ood}, raw and two-sided. "
        + "; ".join(f"{found.titles[n]}: {t.auroc_raw:.2f} and {t.auroc_two_sided:.2f}" for n, t in found.gains.items()),
    )
    for name in found.fooled[:3]:
        kind = detector_class(cache.kind_of(cache.models()[name]).name)
        meaning = kind.SCORES[0].meaning
        st.markdown(f"- **{controls.literal(kind.title)}** ({kind.reference}): {controls.literal(meaning)}")
    if normal_key(case.view.detector.info_) not in (None, found.normal):
        st.caption("These models differ from the one in the previous steps: most detectors here were trained on these images.")
    controls.link("compare", "Compare all of them on every set", "balance")


def why(found: Group) -> str:
    """Why these models are shown on this set."""
    if not found.fooled:
        return "no set fools any of these raw scores, and on this one their mean AUROC is lowest"
    some = f"{len(found.fooled)} of the {len(found.gains)} raw scores" if len(found.fooled) > 1 else "one raw score"
    return f"the set that fools the most of them, {some} (AUROC clearly below 0.5)"


def figure_of(found: Group) -> go.Figure:
    rows = []
    for name, of in found.gains.items():
        n, m = found.sizes[name]
        values = {key: (v, *auroc_interval(v, n, m)) for key, v in zip(STYLES, (of.auroc_raw, of.auroc_two_sided))}
        rows.append((found.titles[name], values))
    return dot_chart(rows, STYLES, "AUROC (higher is better)", level=(0.5, "chance (0.5)"))


def figure(case: Case) -> go.Figure | None:
    found = group()
    return figure_of(found) if found else None


def take_away(case: Case) -> str:
    found = group()
    if found is None:
        return "No other detectors are here to be fooled: train some on the same images to see whether they are."
    ood, n = controls.title_of(found.ood), len(found.gains)
    if not found.fooled:
        return f"On no measured set is any of these {n} raw scores fooled: here the two-sided scores have nothing to correct."
    said = partial(", ".join)
    lifted = [found.titles[name] for name in found.fooled if name in found.helped]
    names = said(found.titles[name] for name in found.fooled)
    words = f"{len(found.fooled)} of {n} raw scores call {ood} clearly more normal than {found.normal.title}: {names}. "
    words += (
        f"Looking at both sides raises the AUROC of {len(lifted)} of them ({said(lifted)})."
        if lifted
        else "Looking at both sides raises the AUROC of none of them."
    )
    if found.harmed:
        words += (
            f" It lowers the AUROC of {said(found.titles[name] for name in found.harmed)}: where only high scores are unusual, "
            "a two-sided score is worse."
        )
    return words
