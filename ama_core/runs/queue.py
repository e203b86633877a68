"""The queue: one machine trains one run at a time, whoever submitted it and whichever page is open.

Every queued run is a run folder (see `runs`) whose state is `queued`; the run that was submitted first comes first. One worker
process a folder of runs (`python -m ama_core work`) carries them out, each in a process of its own, and ends when none is left.
All of it lies in files, so that a closed tab, a restarted server or a killed worker loses nothing: the next `ensure_worker`
goes on.

    .queue.lock    held for the moment in which a state changes hands
    .worker.lock   held by the worker while it lives: the system frees it however the worker ends; names its process id
    .worker.log    what the worker printed
    uploads/       archives and images that were handed over through the app
"""

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ama_core.data import iter_unread
from ama_core.data.decode import SUFFIXES
from ama_core.data.pictures import png
from ama_core.errors import BundleError, ConfigError, DataError
from ama_core.runs import execute as runs
from ama_core.runs.folder import Run, list_runs
from ama_core.runs.processes import Scheduler, start_command
from ama_core.runs.spec import RunSpec, check
from ama_core.runs.status import RESUMABLE, State, Status
from ama_core.storage.files import lock, unlock, write_atomically

UPLOADS = "uploads"
UPLOAD_TYPES = ("zip", "npz")

_spawned: dict[Path, subprocess.Popen] = {}  # the workers that this process started: a starting one does not hold its lock yet


def check_name(folder: Path | str, name: str) -> None:
    """Raises ConfigError where `name` cannot be the name of a new run in `folder`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ConfigError(
            f"The run cannot be called {name!r}: use up to 64 letters, digits, - and _, beginning with a letter or digit."
        )
    if name.lower() in {UPLOADS, *(path.name.lower() for path in Path(folder).glob("*"))}:
        raise ConfigError(f"Among the runs there is one called {name!r} already: choose another name, or delete it first.")


def free_name(folder: Path | str, wish: str) -> str:
    """`wish` made a valid name of a new run, with a number where it is taken."""
    wish = re.sub(r"[^A-Za-z0-9_-]+", "-", wish).strip("-_")[:56] or "run"
    taken = {UPLOADS, *(path.name.lower() for path in Path(folder).glob("*"))}
    number = 2
    name = wish
    while name.lower() in taken:
        name, number = f"{wish}-{number}", number + 1
    return name


def new_folder(folder: Path | str, wish: str) -> Path:
    """Make a folder for a new run, called `wish` as `free_name` makes it, and nobody else's. Raises ConfigError."""
    folder = Path(folder)
    with _in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _states(folder):
        path = folder / free_name(folder, wish)
        path.mkdir()
        return path


def submit(folder: Path | str, name: str, spec: RunSpec) -> Path:
    """Queue a new run and see to it that a worker lives; returns its run folder.

    Raises:
        ConfigError, DataError: the name or the spec will not do (see `check_name`, `check`), or the disk.
    """
    folder = Path(folder)
    check(spec)
    with _in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _states(folder):
        check_name(folder, name)
        run = Run(folder / name)
        run.path.mkdir()
        run.write_spec(spec)
        run.write(Status(State.QUEUED, submitted=time.time()))
    ensure_worker(folder)
    return run.path


def stop(run: Path | str, *, pause: bool = False) -> None:
    """Stop a run, its state saved; one that only waits leaves the queue. `pause`: it keeps its place for `resume`.

    One at work ends at its next event. Raises ConfigError where there is nothing to stop.
    """
    run = Run(Path(run))
    with _states(run.path.parent):
        status = run.status()
        if status.state == State.QUEUED:
            run.write(status.replace(state=State.PAUSED if pause else State.STOPPED))
        elif status.state.is_active:
            run.request_stop(pause=pause)
        else:
            raise ConfigError(f"{run.name} is {status.state}: only a run that is queued or running can be stopped.")


