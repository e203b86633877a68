"""One preprocessing for both sides: what comes in is checked, and what was done is said."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ama_core.data import check_images, prepare
from ama_core.errors import DataError

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# check_images


def test_uint8_arrays_and_tensors_of_either_range_agree():
    images = noise(3, 8, 9, 3)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert check_images(images) is images
    for same in (tensor, tensor.float() / 255, tensor.double() / 255, images / 255, (images / 255).astype(np.float32)):
        assert (check_images(same) == images).all()
    half = check_images((tensor.float() / 255).bfloat16().requires_grad_())
    assert half.dtype == np.uint8 and abs(half.astype(int) - images).max() <= 1


def test_floats_are_rounded_to_the_nearest_level():
    assert check_images(np.array([0, 0.499 / 255, 0.51 / 255, 1.0]).reshape(1, 2, 2, 1)).ravel().tolist() == [
        0,
        0,
        1,
        255,
    ]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (noise(8, 8, 3), r"4 axes.*images\[None\]"),
        (noise(8, 8), "4 axes"),
        (noise(2, 3, 8, 8), r"channels.*Axis 1 looks like"),
        (torch.zeros(2, 8, 8, 3), r"channels.*Axis 3 looks like"),
        (noise(2, 8, 8, 4), "1 .grey. or 3"),
        (noise(0, 8, 8, 3), "no image"),
        (noise(2, 0, 8, 3), "no image"),
        (np.zeros((1, 8, 8, 1), np.int64), "got int64"),
        (np.zeros((1, 8, 8, 1), bool), "got bool"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int32), "got int32"),
        (np.full((1, 8, 8, 1), np.nan), "NaN"),
        (torch.full((1, 1, 8, 8), torch.inf), "NaN or infinite"),
        (np.full((1, 8, 8, 1), 255.0), r"\[0, 1\], got \[255, 255\]"),
        (torch.full((1, 1, 8, 8), -1.0), "Undo any normalisation"),
        ([[1, 2]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_wrong_batches_are_refused_in_plain_words(images, message):
    with pytest.raises(DataError, match=message):
        check_images(images)


# prepare


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_images_of_the_right_shape_pass_untouched(fit):
    images = noise(4, 32, 32, 3)
    out, notes = prepare(images, size=32, channels=3, fit=fit)
    assert (out == images).all() and notes == []


def test_28_becomes_32_by_padding_with_black():
    images = noise(4, 28, 28, 1)
    out, notes = prepare(images, size=32, channels=1, fit="pad")
    assert (out[:, 2:30, 2:30] == images).all() and out.sum() == images.sum()
    assert notes == ["28×28 padded with black to 32×32"]


def test_pad_keeps_the_aspect_and_enlarges_only_small_images():
    small, notes = prepare(np.full((1, 4, 8, 1), 200, np.uint8), size=32, channels=1, fit="pad")
    assert (small[0, 8:24] == 200).all() and not small[0, :8].any() and not small[0, 24:].any()
    assert notes == ["8×4 enlarged to 32×16, then padded with black to 32×32"]
    large, notes = prepare(np.full((1, 100, 50, 1), 200, np.uint8), size=32, channels=1, fit="pad")
    assert (large[0, :, 8:24] == 200).all() and not large[0, :, :8].any()
    assert notes == ["50×100 resized (antialiased) to 16×32, then padded with black to 32×32"]
    assert prepare(noise(1, 23, 23, 1), size=32, channels=1, fit="pad")[1] == ["23×23 enlarged to 32×32"]
    assert prepare(noise(1, 24, 24, 1), size=32, channels=1, fit="pad")[1] == ["24×24 padded with black to 32×32"]


def test_crop_takes_the_central_square():
    image = np.zeros((1, 48, 64, 3), np.uint8)
    image[:, :, 8:56] = 77
    out, notes = prepare(image, size=32, channels=3, fit="crop")
    assert (out == 77).all()
    assert notes == ["64×48 cropped to the central 48×48, then resized (antialiased) to 32×32"]
    exact = noise(1, 32, 50, 1)
    out, notes = prepare(exact, size=32, channels=1, fit="crop")
    assert (out == exact[:, :, 9:41]).all() and notes == ["50×32 cropped to the central 32×32"]


def test_stretch_fills_the_square():
    out, notes = prepare(np.full((1, 10, 90, 1), 9, np.uint8), size=32, channels=1, fit="stretch")
    assert (out == 9).all() and notes == ["90×10 resized (antialiased) to 32×32 without keeping the aspect"]


def test_shrinking_is_antialiased():
    checkers = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None]
    out, _ = prepare(checkers, size=32, channels=1, fit="stretch")
    assert abs(out.astype(int) - 127).max() < 8  # sampling without a kernel would give 0 or 255


def test_colour_becomes_luma_by_itu_r_601():
    images = noise(2, 32, 32, 3)
    grey, notes = prepare(images, size=32, channels=1, fit="pad")
    luma = images @ np.array([0.299, 0.587, 0.114])
    assert grey.dtype == np.uint8 and abs(grey[..., 0] - luma).max() < 0.51
    assert notes == ["colour converted to grey (ITU-R 601 luma)"]
    colour, notes = prepare(grey, size=32, channels=3, fit="pad")
    assert (colour == grey).all() and notes == ["grey repeated to 3 channels"]


def test_a_mixed_list_says_what_happened_to_how_many():
    images = [noise(28, 28, 1), noise(28, 28, 1), noise(32, 32, 3), noise(1, 1, 1)]
    out, notes = prepare(images, size=32, channels=3, fit="pad")
    assert out.shape == (4, 32, 32, 3) and (out[2] == images[2]).all() and (out[3] == images[3]).all()
    assert "3 of 4 images: grey repeated to 3 channels" in notes
    assert "2 of 4 images: 28×28 padded with black to 32×32" in notes
    many, notes = prepare([noise(40 + i, 40, 1) for i in range(20)], size=32, channels=1, fit="crop")
    assert len(many) == 20 and len(notes) == 4 and "other adjustments" in notes[-1]


@settings(max_examples=40)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 3]),
    st.sampled_from(["pad", "crop", "stretch"]),
    st.integers(1, 40),
)
def test_a_batch_gives_what_its_images_give_alone(height, width, have, want, fit, size):
    images = np.random.default_rng(height * 71 + width).integers(0, 256, (3, height, width, have), dtype=np.uint8)
    batch, _ = prepare(images, size=size, channels=want, fit=fit)
    listed, _ = prepare(list(images), size=size, channels=want, fit=fit)
    alone = np.concatenate([prepare(image[None], size=size, channels=want, fit=fit)[0] for image in images])
    assert batch.shape == (3, size, size, want) and batch.dtype == np.uint8
    assert (batch == alone).all() and (batch == listed).all()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (noise(1, 8, 8, 1), {"fit": "fill"}, "fit must be one of"),
        (noise(1, 8, 8, 1), {"size": 0}, "size must be positive"),
        (noise(1, 8, 8, 1), {"channels": 2}, "channels 1 or 3"),
        (noise(1, 8, 8, 1).astype(float), {}, "uint8"),
        (noise(8, 8, 1), {}, r"\(N, H, W, C\)"),
        ([noise(8, 8)], {}, r"\(H, W, C\)"),
        ([noise(8, 0, 3)], {}, r"\(H, W, C\)"),
        ([noise(8, 8, 4)], {}, "1 or 3 channels"),
        (["a.png"], {}, "got str"),
        ([], {}, "no images"),
        (noise(0, 8, 8, 1), {}, "no images"),
    ],
)
def test_impossible_requests_are_refused(images, options, message):
    with pytest.raises(DataError, match=message):
        prepare(images, **{"size": 32, "channels": 1, "fit": "pad", **options})
