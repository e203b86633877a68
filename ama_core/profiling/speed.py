"""How fast training and scoring run on this machine: beside the plain reference, and as a share of the hardware's own peaks.

Everything is measured in one process and in turns, so that what else the machine does falls on all alike; a figure is the
median over the rounds. A share of the peak counts the floating-point operations of the networks' matrix products and
convolutions, forward and backward, as PyTorch counts them.
"""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ama_core.detectors.ama import inference
from ama_core.detectors.ama.config import Config, preset
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.profiling.reference import Reference, Shortcuts
from ama_core.tensors import BATCH, default_device, find_device, to_tensor
from ama_core.training.loop import train
from ama_core.training.schedule import precision

SIZES = ("tiny", "small", "paper")
CPU_BATCH = 16  # images a step at paper width without a GPU, where one reference step of 256 would take minutes
# Each name switches on one short cut more than the one before.
LADDER = {
    "reference": {},
    "cached reconstructions": {"cached": True},
    "joined critic calls": {"joined": True},
    "channels_last": {"channels_last": True},
    "fused Adam": {"fused": True},
    "resampling convolutions": {"resampled": True},
    "bf16": {"bf16": True},
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Peaks:
    """What the device reached by itself: matrix products in fp32 and bf16 (FLOP/s), and copying (bytes read and written/s)."""

    fp32: float
    bf16: float
    copy: float


def bench(
    sizes: Sequence[str] = SIZES,
    *,
    device: torch.device | str | None = None,
    rounds: int = 3,
    concurrent: int = 0,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Measure training and scoring at some sizes.

    Args:
        sizes: presets; at `paper` a CPU takes batches of `CPU_BATCH`.
        rounds: how often each figure is taken.
        concurrent: also train this many `tiny` models at once, each in a process of its own.

    Returns:
        `device`, `versions`, `peaks`, `concurrent` and `sizes`: for each its `images_per_s`, `speedup_vs_reference`,
        `share_of_peak`, `peak_memory_mb`, `ladder` (each short cut switched on in turn) and `scoring`.

    Raises:
        ConfigError: unknown size or device.
    """
    device = find_device(device) if device else default_device()
    progress("peaks of the device")
    peaks = measure_peaks(device)
    found: dict[str, Any] = {
        "device": _device(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rounds": rounds,
        "peaks": {"fp32_gflops": peaks.fp32 / 1e9, "bf16_gflops": peaks.bf16 / 1e9, "copy_gb_per_s": peaks.copy / 1e9},
        "sizes": {size: bench_size(size, device, peaks, rounds, progress) for size in sizes},
    }
    if concurrent:
        progress(f"{concurrent} trainings at once")
        found["concurrent"] = bench_concurrent(concurrent, device)
    return found


def bench_size(
    size: str, device: torch.device, peaks: Peaks, rounds: int, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """The figures of one size, see `bench`."""
    config = timed_config(size, device)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8 * config.batch_size, config.image_size, config.image_size, config.channels), np.uint8)
    n_steps = _steps(config, device)

    progress(f"{size}: training")
    product = _Product(config, device, images, n_steps)
    flops = _Product(config, device, images, n_steps, captures=False).flops()
    ladder, switched = {}, Shortcuts()
    wants_bf16 = precision(config, device) == "bf16"
    for name, change in LADDER.items():
        if name != "bf16" or wants_bf16:
            switched = replace(switched, **change)
            ladder[name] = _Reference(config, device, images, n_steps, switched)
    times: dict[str, list[float]] = {name: [] for name in (*ladder, "product")}
    _reset_peak_memory(device)
    product.run()  # warm-up, and the product's memory alone
    memory = _peak_memory(device)
    for each in ladder.values():
        each.run(1)
    for i in range(rounds):
        for name, each in (*ladder.items(), ("product", product)):
            progress(f"{size}: training, round {i + 1} of {rounds}: {name}")
            times[name].append(each.run())
    seconds = {name: statistics.median(values) for name, values in times.items()}
    speed = {name: config.batch_size / value for name, value in seconds.items()}
    peak = peaks.bf16 if wants_bf16 else peaks.fp32

    progress(f"{size}: scoring")
    return {
        "batch_size": config.batch_size,
        "n_critic": config.n_critic,
        "precision": precision(config, device),
        "gflop_per_image": flops / config.batch_size / 1e9,
        "images_per_s": speed["product"],
        "images_per_s_range": [config.batch_size / max(times["product"]), config.batch_size / min(times["product"])],
        "speedup_vs_reference": seconds["reference"] / seconds["product"],
        "share_of_peak": flops / seconds["product"] / peak,
        "peak_memory_mb": memory,
        "ladder": {
            name: {"images_per_s": speed[name], "speedup_vs_reference": seconds["reference"] / seconds[name]} for name in times
        },
        "scoring": _bench_scoring(config, device, peaks, rounds),
    }


def timed_config(size: str, device: torch.device) -> Config:
    """The preset as it is timed: with negatives from the first step, and small batches at paper width on a CPU."""
    config = preset(size, warmup=0.0, epochs=100_000, max_steps=0)
    return config.replace(batch_size=CPU_BATCH) if size == "paper" and device.type == "cpu" else config


def measure_peaks(device: torch.device) -> Peaks:
    """The best of several large matrix products and copies."""
    side = 8192 if device.type == "cuda" else 2048
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(side, side, device=device).to(dtype)
        found.append(2 * side**3 / _best(lambda a=a: a @ a, device))
    source = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() / _best(lambda: target.copy_(source), device)
    return Peaks(*found, copied)


def bench_concurrent(n: int, device: torch.device) -> dict[str, Any]:
    """Train n `tiny` models at once, each in its own process with its share of the cores, and one with all of them."""
    threads = max(1, torch.get_num_threads() // n)
    alone = _train_in_processes(1, torch.get_num_threads(), device)
    together = _train_in_processes(n, threads, device)
    return {
        "processes": n,
        "threads_each": threads,
        "images_per_s": together,
        "images_per_s_alone": alone,
        "speedup": together / alone,
    }


def table(found: dict[str, Any]) -> str:
    """What `bench` found, for people."""
    peaks = found["peaks"]
    lines = [
        f"{found['device']}; torch {found['versions']['torch']}; median of {found['rounds']} rounds",
        f"peaks: {peaks['fp32_gflops']:,.0f} GFLOP/s fp32, {peaks['bf16_gflops']:,.0f} bf16; "
        f"copy {peaks['copy_gb_per_s']:.1f} GB/s",
    ]
    for size, row in found["sizes"].items():
        lines += [
            "",
            f"{size}: batch {row['batch_size']}, {row['n_critic']} critic steps, {row['precision']}, "
            f"{row['gflop_per_image']:.2f} GFLOP an image",
            f"  training  {row['images_per_s']:10,.1f} images/s  {row['speedup_vs_reference']:5.2f} x reference  "
            f"{row['share_of_peak']:6.1%} of peak  {row['peak_memory_mb']:,.0f} MB",
        ]
        lines += [
            f"    {'+ ' if name in list(LADDER)[1:] else ''}{name:26}{step['images_per_s']:10,.1f} images/s"
            f"  {step['speedup_vs_reference']:5.2f} x"
            for name, step in row["ladder"].items()
        ]
        scoring = row["scoring"]
        lines.append(
            f"  scoring   {scoring['images_per_s']:10,.1f} images/s  {scoring['share_of_peak']:6.1%} of the fp32 peak, "
            f"{scoring['share_in_networks']:.0%} of the time in the networks"
        )
    if "concurrent" in found:
        row = found["concurrent"]
        lines += [
            "",
            f"{row['processes']} tiny trainings at once, {row['threads_each']} threads each: {row['images_per_s']:,.1f} "
            f"images/s, {row['speedup']:.2f} x one with all threads ({row['images_per_s_alone']:,.1f})",
        ]
    return "\n".join(lines)


class _FlopCounter(TorchDispatchMode):
    """Adds up PyTorch's own counts. (Its `FlopCounterMode` follows modules as well, and fails at a gradient's gradient.)"""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


class _Product:
    """`training.train`, a window of steps at a time; where it `captures`, as CUDA graphs, whose operations are not counted."""

    def __init__(self, config: Config, device: torch.device, images: np.ndarray, n_steps: int, *, captures: bool = True):
        self.n_steps, self.device = n_steps, device
        self.trainer = AMATrainer(config, device)
        self.trainer.captures = captures
        self.events = train(self.trainer, images, log_every=n_steps, sample_every=2**31)

    def run(self) -> float:
        """Seconds a step, over `n_steps` steps or a few more."""
        start = time.perf_counter()
        steps = self._advance()
        return (time.perf_counter() - start) / steps

    def flops(self) -> float:
        """Floating-point operations a step."""
        with _FlopCounter() as counter:
            steps = self._advance()
        return counter.flops / steps

    def _advance(self) -> int:
        """Train at least `n_steps` steps and wait for the device; returns how many. In the beginning events come more often."""
        first = self.trainer.step
        while self.trainer.step < first + self.n_steps:
            next(self.events)
        return self.trainer.step - first


class _Reference:
    def __init__(self, config: Config, device: torch.device, images: np.ndarray, n_steps: int, shortcuts: Shortcuts):
        self.reference = Reference(config, device, shortcuts)
        self.batches = self.reference.loader(images)
        self.n_steps, self.device = n_steps, device

    def run(self, n_steps: int | None = None) -> float:
        n_steps = n_steps or self.n_steps
        start = time.perf_counter()
        for _ in range(n_steps):
            self.reference.step(next(self.batches))
        _wait(self.device)
        return (time.perf_counter() - start) / n_steps


def _steps(config: Config, device: torch.device) -> int:
    """Steps of a window: enough to be timed, few enough to be waited for."""
    wide = config.width_critic > 64
    if device.type == "cuda":
        return 5 if wide else 20
    return 1 if wide else 8


def _bench_scoring(config: Config, device: torch.device, peaks: Peaks, rounds: int) -> dict[str, float]:
    networks = AMATrainer(config, device).networks
    n = 4 * BATCH if device.type == "cuda" or config.width_critic <= 64 else BATCH // 2
    images = np.random.default_rng(0).integers(0, 256, (n, config.image_size, config.image_size, config.channels), np.uint8)
    with _FlopCounter() as counter:
        inference.statistics(networks, images)
    flops = counter.flops
    x = to_tensor(images[:BATCH], device)

    @torch.no_grad()
    def networks_alone() -> None:
        for _ in range(0, n, BATCH):
            y = networks.G(networks.E(x))
            networks.D.features(networks.pair(x, x))
            networks.D.features(networks.pair(x, y))

    whole = [_time(lambda: inference.statistics(networks, images), device) for _ in range(rounds)]
    alone = [_time(networks_alone, device) for _ in range(rounds)]
    seconds = statistics.median(whole)
    return {
        "images_per_s": n / seconds,
        "share_of_peak": flops / seconds / peaks.fp32,
        "share_in_networks": min(1.0, statistics.median(alone) / seconds),
    }


def _train_in_processes(n: int, threads: int, device: torch.device) -> float:
    """Images/s of n processes together, each between its own warm-up and its end."""
    command = [sys.executable, "-c", f"from ama_core.profiling.speed import _train_alone as f; f({str(device)!r}, {threads})"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    return sum(float(process.communicate()[0]) for process in processes)


def _train_alone(device: str, threads: int) -> None:
    """What a process of `bench_concurrent` does: prints its images/s."""
    torch.set_num_threads(threads)
    target = torch.device(device)
    config = timed_config("tiny", target)
    images = np.random.default_rng(0).integers(0, 256, (512, 32, 32, config.channels), np.uint8)
    product = _Product(config, target, images, 60)
    product.run()
    print(config.batch_size / product.run())


def _best(call: Callable[[], Any], device: torch.device) -> float:
    _time(call, device)
    return min(_time(call, device) for _ in range(8))


def _time(call: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts again


def _peak_memory(device: torch.device) -> float:
    """MB; of the whole process where the device is no GPU, today's use where the system keeps no high-water mark."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return psutil.Process().memory_info().rss / 2**20
