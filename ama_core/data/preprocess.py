"""Preprocessing, the same for normal and out-of-distribution images: `check_images`, then `prepare`.

Resampling on one side alone makes a detector look better than it is, so there is one function, and it says what it did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ama_core.data.pictures import to_picture
from ama_core.errors import DataError

FITS = ("pad", "crop", "stretch")
CHANNELS = (1, 3)
_FILTER = Image.Resampling.BILINEAR  # Pillow widens the kernel when it shrinks, i.e. antialiases


def check_images(images: np.ndarray | torch.Tensor) -> np.ndarray:
    """Any accepted batch as uint8 (N, H, W, C).

    The container says the layout and the dtype says the range: NumPy arrays are (N, H, W, C), torch tensors
    (N, C, H, W); uint8 is 0..255, floating point is 0..1 (and becomes round(255·x)). C is 1 or 3.

    Raises `DataError` for other types, dtypes, shapes and channel counts, an empty batch, NaN, and values out of range.
    """
    if isinstance(images, torch.Tensor):
        layout, channel_axis, other = "a torch tensor must be (N, C, H, W)", 1, 3
        array = images.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    elif isinstance(images, np.ndarray):
        layout, channel_axis, other = "a NumPy array must be (N, H, W, C)", 3, 1
        array = images
    else:
        raise DataError(f"Images must be a NumPy array or a torch tensor, got {type(images).__name__}.")

    if array.ndim != 4:
        hint = " Add the batch axis: images[None]." if array.ndim == 3 else ""
        raise DataError(f"Images must have 4 axes, and {layout} with C = 1 or 3; got the shape {array.shape}.{hint}")
    if 0 in array.shape:
        raise DataError(f"There is no image here: the shape is {array.shape}.")
    if array.shape[channel_axis] not in CHANNELS:
        hint = f" Axis {other} looks like the channels: move it." if array.shape[other] in CHANNELS else ""
        raise DataError(f"Images must have 1 (grey) or 3 (RGB) channels, and {layout}; got the shape {array.shape}.{hint}")
    if channel_axis == 1:
        array = np.ascontiguousarray(np.moveaxis(array, 1, 3))
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"Images must be uint8 (0..255) or floating point (0..1), got {array.dtype}.")
    if not np.isfinite(array).all():
        raise DataError("Images hold NaN or infinite values. Repair or drop them first.")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise DataError(
            f"Floating-point images must lie in [0, 1], got [{low:.4g}, {high:.4g}]. "
            "Undo any normalisation, or pass uint8 values 0..255."
        )
    return np.rint(array * 255).astype(np.uint8)


def prepare(
    images: np.ndarray | Sequence[np.ndarray], *, size: int, channels: int, fit: str = "pad"
) -> tuple[np.ndarray, list[str]]:
    """Images of any size as uint8 (N, size, size, channels), and sentences that say what was done.

    images: uint8 (N, H, W, C), or a sequence of uint8 (H, W, C) of differing sizes and channels; C 1 or 3.
    fit: "pad"      centred on black; resized with its aspect kept, except that an image between 3/4 of `size` and
                    `size` keeps its pixels (28×28 → 32×32);
         "crop"     the central square, resized;
         "stretch"  resized to the square, whatever the aspect.
    An image that already is size×size passes untouched. An image's result never depends on the others in the batch.

    Raises `DataError` for an unknown fit, impossible size or channels, and images that are not as stated.
    """
    if fit not in FITS:
        raise DataError(f"fit must be one of {', '.join(FITS)}, got {fit!r}.")
    if channels not in CHANNELS or size < 1:
        raise DataError(f"size must be positive and channels 1 or 3, got size={size}, channels={channels}.")
    if isinstance(images, np.ndarray):
        _check_uint8(images, ndim=4)
        if len(images) == 0:
            raise DataError("There are no images to prepare.")
        resized, note = _fit_batch(_to_channels(images, channels), size, fit)
        steps = [_channel_note(images.shape[3], channels), note]
        return resized, [step for step in steps if step]

    if len(images) == 0:
        raise DataError("There are no images to prepare.")
    out = np.empty((len(images), size, size, channels), np.uint8)
    steps = Counter()
    for i, image in enumerate(images):
        _check_uint8(image, ndim=3)
        out[i : i + 1], note = _fit_batch(_to_channels(image[None], channels), size, fit)
        steps.update(step for step in (_channel_note(image.shape[2], channels), note) if step)
    return out, summarise(steps, len(images))


def frame(height: int, width: int, *, size: int, fit: str) -> tuple[float, float, float, float]:
    """Which part of an image (height, width) the size x size square of `prepare` shows: left, top, right, bottom in its pixels.

    With "pad" it reaches beyond the image, where the square is black. Column c of the square, from its left to its right edge,
    lies at left + (right - left) * c / size and that of c + 1; rows likewise. Raises `DataError` for an unknown fit.
    """
    if fit not in FITS:
        raise DataError(f"fit must be one of {', '.join(FITS)}, got {fit!r}.")
    if (height, width) == (size, size) or fit == "stretch":
        return 0.0, 0.0, float(width), float(height)
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return float(left), float(top), float(left + side), float(top + side)
    new_height, new_width = _padded(height, width, size)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    across, down = width / new_width, height / new_height
    return -left * across, -top * down, (size - left) * across, (size - top) * down


def _padded(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width that an image is brought to before it is padded."""
    longest = max(height, width)
    if size * 3 / 4 <= longest <= size:
        return height, width
    return max(1, round(height * size / longest)), max(1, round(width * size / longest))


