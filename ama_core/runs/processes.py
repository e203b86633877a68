"""Processes of our own: started beside this one, watched, and stopped. The queue and the paper's tables both use it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import psutil

POLL_SECONDS = 0.5  # between two looks at the processes

Task = TypeVar("Task")


def process_mark(pid: int) -> str | None:
    """When the living process `pid` began: tells it from another that gets its number later. None: no such, or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():  # in ticks since boot, which setting the clock does not move
            return stat.read_text().rpartition(")")[2].split()[19]
        return f"{process.create_time():.2f}"
    except (psutil.Error, OSError, ValueError, TypeError, OverflowError):
        return None


def start_command(words: Sequence[str], log: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start `python -m ama_core words` in a session of its own: it outlives this process, and Ctrl-C does not reach it.

    Args:
        log: file to which it prints. variables: of its environment, beside ours.

    Raises OSError.
    """
    with open(log, "a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "ama_core", *words],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **(variables or {})},
        )


class Scheduler(Generic[Task]):
    """Carries out tasks, each in a process of its own, at most `parallel` at a time.

    Args:
        take: gives the next task, or None where none can be started now.
        start: starts the process of a task; None where it could not be started, which `start` itself has dealt with.
        ended: is told a task and the exit code of its process (negative: the signal that ended it).
        started: is told a task whose process now runs.
        finished: whether nothing is left to wait for; asked while no process runs.

    Attributes:
        active: the tasks under way, with their processes.
    """

    def __init__(
        self,
        take: Callable[[], Task | None],
        start: Callable[[Task], subprocess.Popen | None],
        ended: Callable[[Task, int], None],
        finished: Callable[[], bool],
        started: Callable[[Task], None] = lambda task: None,
        parallel: int = 1,
    ):
        self.take, self.start, self.started, self.ended, self.finished = take, start, started, ended, finished
        self.parallel = parallel
        self.active: list[tuple[Task, subprocess.Popen]] = []

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Until `finished`; `tick` is called every POLL_SECONDS. What it or Ctrl-C raises leaves the processes running."""
        while True:
            self._fill()
            if not self.active and self.finished():
                return
            self._wait()
            for task, process in [pair for pair in self.active if pair[1].poll() is not None]:
                self.active.remove((task, process))
                self.ended(task, process.returncode)
            tick()

    def stop(self) -> None:
        """Ask all processes to save and end, and wait for that; a Ctrl-C meanwhile ends them as they are."""
        for _, process in self.active:
            process.terminate()
        try:
            for _, process in self.active:
                process.wait()
        except KeyboardInterrupt:
            for _, process in self.active:
                process.kill()
                process.wait()

    def _fill(self) -> None:
        while len(self.active) < self.parallel and (task := self.take()) is not None:
            process = self.start(task)
            if process is not None:
                self.active.append((task, process))
                self.started(task)

    def _wait(self) -> None:
        """POLL_SECONDS, or until the only process has ended."""
        if len(self.active) == 1:
            with suppress(subprocess.TimeoutExpired):
                self.active[0][1].wait(POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)
