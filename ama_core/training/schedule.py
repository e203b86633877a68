"""How the learning rate falls, and in which arithmetic a training computes."""

from contextlib import nullcontext

import torch

from ama_core.settings import TrainingSettings

DECAY = 0.999995  # a step, of PixelCNN++ as published
LR_MILESTONES = (0.3, 0.6, 0.9)  # lr x0.1 at these fractions of the run [C]


def learning_rate(config: TrainingSettings, step: int, total: int) -> float:
    """`config.lr_schedule` at `step`: a function of the step alone, so that resuming needs no scheduler state."""
    if config.lr_schedule == "steps":
        return config.lr * 0.1 ** sum(step >= milestone * total for milestone in LR_MILESTONES)
    if config.lr_schedule == "linear":
        return config.lr * min(1.0, (1 - step / total) / config.lr_fall)
    if config.lr_schedule == "decay":
        return config.lr * DECAY**step
    return config.lr


def precision(config: TrainingSettings, device: torch.device) -> str:
    """What `precision="auto"` means on this device: `bf16` where the hardware multiplies it natively, else `fp32`."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


def autocast(config: TrainingSettings, device: torch.device):
    """Makes the context in which a step computes."""
    if precision(config, device) == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)
