"""What becomes of a run that is killed, or whose disk fills: `python benchmarks/faults.py [--kills 60] [--seed 0] [--json]`.

One small training is killed again and again, by SIGKILL and SIGTERM in turn, after a random time, and resumed each time. After
each kill the run folder must be readable, must not be shown as running, and its checkpoint must load and must not have gone
back. In the end the model must equal, bit for bit, that of a run that nobody disturbed, and no event may be missing or double.
Then the disk is full at the first write of a run, at the second, and so on up to its last: each time the run must end with that
reason, and be as good as new when resumed.

Needs `os.fork`: a forked process begins within milliseconds, so that the kills fall on the work and not on imports.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a forked process cannot use its parent's threads

import argparse
import dataclasses
import errno
import functools
import io
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

from ama_core import Config
from ama_core.detectors import base as detector
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.evaluation import protocol as evaluation
from ama_core.runs import execute as runs
from ama_core.runs import folder as run_folder
from ama_core.runs.folder import CHECKPOINT, Run, read_sample
from ama_core.runs.spec import RunSpec
from ama_core.storage.files import PARTIAL
from ama_core.training import loop as training

CONFIG = Config(
    channels=1,
    fit="pad",
    nz=8,
    width_encoder=8,
    width_generator=8,
    width_critic=8,
    batch_size=16,
    n_critic=1,
    reg="hinge",
    epochs=1000,
    max_steps=60,
    precision="fp32",
)
SECONDS = 2.5  # most processes live at most so long
COMPARED = ("model.safetensors", "calibration.npz")


class Damaged(AssertionError):
    """A kill cost more than the work since the last checkpoint."""


def be_quick() -> None:
    """From here on this process saves a run many times a second, and measures it on few sets."""
    detector.train = functools.partial(training.train, checkpoint_seconds=0.02, log_every=2, sample_every=10)
    evaluation.available_sets = lambda: ["digits", "flat"]
    sys.modules["umap"] = None  # its compilation would be most of the run


def fork(folder: Path, spec: RunSpec, resume: bool) -> int:
    """Carry out the run in a forked process, whose id is returned."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        be_quick()
        runs.execute(folder, spec, resume=resume, device="cpu")
        code = 0
    except runs.RunStopped:
        code = 130
    finally:
        os._exit(code)


def inspect(folder: Path, step: int) -> tuple[str, int]:
    """State and checkpointed step of a run whose process was killed; `step` is that of the kill before. Raises Damaged."""
    state, found = "not begun", 0
    if (folder / "status.json").exists():
        state = Run(folder).status().state
        RunSpec.read(folder)
    if state not in ("not begun", "interrupted", "failed", "stopped", "finished"):
        raise Damaged(f"A run without a process is shown as {state}.")
    Run(folder).curves()
    for picture in Run(folder).samples().values():
        read_sample(picture)
    if (folder / CHECKPOINT).exists():
        found = AMATrainer.load(folder / CHECKPOINT, torch.device("cpu")).step
    if found < step:
        raise Damaged(f"The checkpoint went back from step {step} to {found}.")
    return state, found


def compare(folder: Path, undisturbed: Path) -> None:
    """Raises Damaged where two finished runs differ in their model, their events, or what lies in their folders."""
    for name in COMPARED:
        if (folder / name).read_bytes() != (undisturbed / name).read_bytes():
            raise Damaged(f"{name} differs from that of an undisturbed run.")
    steps = [[(e["kind"], e["step"]) for e in Run(f).metrics() if e["kind"] != "checkpoint"] for f in (folder, undisturbed)]
    if steps[0] != steps[1]:
        raise Damaged("Events are missing or double.")
    if left := list(folder.rglob(f"*{PARTIAL}")):
        raise Damaged(f"{len(left)} half-written files were left behind.")


def kill_often(folder: Path, spec: RunSpec, kills: int, seed: int, seconds: float = SECONDS) -> Counter:
    """Kill and resume a run until `kills` kills have met a living process, then let it end; states met, counted.

    A run that ends before that is begun anew in the folder's next neighbour.
    """
    chance = random.Random(seed)
    met, step, number = Counter(), 0, 0
    current = folder / "0"
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        while sum(met.values()) < kills:
            pid = fork(current, spec, resume=(current / "run.json").exists())
            time.sleep(chance.uniform(0.0, seconds if chance.random() < 0.75 else 4 * seconds))  # some reach the measuring
            sent = chance.choice((signal.SIGKILL, signal.SIGTERM))
            os.kill(pid, sent)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code not in (0, 130, -signal.SIGKILL, -signal.SIGTERM):
                raise Damaged(f"A process ended with code {code} instead of going on: {Run(current).read_log(3)}")
            state, step = inspect(current, step)
            if code != 0:
                met[f"{sent.name}: {state}"] += 1
                bar.update()
            else:
                number, step = number + 1, 0
                current = folder / str(number)
    if not (current / "status.json").exists() or Run(current).status().state != "finished":
        os.waitpid(fork(current, spec, resume=(current / "run.json").exists()), 0)
    return met


class FullDisk:
    """While it is open, the write of this number, and all after it, find no room on the disk; `writes` counts them."""

    def __init__(self, number: int):
        self.number, self.writes = number, 0

    def __enter__(self) -> "FullDisk":
        self.fsync, disk = os.fsync, self

        class File(io.TextIOWrapper):
            def write(self, text: str) -> int:
                disk.count()
                return super().write(text)

        def opened(file, mode="r", **how):
            return File(open(file, "ab"), write_through=True, **how) if mode == "a" else open(file, mode, **how)

        def fsync(handle):
            self.count()
            self.fsync(handle)

        os.fsync, run_folder.open = fsync, opened  # of whole files; of files that grow
        return self

    def __exit__(self, *_) -> None:
        os.fsync = self.fsync
        del run_folder.open

    def count(self) -> None:
        self.writes += 1
        if self.writes >= self.number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_disk_at_every_write(place: Path, spec: RunSpec, undisturbed: Path) -> int:
    """Let each write of a run fail in turn, resume it, and compare; how many writes there were. Raises Damaged."""
    for number in itertools.count(1):
        folder = place / str(number)
        with FullDisk(number) as disk:
            try:
                runs.execute(folder, spec, device="cpu")
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return disk.writes
        begun = (folder / "run.json").exists()
        inspect(folder, 0)
        runs.execute(folder, spec, resume=begun, device="cpu")
        compare(folder, undisturbed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        spec = RunSpec("digits", CONFIG)
        os.waitpid(fork(Path(place, "undisturbed"), spec, resume=False), 0)
        began = time.perf_counter()
        met = kill_often(Path(place, "killed"), spec, arguments.kills, arguments.seed)
        finished = list(Path(place, "killed").iterdir())
        for folder in finished:
            compare(folder, Path(place, "undisturbed"))
        seconds = time.perf_counter() - began
        be_quick()
        short = dataclasses.replace(spec, config=dataclasses.replace(CONFIG, max_steps=3))
        runs.execute(Path(place, "short"), short, device="cpu")
        writes = fill_disk_at_every_write(Path(place, "full"), short, Path(place, "short"))
    found = {"kills": sum(met.values()), "states": dict(met), "runs": len(finished), "seconds": seconds, "writes": writes}
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"{found['kills']} kills in {found['seconds']:.0f} s over {found['runs']} runs, nothing lost, all models equal:")
        print("\n".join(f"  {what}: {n}" for what, n in sorted(met.items())))
        print(f"A full disk at each of the {writes} writes of a run in turn: nothing lost, all models equal.")


if __name__ == "__main__":
    main()
