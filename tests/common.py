"""Places, a tiny configuration and small helpers that several tests share."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"
SAMPLES = ROOT / "tests" / "samples"  # a bundle and an interrupted run, as version 0.1.0 wrote them
# For tests of a real browser or of several processes. Where CI shares a machine with others, one of them may be held up for
# longer than a test can foresee: such a test runs once more then, and the summary names it.
REPEATED_IN_CI = pytest.mark.flaky(reruns=1, condition="CI" in os.environ)
REAL_DATA = Path(os.environ.get("AMA_DATA_DIR") or ROOT / "build" / "data").absolute()

TINY = dict(
    channels=1,
    fit="pad",
    nz=8,
    width_encoder=8,
    width_generator=8,
    width_critic=8,
    batch_size=16,
    n_critic=1,
    reg="hinge",
    epochs=1000,
    max_steps=12,
    lr=1e-3,
    precision="fp32",
)


def words(at: AppTest) -> str:
    """Everything that a page says in text, without Markdown's escapes."""
    kinds = (at.title, at.markdown, at.caption, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind).replace("\\", "")


def checked(at: AppTest):
    """The table of checked images of the page that checks; None where there is none."""
    return next((table.value for table in at.dataframe if "Name" in table.value), None)


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def save_pngs(folder: Path, images: np.ndarray) -> Path:
    """Grey images (N, S, S, 1) as 0.png, 1.png, … in a new folder."""
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    return folder
