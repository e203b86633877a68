"""Run folders: one training, from what was asked to the finished model, in files that anyone may watch.

run.json               what was asked: data, hyper-parameters, protocol (see `spec`)
status.json            state, process, step, time left; rewritten at every event (see `status`)
metrics.jsonl          one line an event
samples/step-N.png     inputs above their reconstructions
watched/step-N.npz     scores of normal images and of others, looked at while it trains; step-N.png: some of both, likewise
checkpoint.safetensors everything needed to go on exactly
log.txt                the run's log, and what its process printed when it was launched from here
.lock                  locked by the process that works on the run
skip                   its presence asks a trained run to leave out what is not measured yet
stop                   its presence asks the run to save and end; the word `pause` in it, to be called paused
config.json, ...       the bundle (see `storage.bundle`), once finished
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ama_core.data import decode_image
from ama_core.data.pictures import png
from ama_core.errors import BundleError, ConfigError
from ama_core.runs.spec import FILE as SPEC
from ama_core.runs.spec import RunSpec
from ama_core.runs.status import State, Status, is_number
from ama_core.storage.files import (
    DAMAGED_ARRAYS,
    ROOT,
    lock,
    npz_bytes,
    open_arrays,
    parse_json,
    read_json,
    remove_partials,
    write_atomically,
)
from ama_core.training.loop import Event

STATUS = "status.json"
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.txt"
LOCK = ".lock"
METRICS = "metrics.jsonl"
STOP = "stop"
SKIP = "skip"
SAMPLES = "samples"
WATCHED = "watched"
RUNS_VARIABLE = "AMA_RUNS_DIR"
CURVE_POINTS = 500  # of a curve that is shown while it grows
LINE_BYTES = 200  # of a line of the log, about
WATCHED_KINDS = ("normal", "others")  # as they are called in files
NOT_MEASURED = ("kind", "step", "total_steps")  # entries of an event that are not values

Curves = dict[str, tuple[list[int], list[float]]]
"""Name of each measured value -> (steps, values)."""


@dataclass(frozen=True)
class Run:
    """A run folder, there or not yet."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    def exists(self) -> bool:
        """Whether anything was asked of it."""
        return (self.path / SPEC).exists()

    def is_unused(self) -> bool:
        """Whether nothing lies in the folder that belongs to a run or to anybody else, but for one that failed at once."""
        if not self.path.is_dir():
            return True
        names = {file.name for file in self.path.iterdir()}
        begun = {LOG, LOCK, SPEC, STATUS, METRICS, SAMPLES, WATCHED}
        return names <= {LOG, LOCK} or names <= begun and self._failed_at_once()

    def _failed_at_once(self) -> bool:
        """Whether what was asked of this run could not be begun, so that nothing is lost with it."""
        try:
            found = self.written_status()
        except BundleError:
            return False
        return found.state == State.FAILED and not found.step

    # What was asked, and the state

    def spec(self) -> RunSpec:
        """What it was asked to do. Raises BundleError."""
        return RunSpec.read(self.path)

    def write_spec(self, spec: RunSpec) -> None:
        write_atomically(self.path / SPEC, spec.to_json())

    def written_status(self) -> Status:
        """What `status.json` says, whether or not its process still lives. Raises BundleError."""
        try:
            return Status.from_dict(read_json(self.path / STATUS))
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.path} is not a run folder: {error}.") from error

    def status(self) -> Status:
        """Its status, where the process is gone with the state `interrupted`. Raises BundleError."""
        found = self.written_status()
        dead = found.state.is_active and not self._lives(found)
        return found.replace(state=State.INTERRUPTED) if dead else found

    def write(self, status: Status) -> None:
        """Replace `status.json`, with the time of this writing as `heartbeat`."""
        write_atomically(self.path / STATUS, json.dumps(status.replace(heartbeat=time.time()).to_dict()))

    def is_running(self) -> bool:
        """Whether the process that `status.json` names still lives and works on it; never the asking process itself."""
        try:
            return self._lives(self.written_status())
        except BundleError:
            return False

    def _lives(self, found: Status) -> bool:
        """Of another machine only the lock tells, where the disk has it; asking takes it for a moment."""
        return found.is_alive() or (found.is_elsewhere() and self._is_locked())

    def _is_locked(self) -> bool:
        try:
            with open(self.path / LOCK, "r+") as file:
                return not lock(file)
        except OSError:
            return False

    def _is_claimed(self) -> bool:
        """Whether a living process of this machine is named as the one that works on it, asked by the holder of the lock.

        Of a run of another machine the lock says that nobody does: its work may go on here at once.
        """
        try:
            found = self.written_status()
        except BundleError:
            return False
        return found.is_alive() and not found.is_elsewhere()

    @contextmanager
    def held(self, claimed: bool = False) -> Iterator[None]:
        """Meanwhile this process alone works on the run, in a folder without half-written files; makes the folder.

        Args:
            claimed: the queue's worker holds the run for this process: a stop asked for since then counts.

        Raises ConfigError where another process works on it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / LOCK, "a") as file:  # the lock ends with this process, however that ends
            if not _lock_soon(file) or (not claimed and self._is_claimed()):
                raise ConfigError(f"A process is already training in {self.path}: wait for it, or name another folder.")
            if not claimed:
                self.forget_stop()
            self.forget_skip()
            for place in (self.path, self.path / SAMPLES, self.path / WATCHED):
                remove_partials(place)
            yield

    # Stop requests

    def request_stop(self, *, pause: bool = False) -> None:
        """Ask it to save its state and end, at its next event; `pause`: it will be called paused, not stopped."""
        write_atomically(self.path / STOP, "pause" if pause else "")

    def stop_asked(self) -> str | None:
        """`pause` or `stop` where that was asked of it, else None."""
        try:
            return "pause" if (self.path / STOP).read_text() == "pause" else "stop"
        except OSError:
            return None

    def stop_state(self) -> State | None:
        """The state in which it was asked to end; None where nobody asked."""
        return {"pause": State.PAUSED, "stop": State.STOPPED, None: None}[self.stop_asked()]

    def forget_stop(self) -> None:
        (self.path / STOP).unlink(missing_ok=True)

    def request_skip(self) -> None:
        """Ask it, once trained, to leave out the sets that are not measured yet."""
        write_atomically(self.path / SKIP, "")

    def skip_asked(self) -> bool:
        return (self.path / SKIP).exists()

    def forget_skip(self) -> None:
        (self.path / SKIP).unlink(missing_ok=True)

    # What happened

    @contextmanager
    def recording(self) -> Iterator[Callable[[Event], None]]:
        """Yields a function that stores an event: its line of metrics, and its picture."""
        for place in (SAMPLES, WATCHED):
            (self.path / place).mkdir(exist_ok=True)
        with open(self.path / METRICS, "a") as metrics:

            def record(event: Event) -> None:
                if event.images is not None:
                    self._write_picture(event)
                if event.scores:
                    self._write_scores(event)
                line = {"kind": event.kind, "step": event.step, "total_steps": event.total_steps}
                metrics.write(json.dumps({**line, **event.values}) + "\n")
                metrics.flush()
                if event.kind == "checkpoint":
                    self.log(f"step {event.step} of {event.total_steps} saved")

            yield record

    def _write_picture(self, event: Event) -> None:
        place = WATCHED if event.kind == "watch" else SAMPLES
        rows = np.concatenate([np.concatenate(list(row), axis=1) for row in event.images])
        write_atomically(self.path / place / f"step-{event.step:07d}.png", png(rows))  # pages may be looking

    def _write_scores(self, event: Event) -> None:
        arrays = {}
        for name, both in event.scores.items():
            arrays |= {f"{name}/{kind}": values.astype(np.float32) for kind, values in zip(WATCHED_KINDS, both)}
        write_atomically(self.path / WATCHED / f"step-{event.step:07d}.npz", npz_bytes(arrays))

    def forget_after(self, step: int) -> None:
        """Drop the events that a resumed run is about to repeat."""
        kept = [event for event in self.metrics() if event["step"] <= step and event["kind"] != "done"]
        write_atomically(self.path / METRICS, "".join(json.dumps(event) + "\n" for event in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """Events so far, oldest first; a half-written last line, and any other that is damaged, is left out."""
        try:
            lines = (self.path / METRICS).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            try:
                event = parse_json(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("kind"), str) and is_number(event.get("step")):
                events.append({name: value for name, value in event.items() if name == "kind" or is_number(value)})
        return events

    def curves(self, limit: int = CURVE_POINTS) -> Curves:
        """Every measured value, evenly thinned to `limit` points, the newest always among them."""
        found: Curves = {}
        for event in self.metrics():
            if event["kind"] in ("progress", "validation", "watch"):
                for name in (name for name in event if name not in NOT_MEASURED):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(event["step"])
                    values.append(event[name])
        for name, (steps, values) in found.items():
            if len(steps) > limit:
                keep = np.linspace(0, len(steps) - 1, limit).round().astype(int)
                found[name] = ([steps[i] for i in keep], [values[i] for i in keep])
        return found

    def samples(self) -> dict[int, Path]:
        """Step -> picture of inputs above their reconstructions, in order of steps."""
        return _by_step(self.path / SAMPLES, "png")

    def watched(self) -> dict[int, Path]:
        """Step -> scores of the watched images, to be read by `read_watched`, in order of steps."""
        return _by_step(self.path / WATCHED, "npz")

    def watched_pictures(self) -> dict[int, Path]:
        """Step -> picture of some watched images, normal ones first, above their reconstructions, in order of steps."""
        return _by_step(self.path / WATCHED, "png")

    # The log

    def log(self, words: str) -> None:
        with open(self.path / LOG, "a", errors="backslashreplace") as file:  # a file's name need not be text
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {words}\n")

    def read_log(self, lines: int = 60) -> str:
        """The last lines of the log."""
        try:
            with open(self.path / LOG, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LINE_BYTES * lines))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def _lock_soon(file: IO[str]) -> bool:
    """Lock a file, tried more than once: whoever asks whether another machine works on the run takes the lock for a moment."""
    for _ in range(3):
        if lock(file):
            return True
        time.sleep(0.05)
    return False


def runs_dir() -> Path:
    """Where the app keeps its runs: the environment's AMA_RUNS_DIR, else `runs/` beside this package."""
    return Path(os.environ.get(RUNS_VARIABLE) or ROOT / "runs").expanduser()


