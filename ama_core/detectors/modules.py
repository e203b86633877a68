"""What the networks of several detectors share: building from stored weights, batched evaluation, blocks."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.base import Progress
from ama_core.tensors import BATCH, to_tensor


def bare(module: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers, copied, on their device."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def stored(module: nn.Module) -> dict[str, Tensor]:
    """Its weights and buffers as they are stored: on the CPU, contiguous."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def rebuilt(make: Callable[[], nn.Module], weights: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """A module in eval mode on `device`, fp32, with stored weights; no random number is drawn.

    Raises ValueError where the weights do not belong to it.
    """
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError("the weights do not belong to these settings") from error
    return module.requires_grad_(False).to(device).eval()


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
        found.append(score(to_tensor(images[start : start + batch], device)).double().cpu().numpy())
        if progress:
            progress(min(start + batch, len(images)), len(images))
    return np.concatenate(found)


def parameters(*modules: nn.Module) -> Iterable[nn.Parameter]:
    """The parameters of several modules."""
    return (parameter for module in modules for parameter in module.parameters())
