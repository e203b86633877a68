"""Devices by name."""

import pytest
import torch

from ama_core.errors import ConfigError
from ama_core.tensors import find_device


def test_a_device_that_is_not_here_is_said():
    for name in ("nowhere", "cuda:99"):
        with pytest.raises(ConfigError, match=f"no device '{name}' here: use cpu"):
            find_device(name)


def test_convolutions_on_cuda_are_exact(monkeypatch):
    """Where there is no CUDA, nothing but the name of the device is looked at."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    find_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert find_device("cuda") == torch.device("cuda") and not torch.backends.cudnn.allow_tf32
