"""Density estimates of scores as a figure: curves, their names, and whatever else lies on the axis."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from charts import entry, finish, log_ticks
from palette import BAND, BAND_OUTER, CUT, INK, NORMAL_STYLES, OOD_STYLES, UPLOAD, VERMILLION, rgb

from ama_core.formatting import significant

LABEL_WIDTH, CUT_LABEL_WIDTH = 0.4, 0.6  # of the axis, a guess for narrow screens: how broad a name is, alone or with its peak
LABEL_GROUND = "rgba(255,255,255,0.9)"  # behind dark letters, on light and on dark pages
TOP = 1.06  # of the highest curve, the top of what is drawn
HIGHER = 2.5  # times the peak of the normal curves: what rises above is cut off there, or all others would look flat
LABEL_STEP = 24  # pixels between the heights of names that would cover each other
BARE_MARGIN = 6  # pixels, of a chart with `bare`: those of a slider's track
# Where names stand at the curves, pixels must be known: above the plot, below it, left of it, and of an entry of the legend.
ABOVE, BELOW, LEFT, ENTRY = 16, 64, 58, 20
MARKS = ((CUT, "circle"), (VERMILLION, "diamond"))  # the last mark stands out


def density_chart(
    grid: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    log: bool,
    bands: Sequence[tuple[str, float, float]] = (),
    cuts: Mapping[str, Sequence[float]] | None = None,
    marks: Mapping[str, float] | None = None,
    histograms: Mapping[str, np.ndarray] | None = None,
    rug: Sequence[tuple[str, float]] = (),
    rug_name: str = "your images",
    labels: Mapping[str, str] | None = None,
    height: int = 460,
    bare: bool = False,
) -> go.Figure:
    """Densities on one axis; a click on a curve chooses its place, a score.

    A curve that rises far above the normal ones is drawn up to HIGHER times their peak, and its name says how high it is.

    Args:
        grid, curves, histograms: as of `ama_core.analysis.density.Densities`; "train" and "test" have styles of their own.
        bands: (name, low, high), shaded, the widest first.
        cuts: name -> where scores begin to be flagged, dotted lines.
        marks: name -> a score to point at; of several, the last one stands out.
        rug: (name, score) of single images, ticks below the curves; those beyond the axis stand at its end.
        labels: curve -> its name, written at the curve instead of in the legend.
        bare: no scale of the density, and the same margin left and right, so that a slider can stand below the axis.
    """
    figure = go.Figure()
    ends = float(grid[0]), float(grid[-1])
    highest = max(float(curve.max()) for curve in (*curves.values(), *(histograms or {}).values()))
    ceiling = min(highest, _limit(curves))
    top = TOP * ceiling
    _bands(figure, bands, ends, top)
    _curves(figure, grid, curves, histograms, labels, ceiling)
    _cuts(figure, cuts or {}, ends, top)
    _marks(figure, marks or {}, top)
    _rug(figure, rug, rug_name, ends, top)
    placed = _label_rows(grid, curves, labels, ceiling) if labels else {}
    rows = 1 + max((row for _, row, _ in placed.values()), default=-1)
    height += LABEL_STEP * max(0, rows - 3)
    ylabel = f"density per {'factor of 10' if log else 'unit'}"
    ylabel += f", cut off at {significant(ceiling, 2)}" if highest > ceiling else ""
    _axes(figure, ends, list((marks or {}).values()), (xlabel, ylabel), log=log, height=height, bare=bare)
    plot = height - ABOVE - BELOW - ENTRY * sum(trace.showlegend is not False for trace in figure.data)
    if labels:
        _fix_plot(figure, plot, height, BARE_MARGIN if bare else LEFT)
    bottom = -0.09 * top if rug else 0
    share = 1 - LABEL_STEP * (rows + 0.5) / plot if rows else 1.0  # of the plot that the curves have, below their names
    figure.update_yaxes(range=[bottom, bottom + (top - bottom) / share], nticks=5)
    if labels:
        _labels(figure, grid, curves, labels, placed, ceiling, pixels=plot * share / TOP)
    return figure


def _limit(curves: Mapping[str, np.ndarray]) -> float:
    """The density above which nothing is drawn; infinite where no curve is of normal images."""
    return HIGHER * max((float(curve.max()) for name, curve in curves.items() if name in NORMAL_STYLES), default=np.inf)


def _named(name: str, curve: np.ndarray, ceiling: float) -> str:
    """The name of a curve, with how high its peak is where that is cut off."""
    peak = float(curve.max())
    return f"{name}, peak {significant(peak, 2)}" if peak > ceiling else name


def _bands(figure: go.Figure, bands: Sequence[tuple[str, float, float]], ends: tuple[float, float], top: float) -> None:
    for i, (name, low, high) in enumerate(bands):
        low, high = max(low, ends[0]), min(high, ends[1])
        if low < high:
            figure.add_trace(
                go.Scatter(
                    x=[low, low, high, high],
                    y=[0, top, top, 0],
                    mode="lines",
                    line_width=0,
                    fill="toself",
                    name=entry(name),
                    fillcolor=BAND if i == len(bands) - 1 else BAND_OUTER,
                    hoverinfo="skip",
                )
            )


def _styles(curves: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str, str]]:
    others = iter(OOD_STYLES * (1 + len(curves) // len(OOD_STYLES)))
    return {name: NORMAL_STYLES.get(name) or next(others) for name in curves}


def _curves(
    figure: go.Figure,
    grid: np.ndarray,
    curves: Mapping[str, np.ndarray],
    histograms: Mapping[str, np.ndarray] | None,
    labels: Mapping[str, str] | None,
    ceiling: float,
) -> None:
    for name, (colour, dash, symbol) in _styles(curves).items():
        if histograms:
            figure.add_trace(
                go.Scatter(
                    x=grid.astype(np.float32),
                    y=np.minimum(histograms[name], ceiling).astype(np.float32),
                    mode="lines",
                    legendgroup=name,
                    line=dict(color=colour, width=1),
                    fill="tozeroy",
                    showlegend=False,
                    hoverinfo="skip",
                    fillcolor=f"rgba({','.join(f'{c:.0f}' for c in rgb(colour))},0.13)",
                )
            )
        figure.add_trace(
            go.Scatter(
                x=grid.astype(np.float32),
                y=np.minimum(curves[name], ceiling).astype(np.float32),
                name=entry(name if labels and name in labels else _named(name, curves[name], ceiling)),
                mode="lines+markers",
                legendgroup=name,
                line=dict(color=colour, dash=dash, width=2.5),
                marker=dict(symbol=symbol, size=8, maxdisplayed=9),
                customdata=grid.tolist(),
                unselected=dict(marker=dict(opacity=1)),
                showlegend=not (labels and name in labels),
                hovertemplate=f"{html.escape((labels or {}).get(name, name))}<br>%{{x:.3~g}}<extra></extra>",
            )
        )


def _cuts(figure: go.Figure, cuts: Mapping[str, Sequence[float]], ends: tuple[float, float], top: float) -> None:
    for (name, places), dash in zip(cuts.items(), ("dot", "dashdot")):
        inside = [x for x in places if ends[0] <= x <= ends[1]]
        if inside:
            xs, ys = zip(*[point for x in inside for point in ((x, 0), (x, top), (None, None))])
            figure.add_trace(go.Scatter(x=xs, y=ys, mode="lines", name=name, line=dict(color=CUT, dash=dash, width=2)))


def _marks(figure: go.Figure, marks: Mapping[str, float], top: float) -> None:
    for (name, x), (colour, symbol) in zip(marks.items(), MARKS[-len(marks) :] if marks else ()):
        figure.add_trace(
            go.Scatter(
                x=[x, x],
                y=[0, 0.95 * top],
                mode="lines+markers",
                name=entry(name),
                line=dict(color=colour, width=3),
                marker=dict(symbol=symbol, size=[0, 13]),
                hovertemplate=f"{entry(name)}<br>%{{x:.4~g}}<extra></extra>",
            )
        )


def _rug(figure: go.Figure, rug: Sequence[tuple[str, float]], rug_name: str, ends: tuple[float, float], top: float) -> None:
    if not rug:
        return
    names, values = zip(*rug)
    x = np.clip(values, *ends)
    symbols = np.select([x < values, x > values], ["triangle-right", "triangle-left"], "diamond-tall")
    figure.add_trace(
        go.Scatter(
            x=x,
            y=np.full(len(x), -0.045 * top),
            mode="markers",
            name=entry(rug_name),
            marker=UPLOAD | dict(symbol=symbols),
            text=[f"{html.escape(name)}<br>{value:.4g}" for name, value in rug],
            hovertemplate="%{text}<extra></extra>",
            unselected=dict(marker=dict(opacity=1)),
            cliponaxis=False,
        )
    )


def _label_rows(
    grid: np.ndarray, curves: Mapping[str, np.ndarray], labels: Mapping[str, str], ceiling: float
) -> dict[str, tuple[int, int, str]]:
    """For each curve where its peak is on the grid, in which row its name stands, and its side of the name: so that, as far as
    widths can be known here, no name covers another or leaves the chart.
    """
    last, rows, found = len(grid) - 1, [], {}
    for name in sorted(labels, key=lambda name: -float(curves[name].max())):
        peak = int(curves[name].argmax())
        at, width = peak / last, CUT_LABEL_WIDTH if curves[name][peak] > ceiling else LABEL_WIDTH
        anchor, left = ("right", at - width) if at > 0.7 else ("left", at) if at < 0.3 else ("center", at - width / 2)
        free = (r for r, used in enumerate(rows) if all(left + width <= low or left >= high for low, high in used))
        row = next(free, len(rows))
        rows += [[]] if row == len(rows) else []
        rows[row].append((left, left + width))
        found[name] = (peak, row, anchor)
    return found


def _labels(
    figure: go.Figure,
    grid: np.ndarray,
    curves: Mapping[str, np.ndarray],
    labels: Mapping[str, str],
    placed: Mapping[str, tuple[int, int, str]],
    ceiling: float,
    pixels: float,
) -> None:
    """Writes each curve's name above all curves, with a line that leads down to its peak.

    Args:
        placed: as of `_label_rows`. ceiling: the highest density that is drawn. pixels: how high that is.
    """
    styles, log = _styles(curves), figure.layout.xaxis.type == "log"
    for name, (peak, row, anchor) in sorted(placed.items(), key=lambda item: -item[1][1]):  # lower names over higher lines
        x, y = float(grid[peak]), min(float(curves[name][peak]), ceiling)
        figure.add_annotation(
            x=np.log10(x) if log else x,
            y=y,
            ax=0,
            ay=-(pixels * (1 - y / ceiling) + LABEL_STEP * (row + 0.9)),
            text=html.escape(_named(labels[name], curves[name], ceiling)),
            xanchor=anchor,
            showarrow=True,
            arrowhead=0,
            arrowwidth=1.2,
            arrowcolor=styles[name][0],
            bordercolor=styles[name][0],
            borderwidth=1.5,
            borderpad=2,
            bgcolor=LABEL_GROUND,
            font=dict(size=12, color=INK),
            name=name,
        )


def _axes(
    figure: go.Figure,
    ends: tuple[float, float],
    marked: list[float],
    titles: tuple[str, str],
    *,
    log: bool,
    height: int,
    bare: bool,
) -> None:
    reach = np.array([*ends, *marked])
    reach = np.log10(reach) if log else reach
    low, high = float(reach.min()), float(reach.max())
    pad = 0.02 * (high - low) if marked and not bare else 0.0  # a mark at the edge is not cut in half
    finish(figure, *titles, height=height, legend_y=-0.2 * 460 / height)
    figure.update_xaxes(
        type="log" if log else "linear", range=[low - pad, high + pad], tickvals=log_ticks(low, high) if log else None
    )
    if bare:
        figure.update_yaxes(showticklabels=False, title=None)
        figure.update_xaxes(fixedrange=True)


def _fix_plot(figure: go.Figure, plot: float, height: float, left: float) -> None:
    """Makes the plot `plot` pixels high, whatever stands in the legend below it."""
    figure.update_layout(
        margin=dict(l=left, r=min(left, 8), t=ABOVE, b=height - ABOVE - plot, autoexpand=False),
        legend=dict(orientation="v", yanchor="top", y=-(BELOW - 4) / plot),
    )
