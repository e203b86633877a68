"""Real images that come with scikit-learn, and so need no network: handwritten digits and two photographs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

SIZE = 32
PHOTO_SHAPE = (427, 640)
PHOTO_COUNTS = {"train": 8000, "test": 2000}
DIGITS_TEST = 500
_ROWS, _COLUMNS = 3, 5  # each photograph is cut into this many blocks
_TEST_BLOCKS = {(0, 1), (1, 3), (2, 0), (2, 4)}  # spread out, so that sky, roof, petal and leaf occur on both sides
_PLAIN_STD, _PLAIN_KEPT = 12, 0.05
_SIDES = (32, 44, 64, 96)  # side of the square that becomes a patch: details and wholes


class Block(NamedTuple):
    """A rectangle of a photograph, pixels [top, bottom) × [left, right)."""

    top: int
    left: int
    bottom: int
    right: int


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 digits of 8×8 pixels and 17 levels, smoothly enlarged: uint8 (N, 32, 32, 1) and labels 0..9.

    The split is stratified and fixed: 1,297 train, 500 test.
    """
    data = load_digits()
    levels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    # Sort by class, shuffled within: every k-th image is then a stratified sample of exactly the wanted size.
    order = np.lexsort((np.random.default_rng(0).permutation(len(labels)), labels))
    chosen = np.zeros(len(labels), bool)
    chosen[order[((np.arange(DIGITS_TEST) + 0.5) * len(labels) / DIGITS_TEST).astype(int)]] = True
    keep = np.flatnonzero(chosen == (split == "test"))
    enlarged = [Image.fromarray(levels[i]).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for i in keep]
    return np.stack([np.asarray(image) for image in enlarged])[..., None], labels[keep]


def photo_blocks(split: str) -> list[Block]:
    """The blocks that patches of this split are cut from; no block of "train" meets one of "test"."""
    rows = np.linspace(0, PHOTO_SHAPE[0], _ROWS + 1).astype(int).tolist()
    columns = np.linspace(0, PHOTO_SHAPE[1], _COLUMNS + 1).astype(int).tolist()
    return [
        Block(rows[r], columns[c], rows[r + 1], columns[c + 1])
        for r in range(_ROWS)
        for c in range(_COLUMNS)
        if ((r, c) in _TEST_BLOCKS) == (split == "test")
    ]


def photos(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Patches of two photographs at four scales, uint8 (N, 32, 32, 3); labels 0 china, 1 flower.

    Patches of one split overlap; train patches are mirrored at random. No pixel serves both splits.
    """
    rng = np.random.default_rng([2, split == "test"])
    patches = []
    for photograph in load_sample_images().images:
        for top, left, bottom, right in photo_boxes(photograph, split, rng):
            # Cut first, resize then: the kernel must not reach over the edge of the block.
            patch = Image.fromarray(np.ascontiguousarray(photograph[top:bottom, left:right]))
            patches.append(np.asarray(patch.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    images = np.stack(patches)
    labels = np.repeat(np.arange(2, dtype=np.int64), PHOTO_COUNTS[split] // 2)
    if split == "train":
        mirrored = rng.random(len(images)) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
    order = rng.permutation(len(images))  # so that the first images of the set show both photographs
    return images[order], labels[order]


def photo_boxes(photograph: np.ndarray, split: str, rng: np.random.Generator) -> list[Block]:
    """The square that each patch of a photograph is cut from, every one within a single block of its split.

    Most plain squares (sky, blurred background) are drawn again, else they would be half of the set.
    """
    blocks = photo_blocks(split)
    boxes = []
    while len(boxes) < PHOTO_COUNTS[split] // 2:
        block = blocks[rng.integers(len(blocks))]
        side = int(rng.choice(_SIDES))
        top = int(rng.integers(block.top, block.bottom - side + 1))
        left = int(rng.integers(block.left, block.right - side + 1))
        plain = photograph[top : top + side, left : left + side, 1].std() < _PLAIN_STD
        if not plain or rng.random() < _PLAIN_KEPT:
            boxes.append(Block(top, left, top + side, left + side))
    return boxes