def resume(run: Path | str) -> None:
    """Queue a run again, to go on where it stopped: a paused one at its old place, any other at the end.

    Raises ConfigError where it is not paused, stopped, interrupted or failed; BundleError where its folder is damaged.
    """
    run = Run(Path(run))
    run.spec()
    with _states(run.path.parent):
        status = run.status()
        if status.state not in RESUMABLE:
            raise ConfigError(f"{run.name} is {status.state}: there is nothing to resume.")
        kept = status.submitted if status.state == State.PAUSED else None
        run.write(status.replace(state=State.QUEUED, error=None, submitted=kept or time.time()))
    ensure_worker(run.path.parent)


def skip(run: Path | str) -> None:
    """Leave out what a trained run has not measured yet. Raises ConfigError where it is not measuring."""
    run = Run(Path(run))
    with _states(run.path.parent):
        status = run.status()
        if status.state != State.MEASURING:
            raise ConfigError(f"{run.name} is {status.state}: only a run that is measuring can skip that.")
        run.request_skip()


def delete(run: Path | str) -> None:
    """Delete a run folder for good. Raises ConfigError while it is running, BundleError where it is no run folder."""
    run = Path(run)
    if run.is_symlink() or run.parent.resolve() != run.resolve().parent or not (run / "run.json").is_file():
        raise BundleError(f"{run} is not a run folder, so it was not deleted.")
    with _states(run.parent):
        if Run(run).is_running():
            raise ConfigError(f"{run.name} is running: stop it before you delete it.")
        (run / "run.json").unlink()  # from here on no list shows it
        shutil.rmtree(run)


def waiting(folder: Path | str) -> list[Path]:
    """The queued runs of `folder`, the next one first."""
    found = []
    for path in list_runs(folder).values():
        status = _status(Run(path))
        if status and status.state == State.QUEUED:
            found.append((status.submitted or 0.0, path.name, path))
    return [path for _, _, path in sorted(found)]


def ensure_worker(folder: Path | str) -> None:
    """Start the worker of `folder` where runs are queued and none lives; it outlives this process. Cheap to call often."""
    folder = Path(folder).resolve()
    if not waiting(folder):
        return
    with _states(folder):
        with open(folder / ".worker.lock", "a+") as file:
            if not lock(file):
                return  # one lives
            unlock(file)
        own = _spawned.get(folder)
        if own is not None and own.poll() is None and _worker_pid(folder) != own.pid:
            return  # still on its way to its lock
        _spawned[folder] = start_command(["work", "--runs", str(folder)], folder / ".worker.log")


