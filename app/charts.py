"""Arrays in, figure out. Backgrounds are transparent and text colours are left to Streamlit's theme, for light and dark."""

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence

import altair
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from palette import (
    ATYPICAL_STYLES,
    BAND,
    BAND_OUTER,
    BLUE,
    CLEAR,
    CUT,
    GRID,
    INK,
    NORMAL_STYLES,
    OOD_STYLES,
    ORANGE,
    SHELL_SCALE,
    VERMILLION,
)
from pictures import data_uri

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
# A click chooses at once, lasso and box after a press of their buttons, which are therefore always in sight: Streamlit ignores
# clicks while one of the two is active.
CONFIG_SELECT = {"displaylogo": False, "modeBarButtonsToRemove": ["autoScale2d"], "displayModeBar": True}
MODEBAR = {"bgcolor": CLEAR, "color": CUT, "activecolor": ORANGE}

TEMPLATE = "ama"  # what all figures have in common
LONGEST = 44  # characters of a name in a legend
_AXIS = dict(gridcolor=GRID, zeroline=False, automargin=True)
pio.templates[TEMPLATE] = pio.templates["plotly_white"].update(
    layout={
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 8, "t": 16, "b": 8},
        "legend": {"orientation": "h", "yanchor": "top", "x": 0, "xanchor": "left"},  # below the axes
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "polar": {"bgcolor": CLEAR},
    }
)


def entry(name: str) -> str:
    """A name that others gave as the legend shows it: no markup, and no wider than the page."""
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 15]}…{name[-14:]}"
    return html.escape(short, quote=False)


def roc_chart(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], points: Mapping[str, tuple[float, float]]) -> go.Figure:
    """ROC curves, name -> (false-alarm rates, detection rates), over the diagonal of chance, and points to look at."""
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            name="chance (0.5)",
            line=dict(color=CUT, dash="dot", width=1.5),
            hoverinfo="skip",
        )
    )
    for (name, (x, y)), (colour, dash, _) in zip(curves.items(), OOD_STYLES):
        figure.add_trace(
            go.Scatter(
                x=x.astype(np.float32),
                y=y.astype(np.float32),
                name=entry(name),
                mode="lines",
                line=dict(color=colour, dash=dash, width=2.5),
                hovertemplate=f"{entry(name)}<br>false alarms %{{x:.1%}}<br>detected %{{y:.1%}}<extra></extra>",
            )
        )
    for (name, (x, y)), symbol in zip(points.items(), ("circle", "diamond", "square")):
        figure.add_trace(
            go.Scatter(
                x=[x],
                y=[y],
                name=entry(name),
                mode="markers",
                marker=dict(color=BLUE, symbol=symbol, size=14, line=dict(color="white", width=2)),
                hovertemplate=f"{entry(name)}<br>false alarms %{{x:.1%}}<br>detected %{{y:.1%}}<extra></extra>",
            )
        )
    _rates(figure, "false alarms: normal images flagged", "detected: anomalies flagged", height=340)
    return figure


def auroc_dots(sets: Mapping[str, Mapping[str, float]], scores: Sequence[str]) -> go.Figure:
    """AUROCs, set -> score -> value, a row for each set and a sign for each score, over the line of chance."""
    figure = go.Figure()
    names = list(sets)
    figure.add_trace(
        go.Scatter(
            x=[0.5, 0.5],
            y=[names[0], names[-1]],
            mode="lines",
            name="chance (0.5)",
            line=dict(color=CUT, dash="dot", width=1.5),
            hoverinfo="skip",
        )
    )
    styles = [(colour, symbol) for colour, _, symbol in (*OOD_STYLES[:3], NORMAL_STYLES["train"], *OOD_STYLES[3:])]
    for score, (colour, symbol) in zip(scores, itertools.cycle(styles)):
        figure.add_trace(
            go.Scatter(
                x=[sets[name][score] for name in names],
                y=names,
                mode="markers",
                name=entry(score),
                marker=dict(color=colour, symbol=symbol, size=11),
                hovertemplate=f"{entry(score)} on %{{y}}: %{{x:.3f}}<extra></extra>",
            )
        )
    finish(figure, "AUROC", "", height=140 + 26 * len(names), legend_y=-0.18)
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(autorange="reversed", type="category", title=None, categoryorder="array", categoryarray=names)
    return figure


