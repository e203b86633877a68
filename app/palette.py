"""Colours, dashes and symbols: here and nowhere else."""

import numpy as np

# Okabe-Ito, safe for colour-blind readers; dashes and symbols say the same again.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
NORMAL_STYLES = {
    "train": (BLUE, "solid", "circle"),
    "test": (SKY, "dash", "square"),
    "held out": (BLUE, "solid", "circle"),
}
OOD_STYLES = [
    (VERMILLION, "solid", "triangle-up"),
    (GREEN, "dashdot", "diamond"),
    (PURPLE, "dot", "x"),
    (ORANGE, "longdash", "star"),
    (VERMILLION, "dash", "cross"),
    (GREEN, "solid", "triangle-down"),
    (PURPLE, "longdashdot", "pentagon"),
    (ORANGE, "solid", "hexagon"),
]
ATYPICAL_STYLES = {
    "atypical inward": (ORANGE, "dot", "star-diamond"),
    "atypical outward": (VERMILLION, "dot", "hexagram"),
    "atypical sipple": (PURPLE, "dot", "hourglass"),
}
BAND, BAND_OUTER, CUT, GRID = "rgba(128,128,128,0.28)", "rgba(128,128,128,0.14)", "#8A8F98", "rgba(128,128,128,0.25)"
CLEAR = "rgba(0,0,0,0)"
INK = "#1B1F27"  # an outline that is seen on coloured points
UPLOAD = dict(color="#F0E442", line=dict(color=INK, width=1.5), size=13)  # Okabe-Ito's yellow, of nothing else
SHELL_SCALE = [[0, BLUE], [0.5, "#9AA0A6"], [1, VERMILLION]]  # a middle that is seen on light and dark


def rgb(colour: str) -> np.ndarray:
    """`#RRGGBB` as three numbers up to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)
