"""Files that nobody vouches for: every kind is decoded rightly or refused in plain words."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ama_core.data import count_images, decode, decode_image, files, iter_images, load_any, picture_array, read_npz
from ama_core.errors import DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_kinds_keep_every_pixel(kind, tmp_path):
    array, notes = decode_image(encoded(COLOUR, kind))
    assert (array == COLOUR).all() and notes == []
    (tmp_path / "a").write_bytes(encoded(COLOUR, kind))  # the content decides, not the name
    assert (decode_image(tmp_path / "a")[0] == COLOUR).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_kinds(kind):
    array, notes = decode_image(encoded(np.full((16, 16, 3), 90, np.uint8), kind, quality=95))
    assert array.shape == (16, 16, 3) and abs(array.astype(int) - 90).max() <= 2 and notes == []


def test_grey_stays_one_channel():
    assert (decode_image(encoded(COLOUR[..., 0]))[0][..., 0] == COLOUR[..., 0]).all()
    one_bit, _ = decode_image(encoded(Image.fromarray(COLOUR[..., 0]).convert("1")))
    assert one_bit.shape == (20, 30, 1) and set(np.unique(one_bit)) == {0, 255}


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 128, 256, 257, 32768, 65278, 65535]], np.uint16)
    array, notes = decode_image(encoded(values))
    assert array[0, :, 0].tolist() == np.rint(values[0] / 257).astype(int).tolist()
    assert notes == ["16 bits per pixel scaled to 8"]
    assert decode_image(encoded(values, "TIFF"))[0][0, -1, 0] == 255


def tiff(values, bits, sample_format=1, **tags):
    """An uncompressed TIFF file of any kind of pixels, as Pillow writes few: values (H, W) or (H, W, C), or packed bytes."""
    height, width = tags.pop("size", values.shape[:2])
    channels = values.shape[2] if values.ndim == 3 else 1
    data = values.tobytes()
    entries = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 2 if channels == 3 else 1,
        273: 8,
        277: channels,
        278: height,
        279: len(data),
        339: sample_format,
        **({281: tags["largest"]} if tags else {}),
    }
    directory = b"".join(
        struct.pack("<HHII", tag, 4, 1, value) if tag in (273, 279) else struct.pack("<HHIHH", tag, 3, 1, value, 0)
        for tag, value in sorted(entries.items())
        if not (channels == 3 and tag in (258, 339))
    )
    count = len(directory) // 12
    if channels == 3:  # three numbers do not fit into an entry
        at = 8 + len(data) + 2 + 12 * (count + 2) + 4
        more = {258: struct.pack("<HHII", 258, 3, 3, at), 339: struct.pack("<HHII", 339, 3, 3, at + 6)}
        rows = {struct.unpack("<H", directory[i : i + 2])[0]: directory[i : i + 12] for i in range(0, len(directory), 12)}
        directory = b"".join(row for _, row in sorted((rows | more).items()))
        tail = struct.pack("<6H", *[bits] * 3, *[sample_format] * 3)
    else:
        tail = b""
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return head + data + struct.pack("<H", len(directory) // 12) + directory + struct.pack("<I", 0) + tail


@pytest.mark.parametrize(
    ("white", "most", "note"),
    [
        (255, 255, "as 8-bit data: the largest value is 255"),
        (1000, 1023, "as 10-bit data"),
        (4000, 4095, "as 12-bit data: the largest value is 4000"),
        (16000, 16383, "as 14-bit data"),
        (65000, 65535, ""),
    ],
)
def test_a_tiff_file_is_scaled_by_the_bits_that_are_in_use(white, most, note):
    values = np.array([[0, white // 2, white]], np.uint16)
    array, notes = decode_image(tiff(values, 16))
    assert array[0, :, 0].tolist() == np.rint(values[0].astype(float) * 255 / most).astype(int).tolist()
    assert len(notes) == 1 and notes[0].startswith("16 bits per pixel scaled to 8") and note in notes[0]


def test_a_tiff_file_that_says_its_range_is_scaled_by_that():
    dark = np.array([[0, 300, 900]], np.uint16)
    array, notes = decode_image(tiff(dark, 16, largest=4095))
    assert array[0, :, 0].tolist() == [0, 19, 56] and "4095 is white, as the file says" in notes[0]
    assert decode_image(tiff(dark, 16, largest=500))[0][0, 2, 0] > 200  # it lies: brighter than it says
    packed = np.frombuffer(bytes([0x0F, 0xF8, 0x00]), np.uint8)  # two values of 12 bits: 255 and 2048
    array, notes = decode_image(tiff(packed, 12, size=(1, 2)))
    assert array[0, :, 0].tolist() == [16, 128] and notes == ["12 bits per pixel scaled to 8"]


def test_sixteen_bits_in_other_files_fill_their_range():
    for kind in ("PNG", "PPM"):
        array, notes = decode_image(encoded(np.array([[0, 4095, 65535]], np.uint16), kind))
        assert array[0, :, 0].tolist() == [0, 16, 255] and notes == ["16 bits per pixel scaled to 8"]


def test_sixteen_bits_per_channel():
    values = np.array([[[0, 256, 65535], [65535, 0, 0]]], np.uint16)
    array, notes = decode_image(tiff(values, 16))
    assert array[0].tolist() == [[0, 1, 255], [255, 0, 0]] and notes == ["16 bits per channel scaled to 8"]
    with pytest.raises(DataError, match="lower 12 bits"):
        decode_image(tiff(values // 16, 16))


@pytest.mark.parametrize(
    ("dtype", "sample_format", "said"),
    [
        (np.float32, 3, "32-bit floating-point"),
        (np.float64, 3, "64-bit floating-point"),
        (np.float16, 3, "16-bit floating-point"),
        (np.int16, 2, "16-bit signed integer"),
        (np.int32, 2, "32-bit signed integer"),
        (np.uint32, 1, "32-bit unsigned integer"),
    ],
)
def test_pixels_of_unknown_range_are_refused_for_what_they_are(dtype, sample_format, said):
    with pytest.raises(DataError, match=f"{said} pixels.*unsigned integers"):
        decode_image(tiff(np.ones((4, 4), dtype), 8 * np.dtype(dtype).itemsize, sample_format))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    extra = {"lossless": True} if kind == "WEBP" else {}
    array, notes = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **extra))
    assert (array == [255, 0, 0]).all() and notes == ["several frames: only the first is used"]


def test_transparency_is_laid_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = [10, 20, 30, 255]
    rgba[0, 1] = [0, 0, 0, 128]
    array, notes = decode_image(encoded(rgba))
    assert array.shape == (2, 2, 3) and notes == ["transparency laid on white"]
    assert array[0, 0].tolist() == [10, 20, 30] and array[1, 1].tolist() == [255] * 3 and abs(array[0, 1, 0] - 127) <= 1
    assert decode_image(encoded(np.dstack([COLOUR, np.full((20, 30), 255, np.uint8)])))[1] == []

    grey_alpha = Image.fromarray(rgba).convert("LA")
    assert decode_image(encoded(grey_alpha))[0].shape == (2, 2, 1)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((0, 0), 0)
    array, notes = decode_image(encoded(palette, transparency=0))
    assert array[0, 0].tolist() == [255] * 3 and array[1, 1].tolist() == [200, 0, 0] and len(notes) == 1


def test_cmyk_becomes_rgb():
    array, notes = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert array.shape == (8, 8, 3) and array[0, 0, 0] > 200 and array[0, 0, 1] < 60
    assert notes == ["CMYK colours converted to RGB"]


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    array, notes = decode_image(encoded(COLOUR, exif=exif))
    assert (array == np.rot90(COLOUR, -1)).all() and "upright" in notes[0]
    exif[0x0112] = 99
    array, notes = decode_image(encoded(COLOUR, exif=exif))
    assert (array == COLOUR).all() and notes == []  # there is no such orientation
    exif[0x0112] = 6
    values = np.array([[0, 65535]], np.uint16)  # 16 bits and turned at once
    assert decode_image(encoded(values, exif=exif))[0][:, 0, 0].tolist() == [0, 255]


def test_one_pixel_is_an_image():
    assert decode_image(encoded(COLOUR[:1, :1]))[0].shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(kind):
    data = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    for keep in (len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(DataError, match="damaged|not an image"):
            decode_image(data[:keep])


@pytest.mark.parametrize("data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0", b"\x00" * 100], ids=repr)
def test_what_is_no_image_is_refused(data):
    with pytest.raises(DataError, match="not an image|damaged"):
        decode_image(data)


def huge_png(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8001, 10_000, 60_000])  # beyond our limit, Pillow's warning and Pillow's error
def test_decompression_bombs_are_refused_before_they_are_decoded(side):
    with pytest.raises(DataError, match="million"):
        decode_image(huge_png(side, side))


def test_big_files_and_missing_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="Check the path"):
        decode_image(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="cannot be read"):
        decode_image(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(COLOUR))
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 100)
    for source in (tmp_path / "a.png", encoded(COLOUR)):
        with pytest.raises(DataError, match="larger than"):
            decode_image(source)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow grumbles at damaged TIFF tags
@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]), st.data())
def test_damage_anywhere_gives_an_image_or_a_data_error(kind, data):
    content = bytearray(encoded(COLOUR, kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        array, _ = decode_image(bytes(content))
    except DataError:
        return
    assert array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 3)


# Folders and archives


def test_a_folder_is_walked_in_order_and_reports_what_is_no_image(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/1.png", "a.png", ".secret.png", ".hidden/x.png", "c.PNG"):
        (tmp_path / name).write_bytes(encoded(COLOUR))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "bad.jpg").write_bytes(b"hello")
    found = list(iter_images([tmp_path]))
    assert [item.path[len(str(tmp_path)) + 1 :] for item in found] == [
        "a.png",
        "b/1.png",
        "bad.jpg",
        "c.PNG",
        "notes.txt",
    ]
    assert [item.error is None for item in found] == [True, True, False, True, False]
    assert all((item.image is None) == (item.error is not None) for item in found)


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="empty"):
        list(iter_images([tmp_path]))
    with pytest.raises(DataError, match="does not exist"):
        list(iter_images([tmp_path / "nowhere"]))


def test_uploads_are_pairs_of_name_and_bytes():
    batch = npz_bytes(images=np.stack([COLOUR, COLOUR]))
    found = list(iter_images([("a.png", encoded(COLOUR)), ("b.png", b"hello"), ("c.npz", batch), ("d.npz", b"hello")]))
    assert [(item.path, item.index) for item in found] == [
        ("a.png", 0),
        ("b.png", 0),
        ("c.npz", 0),
        ("c.npz", 1),
        ("d.npz", 0),
    ]
    assert [item.error is None for item in found] == [True, False, True, True, False]


def test_zip_members_are_read_in_order_and_nothing_is_written(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("z.png", "../escape.png", "__MACOSX/._z.png", "folder/b.png"):
            archive.writestr(name, encoded(COLOUR))
        archive.writestr("readme.md", "hello")
        archive.writestr("inner.zip", "hello")
    found = {item.path.removeprefix(f"{tmp_path}/a.zip/"): item.error for item in iter_images([tmp_path / "a.zip"])}
    assert list(found) == ["../escape.png", "folder/b.png", "inner.zip", "readme.md", "z.png"]
    assert [name for name, error in found.items() if error] == ["inner.zip", "readme.md"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"] and not (tmp_path.parent / "escape.png").exists()


def test_bad_zip_files_are_reported(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(b"hello")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.png", encoded(COLOUR))
        archive.writestr("b.png", encoded(COLOUR))
    damaged = bytearray((tmp_path / "one.zip").read_bytes())
    damaged[60] ^= 255
    (tmp_path / "one.zip").write_bytes(damaged)
    a, empty, first, second = iter_images([tmp_path])
    assert "not a readable .zip" in a.error and "0 files" in empty.error
    assert "damaged" in first.error and second.error is None  # one bad member does not end the walk
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 100)
    assert all("larger" in item.error for item in iter_images([tmp_path / "one.zip"]))


def tar_of(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_shards_of_webdataset_are_read_as_images_alone(tmp_path):
    image = encoded(COLOUR)
    names = ("b/000001.left.jpg", "b/000001.cls", "a.json", "a.png", "notes.txt", ".hidden.png", "../escape.png")
    path = tar_of(tmp_path / "shard-000.tar", dict.fromkeys(names, image))
    with tarfile.open(path, "a") as archive:  # neither is followed
        for name, kind in (("link.png", tarfile.SYMTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = list(iter_images([path]))
    shown = [item.path.removeprefix(f"{path}/") for item in found]
    assert shown == ["../escape.png", "a.png", "b/000001.left.jpg", "notes.txt"]
    assert [item.error is None for item in found] == [True, True, True, False] and count_images([path]) == 4
    np.testing.assert_array_equal(found[1].image, decode_image(image)[0])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    uploaded = list(iter_images([("s.tar", path.read_bytes())]))
    assert [item.error for item in uploaded] == [item.error for item in found]


def test_bad_tar_files_are_reported(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(b"hello" * 300)
    tar_of(tmp_path / "empty.tar", {})
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(tar_of(tmp_path / "inner", {"a.png": b""}), "a.png")
    (tmp_path / "inner").unlink()
    short = tar_of(tmp_path / "short.tar", {"a.png": encoded(COLOUR), "b.png": encoded(COLOUR)})
    short.write_bytes(short.read_bytes()[:700])
    a, empty, packed, *cut = iter_images([tmp_path])
    assert "not a readable .tar" in a.error and "0 files" in empty.error and "compressed" in packed.error
    assert cut and all(item.error for item in cut)
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 100)
    assert "larger" in next(iter_images([tar_of(tmp_path / "one.tar", {"a.png": encoded(COLOUR)})])).error


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_npz_files_with_and_without_labels(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes(images=COLOUR[None], labels=np.array([7], np.uint8)))
    images, labels = read_npz(path)
    assert (images[0] == COLOUR).all() and labels.tolist() == [7] and labels.dtype == np.int64
    path.write_bytes(npz_bytes(images=COLOUR))  # three axes: grey images of 30 by 3
    images, labels = read_npz(path)
    assert images.shape == (20, 30, 3, 1) and labels.tolist() == [0] * 20


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.array([{"a": 1}], object)}, "pickled objects"),
        ({"images": COLOUR[None], "labels": np.array([None])}, "pickled objects"),
        ({"images": COLOUR[None].astype(np.float32)}, "float32"),
        ({"images": COLOUR[None, ..., :2]}, "C = 1 or 3"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "uint8"),
        ({"images": np.uint8(3)}, "uint8"),
        ({"images": COLOUR[None], "labels": np.zeros(2, int)}, "for 1 images"),
        ({"images": COLOUR[None], "labels": np.zeros(1)}, "float64"),
        ({"pictures": COLOUR[None]}, "no array `images`.*pictures"),
    ],
)
def test_npz_files_of_another_kind_are_refused(arrays, message, tmp_path):
    (tmp_path / "a.npz").write_bytes(npz_bytes(**arrays))
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "a.npz")
    (item,) = iter_images([tmp_path / "a.npz"])
    # A walk passes the labels over, whatever they are.
    assert (item.error is None and np.array_equal(item.image, COLOUR)) if "labels" in arrays else item.error


def test_damaged_and_lying_npz_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    whole = npz_bytes(images=COLOUR[None])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 32, 32, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue() + b"short")
    lying = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"hello", b"", lying):
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_npz(path)
    path.write_bytes(whole)
    monkeypatch.setattr(files, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(DataError, match="unpacks to more"):
        read_npz(path)
    with pytest.raises(DataError, match="does not exist"):
        read_npz(tmp_path / "nowhere.npz")


def test_npz_rows_are_unpacked_one_after_the_other_and_damage_ends_them(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 7), dtype=np.uint8)
    (tmp_path / "a.npz").write_bytes(npz_bytes(images=images))
    found = list(iter_images([tmp_path]))
    assert [item.index for item in found] == list(range(40))
    assert np.array_equal(np.stack([item.image[..., 0] for item in found]), images)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 9, 7)})
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + images.tobytes())
    found = list(iter_images([tmp_path / "lies.npz"]))
    assert len(found) == 41 and "ends at image 40 of 1000000000" in found[-1].error


@pytest.mark.parametrize("shape", [(5, 9, 7), (5, 9, 7, 1), (5, 9, 7, 3)])
def test_fortran_order_is_read_alike_whole_and_row_by_row(shape, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "f.npz").write_bytes(npz_bytes(images=np.asfortranarray(images)))
    whole, _ = read_npz(tmp_path / "f.npz")
    assert np.array_equal(whole.reshape(shape), images) and whole.flags.c_contiguous
    assert np.array_equal(np.stack([item.image for item in iter_images([tmp_path / "f.npz"])]), whole)
    monkeypatch.setattr(files, "MAX_ARRAY_BYTES", 100)  # such an array must be in memory as a whole
    (item,) = iter_images([tmp_path / "f.npz"])
    assert "ascontiguousarray" in item.error


@pytest.mark.parametrize("shape", [(-1, 32, 32, 3), (2, -32, -32, 3), (2, 32, -1)])
def test_a_header_with_a_negative_size_is_refused(shape, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(2 * 32 * 32 * 3))
    (item,) = iter_images([tmp_path / "a.npz"])
    assert item.image is None and str(shape) in item.error and count_images([tmp_path / "a.npz"]) == 1
    with pytest.raises(DataError, match="uint8"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.zip"])
def test_only_regular_files_are_opened(name, tmp_path):
    """A pipe without a writer would be waited for, for ever."""
    os.mkfifo(tmp_path / name)
    for source in (tmp_path / name, Path("/dev/zero")):
        (item,) = iter_images([source]) if source.suffix else [files._attempt("x", source)]
        assert item.image is None and "not a regular file" in item.error
    assert count_images([tmp_path / name]) == 1
    with pytest.raises(DataError, match="not a regular file"):
        read_npz(tmp_path / name)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "real")
    (tmp_path / "real").write_bytes(encoded(COLOUR))
    assert [item.error for item in iter_images([tmp_path / "in"])] == [None]  # a link to a file is read


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(COLOUR))
    monkeypatch.chdir(tmp_path)
    for read in (lambda: list(iter_images([""])), lambda: load_any("", "ood")):
        with pytest.raises(DataError, match="path is empty"):
            read()
    assert len(list(iter_images(["."]))) == 1


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(encoded(COLOUR))
    scandir = os.scandir

    def refusing(folder):
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    first, second = iter_images([tmp_path])
    assert first.error is None and second.path.endswith("closed") and "permissions" in second.error
    (item,) = iter_images([tmp_path / "closed"])
    assert "permissions" in item.error


def test_images_are_counted_by_names_and_tables_of_contents(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(COLOUR))
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "b.npz").write_bytes(npz_bytes(images=np.zeros((5, 4, 4, 1), np.uint8)))
    (tmp_path / "bad.npz").write_bytes(b"hello")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for name in ("x.png", "y.txt", "__MACOSX/z.png"):
            archive.writestr(name, b"")
    assert count_images([tmp_path]) == 1 + 5 + 1 + 2 == len(list(iter_images([tmp_path])))
    assert count_images([("a.png", b""), ("b.npz", b"")]) == 2


def test_a_circle_of_links_is_not_walked(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(COLOUR))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [item.path for item in iter_images([tmp_path]) if not item.error] == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "EXIF"])
def test_a_picture_is_read_as_its_file_is(tmp_path, rng, mode):
    values = rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode == "EXIF":
        picture = Image.fromarray(values[..., :3])
        picture.getexif()[0x0112] = 6  # to be turned by a quarter
    else:
        picture = Image.fromarray(values, "RGBA").convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(file, exif=picture.getexif())
    expected, _ = decode_image(file)
    np.testing.assert_array_equal(picture_array(picture), expected)
    with Image.open(file) as opened:
        np.testing.assert_array_equal(picture_array(opened), expected)


def test_a_folder_that_is_removed_while_it_is_walked_is_no_error(tmp_path, monkeypatch):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encoded(COLOUR))
    scandir = os.scandir

    def vanishing(folder):
        if os.path.basename(folder) == "a":
            raise FileNotFoundError(2, "No such file or directory", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert [os.path.basename(item.path) for item in iter_images([tmp_path])] == ["2.png"]