def work(folder: Path | str) -> None:
    """Be the worker: carry out queued runs, one after the other, until none is left. Returns at once where one lives.

    A run that goes on without a worker, because that was killed or because it was started by hand, is waited for.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".worker.lock", "a+") as file:
        with _states(folder):
            if not lock(file):
                return
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()

        def finished() -> bool:
            with _states(folder):
                if waiting(folder):
                    return False
                unlock(file)  # the lock goes before anyone can queue another
                return True

        Scheduler(lambda: _take(folder), _start, _ended, finished).run()


def save_upload(folder: Path | str, name: str, data: bytes) -> Path:
    """Keep an uploaded archive in `uploads/`, under a name made of its contents, so that handing it over twice is no harm.

    Raises DataError for another kind of file, ConfigError where the disk does not take it.
    """
    stem, _, kind = Path(name).name.rpartition(".")
    if kind.lower() not in UPLOAD_TYPES:
        raise DataError(f"'{name}' is neither a .zip nor an .npz file.")
    target = Path(folder) / UPLOADS
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:40] or "images"
    file = target / f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}.{kind.lower()}"
    with _in_words(folder):
        target.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write_atomically(file, data)
    return file


def save_images(folder: Path | str, files: Sequence[tuple[str, bytes]], limit: int) -> tuple[Path, int]:
    """Keep at most `limit` readable images of files and archives, (name, contents), in a folder of `uploads/`, to train on.

    An image file is kept as it is, a member of an archive as PNG, under names of our own; what cannot be read is left out. The
    folder is named by the names and contents, and there once it is complete, so that handing them over twice is no harm.
    Returns it, and how many images lie in it. Raises DataError where none is readable, ConfigError where the disk does not take
    it.
    """
    parts = [str(limit).encode(), *(part for name, data in files for part in (name.encode(errors="replace"), data))]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:8]
    target = Path(folder) / UPLOADS / f"images-{digest}"
    partial = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    with _in_words(folder):
        if target.is_dir():
            return target.resolve(), sum(1 for _ in target.iterdir())
        try:
            if not (n := _write_images(partial, files, limit)):
                raise DataError("None of these files is a readable image, so there is nothing to train on.")
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # where it is, another session handed over the same at once
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target.resolve(), n


def _write_images(folder: Path, files: Sequence[tuple[str, bytes]], limit: int) -> int:
    """Write at most `limit` readable images of files and archives into a new folder; returns how many."""
    n = 0
    folder.mkdir(parents=True)
    for name, data in files:
        suffix = Path(name).suffix.lower()
        for unread in iter_unread([(name, data)]):
            if n == limit:
                return n  # before it is decoded
            item = unread.read()
            if item.image is None:
                continue
            n += 1
            stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(item.path).stem).strip("-_")[:40] or "image"
            whole = suffix in SUFFIXES and item.index == 0  # neither from an archive nor one of several frames
            kind, contents = (suffix, data) if whole else (".png", png(item.image))
            (folder / f"{n:04d}-{stem}{kind}").write_bytes(contents)
    return n


def _take(folder: Path) -> Run | None:
    """The next queued run, held for this worker from here on; None where there is none, or another is still running."""
    with _states(folder):
        queued = waiting(folder)
        if not queued or any(Run(path).is_running() for path in list_runs(folder).values()):
            return None
        run = Run(queued[0])
        run.write(run.status().replace(state=State.RUNNING, started=time.time()).by_this_process())
        run.forget_stop()
        return run


def _start(run: Run) -> subprocess.Popen | None:
    """Train in a process of its own; where none can be started, the run says why."""
    try:
        return runs.start(run.path, run.spec(), resume=True, claimed=True)
    except (BundleError, OSError) as problem:
        _give_up(run, State.FAILED, str(problem))
        return None


def _ended(run: Run, code: int) -> None:
    """Where the process of a run ended before it could say why, say so for it."""
    state, why = (State.FAILED, f"with code {code}") if code >= 0 else (State.INTERRUPTED, f"by signal {-code}")
    _give_up(run, state, f"The process was ended {why} before it began. The log may say more.")


def _give_up(run: Run, state: State, error: str) -> None:
    with _states(run.path.parent):
        status = _status(run)
        if status and status.pid == os.getpid():  # ours still: the run never wrote its own
            asked = run.stop_state()
            run.write(status.replace(state=asked) if asked else status.replace(state=state, error=error))


def _status(run: Run) -> Status | None:
    try:
        return run.status()
    except BundleError:
        return None


def _worker_pid(folder: Path) -> int | None:
    try:
        return int((folder / ".worker.lock").read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def _in_words(folder: Path | str) -> Iterator[None]:
    """A disk that is full or must not be written to is the user's to mend: ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"The folder of runs, {folder}, cannot be used: {error.strerror or error}.") from error


@contextmanager
def _states(folder: Path) -> Iterator[None]:
    """Nobody else changes the state of a run of `folder` meanwhile. Raises ConfigError where the disk does not allow it."""
    with _in_words(folder), open(Path(folder) / ".queue.lock", "a+") as file:
        if not lock(file, wait=True):
            raise ConfigError(
                f"{folder} cannot be locked, as where its disk is a network drive without locks, or another process holds it. "
                "Try again, or name another folder of runs with AMA_RUNS_DIR."
            )
        try:
            yield
        finally:
            unlock(file)
