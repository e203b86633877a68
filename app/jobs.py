"""Work of some seconds that goes on in a thread of the server while pages look at it, and that can be stopped.

Trainings have a process of their own (see `ama_core.runs.queue`); this is for what is done before anyone leaves the page.
"""

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from ama_core import AMAError

MAX_JOBS = 8  # jobs that are remembered with their results; the oldest go first
WAIT = 0.2  # seconds between two looks at whether a waiting job was stopped
WAITING = "waiting for its turn"

_turn = threading.Lock()  # one job works at a time


class Stopped(Exception):
    """Raised in a job that was asked to stop."""


class Job:
    """One piece of work, begun when it is made.

    Args:
        work: is called with the job, tells it how far it is, and returns the result. It must not use Streamlit.

    Attributes:
        fraction: how much is done, in [0, 1]. doing: what is being done.
        result: what `work` returned. error: why it failed, in a sentence. stopped: whether it ended because it was asked to.
    """

    def __init__(self, work: Callable[["Job"], Any]):
        self.fraction, self.doing = 0.0, ""
        self.result: Any = None
        self.error: str | None = None
        self.stopped = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask it to end when it next tells how far it is."""
        self._stop.set()

    def tell(self, fraction: float, doing: str) -> None:
        """Called by the work. Raises Stopped where it was asked to stop."""
        if self._stop.is_set():
            raise Stopped
        self.fraction, self.doing = min(1.0, max(0.0, fraction)), doing

    def _run(self, work: Callable[["Job"], Any]) -> None:
        try:
            while not _turn.acquire(timeout=WAIT):
                self.tell(0.0, WAITING)
            try:
                self.result = work(self)
            finally:
                _turn.release()
        except Stopped:
            self.stopped = True
        except (AMAError, OSError, MemoryError) as error:
            self.error = str(error) or "There is not enough memory for this."
        except Exception:  # a defect: there is no script here that Streamlit would log it for
            logging.getLogger(__name__).exception("A job of the app failed")
            self.error = "This failed because of a defect in the software; the server's log has the details. Please report it."


@st.cache_resource(max_entries=1, show_spinner=False)
def _jobs() -> dict[Hashable, Job]:
    return {}


_lock = threading.Lock()


def find(key: Hashable) -> Job | None:
    """The last job of this key, of whichever session; None where there is none."""
    return _jobs().get(key)


def start(key: Hashable, work: Callable[[Job], Any]) -> Job:
    """Begin a job, or return the one of this key that is running."""
    with _lock:
        found = _jobs()
        if key in found and found[key].running:
            return found[key]
        found.pop(key, None)
        for old in [old for old, job in found.items() if not job.running][: max(0, len(found) - MAX_JOBS + 1)]:
            del found[old]
        job = found[key] = Job(work)
        return job
