"""When steps are captured, with stand-ins for CUDA: what a captured step computes is tested on a GPU (tests/test_cuda.py)."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from ama_core.errors import ConfigError
from ama_core.training import graphs

LR = 0.5


class Counting:
    """A trainer that notes how its steps are made; negatives begin with step 6."""

    captures, device = True, torch.device("cuda")

    def __init__(self):
        self.step, self.made, self.rng, self.registered, self.stepper = 0, [], object(), [], None
        self.optimisers = {"D": torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)}

    def phase(self):
        return int(self.step >= 6)

    def update(self, x):
        self.made.append("step")
        return {"loss": 2 * x.sum()}


@pytest.fixture
def trainer(monkeypatch):
    found = Counting()

    class Graph:
        def register_generator_state(self, rng):
            found.registered.append(rng)

        def replay(self):
            """The captured operations, on what is in the captured tensors now."""
            found.made.append("replay")
            found.stepper.found["loss"].copy_(2 * found.stepper.x.sum())

    @contextmanager
    def capture(graph, **settings):
        found.made.append("capture:")
        yield

    monkeypatch.delenv(graphs.VARIABLE, raising=False)
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "Stream": lambda device: stream,
        "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda value, device: tensor(value))
    return found


def made(trainer, n):
    """What n steps did, each on a batch of its own."""
    step = trainer.stepper = graphs.Step(trainer, nullcontext)
    for trainer.step in range(n):
        x = torch.full((2,), float(trainer.step))
        assert float(step(x)["loss"]) == 4 * trainer.step
    return trainer.made


def test_a_phase_begins_with_steps_as_usual_then_one_is_captured_and_replayed(trainer):
    usual, captured = ["step"] * graphs.WARM_UP, ["capture:", "step", "replay"]
    assert made(trainer, 11) == [*usual, *captured, "replay", "replay", *usual, *captured, "replay"]
    assert trainer.registered == [trainer.rng] * 2
    assert graphs.steps_to_full_speed(trainer) == graphs.WARM_UP + 1


def test_the_learning_rate_reaches_a_captured_step(trainer):
    step = graphs.Step(trainer, nullcontext)
    rate = trainer.optimisers["D"].param_groups[0]["lr"]
    assert float(rate) == LR and trainer.optimisers["D"].param_groups[0]["capturable"]
    step.set_learning_rate(0.25)
    assert trainer.optimisers["D"].param_groups[0]["lr"] is rate and float(rate) == 0.25


@pytest.mark.parametrize("why", ["variable", "cpu", "trainer"])
def test_steps_are_made_as_usual_where_they_cannot_or_must_not_be_captured(trainer, monkeypatch, why):
    if why == "variable":
        monkeypatch.setenv(graphs.VARIABLE, "0")
    elif why == "cpu":
        monkeypatch.setattr(trainer, "device", torch.device("cpu"), raising=False)
    else:
        monkeypatch.setattr(trainer, "captures", False, raising=False)
    assert made(trainer, 8) == ["step"] * 8
    assert graphs.steps_to_full_speed(trainer) == 1


def test_a_step_that_cannot_be_captured_says_how_to_train_without(trainer, monkeypatch):
    @contextmanager
    def refuse(graph, **settings):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with pytest.raises(ConfigError, match=r"\(operation not permitted\).*AMA_CUDA_GRAPHS=0"):
        made(trainer, 5)
