"""One encoded image from an untrusted file: decoded within limits, or refused in plain words."""

import errno
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from ama_core.errors import DataError
from ama_core.storage.files import read_regular

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"]
)
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners use of the 16 in which they store a value
ORIENTATION, BITS, SAMPLE_FORMAT, MAX_SAMPLE = 0x0112, 258, 339, 281  # tags of EXIF and TIFF
_SAVE_AS = "Save it with 8 or 16 bits per channel, as unsigned integers."


def decode_image(source: bytes | str | Path) -> tuple[np.ndarray, list[str]]:
    """An encoded image as uint8 (H, W, C), C 1 for grey and 3 otherwise, and notes on what was changed.

    Of several frames the first is taken; transparency is laid on white, as most viewers show it; 16 bits are scaled
    to 8, in a TIFF file by the bits that are in use; CMYK and other colour spaces become RGB; the EXIF orientation is applied.

    Raises `DataError` for unreadable, truncated, oversized or unsupported files.
    """
    if isinstance(source, bytes):
        name, data = "The image", source
    else:
        name, data = f"'{Path(source).name}'", _read(Path(source))
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB. Reduce it first.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(
                    f"{name} has {picture.width}×{picture.height} pixels; the limit is {MAX_PIXELS // 10**6} million. "
                    "Reduce it first."
                )
            return _decode(picture)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        if kind := _tiff_kind(data):
            raise DataError(f"{name} is a TIFF file of {kind} pixels, which cannot be read here. {_SAVE_AS}") from None
        raise DataError(f"{name} is not an image that can be read here ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels. Reduce it first.") from None
    except Exception as error:  # damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error …
        raise DataError(f"{name} is damaged or incomplete ({error}). Save or copy it again.") from error


def picture_array(picture: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 (H, W, C), in the way of `decode_image`. Raises `DataError`."""
    try:
        return _decode(picture)[0]
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"The image is damaged or incomplete ({error}).") from error


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(f"'{path.name}' is larger than {MAX_FILE_BYTES >> 20} MiB. Reduce it first.") from None
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}). Check the path.") from None


def _decode(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    notes = []
    kind, tags = picture.format, _tiff_tags(picture)
    if getattr(picture, "is_animated", False):
        notes.append("several frames: only the first is used")
        picture.seek(0)
    picture.load()
    if picture.getexif().get(ORIENTATION, 1) in range(2, 9):  # others exist in files and mean nothing
        notes.append("turned upright as its EXIF orientation says")
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and kind in ("PNG", "PPM")):  # both of these fill 16 bits
        values = np.asarray(picture).astype(np.uint32)
        most, note = _range(values, tags) if kind == "TIFF" else (65535, "16 bits per pixel scaled to 8")
        notes.append(note)
        return ((np.minimum(values, most) * 255 + most // 2) // most).astype(np.uint8)[..., None], notes
    if mode in ("I", "F"):
        described = _described(tags) or ("integer" if mode == "I" else "floating-point")
        low, high = picture.getextrema()
        raise DataError(f"The image has {described} pixels (here {low:g} to {high:g}), whose range is unknown. {_SAVE_AS}")
    if tags.get(BITS, (8,))[0] == 16 and kind == "TIFF":  # of several channels Pillow reads the upper halves alone
        if max(high for _, high in _bands(picture)) < 16:
            raise DataError(
                "The image uses the lower 12 bits, or fewer, of 16 per channel, but only the upper 8 can be read. Save it with "
                "8 bits per channel."
            )
        notes.append("16 bits per channel scaled to 8")
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getextrema()[3][0] < 255:
            notes.append("transparency laid on white")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    elif mode not in ("1", "L", "P", "RGB", "RGBX"):
        notes.append(f"{mode} colours converted to RGB")
    array = np.asarray(picture.convert(target))
    return array[..., None] if target == "L" else array, notes


def _range(values: np.ndarray, tags: dict[int, tuple[int, ...]]) -> tuple[int, str]:
    """The value that is white in a grey TIFF file of 16 bits, and the note that says how it was found."""
    bits, most = tags.get(BITS, (16,))[0], tags.get(MAX_SAMPLE, (0,))[0]
    largest = int(values.max())
    if 8 < bits < 16 and largest < 2**bits:
        return 2**bits - 1, f"{bits} bits per pixel scaled to 8"
    if 255 <= most <= 65535 and largest <= most:
        return most, f"16 bits per pixel scaled to 8 ({most} is white, as the file says)"
    bits = next(depth for depth in DEPTHS if largest < 2**depth)
    if bits == 16:
        return 65535, "16 bits per pixel scaled to 8"
    return 2**bits - 1, f"16 bits per pixel scaled to 8, as {bits}-bit data: the largest value is {largest}"


def _bands(picture: Image.Image) -> list[tuple[int, int]]:
    """Lowest and highest value of every channel."""
    found = picture.getextrema()
    return [found] if isinstance(found[0], (int, float)) else list(found)


def _tiff_tags(picture: Image.Image) -> dict[int, tuple[int, ...]]:
    """The tags of a TIFF file that tell how its values are stored; empty for any other."""
    return _stored_as(getattr(picture, "tag_v2", {})) if picture.format == "TIFF" else {}


def _stored_as(directory) -> dict[int, tuple[int, ...]]:
    found = {}
    for tag in (BITS, SAMPLE_FORMAT, MAX_SAMPLE):
        values = directory.get(tag)
        values = values if isinstance(values, tuple) else (values,)
        if values and all(isinstance(value, int) for value in values):
            found[tag] = values
    return found


def _described(tags: dict[int, tuple[int, ...]]) -> str:
    """Such as "16-bit signed integer"; "" where the tags do not say."""
    kinds = {1: "unsigned integer", 2: "signed integer", 3: "floating-point", 5: "complex integer", 6: "complex"}
    kind = kinds.get(tags.get(SAMPLE_FORMAT, (1,))[0])
    return f"{tags[BITS][0]}-bit {kind}" if kind and BITS in tags else ""


def _tiff_kind(data: bytes) -> str:
    """What the pixels of a TIFF file are that Pillow does not know; "" where it is none, or says nothing of them."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return ""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return _described(_stored_as(directory))
    except Exception:  # damaged files make Pillow raise nearly anything
        return ""
