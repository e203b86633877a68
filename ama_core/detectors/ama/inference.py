"""One forward pass of E, G and D over any number of images: everything that scores and pages need of the networks.

Networks are in eval mode and fp32, in batches of a fixed size, so that score(batch)[i] == score(single i).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ama_core.detectors.ama.networks import Networks
from ama_core.detectors.ama.scores import Statistics
from ama_core.tensors import BATCH, to_images, to_tensor


@dataclass(frozen=True)
class ForwardPass:
    """Everything that one forward pass says of N images.

    Attributes:
        statistics: what scores are made of.
        reconstructions: x_hat = G(E(x)), uint8 (N, H, W, C).
        maps: where the critic sees the difference, fp32 (N, g, g): what each place adds to R, or takes from it. With
            delta = f(x, x) - f(x, x_hat) before the spatial sum and d = its sum over places, R = sum_c |d_c| is the sum over
            places of sum_c sign(d_c) delta_c(place).
        features: f(x, x), fp32 (N, width_critic).
    """

    statistics: Statistics
    reconstructions: np.ndarray
    maps: np.ndarray
    features: np.ndarray


@torch.no_grad()
def statistics(networks: Networks, images: np.ndarray, *, progress: Callable[[int, int], None] | None = None) -> Statistics:
    """Statistics of uint8 images (N, H, W, C), in one pass; `progress(done, total)` is called after every batch."""
    parts = []
    for x, done in _batches(networks, images):
        parts.append(_forward(networks, x)[0])
        if progress:
            progress(done, len(images))
    return Statistics.concatenate(parts)


@torch.no_grad()
def critic_rounding(networks: Networks, images: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """What bf16 leaves of the differences by which D, E and G are trained, over uint8 images (N, H, W, C).

    Returns D(x, x), the difference D(x, x) - D(x, G(E(x))), and how far computing D in bf16 moves that difference; each fp32
    (N,) on the CPU.
    """
    parts = []
    for x, _ in _batches(networks, images):
        pairs = networks.pair(x, x), networks.pair(x, networks.reconstruct(x))
        real, recon = (networks.D(pair).flatten() for pair in pairs)
        with torch.autocast(x.device.type, torch.bfloat16):
            rounded_real, rounded_recon = (networks.D(pair).flatten().float() for pair in pairs)
        parts.append(torch.stack([real, real - recon, rounded_real - rounded_recon - (real - recon)]).cpu())
    return tuple(torch.cat(parts, dim=1))


@torch.no_grad()
def examine(networks: Networks, images: np.ndarray) -> ForwardPass:
    """All of `ForwardPass` of uint8 images (N, H, W, C), in one pass."""
    parts = []
    for x, _ in _batches(networks, images):
        found, x_hat, real, delta = _forward(networks, x)
        signs = delta.sum(dim=(2, 3), keepdim=True).sign()
        maps, features = (t.cpu().numpy() for t in ((signs * delta).sum(dim=1), real.sum(dim=(2, 3))))
        parts.append((found, to_images(x_hat), maps, features))
    found, *arrays = zip(*parts)
    return ForwardPass(Statistics.concatenate(found), *map(np.concatenate, arrays))


@torch.no_grad()
def features(networks: Networks, images: np.ndarray) -> np.ndarray:
    """f(x, x), fp32 (N, width_critic), of uint8 images (N, H, W, C)."""
    return np.concatenate([networks.D.features(networks.pair(x, x)).cpu().numpy() for x, _ in _batches(networks, images)])


@torch.no_grad()
def encode(networks: Networks, images: np.ndarray) -> np.ndarray:
    """Codes z = E(x), fp32 (N, nz), of uint8 images (N, H, W, C)."""
    return np.concatenate([networks.E(x).float().cpu().numpy() for x, _ in _batches(networks, images)])


@torch.no_grad()
def decode(networks: Networks, z: np.ndarray) -> np.ndarray:
    """Images G(z), uint8 (N, H, W, C), of codes (N, nz)."""
    networks.eval()
    device = next(networks.parameters()).device
    chunks = torch.from_numpy(np.asarray(z, dtype=np.float32)).split(BATCH)
    return np.concatenate([to_images(networks.G(chunk.to(device))) for chunk in chunks])


@torch.no_grad()
def reconstruct(networks: Networks, images: np.ndarray) -> np.ndarray:
    """Reconstructions G(E(x)), uint8 (N, H, W, C), of uint8 images of the same shape."""
    return np.concatenate([to_images(networks.reconstruct(x)) for x, _ in _batches(networks, images)])


@torch.no_grad()
def critic_values(networks: Networks, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """D(x, y), fp32 (N,), of uint8 images x and y, both (N, H, W, C); a plain critic sees y alone."""
    pairs = zip(_batches(networks, x), _batches(networks, y))
    return np.concatenate([networks.D(networks.pair(first, second)).cpu().numpy() for (first, _), (second, _) in pairs])


def _forward(networks: Networks, x: Tensor) -> tuple[Statistics, Tensor, Tensor, Tensor]:
    """Of a batch x: its statistics, x_hat, the feature map of (x, x), and that minus the one of (x, x_hat), both fp32."""
    z = networks.E(x)
    x_hat = networks.G(z)
    real, block_means = networks.D.feature_map_and_block_means(networks.pair(x, x))
    real, recon = real.float(), networks.D.feature_map(networks.pair(x, x_hat)).float()
    f_real, f_recon = (f.sum(dim=(2, 3)) for f in (real, recon))
    values = [
        f_real - f_recon,
        networks.D.value(f_real),
        networks.D.value(f_recon),
        (x - x_hat).abs().mean(dim=(1, 2, 3)),
        z.norm(dim=1),
        block_means,
    ]
    return Statistics(*(v.float().cpu().numpy() for v in values)), x_hat, real, real - recon


def _batches(networks: Networks, images: np.ndarray) -> Iterator[tuple[Tensor, int]]:
    """Batches on the networks' device, in eval mode, and how many images are done after each."""
    networks.eval()
    device = next(networks.parameters()).device
    for start in range(0, len(images), BATCH):
        x = to_tensor(images[start : start + BATCH], device)
        yield x, start + len(x)
