"""Images as pictures of Pillow, and as PNG and JPEG files; everywhere uint8 (H, W, C), C 1 or 3."""

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def to_picture(image: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) as a grey (C = 1) or a colour picture."""
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))


def thumbnail(image: np.ndarray, largest: int = 192) -> np.ndarray:
    """uint8 (H, W, C), reduced to at most `largest` pixels a side; C as it was."""
    picture = to_picture(image)
    picture.thumbnail((largest, largest))
    return np.asarray(picture).reshape(picture.height, picture.width, image.shape[2])


def png(image: np.ndarray, **notes: str) -> bytes:
    """uint8 (H, W, C) as a PNG file; notes: texts that it carries, by keyword."""
    info, file = PngInfo(), io.BytesIO()
    for keyword, text in notes.items():
        info.add_text(keyword, text)
    to_picture(image).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """uint8 (H, W, C) as a JPEG file of a quality from 1 to 95."""
    file = io.BytesIO()
    to_picture(image).save(file, "JPEG", quality=quality)
    return file.getvalue()
