"""Requests to stop from outside the process, which long work looks at between two of its steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

StopRequested = Callable[[], bool]


@contextmanager
def stop_signals(*, restore: Callable[[], bool] = lambda: True) -> Iterator[StopRequested]:
    """Yields a function that tells whether SIGTERM or Ctrl-C has come; a Ctrl-C after that raises KeyboardInterrupt.

    The first is asked for, not raised: Python drops an exception that a signal raises while an object is being finalised, so
    that a Ctrl-C can get lost. In other threads than the main one, where Python delivers no signals, the answer is always no.

    Args:
        restore: whether to put the previous handlers back, asked at the end. Not in a process that goes on receiving SIGTERM
            while it ends.
    """
    asked = False  # no threading.Event: its lock may be held by the very code that the handler interrupts

    def on_signal(number, frame):
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        if restore():
            for number, handler in previous.items():
                signal.signal(number, handler)
