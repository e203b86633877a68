"""The state of a run, typed: what `status.json` holds."""

import dataclasses
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ama_core.errors import ConfigError
from ama_core.runs.processes import process_mark
from ama_core.training.loop import Event


class State(StrEnum):
    """What a run is doing, or how it ended."""

    QUEUED = "queued"  # waits for the queue's worker
    RUNNING = "running"
    MEASURING = "measuring"  # trained; scores the data sets that are available locally
    PAUSED = "paused"  # saved, and keeps its place in the queue
    STOPPED = "stopped"  # saved
    INTERRUPTED = "interrupted"  # its process is gone
    FAILED = "failed"
    FINISHED = "finished"

    @property
    def is_active(self) -> bool:
        """Whether a process works on the run."""
        return self in ACTIVE


ACTIVE = (State.RUNNING, State.MEASURING)
HEARD_SECONDS = 60  # a run of another machine that wrote its status so lately is taken to live
RESUMABLE = (State.PAUSED, State.STOPPED, State.INTERRUPTED, State.FAILED)


@dataclass(frozen=True)
class Status:
    """What a run says of itself; fields that are None are not in the file.

    Attributes:
        pid, mark: the process that works on it, and what tells this from another of the same number (see `process_mark`).
        host: the name of the machine on which it works, where several share a disk.
        submitted: when it was queued, its place in the queue. started: when its process began. heartbeat: of the last writing.
            All in seconds since 1970.
        device: in words. fingerprint: of its images. error: why it failed. warning: what is wrong with the training.
        measuring: what is being measured, the `measured_sets`-th of `sets_to_measure` pieces of work; where that is a data set,
            it is set `set_number` of `sets` (each is scored twice: a sample for densities, and for the figures).
        values: the newest value of everything else that was reported: losses, rate, time left.
    """

    state: State
    pid: int | None = None
    mark: str | None = None
    host: str | None = None
    submitted: float | None = None
    started: float | None = None
    heartbeat: float | None = None
    device: str | None = None
    fingerprint: str | None = None
    error: str | None = None
    warning: str | None = None
    step: int | None = None
    total_steps: int | None = None
    measuring: str | None = None
    measured_sets: int | None = None
    sets_to_measure: int | None = None
    set_number: int | None = None
    sets: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, found: Any) -> "Status":
        """From what `status.json` holds. Raises ValueError where that is not a status."""
        if not isinstance(found, dict) or not isinstance(found.get("state"), str):
            raise ValueError("status.json does not say its state")
        if found["state"] not in list(State):
            raise ValueError(f"status.json says the unknown state {found['state'][:40]!r}")
        known, values = {"state": State(found["state"])}, {}
        for name, value in found.items():
            if name in _WORDS:
                if not isinstance(value, str | None):
                    raise ValueError(f"{name} in status.json is not text")
                known[name] = value
            elif name != "state":
                if not is_number(value):
                    raise ValueError(f"{name} in status.json is not a number")
                (known if name in _NUMBERS else values)[name] = value
        return cls(**known, values=values)

    def to_dict(self) -> dict[str, Any]:
        """As `status.json` holds it: one level, the values among the rest."""
        own = {name: getattr(self, name) for name in (*_NUMBERS, *_WORDS)}
        return {"state": self.state.value, **{name: value for name, value in own.items() if value is not None}, **self.values}

    def replace(self, **changes: Any) -> "Status":
        """A copy with `changes`."""
        return dataclasses.replace(self, **changes)

    def after(self, event: Event) -> "Status":
        """The status once this has happened in training.

        Raises ConfigError where a detector's curve is called as a field is: `status.json` could not hold both.
        """
        if taken := {*_NUMBERS, *_WORDS, "state"} & set(event.values):
            raise ConfigError(f"A curve of this detector is called {min(taken)!r}, as a field of status.json: rename it.")
        values, warning = {**self.values, **event.values}, event.warning or self.warning  # what was wrong once stays so
        return self.replace(step=event.step, total_steps=event.total_steps, values=values, warning=warning)

    def by_this_process(self) -> "Status":
        """The same, of a run that this process works on."""
        return self.replace(pid=os.getpid(), mark=process_mark(os.getpid()), host=platform.node() or None)

    def is_elsewhere(self) -> bool:
        """Whether another machine works on the run, or did, so that process ids of this one say nothing of it."""
        return self.state.is_active and self.host is not None and self.host != platform.node()

    def is_alive(self) -> bool:
        """Whether the process that it names still works on the run; never the asking process itself.

        Of a process on another machine: whether it wrote this lately.
        """
        if self.is_elsewhere():
            return self.heartbeat is not None and abs(time.time() - self.heartbeat) < HEARD_SECONDS
        if not self.state.is_active or self.pid is None or self.pid == os.getpid():
            return False
        mark = process_mark(self.pid)
        return mark is not None and mark == (self.mark or mark)


_WORDS = ("mark", "host", "device", "fingerprint", "error", "warning", "measuring")
_NUMBERS = tuple(f.name for f in dataclasses.fields(Status) if f.name not in (*_WORDS, "state", "values"))


def is_number(value: Any) -> bool:
    """Whether it is a number that charts and counters can take: finite, and no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63  # false for NaN
