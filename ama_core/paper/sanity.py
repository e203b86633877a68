"""Sanity rows: three scores that know nothing of AMA. Where one of them does as well, a figure of AMA's proves little.

`pixel mean` and `lossless length` are two-sided distances, |value - mean| / sd with both taken from the training images, so
that no direction is picked by looking at anomalies. `L2 autoencoder` is the squared error of E and G trained for nothing else.
All see the very images that the model sees: prepared, uint8 (N, S, S, c).
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, features

from ama_core.data import hold_out
from ama_core.detectors.ama.config import Config
from ama_core.detectors.ama.networks import Encoder, Generator
from ama_core.errors import DataError
from ama_core.tensors import BATCH, default_device, to_tensor
from ama_core.training.schedule import learning_rate

PIXEL_MEAN, LOSSLESS, L2 = "pixel mean", "lossless length", "L2 autoencoder"
SANITY = (PIXEL_MEAN, LOSSLESS, L2)
CODEC = "WebP" if features.check("webp") else "PNG"  # WebP's lossless mode packs small images tighter
LENGTH_SAMPLE = 5_000  # training images, drawn by the seed, behind mean and sd of the length

Score = Callable[[np.ndarray], np.ndarray]
"""uint8 images (N, S, S, c) to anomaly scores (N,) float64, larger = more anomalous."""


def pixel_mean(images: np.ndarray) -> np.ndarray:
    """Mean over all pixels and channels of each image, (N,) in 0..255."""
    return images.mean(axis=(1, 2, 3), dtype=np.float64)


def lossless_length(images: np.ndarray, codec: str = CODEC) -> np.ndarray:
    """Bytes (N,) of each image under a lossless codec of Pillow, `WebP` or `PNG`; grey images as grey."""
    options = {"lossless": True, "method": 2} if codec == "WebP" else {"optimize": True}
    lengths = np.empty(len(images))
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, codec, **options)
        lengths[i] = buffer.tell()
    return lengths


def two_sided(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """|values - mean| / sd, (N,), with mean and sd of the reference values (M,); sd 1 where they are all alike."""
    return np.abs(values - reference.mean()) / (reference.std() or 1.0)


def fit(config: Config, images: np.ndarray, device: torch.device | None = None) -> dict[str, Score]:
    """The three scores, by name, fitted on the part of normal images (N, S, S, c) that AMA of this config trains on.

    Raises DataError where the images do not fill one batch.
    """
    images = images[hold_out(len(images), config.calibration_fraction, config.seed).train]
    rng = np.random.default_rng(config.seed)
    some = rng.choice(len(images), min(len(images), LENGTH_SAMPLE), replace=False)
    means, lengths = pixel_mean(images), lossless_length(images[some])
    return {
        PIXEL_MEAN: lambda x: two_sided(pixel_mean(x), means),
        LOSSLESS: lambda x: two_sided(lossless_length(x), lengths),
        L2: fit_l2(config, images, device),
    }


def fit_l2(config: Config, images: np.ndarray, device: torch.device | None = None) -> Score:
    """E and G of the config trained on the mean squared error alone: its steps, batches and lr; Adam's usual betas; fp32.

    Raises DataError where the images do not fill one batch.
    """
    device = device or default_device()
    batches = len(images) // config.batch_size
    if not batches:
        raise DataError(f"{len(images)} training images do not fill one batch of {config.batch_size}: lower batch_size.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        networks = torch.nn.Sequential(Encoder(config), Generator(config))
    networks.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(networks.parameters(), config.lr)
    total = config.total_steps(len(images))
    for step in range(total):
        epoch, place = divmod(step, batches)
        if place == 0:
            order = np.random.default_rng([config.seed, epoch]).permutation(len(images))
        x = to_tensor(images[order[place * config.batch_size : (place + 1) * config.batch_size]], device)
        optimiser.param_groups[0]["lr"] = learning_rate(config, step, total)
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(networks(x), x).backward()
        optimiser.step()
    networks.eval().requires_grad_(False)

    def score(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), BATCH):
            x = to_tensor(images[start : start + BATCH], device)
            parts.append((networks(x) - x).square().mean(dim=(1, 2, 3)).double().cpu().numpy())
        return np.concatenate(parts)

    return score