def list_runs(folder: Path | str) -> dict[str, Path]:
    """Names and folders of the runs in `folder`, newest first."""
    found = {}
    for file in Path(folder).glob(f"*/{SPEC}"):
        with suppress(FileNotFoundError):  # of a run that is deleted meanwhile
            found[file.parent] = file.stat().st_mtime
    return {run.name: run for run in sorted(found, key=found.get, reverse=True)}


def read_watched(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Anomaly scores behind an entry of `Run.watched`: name of the score -> of normal images (n,) and of the others (m,).

    Raises BundleError.
    """
    try:
        with open_arrays(file) as found:
            names = dict.fromkeys(name.rpartition("/")[0] for name in found.files)
            return {name: tuple(found[f"{name}/{kind}"] for kind in WATCHED_KINDS) for name in names}
    except DAMAGED_ARRAYS as error:
        raise BundleError(f"{file} is damaged: {error}.") from error


def _by_step(folder: Path, kind: str) -> dict[int, Path]:
    numbers = {file: file.stem.removeprefix("step-") for file in sorted(folder.glob(f"step-*.{kind}"))}
    return {int(number): file for file, number in numbers.items() if number.isdecimal()}


def read_sample(file: Path) -> np.ndarray:
    """A picture of `Run.samples` as uint8 (H, W, C). Raises DataError."""
    return decode_image(file)[0]
