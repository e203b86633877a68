"""Charts that set models beside each other: dots with intervals, a heat table, and two scores of the same images."""

import html
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from charts import MODEBAR, TEMPLATE, entry, log_ticks
from palette import BLUE, CUT, GRID, INK, NORMAL_STYLES, OOD_STYLES, VERMILLION, rgb


def dot_chart(
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]],
    styles: Mapping[str, tuple[str, str]],
    xlabel: str,
    *,
    level: tuple[float, str] | None = None,
    line: int | None = None,
) -> go.Figure:
    """Values with their intervals, a row each, the first on top; what a row lacks is left out.

    Args:
        rows: (name of the row, series -> (value, low, high)). styles: series -> (colour, symbol), from above within a row.
        level: a value to compare with, and its name. line: characters of a line of a row's name; default: all in one.
    """
    figure = go.Figure()
    step = 0.5 / max(len(styles) - 1, 1)
    for place, (name, (colour, symbol)) in enumerate(styles.items()):
        at = [(i, *found[name]) for i, (_, found) in enumerate(rows) if name in found]
        if not at:
            continue
        y, x, low, high = (np.array(column, float) for column in zip(*at))
        bars = dict(
            type="data",
            symmetric=False,
            array=high - x,
            arrayminus=x - low,
            thickness=1.5,
            width=3,
            color=colour,
            visible=bool((high > low).any()),
        )
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y + (place - (len(styles) - 1) / 2) * step,
                mode="markers",
                name=entry(name),
                error_x=bars,
                marker=dict(symbol=symbol, size=10, color=colour),
                text=[html.escape(rows[i][0]) for i, *_ in at],
                hovertemplate=f"%{{text}}<br>{entry(name)} %{{x:.3f}}<extra></extra>",
            )
        )
    if level:
        figure.add_trace(
            go.Scatter(
                x=[level[0]] * 2,
                y=[-0.5, len(rows) - 0.5],
                mode="lines",
                name=level[1],
                hoverinfo="skip",
                line=dict(color=CUT, dash="dot", width=1.5),
            )
        )
    names = [textwrap.wrap(name, line or 1000) or [""] for name, _ in rows]
    lines = max(map(len, names), default=1)
    height = 130 + max(36, 13 * len(styles), 15 * lines + 8) * len(rows)
    figure.update_layout(template=TEMPLATE, height=height, legend_y=-65 / height)
    figure.update_xaxes(title=xlabel, gridcolor=GRID)
    every = [value for _, found in rows for values in found.values() for value in values]
    figure.update_xaxes(range=[min([0.45, *every]) - 0.04, max([1.0, *every]) + 0.02])  # mean + sd may lie above 1
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=["<br>".join(map(html.escape, name)) for name in names],
        range=[len(rows) - 0.5, -0.5],
    )
    return figure


def heat_colours(value: float) -> str:
    """The colours of a cell with an AUROC, as CSS: vermillion below chance (0.5), white at it, blue above; none for NaN."""
    if not np.isfinite(value):
        return ""
    amount = min(1.0, abs(value - 0.5) / 0.5)
    red, green, blue = 255 + amount * 0.85 * (rgb(VERMILLION if value < 0.5 else BLUE) - 255)
    return f"background-color: rgb({red:.0f},{green:.0f},{blue:.0f}); color: {INK}"


def pair_chart(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence]],
    axes: tuple[str, str],
    cuts: tuple[float, float] | None,
    *,
    log: bool,
) -> go.Figure:
    """Two figures of the same images, which may be chosen by click, box or lasso.

    Args:
        groups: name -> x (n,), y (n,), customdata (n,); the first is of normal images. cuts: below which x and y are flagged.
    """
    figure = go.Figure()
    styles = dict(zip(groups, [NORMAL_STYLES["test"], *OOD_STYLES]))
    for name, (x, y, ids) in groups.items():
        colour, _, symbol = styles[name]
        figure.add_trace(
            go.Scattergl(
                x=np.asarray(x, np.float32),
                y=np.asarray(y, np.float32),
                mode="markers",
                name=entry(name),
                customdata=list(ids),
                marker=dict(symbol=symbol, size=7, opacity=0.65, color=colour),
                unselected=dict(marker=dict(opacity=0.12)),
                hovertemplate=f"{entry(name)}<br>%{{x:.3~g}}, %{{y:.3~g}}<extra></extra>",
            )
        )
    if cuts:
        figure.add_vline(x=cuts[0], line=dict(color=CUT, dash="dot"))
        figure.add_hline(y=cuts[1], line=dict(color=CUT, dash="dot"))
    # On a narrow screen the numbers of the axis stand upright and push its title down: the legend is at the bottom, below both.
    figure.update_layout(template=TEMPLATE, height=540, margin=dict(t=40, b=120), modebar=MODEBAR)
    figure.update_layout(legend=dict(yref="container", y=0, yanchor="bottom"))
    figure.update_xaxes(title=axes[0], gridcolor=GRID)
    figure.update_yaxes(title=axes[1], gridcolor=GRID)
    if log:
        for update, k in ((figure.update_xaxes, 0), (figure.update_yaxes, 1)):
            values = np.concatenate([np.asarray(group[k], float) for group in groups.values()])
            ticks = log_ticks(float(np.log10(values.min())), float(np.log10(values.max())))
            update(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return figure
