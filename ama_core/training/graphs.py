"""Steps as CUDA graphs: one launch in place of one for every kernel.

A GPU computes the networks of the small presets faster than Python launches their kernels. After a few steps as usual the whole
step, random draws and optimisers included, is captured once and replayed from then on: the same arithmetic on the same numbers.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ama_core.errors import ConfigError
from ama_core.training import distributed
from ama_core.training.trainer import Trainer

VARIABLE = "AMA_CUDA_GRAPHS"  # of the environment: 0 trains without
WARM_UP = 3  # steps before one is captured: libraries load their kernels, Adam makes its state


def captures(trainer: Trainer) -> bool:
    """Whether the steps of a trainer are captured: on CUDA, where it allows that, by a single process."""
    wanted = os.environ.get(VARIABLE) != "0"
    return wanted and trainer.captures and trainer.device.type == "cuda" and distributed.size() == 1


def steps_to_full_speed(trainer: Trainer) -> int:
    """How many steps of a training are slower than those that follow."""
    return WARM_UP + 1 if captures(trainer) else 1


class Step:
    """`trainer.update` in the context that `autocast` makes, as a CUDA graph where that is possible.

    Raises:
        ConfigError: of a call, the step cannot be captured.
    """

    def __init__(self, trainer: Trainer, autocast: Callable[[], AbstractContextManager]):
        self.trainer, self.autocast = trainer, autocast
        self.captures = captures(trainer)
        if self.captures:
            self.stream = torch.cuda.Stream(trainer.device)
            self.phase, self.warm, self.graph = None, 0, None
            for optimiser in trainer.optimisers.values():
                for group in optimiser.param_groups:  # a number would be captured as it is now
                    group["capturable"], group["lr"] = True, torch.tensor(float(group["lr"]), device=trainer.device)

    def set_learning_rate(self, rate: float) -> None:
        for optimiser in self.trainer.optimisers.values():
            group = optimiser.param_groups[0]
            if self.captures:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The losses and curves of one step on a batch x; of a graph these are overwritten by the next step."""
        if not self.captures:
            with self.autocast():
                return self.trainer.update(x)
        with torch.cuda.device(self.trainer.device):  # which need not be the current one
            return self._captured(x)

    def _captured(self, x: Tensor) -> dict[str, Tensor]:
        if self.trainer.phase() != self.phase:
            self.phase, self.warm, self.graph = self.trainer.phase(), 0, None
        if self.graph is None and self.warm == WARM_UP:
            self._capture(x)
        if self.graph is None:
            self.warm += 1
            return self._as_usual(x)
        self.x.copy_(x)
        self.graph.replay()
        return self.found

    def _as_usual(self, x: Tensor) -> dict[str, Tensor]:
        """On the stream of the capture, as gradients must come from the stream that they were made on."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), self.autocast():
            found = self.trainer.update(x)
        torch.cuda.current_stream().wait_stream(self.stream)
        return found

    def _capture(self, x: Tensor) -> None:
        self.x = x.clone(memory_format=torch.preserve_format)
        for optimiser in self.trainer.optimisers.values():
            optimiser.zero_grad(set_to_none=True)  # the graph has its own
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.trainer.rng)
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"), self.autocast():
                self.found = {name: value.detach() for name, value in self.trainer.update(self.x).items()}
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            cause = error
            while isinstance(cause.__context__, RuntimeError):  # what ended the capture, not that it could not be closed
                cause = cause.__context__
            raise ConfigError(
                f"The steps of this training cannot be captured as a CUDA graph ({str(cause).splitlines()[0]}). Set "
                f"{VARIABLE}=0 in the environment to train without graphs, which is slower: again, or with --resume where a "
                "checkpoint was saved."
            ) from error
        self.graph = graph
