"""Synthetic defects: cuts, blots, scratches and foreign patches painted on normal images, where no real defects are available.

What is found among them says little about real ones; wherever they stand in for real ones, they are called synthetic.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("cut", "blot", "scratch", "patch")
NAME = "synthetic defects"
VISIBLE = 16  # grey levels by which a foreign patch differs somewhere from what it covers; on a plain ground it may not


def make_defects(images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint one defect on every image, each visible; the seed decides all of them.

    Args:
        images: uint8 (N, H, W, C), C 1 or 3.

    Returns:
        The changed images, as above; where they were painted, bool (N, H, W); the kind, an index of KINDS, int64 (N,).
    """
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.arange(len(images)) % len(KINDS))
    changed, masks = np.empty_like(images), np.empty(images.shape[:3], bool)
    for i, kind in enumerate(kinds):
        cover = _SHAPES[KINDS[kind]](rng, *images.shape[1:3])[..., None]
        paint = _patch(rng, images) if KINDS[kind] == "patch" else _colour(rng, images[i], cover)
        if np.abs((paint - images[i]) * cover).max() < VISIBLE:
            own = np.random.default_rng((seed, i))  # so that the defects of the other images stay as they are
            paint = _colour(own, images[i], cover)
        mixed = images[i] * (1 - cover) + paint * cover
        changed[i] = np.rint(mixed).astype(np.uint8)
        masks[i] = cover[..., 0] > 0.25
    return changed, masks, kinds


def _colour(rng: np.random.Generator, image: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """A grey far from what lies under the defect, (1, 1, C)."""
    under = float((image * cover).sum() / (cover.sum() * image.shape[2]))
    value = rng.uniform(0, 0.5 * under) if under > 127 else rng.uniform(under + 0.5 * (255 - under), 255)
    return np.full((1, 1, image.shape[2]), value)


def _patch(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """One of the images, turned upside down, so that it fits nowhere (H, W, C)."""
    return images[rng.integers(len(images))][::-1, ::-1].astype(np.float64)


def _cut(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return _line(rng, height, width, thickness=0.06, length=0.45)


def _scratch(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return _line(rng, height, width, thickness=0.03, length=0.8)


def _line(rng: np.random.Generator, height: int, width: int, thickness: float, length: float) -> np.ndarray:
    side = min(height, width)
    middle, angle = rng.uniform(0.3, 0.7, 2) * (width, height), rng.uniform(0, np.pi)
    half = 0.5 * length * side * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(middle - half), tuple(middle + half)]
    return _drawn(height, width, lambda draw: draw.line(ends, fill=255, width=max(1, round(thickness * side))), blur=0.3)


def _blot(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    box = _box(rng, height, width, low=0.15, high=0.3)
    return _drawn(height, width, lambda draw: draw.ellipse(box, fill=255), blur=0.03 * min(height, width))


def _square(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    box = _box(rng, height, width, low=0.2, high=0.35)
    return _drawn(height, width, lambda draw: draw.rectangle(box, fill=255), blur=0)


def _box(rng: np.random.Generator, height: int, width: int, low: float, high: float) -> tuple[float, ...]:
    sides = rng.uniform(low, high, 2) * (width, height)
    start = rng.uniform(0, 1, 2) * ((width, height) - sides)
    return (*start, *(start + sides))


def _drawn(height: int, width: int, shape, blur: float) -> np.ndarray:
    """How much of each pixel is covered, float64 (H, W) in [0, 1]."""
    picture = Image.new("L", (width, height))
    shape(ImageDraw.Draw(picture))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture) / 255.0


_SHAPES = {"cut": _cut, "blot": _blot, "scratch": _scratch, "patch": _square}
