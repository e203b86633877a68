"""In which arithmetic a step computes."""

import pytest
import torch

from ama_core.detectors.ama.config import Config
from ama_core.training.schedule import arithmetic


# The context of a step on CUDA needs no GPU to be entered, autocast does.
@pytest.mark.parametrize(("device", "precision"), [("cpu", "bf16"), ("cpu", "fp32"), ("cuda", "fp32")])
def test_arithmetic_of_a_step(device, precision):
    context = arithmetic(Config(precision=precision), torch.device(device))
    before = torch.backends.cudnn.benchmark
    for _ in range(2):  # of every step
        with context():
            assert torch.is_autocast_enabled(device) == (precision == "bf16")
            assert torch.backends.cudnn.benchmark == (before or device == "cuda")
        assert torch.backends.cudnn.benchmark == before and not torch.is_autocast_enabled(device)


def test_what_a_step_raises_leaves_no_setting_behind():
    context = arithmetic(Config(precision="fp32"), torch.device("cuda"))
    before = torch.backends.cudnn.benchmark
    with pytest.raises(ValueError), context():
        raise ValueError
    assert torch.backends.cudnn.benchmark == before
