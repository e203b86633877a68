"""Procedural colour images, 32×32, for out-of-distribution tests without a network. A seed decides every pixel.

Each function returns uint8 (N, 32, 32, 3) and int64 labels; train and test come from different seeds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

SIZE = 32
COUNT = 2000
TEXTURES = ("stripes", "checkers", "dots", "rings", "bricks", "cloud")


def noise(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Every value uniform and independent."""
    images = _rng("noise", split).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    return images, np.zeros(COUNT, np.int64)


def flat(split: str) -> tuple[np.ndarray, np.ndarray]:
    """One uniformly drawn colour per image."""
    colours = _rng("flat", split).integers(0, 256, (COUNT, 1, 1, 3), dtype=np.uint8)
    return np.tile(colours, (1, SIZE, SIZE, 1)), np.zeros(COUNT, np.int64)


def gradients(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Smooth colour fields: a random grid of 2×2 or 3×3 colours, interpolated; the label says which (0, 1)."""
    rng = _rng("gradients", split)
    fields = np.concatenate([_fields(rng, COUNT // 2, grid) for grid in (2, 3)])
    order = rng.permutation(COUNT)
    return _bytes(fields[order]), (order >= COUNT // 2).astype(np.int64)


def textures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Two colours mixed by a pattern; the label is its index in `TEXTURES`."""
    rng = _rng("textures", split)
    labels = rng.integers(0, len(TEXTURES), COUNT)
    angle = rng.uniform(0, np.pi, (COUNT, 1, 1))
    period = np.exp(rng.uniform(np.log(4.5), np.log(14), (COUNT, 1, 1)))
    shift = rng.uniform(0, SIZE, (2, COUNT, 1, 1))
    y, x = np.mgrid[:SIZE, :SIZE][:, None] + shift
    u = (x * np.cos(angle) + y * np.sin(angle)) / period
    v = (y * np.cos(angle) - x * np.sin(angle)) / period
    cell_u, cell_v = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    centre = SIZE * rng.uniform(0.2, 0.8, (2, COUNT, 1, 1)) + shift
    row = np.floor(2 * v)
    brick_u, brick_v = u / 1.5 + 0.5 * (row % 2), 2 * v
    patterns = {
        "stripes": np.sin(2 * np.pi * u),
        "checkers": np.sin(np.pi * u) * np.sin(np.pi * v) * 2,
        "dots": (rng.uniform(0.2, 0.4, (COUNT, 1, 1)) - np.hypot(cell_u, cell_v)) * 5,
        "rings": np.sin(2 * np.pi * np.hypot(x - centre[1], y - centre[0]) / period),
        "bricks": 4 * np.minimum(_to_edge(brick_u) * 1.5, _to_edge(brick_v) / 2) - 0.4,
        "cloud": 4 * (_fields(rng, COUNT, grid=6)[..., 0] - 0.5),
    }
    pattern = np.choose(labels[:, None, None], [patterns[name] for name in TEXTURES])
    sharpness = np.exp(rng.uniform(np.log(0.7), np.log(5), (COUNT, 1, 1)))
    mix = 0.5 + 0.5 * np.tanh(sharpness * pattern)[..., None]
    first, second = _colour_pairs(rng, COUNT)
    return _bytes(first * mix + second * (1 - mix)), labels.astype(np.int64)


def _rng(name: str, split: str) -> np.random.Generator:
    return np.random.default_rng([*name.encode(), split == "test"])


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _fields(rng: np.random.Generator, n: int, grid: int) -> np.ndarray:
    """(n, 32, 32, 3) in [0, 1]: random colours on a grid×grid lattice, joined by smoothstep interpolation."""
    position = np.linspace(0, grid - 1, SIZE)
    cell = np.minimum(position.astype(int), grid - 2)
    t = position - cell
    t = t * t * (3 - 2 * t)
    weights = np.zeros((SIZE, grid))
    weights[np.arange(SIZE), cell] = 1 - t
    weights[np.arange(SIZE), cell + 1] = t
    return np.einsum("ya,xb,nabc->nyxc", weights, weights, rng.random((n, grid, grid, 3)), optimize=True)


def _to_edge(x: np.ndarray) -> np.ndarray:
    """Distance to the nearest integer."""
    return np.abs(x - np.rint(x))


def _luma(colours: np.ndarray) -> np.ndarray:
    return colours @ np.array([0.299, 0.587, 0.114])


def _colour_pairs(rng: np.random.Generator, n: int, contrast: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Two (n, 1, 1, 3) colours in [0, 1] whose luma differs by at least `contrast`."""
    first, second = rng.random((2, n, 3))
    while (close := np.abs(_luma(first) - _luma(second)) < contrast).any():
        second[close] = rng.random((int(close.sum()), 3))
    return first[:, None, None], second[:, None, None]


def house_numbers(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits on smooth backgrounds, neighbours cut off at the edges; the label is the middle digit.

    Drawn at three times the size with Pillow's own typeface and the strokes of `_BLOCK_DIGITS`, so that no system
    font matters; gaps, slants, sizes and weights vary.
    """
    rng = _rng("house_numbers", split)
    labels = rng.integers(0, 10, COUNT)
    fonts = rng.choice(len(_FONT_SHARES), COUNT, p=_FONT_SHARES)
    masks = np.stack([_number_mask(rng, _fonts()[font], label) for font, label in zip(fonts, labels, strict=True)])
    masks = masks[..., None] / 255
    ink, ground = _colour_pairs(rng, COUNT, contrast=0.2)
    # Street photographs are mostly dull: pull both colours towards grey, and let light fall unevenly on them.
    dullness = rng.uniform(0.35, 0.95, (COUNT, 1, 1, 1))
    ink, ground = (c + dullness * (_luma(c)[..., None] - c) for c in (ink, ground))
    light = 1 + rng.uniform(0, 0.5, (COUNT, 1, 1, 1)) * (_fields(rng, COUNT, grid=2).mean(3, keepdims=True) - 0.5)
    tint = rng.uniform(0, 0.25, (COUNT, 1, 1, 1)) * (_fields(rng, COUNT, grid=3) - 0.5)
    images = (ground + tint) * (1 - masks) + ink * masks
    return _bytes(images * light + rng.normal(0, 0.012, images.shape)), labels.astype(np.int64)


_GLYPH = 96  # side of the square in which a glyph is kept
_BOLDNESS = (3, 9)  # odd sides of the maximum filter
_FONT_SHARES = (0.3, 0.3, 0.15, 0.2, 0.05)  # of the typefaces in `_fonts`
# Chamfered strokes on a grid 4 wide and 6 high, (x, y) from the top left: the plain numerals of plates and stencils.
_BLOCK_DIGITS = (
    ["10 30 41 45 36 16 05 01 10"],
    ["02 20 26", "06 46"],
    ["01 10 30 41 42 06 46"],
    ["01 10 30 41 42 33 13", "33 44 45 36 16 05"],
    ["36 30 04 44"],
    ["40 00 03 33 44 45 36 16 05"],
    ["41 30 10 01 05 16 36 45 44 33 03"],
    ["00 40 16"],
    ["13 02 01 10 30 41 42 33 13 04 05 16 36 45 44 33"],
    ["43 13 02 01 10 30 41 45 36 16 05"],
)


@lru_cache(maxsize=1)
def _fonts() -> list[list[Image.Image]]:
    """Typefaces, each ten cropped grey masks of the digits 0..9."""
    aileron = ImageFont.load_default(_GLYPH)
    fonts = []
    for bold in _BOLDNESS:
        fonts.append([_crop(_text(aileron, digit).filter(ImageFilter.MaxFilter(bold))) for digit in "0123456789"])
    for width in (12, 20):
        fonts.append([_crop(_strokes(lines, width)) for lines in _BLOCK_DIGITS])
    fonts.append([ImageChops.subtract(glyph, glyph.filter(ImageFilter.MinFilter(9))) for glyph in fonts[1]])  # outlines
    return fonts


def _text(font: ImageFont.FreeTypeFont, digit: str) -> Image.Image:
    mask = Image.new("L", (2 * _GLYPH, 2 * _GLYPH))
    ImageDraw.Draw(mask).text((_GLYPH, _GLYPH), digit, 255, font, anchor="mm")
    return mask


def _strokes(lines: list[str], width: int) -> Image.Image:
    mask = Image.new("L", (2 * _GLYPH, 2 * _GLYPH))
    draw = ImageDraw.Draw(mask)
    for line in lines:
        points = [(60 + 11 * int(x), 60 + 11 * int(y)) for x, y in line.split()]
        draw.line(points, 255, width, joint="curve")
        for x, y in points:
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), 255)
    return mask