def calibration_chart(
    alphas: np.ndarray, measured: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray, level: str
) -> go.Figure:
    """Measured against nominal false-alarm rates (k,), by score, with the band in which sound ones stay."""
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([alphas, alphas[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            mode="lines",
            line_width=0,
            fill="toself",
            fillcolor=BAND,
            name=level,
            hoverinfo="skip",
        )
    )
    end = float(alphas[-1])
    figure.add_trace(
        go.Scatter(
            x=[0, end],
            y=[0, end],
            mode="lines",
            name="nominal",
            line=dict(color=CUT, dash="dot", width=1.5),
            hoverinfo="skip",
        )
    )
    for (name, values), (colour, dash, symbol) in zip(measured.items(), [*NORMAL_STYLES.values(), *OOD_STYLES]):
        figure.add_trace(
            go.Scatter(
                x=alphas,
                y=values,
                name=entry(name),
                mode="lines+markers",
                line=dict(color=colour, dash=dash, width=2.5),
                marker=dict(symbol=symbol, size=8, maxdisplayed=8),
                hovertemplate=f"{entry(name)}<br>α %{{x:.1%}}<br>flagged %{{y:.1%}}<extra></extra>",
            )
        )
    top = 1.05 * max(float(v.max()) for v in (*measured.values(), high))
    _rates(figure, "α: false-alarm rate asked for", "normal test images flagged", height=380, ends=(end, top))
    return figure


def _rates(figure: go.Figure, xlabel: str, ylabel: str, *, height: int, ends: tuple[float, float] = (1.01, 1.01)) -> None:
    """Two rates as axes, of which the right end may lie beyond the last tick."""
    finish(figure, xlabel, ylabel, height=height, legend_y=-0.3, margin_r=28)
    for axis, end in zip((figure.update_xaxes, figure.update_yaxes), ends):
        axis(range=[-0.01 * end, end], tickformat=".0%")


def line_chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    level: tuple[float, str] | None = None,
    levels: Mapping[str, float] | None = None,
    spreads: Mapping[str, Sequence[float]] | None = None,
    height: int = 320,
) -> go.Figure:
    """Lines, name -> (x, y), over a common axis; `level`: a value to compare with, and its name.

    levels: name -> a value that the line of the same place should come to, in its colour.
    spreads: name of a line -> half the length of the bar on each of its points, 0 for none.
    """
    figure = go.Figure()
    styles = iter([NORMAL_STYLES["train"], *OOD_STYLES] * (1 + len(lines) // 9))
    for name, (x, y) in lines.items():
        colour, dash, symbol = next(styles)
        figure.add_trace(
            go.Scatter(
                x=np.asarray(x),
                y=np.asarray(y, np.float32),
                name=entry(name),
                mode="lines+markers",
                line=dict(color=colour, dash=dash, width=2),
                marker=dict(symbol=symbol, size=7, maxdisplayed=9),
                error_y=dict(array=spreads[name], thickness=1.2, width=4) if spreads else None,
                hovertemplate=f"{entry(name)}<br>%{{x}}: %{{y:.4~g}}<extra></extra>",
            )
        )
    styles = iter([NORMAL_STYLES["train"], *OOD_STYLES] * (1 + len(levels or ()) // 9))
    for (name, value), (colour, _, _) in zip((levels or {}).items(), styles):
        figure.add_hline(
            value,
            line=dict(color=colour, dash="dot", width=1.5),
            annotation_text=f"{entry(name)}: {value:.3f}",
            annotation_position="bottom left",
            annotation_font_size=12,
        )
    if level:
        ends = [min(min(x) for x, _ in lines.values()), max(max(x) for x, _ in lines.values())]
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[level[0]] * 2,
                name=level[1],
                mode="lines",
                line=dict(color=CUT, dash="dot", width=2),
                hoverinfo="skip",
            )
        )
    finish(figure, xlabel, ylabel, height=height, legend_y=-0.25, showlegend=True, uirevision="kept")
    figure.update_yaxes(zeroline=True, zerolinecolor=GRID, nticks=6)
    return figure


def standalone(figure: go.Figure) -> str:
    """The figure as an HTML page that needs no network."""
    return figure.to_html(include_plotlyjs="inline", full_html=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high, few enough to be written out."""
    steps = (1,) if high - low > 4 else (1, 2, 5) if high - low > 0.9 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = [step * 10.0**power for power in range(int(np.floor(low)), int(np.ceil(high)) + 1) for step in steps]
    return [tick for tick in ticks if low <= np.log10(tick) <= high]


def map_chart(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[str]]],
    *,
    axes: tuple[str, str],
    by_excess: bool = False,
) -> go.Figure:
    """Points of several sets on a map of the latent space; points may be chosen by click, box or lasso.

    Args:
        groups: name -> places (n, 2), identities (n,) that a choice returns, |z| - sqrt(d) (n,), words shown on hover (n,).
        axes: names of the axes.
        by_excess: colour by |z| - sqrt(d) instead of by set; symbols tell the sets apart either way.
    """
    figure = go.Figure()
    reach = max(float(np.percentile(np.abs(np.concatenate([group[2] for group in groups.values()])), 98)), 1e-6)
    for name, (colour, _, symbol) in _styles(groups).items():
        xy, ids, excess, words = groups[name]
        marker = dict(symbol=symbol, size=7, opacity=0.8, color=colour, line=dict(width=0))
        if by_excess:
            marker |= dict(color=excess.astype(np.float32), coloraxis="coloraxis")
        figure.add_trace(
            go.Scattergl(
                x=xy[:, 0].astype(np.float32),
                y=xy[:, 1].astype(np.float32),
                mode="markers",
                name=entry(name),
                marker=marker,
                customdata=[int(i) for i in ids],
                text=list(words),
                hovertemplate="%{text}<extra></extra>",
                unselected=dict(marker=dict(opacity=0.15)),
                legendgroup=name,
                showlegend=not by_excess,
            )
        )
        if by_excess:  # of its own the legend would be black
            key = dict(symbol=symbol, size=8, color=CUT)
            figure.add_trace(go.Scattergl(x=[None], y=[None], mode="markers", name=entry(name), marker=key, legendgroup=name))
    finish(figure, *axes, height=520)
    places = np.concatenate([group[0] for group in groups.values()])
    low, high = places.min(axis=0), places.max(axis=0)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    figure.update_xaxes(range=[float(low[0]), float(high[0])])
    figure.update_yaxes(range=[float(low[1]), float(high[1])])
    figure.update_layout(
        margin_t=40,
        modebar=MODEBAR,
        coloraxis=dict(
            colorscale=SHELL_SCALE,
            cmin=-reach,
            cmax=reach,
            colorbar=dict(title="‖z‖ − √d", thickness=12, len=0.8),
        ),
    )
    return figure


def hover_map(points: Mapping[str, Sequence], axes: tuple[str, str]) -> altair.Chart:
    """A map whose points show their image on hover. `points`: columns x, y, set, what, norm, image (a data URI)."""
    styles = _styles(dict.fromkeys(points["set"]))
    names, colours = list(styles), [colour for colour, *_ in styles.values()]
    shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
    shapes = (shapes * len(names))[: len(names)]
    return (
        altair.Chart(pd.DataFrame(points))
        .mark_point(filled=True, size=55, opacity=0.85)
        .encode(
            x=altair.X("x:Q", title=axes[0], scale=altair.Scale(zero=False)),
            y=altair.Y("y:Q", title=axes[1], scale=altair.Scale(zero=False)),
            color=altair.Color("set:N", scale=altair.Scale(domain=names, range=colours), title=None),
            shape=altair.Shape("set:N", scale=altair.Scale(domain=names, range=shapes), title=None),
            tooltip=["image:N", altair.Tooltip("what:N", title="shows"), altair.Tooltip("norm:Q", title="‖z‖", format=".3f")],
        )
        .properties(height=460, background="transparent", description=f"Map of the codes of {', '.join(names)}")
        .configure_legend(orient="bottom", columns=3)
        .interactive()
    )


def norm_chart(
    edges: np.ndarray,
    densities: Mapping[str, np.ndarray],
    chi: tuple[np.ndarray, np.ndarray],
    shell: tuple[float, float, float],
) -> go.Figure:
    """Histograms of |z|, their bins to be chosen by a click, with the chi_d curve and sqrt(d).

    Args:
        edges, densities: as of `ama_core.analysis.shell.NormHistograms`; chi: its grid and curve.
        shell: sqrt(d) and the ends of the 95 % band.
    """
    figure = go.Figure()
    centres = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    top = 1.06 * max(float(chi[1].max()), *(float(v.max()) for v in densities.values()))
    root, low, high = shell
    figure.add_trace(
        go.Scatter(
            x=[low, low, high, high],
            y=[0, top, top, 0],
            mode="lines",
            line_width=0,
            fill="toself",
            fillcolor=BAND_OUTER,
            name="95 % of Gaussian codes",
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=chi[0].astype(np.float32),
            y=chi[1].astype(np.float32),
            mode="lines",
            line=dict(color=CUT, width=2.5, dash="dash"),
            name="Gaussian codes (χ<sub>d</sub>)",
            hoverinfo="skip",
        )
    )
    line = dict(color=CUT, width=2)
    figure.add_trace(go.Scatter(x=[root, root], y=[0, top], mode="lines", name=f"√d = {root:.3g}", line=line))
    for i, (name, (colour, dash, symbol)) in enumerate(_styles(densities).items()):
        figure.add_trace(
            go.Scatter(
                x=centres,
                y=densities[name].astype(np.float32),
                mode="lines+markers",
                name=entry(name),
                line=dict(color=colour, dash=dash, width=2, shape="hvh"),
                marker=dict(symbol=symbol, size=7),
                customdata=[[i, b] for b in range(len(centres))],
                hovertemplate=f"{entry(name)}<br>‖z‖ ≈ %{{x:.3~g}}<extra></extra>",
                unselected=dict(marker=dict(opacity=0.4)),
            )
        )
    finish(figure, "‖z‖", "density per unit of ‖z‖", height=520)
    figure.update_xaxes(range=[float(edges[0]), float(edges[-1])])
    figure.update_yaxes(range=[0, top])
    return figure


def score_map(groups: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence]], root: float) -> go.Figure:
    """R (logarithmic) over |z|: name -> norms (n,), R (n,), identities (n,) that a choice returns; `root`: sqrt(d)."""
    figure = go.Figure()
    for name, (colour, _, symbol) in _styles(groups).items():
        norms, r, ids = groups[name]
        figure.add_trace(
            go.Scattergl(
                x=norms.astype(np.float32),
                y=r.astype(np.float32),
                mode="markers",
                name=entry(name),
                customdata=list(ids),
                marker=dict(symbol=symbol, size=6, color=colour, opacity=0.7),
                hovertemplate=f"{entry(name)}<br>‖z‖ %{{x:.3~g}}<br>R %{{y:.3~g}}<extra></extra>",
                unselected=dict(marker=dict(opacity=0.15)),
            )
        )
    low, high = (f(float(f(r)) for _, r, _ in groups.values()) for f in (min, max))
    figure.add_trace(
        go.Scatter(
            x=[root, root],
            y=[low, high],
            mode="lines",
            name=f"√d = {root:.3g}",
            line=dict(color=CUT, width=2),
            hoverinfo="skip",
        )
    )
    finish(figure, "‖z‖", "R-score, logarithmic", height=440)
    figure.update_yaxes(type="log", tickvals=log_ticks(np.log10(low), np.log10(high)))
    figure.update_layout(margin_t=40, modebar=MODEBAR)
    return figure


def polar_chart(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]], atypical: tuple[np.ndarray, np.ndarray], band: tuple[float, float]
) -> go.Figure:
    """The shell seen from its pole: radius |z| / sqrt(d) with rings at 1 and at the 95 % band; angle in degrees.

    Args:
        groups: name -> radius (n,), angle (n,). atypical: the same of codes that stand out, numbered from 1.
        band: ends of the 95 % band over sqrt(d).
    """
    figure = go.Figure()
    turn = np.linspace(0, 360, 121)
    for name, r, dash in (("√d", 1.0, "solid"), ("95 % of Gaussian codes", band[0], "dot"), (None, band[1], "dot")):
        figure.add_trace(
            go.Scatterpolar(
                r=np.full(len(turn), r),
                theta=turn,
                mode="lines",
                line=dict(color=CUT, dash=dash, width=2 if r == 1 else 1.5),
                name=name or "band",
                showlegend=name is not None,
                hoverinfo="skip",
            )
        )
    for name, (colour, _, symbol) in _styles(groups).items():
        radius, angle = groups[name]
        figure.add_trace(
            go.Scatterpolar(  # not WebGL, which would cover the atypical codes
                r=radius.astype(np.float32),
                theta=angle.astype(np.float32),
                mode="markers",
                name=entry(name),
                marker=dict(symbol=symbol, size=5, color=colour, opacity=0.6),
                hovertemplate=f"{entry(name)}<br>%{{r:.3f}} √d<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatterpolar(
            r=atypical[0],
            theta=atypical[1],
            mode="markers+text",
            name="atypical codes",
            text=[str(i + 1) for i in range(len(atypical[0]))],
            textposition=_apart(np.asarray(atypical[1])),
            textfont=dict(size=15, weight="bold"),
            marker=dict(symbol="star-diamond", size=15, color=ORANGE, line=dict(color=INK, width=1.5)),
            hovertemplate="atypical code %{text}<br>%{r:.3f} √d<extra></extra>",
        )
    )
    reach = [1.25, band[1], *(float(np.percentile(radius, 99)) for radius, _ in groups.values()), float(atypical[0].max())]
    finish(figure, height=520, legend_y=-0.06, margin=dict(l=24, r=24, t=24, b=8))
    figure.update_layout(
        polar=dict(
            angularaxis=dict(showticklabels=False, gridcolor=GRID, linecolor=GRID),
            radialaxis=dict(range=[0, 1.05 * max(reach)], gridcolor=GRID, linecolor=GRID, nticks=5, angle=90, tickangle=90),
        ),
    )
    return figure


def _apart(angles: np.ndarray) -> list[str]:
    """Where the numbers of neighbouring points stand, by turns above and below, so that fewer cover one another."""
    turn = np.argsort(np.argsort(angles, kind="stable"), kind="stable")
    return ["bottom center" if place % 2 else "top center" for place in turn]


def triangle_chart(
    corners: np.ndarray,
    nodes: np.ndarray,
    images: np.ndarray,
    fine: np.ndarray,
    fine_weights: np.ndarray,
    here: np.ndarray,
    names: Sequence[str] = ("A", "B", "C"),
) -> go.Figure:
    """The triangle of mixtures: a decode at each node, the chosen point, and a fine net of points to click.

    Args:
        corners (3, 2), nodes (m, 2), fine (n, 2), here (2,): places; images: uint8 (m, S, S, C) of the nodes.
        fine_weights: (n, 3), what a click returns.
    """
    figure = go.Figure()
    loop = corners[[0, 1, 2, 0]]
    figure.add_trace(go.Scatter(x=loop[:, 0], y=loop[:, 1], mode="lines", line=dict(color=CUT, width=2), hoverinfo="skip"))
    size = 0.86 * float(np.sort(np.linalg.norm(nodes[1:] - nodes[0], axis=1))[0])
    for (x, y), image in zip(nodes, images):
        figure.add_layout_image(
            source=data_uri(image, 3),
            x=x,
            y=y,
            sizex=size,
            sizey=size,
            xref="x",
            yref="y",
            xanchor="center",
            yanchor="middle",
            layer="below",
        )
    figure.add_trace(
        go.Scatter(
            x=fine[:, 0],
            y=fine[:, 1],
            mode="markers",
            marker=dict(size=11, color=CUT, opacity=0),
            customdata=fine_weights.tolist(),
            hovertemplate="w = (%{customdata[0]:.2f}, %{customdata[1]:.2f}, %{customdata[2]:.2f})<extra></extra>",
            selected=dict(marker=dict(opacity=0)),
            unselected=dict(marker=dict(opacity=0)),
        )
    )
    figure.add_trace(
        go.Scatter(
            x=here[:1],
            y=here[1:],
            mode="markers",
            hoverinfo="skip",
            marker=dict(symbol="circle-open", size=22, color=VERMILLION, line=dict(width=4)),
        )
    )
    outward = corners - corners.mean(axis=0)
    out = corners + 0.9 * size * outward / np.linalg.norm(outward, axis=1, keepdims=True)
    for name, (x, y) in zip(names, out):
        figure.add_annotation(
            x=x,
            y=y,
            text=f"<b>{name}</b>",
            showarrow=False,
            font=dict(size=16, color=INK),
            bgcolor="rgba(255,255,255,0.85)",
            bordercolor=CUT,
            borderpad=2,
        )
    points = np.concatenate([nodes, out])
    low, high = points.min(axis=0) - 0.55 * size, points.max(axis=0) + 0.55 * size
    margin = dict(l=0, r=0, t=0, b=0)
    finish(figure, height=440, margin=margin, dragmode=False, showlegend=False, clickmode="event+select")
    figure.update_xaxes(visible=False, range=[low[0], high[0]], constrain="domain", fixedrange=True)
    figure.update_yaxes(visible=False, range=[low[1], high[1]], scaleanchor="x", constrain="domain", fixedrange=True)
    return figure


def _styles(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, dash and symbol of each set, by its place among those shown; normal and atypical ones have their own."""
    others = itertools.cycle(OOD_STYLES)
    return {name: NORMAL_STYLES.get(name) or ATYPICAL_STYLES.get(name) or next(others) for name in names}


def finish(figure: go.Figure, xlabel: str = "", ylabel: str = "", *, height: int, legend_y: float = -0.16, **more) -> None:
    """The template with the names of the axes, the height, and how far below the axes the legend begins."""
    figure.update_layout(template=TEMPLATE, height=height, legend_y=legend_y, **more)
    if xlabel:  # of its own, Streamlit's theme would choose another colour for the grid
        figure.update_xaxes(title=xlabel, gridcolor=GRID)
        figure.update_yaxes(title=ylabel, gridcolor=GRID)
