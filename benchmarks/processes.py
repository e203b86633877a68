"""Two processes against one on the same cores, and Ray against the plain path: `python benchmarks/processes.py [--json]`.

Training: steps/s of FashionMNIST, preset `tiny`, by one process with all cores, by one with a single thread, and by
`torchrun --nproc-per-node 2`. Scoring: images/s of the bundled `photos` model by one process, by two calls of `--shard` at the
same time with `merge`, and by `--engine ray`; every way must write the same table, byte for byte. CPU seconds are those of the
whole machine, so nothing else may be running. Rounds are interleaved and the median is reported; starting the interpreter and
Ray counts, as it does for a user: `--images` says how much work there is behind it.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from ama_core.runs.folder import Run

AMA = [sys.executable, "-m", "ama_core"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ama_core"]
MODEL = "photos"


def images(file: Path, n: int) -> None:
    """n photographs' worth of noise at 32 pixels, uint8 (n, 32, 32, 3), from a seed."""
    np.savez(file, images=np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))


def busy() -> float:
    """CPU seconds of the whole machine so far."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def memory() -> int:
    """Bytes of all Python and Ray processes of this user, shared pages divided among those that share them."""
    total = 0
    for process in psutil.process_iter(["name"]):
        if any(word in (process.info["name"] or "") for word in ("python", "ray", "raylet", "gcs")):
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, AttributeError):
                continue
    return total


class Peak:
    """The largest `memory()` inside the block, above what there was before."""

    def __enter__(self) -> "Peak":
        self.before, self.most, self.ended = memory(), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.ended.wait(1.0):
            self.most = max(self.most, memory() - self.before)

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()


def timed(work: Callable[[], None]) -> dict[str, float]:
    """Wall-clock seconds, CPU seconds and peak memory of some work."""
    with Peak() as peak:
        began, used = time.perf_counter(), busy()
        work()
        seconds, cpu = time.perf_counter() - began, busy() - used
    return {"seconds": seconds, "cpu_s": cpu, "memory_gb": peak.most / 2**30}


def call(words: list[str], **environment: str) -> None:
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")


def training(place: Path, steps: int, rounds: int) -> dict[str, float]:
    """Steps/s of each way to train, from the second half of its progress events."""
    ways = {"one process, all cores": (AMA, {}), "one process, one thread": (AMA, {"OMP_NUM_THREADS": "1"})}
    ways["two processes"] = (TORCHRUN, {"OMP_NUM_THREADS": "1"})
    found: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(rounds):
        for way, (start, environment) in ways.items():
            out = place / f"{way.replace(' ', '-')}-{i}"
            settings = ["--preset", "tiny", "--set", f"max_steps={steps}", "--out", str(out), "--no-measure", "--quiet"]
            call([*start, "train", "fashionmnist", *settings], **environment)
            progress = [event for event in Run(out).metrics() if event["kind"] == "progress"]
            first, last = next(event for event in progress if event["step"] >= steps // 2), progress[-1]
            found[way].append((last["step"] - first["step"]) / (last["seconds"] - first["seconds"]))
    return {way: median(rates) for way, rates in found.items()}


def scoring(place: Path, n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Images/s, CPU milliseconds an image and peak memory of each way to score n images."""
    source = place / "images.npz"
    images(source, n)

    def score(out: Path, *more: str) -> list[str]:
        return [*AMA, "score", MODEL, str(source), "--out", str(out), "--quiet", *more]

    def here(out: Path) -> None:
        call(score(out))

    def shards(out: Path) -> None:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        calls = [subprocess.Popen(score(out, "--shard", f"{i}/2"), env=one_thread, stderr=subprocess.DEVNULL) for i in (1, 2)]
        if any([process.wait() for process in calls]):
            sys.exit("a shard could not be scored")
        call([*AMA, "merge", str(out)])

    def ray(out: Path) -> None:
        call(score(out, "--engine", "ray"))

    ways = {"one process": here, "two shards and merge": shards}
    if importlib.util.find_spec("ray"):
        ways["ray"] = ray
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    tables = set()
    for i in range(rounds):
        for way, work in ways.items():
            out = place / f"{way.replace(' ', '-')}-{i}.csv"
            found[way].append(timed(lambda work=work, out=out: work(out)))
            tables.add(out.read_bytes())
    if len(tables) != 1:
        sys.exit("The tables differ.")
    return {
        way: {
            "images_per_s": n / median(one["seconds"] for one in each),
            "cpu_ms_per_image": 1000 * median(one["cpu_s"] for one in each) / n,
            "memory_gb": max(one["memory_gb"] for one in each),
        }
        for way, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = {
            "training": training(Path(place), arguments.steps, arguments.rounds),
            "scoring": scoring(Path(place), arguments.images, arguments.rounds),
        }
    if arguments.json:
        print(json.dumps(found))
        return
    alone = found["training"]["one process, all cores"]
    for way, rate in found["training"].items():
        print(f"training, {way}: {rate:.2f} steps/s ({rate / alone:.2f} x)")
    plain = found["scoring"]["one process"]
    for way, one in found["scoring"].items():
        print(
            f"scoring, {way}: {one['images_per_s']:.0f} images/s ({one['images_per_s'] / plain['images_per_s']:.2f} x), "
            f"{one['cpu_ms_per_image']:.2f} ms CPU an image ({one['cpu_ms_per_image'] / plain['cpu_ms_per_image']:.2f} x), "
            f"{one['memory_gb']:.2f} GB"
        )


if __name__ == "__main__":
    main()
