"""Between arrays of images and tensors on a device: the one scale, the one memory layout, the one batch size."""

import numpy as np
import torch
from torch import Tensor

from ama_core.errors import ConfigError

BATCH = 256  # images per forward pass; bounds memory, does not change results


def default_device() -> torch.device:
    """CUDA first, then Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return find_device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def find_device(name: torch.device | str) -> torch.device:
    """A device by name, such as `cuda:1`. Raises ConfigError where there is none of that name here.

    On CUDA, convolutions in fp32 are from then on exact in this process, which they are not by default (TF32): scores are
    compared with a calibration of another device, to which 10 bits of mantissa would look like drift.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, not built in, or not on this machine
        raise ConfigError(f"There is no device {str(name)!r} here: use cpu, or leave the choice out.") from error
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return device


def to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (N, H, W, C) to a float tensor (N, C, H, W) in [-1, 1], channels last in memory."""
    return scale(torch.from_numpy(np.require(images, requirements="CW")).to(device).permute(0, 3, 1, 2))


def scale(images: Tensor) -> Tensor:
    """uint8 tensor in 0..255 to float in [-1, 1]."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_images(x: Tensor) -> np.ndarray:
    """Float tensor (N, C, H, W) in [-1, 1] to uint8 (N, H, W, C)."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
