"""When steps are captured, with stand-ins for CUDA: what a captured step computes is tested on a GPU (tests/test_cuda.py)."""

import copy
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.errors import ConfigError
from ama_core.training import graphs, loop
from ama_core.training.loop import Validation, train
from tests.common import CPU

LR = 0.5


def put_in_place_of_cuda(monkeypatch, graph: type, capture) -> None:
    """`graph` in place of `torch.cuda.CUDAGraph`, `capture` of `torch.cuda.graph`; streams and devices that do nothing."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "Stream": lambda device: stream,
        "device": lambda device: nullcontext(),
        "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


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
    put_in_place_of_cuda(monkeypatch, Graph, capture)
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


class Acted:
    """A stand-in for CUDA graphs on the CPU: capturing a step leaves everything as it was, a replay makes the step."""

    def __init__(self):
        self.replays = 0

    def register_generator_state(self, rng):
        self.rng = rng

    @contextmanager
    def capture(self, trainer):
        networks, rng = copy.deepcopy(trainer.networks.state_dict()), trainer.rng.get_state()
        optimisers = {name: copy.deepcopy(optimiser.state_dict()) for name, optimiser in trainer.optimisers.items()}
        yield
        trainer.networks.load_state_dict(networks)
        trainer.rng.set_state(rng)
        for name, optimiser in trainer.optimisers.items():
            optimiser.load_state_dict(optimisers[name])


@pytest.mark.parametrize("changes", [{}, {"mode": "released", "n_critic": 2}, {"average": 0.9}, {"precision": "bf16"}], ids=str)
def test_a_training_by_replayed_steps_is_the_training_without_them(changes, tiny_config, digits, monkeypatch, tmp_path):
    """The whole loop around them: learning rate, phases, average, looks at images, and a checkpoint to go on from."""
    # All learning rates are fp32 numbers, as which a captured step has them.
    config = tiny_config.replace(max_steps=32, warmup=0.5, lr=2**-10, lr_schedule="linear", lr_fall=0.5, **changes)
    watch = Validation(digits.images[:20], 255 - digits.images[:20])

    def trained(trainer, until=32):
        for event in train(trainer, digits.images, watch=watch, log_every=1):
            if event.step == until and event.kind == "progress":
                break
        return trainer

    without = trained(AMATrainer(config, CPU))
    steppers, acted = [], []

    class Stepper(graphs.Step):
        def __init__(self, trainer, autocast):
            super().__init__(trainer, autocast)
            steppers.append(self)

    class Graph(Acted):
        def __init__(self):
            super().__init__()
            acted.append(self)

        def replay(self):
            self.replays += 1
            stepper = steppers[-1]
            with stepper.autocast():
                for name, value in stepper.trainer.update(stepper.x).items():
                    stepper.found[name].copy_(value.detach())

    put_in_place_of_cuda(monkeypatch, Graph, lambda graph, **settings: graph.capture(steppers[-1].trainer))
    monkeypatch.setattr(graphs, "captures", lambda trainer: True)
    monkeypatch.setattr(loop, "Step", Stepper)
    stopped = trained(AMATrainer(config, CPU), until=9)
    stopped.save(tmp_path / "checkpoint")
    resumed = trained(AMATrainer.load(tmp_path / "checkpoint", CPU))
    assert [graph.replays for graph in acted] == [n - graphs.WARM_UP for n in (9, 16 - 9, 32 - 16)]
    for name, tensor in without.weights().items():
        assert torch.equal(resumed.weights()[name], tensor), name
