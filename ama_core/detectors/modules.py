"""What the networks of several detectors share: building from stored weights, batched evaluation, blocks, a penalty."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ama_core.detectors.base import Progress
from ama_core.tensors import BATCH, to_images, to_tensor
from ama_core.training import distributed


def bare(module: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers, copied, on their device."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def stored(module: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers as they are stored: on the CPU, contiguous."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def rebuilt(
    make: Callable[[], nn.Module],
    weights: Mapping[str, Tensor],
    device: torch.device,
    memory_format: torch.memory_format = torch.preserve_format,
) -> nn.Module:
    """A module in eval mode on `device`, fp32, with stored weights in this layout; no random number is drawn.

    Raises ValueError where the weights do not belong to it.
    """
    with torch.device("meta"):
        module = make()
    expected = module.state_dict()
    if missing := sorted(set(expected) - set(weights)):
        raise ValueError(f"{len(missing)} tensors are missing, {missing[0]} first")
    for name, tensor in weights.items():
        if name not in expected or tensor.shape != expected[name].shape:
            raise ValueError(f"{name} {tuple(tensor.shape)} does not belong to these settings")
    module.to_empty(device="cpu").load_state_dict(dict(weights))
    return module.requires_grad_(False).to(device, memory_format=memory_format).eval()


@torch.no_grad()
def per_image(
    score: Callable[[Tensor], Tensor],
    images: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    batch: int = BATCH,
) -> np.ndarray:
    """A value or vector of every image, float64: `score` takes float images (n, C, S, S) in [-1, 1] and gives (n, ...)."""
    found = []
    for start in range(0, len(images), batch):
        found.append(score(to_tensor(images[start : start + batch], device)).cpu().double().numpy())
        if progress:
            progress(min(start + batch, len(images)), len(images))
    return np.concatenate(found)


@torch.no_grad()
def reconstructed(draw: Callable[[Tensor], Tensor], images: np.ndarray, device: torch.device) -> np.ndarray:
    """Reconstructions, uint8 (N, S, S, C): `draw` takes float images (n, C, S, S) in [-1, 1] and gives others."""
    parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return np.concatenate([to_images(draw(to_tensor(part, device))) for part in parts])


def parameters(*modules: nn.Module) -> Iterable[nn.Parameter]:
    """The parameters of several modules."""
    return (parameter for module in modules for parameter in module.parameters())


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    pair: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    x_hat: Tensor,
    a: Tensor,
    *,
    per_pixel: bool = False,
    rows: int | None = None,
) -> Tensor:
    """mean (||grad D|| - 1)^2 at the pairs (x, a x + (1 - a) x_hat), gradient with respect to the whole pair.

    Args:
        critic: D, from a pair to values (N,).
        pair: builds the critic's input from (x, y).
        x, x_hat: images (N, c, S, S), no gradient is passed on to them.
        a: mixing weights (N,) in [0, 1], one an image.
        rows: total number of rows over all processes, of which these are this process's part; default: these are all.
        per_pixel: the released code's reading: the norm is taken over channels only, for every pixel.
    """
    a = a.view(-1, 1, 1, 1)
    inputs = pair(x, a * x + (1 - a) * x_hat).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(inputs).sum(), inputs, create_graph=True)
    gradient = gradient.float()
    norms = gradient.norm(dim=1) if per_pixel else gradient.flatten(1).norm(dim=1)
    return distributed.mean((norms - 1).square(), len(x) if rows is None else rows)


class PooledConv2d(nn.Conv2d):
    """A 3x3 convolution (padding 1) followed by 2x2 average pooling: (N, c, S, S) to (N, c_out, S / 2, S / 2), S even.

    Both are linear, so one 4x4 convolution of stride 2 gives the same in 2.25 times fewer operations. `weight` stays the 3x3
    kernel; `joined = False` computes one after the other.
    """

    joined = True

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.joined:
            return F.avg_pool2d(super().forward(x), 2)
        return F.conv2d(x, _means_of_shifts(self.weight), self.bias, stride=2, padding=1)


class UpsampledConv2d(nn.Conv2d):
    """Nearest upsampling by 2 followed by a 3x3 convolution (padding 1): (N, c, S, S) to (N, c_out, 2 S, 2 S).

    One 4x4 transposed convolution of stride 2 gives the same in 2.25 times fewer operations. `weight` stays the 3x3 kernel;
    `joined = False` computes one after the other.
    """

    joined = True

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.joined:
            return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))
        kernel = 4 * _means_of_shifts(self.weight).flip(2, 3).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def _means_of_shifts(weight: Tensor) -> Tensor:
    """The mean of a kernel (c_out, c_in, 3, 3) shifted by 0 or 1 each way, as a kernel (c_out, c_in, 4, 4)."""
    return F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1)


def logistic(logits: Tensor, label: float) -> Tensor:
    """Mean logistic loss of a critic's logits against one label for all of them: 1 real, 0 made, or between."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(label)))