def summarise(steps: Counter[str], total: int, limit: int = 3) -> list[str]:
    """Notes with the number of images they are about; beyond `limit` kinds, the rest are only counted."""
    if total == 1:
        return list(steps)
    ranked = steps.most_common()
    lines = [step if count == total else f"{count} of {total} images: {step}" for step, count in ranked[:limit]]
    if len(ranked) > limit:
        rest = sum(count for _, count in ranked[limit:])
        lines.append(f"and {len(ranked) - limit} other adjustments of the kind, on {rest} images")
    return lines


def _check_uint8(images: np.ndarray, ndim: int) -> None:
    axes = "(N, H, W, C)" if ndim == 4 else "(H, W, C)"
    ok = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == ndim
    if not ok or images.shape[-1] not in CHANNELS or 0 in images.shape[-3:]:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"Images must be uint8 {axes} with 1 or 3 channels, got {got}.")


def _to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    if images.shape[3] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for image, target in zip(images, grey):  # one by one, for photographs are large
        target[..., 0] = Image.fromarray(image).convert("L")
    return grey


def _channel_note(have: int, want: int) -> str:
    if have == want:
        return ""
    return "grey repeated to 3 channels" if want == 3 else "colour converted to grey (ITU-R 601 luma)"


def _fit_batch(images: np.ndarray, size: int, fit: str) -> tuple[np.ndarray, str]:
    """(N, H, W, C) → (N, size, size, C) and the note ("" when nothing was done)."""
    height, width = images.shape[1:3]
    if (height, width) == (size, size):
        return images, ""
    source, target = f"{width}×{height}", f"{size}×{size}"
    if fit == "stretch":
        aspect = "" if height == width else " without keeping the aspect"
        return _resize(images, size, size), f"{source} {_verb(height, width, size)} to {target}{aspect}"
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = images[:, top : top + side, left : left + side]
        cropped = "" if height == width else f"cropped to the central {side}×{side}"
        resized = "" if side == size else f"{_verb(side, side, size)} to {target}"
        return _resize(square, size, size), f"{source} {', then '.join(filter(None, (cropped, resized)))}"
    new_height, new_width = _padded(height, width, size)
    if (new_height, new_width) == (height, width):
        return _pad(images, size), f"{source} padded with black to {target}"
    padded = "" if height == width else f", then padded with black to {target}"
    note = f"{source} {_verb(height, width, size)} to {new_width}×{new_height}{padded}"
    return _pad(_resize(images, new_height, new_width), size), note


def _verb(height: int, width: int, size: int) -> str:
    return "resized (antialiased)" if max(height, width) > size else "enlarged"


def _resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    if images.shape[1:3] == (height, width):
        return images
    out = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for target, image in zip(out, images, strict=True):
        target[...] = np.asarray(to_picture(image).resize((width, height), _FILTER)).reshape(target.shape)
    return out


def _pad(images: np.ndarray, size: int) -> np.ndarray:
    n, height, width, channels = images.shape
    top, left = (size - height) // 2, (size - width) // 2
    out = np.zeros((n, size, size, channels), np.uint8)
    out[:, top : top + height, left : left + width] = images
    return out
