"""Autocast keeps the bf16 copies that it makes of weights until a step ends, while an update within the step changes them."""

import torch
from torch import nn

from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.tensors import scale
from ama_core.training.trainer import descend
from tests.common import CPU


def test_an_update_is_seen_by_what_follows_in_the_same_step():
    layer, x = nn.Linear(4, 1), torch.ones(2, 4)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(x)
        descend(before.mean(), optimiser)
        within = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        afterwards = layer(x)
    assert torch.equal(within, afterwards) and not torch.equal(within, before)


def test_the_generator_learns_in_steps_with_synthetic_negatives(tiny_config, digits):
    """They are decoded without gradient; copies of its weights made for that must not serve the rest of the step."""
    trainer = AMATrainer(tiny_config.replace(precision="bf16", warmup=0.0), CPU)
    trainer.total, trainer.step = 10, 5
    assert trainer.phase() > 0
    trainer.networks.train()
    before = {name: p.detach().clone() for name, p in trainer.networks.G.named_parameters()}
    x = scale(torch.from_numpy(digits.images[: tiny_config.batch_size]).permute(0, 3, 1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        trainer.update(x)
    assert not [name for name, p in trainer.networks.G.named_parameters() if torch.equal(p, before[name])]
