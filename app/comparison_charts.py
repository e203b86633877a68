"""Charts that set models beside each other: dots with intervals, a heat table, and two scores of the same images."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from charts import TEMPLATE
from palette import CUT, GRID


def dot_chart(
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]], styles: Mapping[str, tuple[str, str]], xlabel: str,
    *, level: tuple[float, str] | None = None,
) -> go.Figure:  # fmt: skip
    """Values with their intervals, a row each, the first on top; what a row lacks is left out.

    Args:
        rows: (name of the row, series -> (value, low, high)). styles: series -> (colour, symbol), from above within a row.
        level: a value to compare with, and its name.
    """
    figure = go.Figure()
    step = 0.62 / max(len(styles) - 1, 1)
    for place, (name, (colour, symbol)) in enumerate(styles.items()):
        at = [(i, *found[name]) for i, (_, found) in enumerate(rows) if name in found]
        if not at:
            continue
        y, x, low, high = (np.array(column, float) for column in zip(*at))
        bars = dict(type="data", symmetric=False, array=high - x, arrayminus=x - low, thickness=1.5, width=3, color=colour)
        figure.add_trace(go.Scatter(
            x=x, y=y + (place - (len(styles) - 1) / 2) * step, mode="markers", name=name, error_x=bars,
            marker=dict(symbol=symbol, size=10, color=colour), text=[rows[i][0] for i, *_ in at],
            hovertemplate=f"%{{text}}<br>{name} %{{x:.3f}}<extra></extra>",
        ))  # fmt: skip
    if level:
        figure.add_trace(go.Scatter(
            x=[level[0]] * 2, y=[-0.5, len(rows) - 0.5], mode="lines", name=level[1], hoverinfo="skip",
            line=dict(color=CUT, dash="dot", width=1.5),
        ))  # fmt: skip
    height = 130 + max(36, 13 * len(styles)) * len(rows)
    figure.update_layout(template=TEMPLATE, height=height, legend_y=-65 / height)
    figure.update_xaxes(title=xlabel, gridcolor=GRID)
    low = min([0.45, *(x for _, found in rows for x, *_ in found.values())])
    figure.update_xaxes(range=[low - 0.04, 1.02])
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[html.escape(name) for name, _ in rows], range=[len(rows) - 0.5, -0.5],
    )  # fmt: skip
    return figure