def _crop(mask: Image.Image) -> Image.Image:
    return mask.crop(mask.getbbox())


def _number_mask(rng: np.random.Generator, font: list[Image.Image], middle: int) -> np.ndarray:
    """Grey mask (32, 32) of the middle digit and, mostly, parts of its neighbours."""
    scale = 3
    side = scale * SIZE
    height = scale * rng.uniform(17, 29)
    stretch = rng.uniform(0.75, 1.15)
    gap = height * rng.uniform(0.06, 0.22)
    left, right = rng.integers(0, 10, 2)
    has_left, has_right = rng.random(2) < 0.65
    canvas = Image.new("L", (side, side))

    def put(digit: int, x: float, anchor: float) -> float:
        """Paste with the anchor (0 left edge, 0.5 middle, 1 right edge) at x; returns the width."""
        glyph = font[digit]
        width = stretch * height * glyph.width / glyph.height
        sized = glyph.resize((max(1, round(width)), round(height)))
        canvas.paste(255, (round(x - anchor * width), round((side - height) / 2)), sized)
        return width

    half = put(middle, side / 2, 0.5) / 2
    if has_left:
        put(left, side / 2 - half - gap, 1)
    if has_right:
        put(right, side / 2 + half + gap, 0)
    turn, shear = rng.normal(0, 0.08), rng.normal(0, 0.1)
    move_x, move_y = scale * rng.normal(0, 1.2, 2)
    # Output pixel → input pixel, about the centre.
    a, b, d, e = np.cos(turn), np.sin(turn) + shear, -np.sin(turn), np.cos(turn)
    c, f = (side / 2 - np.array([[a, b], [d, e]]) @ np.array([side / 2 + move_x, side / 2 + move_y])).tolist()
    canvas = canvas.transform((side, side), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(scale * rng.uniform(0, 0.9))).reduce(scale))
