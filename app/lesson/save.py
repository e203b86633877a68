"""The lesson as one HTML file: its charts, interactive without a server, with what each step says in one sentence."""

from collections.abc import Mapping
from html import escape

import access
import pictures
import plotly.io as pio

from ama_core import AMAError
from lesson.case import Case
from lesson.steps import STEPS, label

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f27; background: #fff; }
h2 { margin-top: 2.5rem; } .taken { border-left: 4px solid #0072B2; padding: .4rem .9rem; font-weight: 600; }
.why { color: #5a6270; font-size: .92rem; }
"""


def document(cases: Mapping[str, Case]) -> str:
    """The file.

    Args:
        cases: step -> its case. A chart that needs images that are not here is left out, which is then said.
    """
    first = next(iter(cases.values()))
    parts, library = [], True
    for i, (name, case) in enumerate(cases.items()):
        step = STEPS[name]
        parts.append(f"<h2>{i + 1}. {escape(step.title)}</h2>")
        if step.of_set:
            why = label(case, name) if case.other.name == step.choose(case.aurocs) else f"Chosen by the reader: {case.title}."
            parts.append(f"<p class='why'>{escape(why)}</p>")
        if step.figure:
            try:
                figure = step.figure(case)
            except AMAError as error:
                parts.append(f"<p>This chart is left out: {escape(access.without_paths(str(error)))}</p>")
                figure = None
            if figure is not None:
                figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
                parts.append(pio.to_html(figure, include_plotlyjs=library, full_html=False, config={"displaylogo": False}))
                library = False  # one copy
        parts.append(f"<p class='taken'>{escape(step.take_away(case))}</p>")
    title = f"Why raw scores fail: {first.view.name}, normal = {first.normal}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        "<p>The encoder E and the generator G of an autoencoder reconstruct an image; the critic D compares the two. R: how "
        "far its features of the pairs lie apart. A: how usual that R is among the training images. M: in which direction they "
        "lie apart, against normal images. T: all statistics of the forward pass together. AUROC: the chance that an anomalous "
        "image has the more anomalous score than a normal one; 1 is perfect, 0.5 is chance.</p>"
        f"{pictures.method()}{''.join(parts)}</body></html>"
    )
