"""One training by several processes, launched by `torchrun`; with one process everything here does nothing.

Every process holds all images and the same weights, draws the same random numbers for the whole batch, and works on its rows
of it (`mine`). A mean over the batch is written as `mean(values, n)`, n being the rows of the *whole* batch: the average of the
processes' values, and so of their gradients, is then that of one process on the whole batch, however unevenly rows divide.

`DistributedDataParallel` is not used. A step of AMA calls the critic several times before it goes backward, and once through
`autograd.grad` (the penalty), which DDP's documentation excludes; with `static_graph=True` its gradients were silently wrong
(weights 1e-2 to 2e-1 off after one step, processes disagreeing), while averaging them ourselves is exact to rounding.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ama_core.errors import AMAError, ConfigError


class ProcessLost(AMAError):
    """Another process of this training ended, or can no longer be reached."""


def size() -> int:
    """How many processes train together; 1 outside `processes`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def launched_rank() -> int:
    """The number that `torchrun` gave this process, also outside `processes`; 0 without it."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


@contextmanager
def processes(device: torch.device | str | None = None) -> Iterator[torch.device | str | None]:
    """Meanwhile the processes that `torchrun` launched work together; yields the device of this one.

    Args:
        device: what was asked for. None or `cuda`: a GPU for each process, as far as there are any.

    Raises ProcessLost where the others cannot be reached.
    """
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield device
        return
    backend = "gloo"
    if torch.cuda.is_available() and str(device) in ("None", "cuda"):
        here, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        device = torch.device("cuda", here % gpus)
        torch.cuda.set_device(device)
        if int(os.environ["LOCAL_WORLD_SIZE"]) <= gpus:  # NCCL refuses two processes on one GPU
            backend = "cpu:gloo,cuda:nccl"
    _reach(lambda: dist.init_process_group(backend))
    try:
        yield device or "cpu"
    finally:
        dist.destroy_process_group()


def check(splits: bool, title: str, batch_size: int) -> None:
    """Raises ConfigError where a training cannot be divided among the processes that there are."""
    if size() == 1:
        return
    if not splits:
        raise ConfigError(
            f"{title} cannot be trained by several processes: its step is not divided among them. Start it without torchrun."
        )
    if batch_size < 2 * size():
        raise ConfigError(f"A batch of {batch_size} is too small for {size()} processes: raise batch_size, or start fewer.")


# Rows of a batch


def mine(rows: Tensor) -> Tensor:
    """This process's rows of (n, ...): every process has n / size of them, one more or less."""
    n = len(rows)
    return rows[n * rank() // size() : n * (rank() + 1) // size()]


def mean(values: Tensor, n: int) -> Tensor:
    """The mean of values (rows, ...) over the n rows of the whole batch, of which these are this process's.

    What it returns differs between processes; its average over them is the mean.
    """
    if size() == 1:
        return values.mean()
    return values.sum() * (size() / (n * math.prod(values.shape[1:])))


def weighted(loss: Tensor, rows: int, n: int) -> Tensor:
    """The same for a `loss` that is a mean over this process's `rows` of n already."""
    return loss if size() == 1 else loss * (size() * rows / n)


def gather(rows: Tensor, n: int) -> Tensor:
    """(n, ...) from every process's `mine`, in order; gradients flow back to whoever made each row."""
    if size() == 1:
        return rows
    before = n * rank() // size()
    after = n - before - len(rows)
    empty = rows.new_zeros
    return _Sum.apply(torch.cat([empty(before, *rows.shape[1:]), rows, empty(after, *rows.shape[1:])]))


class _Sum(torch.autograd.Function):
    """Sum over processes. Every process's loss depends on it, so the gradient is a sum over processes as well."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        return _all_reduce(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return _all_reduce(gradient.clone(memory_format=torch.contiguous_format))


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (1, C, 1, 1) of each channel of x (N, C, H, W) over all processes, and the number of values.

    In two passes: the difference of two large sums would lose digits.
    """
    n, per_row = x.new_tensor([len(x)]), x.shape[2] * x.shape[3]
    found = _Sum.apply(torch.cat([x.sum(dim=(0, 2, 3)), n]))
    count = found[-1].detach() * per_row
    mean = (found[:-1] / count)[None, :, None, None]
    return mean, _Sum.apply((x - mean).square().sum(dim=(0, 2, 3)))[None, :, None, None] / count, count


class _SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of the whole batch. PyTorch's own, `SyncBatchNorm`, runs on GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))  # under autocast it is bf16
        mean, variance, count = moments(precise)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
            unbiased = variance.flatten() * count / (count - 1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        y = (precise - mean) * (variance + self.eps).rsqrt()
        if self.affine:
            y = y * self.weight[None, :, None, None] + self.bias[None, :, None, None]
        return y.to(x.dtype)


def synchronise(networks: nn.Module) -> None:
    """Let batch norm in these networks see the whole batch; names and values of their weights stay."""
    if size() > 1:
        for module in networks.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SynchronisedBatchNorm


# Agreement


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their average over all processes, in one message: bit for bit the same on each."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = _all_reduce(torch.cat([gradient.flatten() for gradient in gradients])).div_(size())
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view(gradient.shape))


def averages(found: Mapping[str, Tensor]) -> dict[str, float]:
    """The values of a step as numbers, averaged over all processes: not finite on all of them where it was so on one."""
    if size() > 1 and found:
        flat = _all_reduce(torch.stack([value.detach().cpu().double() for value in found.values()])).div_(size())
        return dict(zip(found, flat.tolist()))
    return {name: float(value.detach()) for name, value in found.items()}


def any_of(asked: bool) -> bool:
    """Whether any process says so; all processes have to ask."""
    return asked if size() == 1 else bool(_all_reduce(torch.tensor([float(asked)])).item())


def wait() -> None:
    """Until all processes are here."""
    any_of(False)


def from_first(value: str | None = None) -> str:
    """A text that the first process gives, to all."""
    if size() == 1:
        return value
    told = [value]
    _reach(lambda: dist.broadcast_object_list(told, device=torch.device("cpu")))
    return told[0]


def same(x: Tensor) -> Tensor:
    """The first process's tensor, on all: what each computed by itself may differ in the last digits on other hardware."""
    if size() > 1:
        _reach(lambda: dist.broadcast(x, 0))
    return x


def check_same(mark: str) -> None:
    """Raises ConfigError where the processes do not begin from the same images and the same step."""
    if size() > 1 and any_of(from_first(mark) != mark):
        raise ConfigError(
            "The processes do not see the same images or the same checkpoint: all machines must share data and run folder."
        )


def _all_reduce(x: Tensor) -> Tensor:
    """Sum over processes, in place."""
    _reach(lambda: dist.all_reduce(x))
    return x


def _reach(others: Callable[[], object]) -> None:
    try:
        others()
    except RuntimeError as error:  # of gloo and NCCL
        raise ProcessLost(
            "Another process of this training ended or cannot be reached, so this one ends too. What it says for itself stands "
            f"above, if anything; the last checkpoint is kept: start again with --resume. ({str(error).splitlines()[0][:120]})"
        ) from error
