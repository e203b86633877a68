"""A request to stop that comes from outside is never lost, and a second Ctrl-C ends at once."""

import subprocess
import sys

BEGIN = """
import os, signal, threading, weakref
from ama_core.stopping import stop_signals

class Thing: pass
"""


def run(code):
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=120)


def test_a_ctrl_c_while_an_object_is_finalised_is_not_lost():
    done = run("""
with stop_signals() as stop_requested:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert not stop_requested()
    del thing
    print(stop_requested())
""")
    assert done.stdout == "True\n" and not done.stderr and done.returncode == 0


def test_a_second_ctrl_c_ends_at_once_and_sigterm_never_does():
    done = run("""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it from the start
with stop_signals() as stop_requested:
    for number in (signal.SIGTERM, signal.SIGTERM):
        os.kill(os.getpid(), number)
    print(stop_requested())
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("at once")
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
""")
    assert done.stdout.split("\n") == ["True", "at once", "True True", ""], done.stderr


def test_what_goes_on_receiving_sigterm_keeps_the_handler():
    done = run("""
with stop_signals(restore=lambda: False):
    pass
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
""")
    assert done.stdout == "still here\n"


def test_outside_the_main_thread_nothing_is_asked_and_nothing_is_touched():
    done = run("""
def work():
    with stop_signals() as stop_requested:
        print(stop_requested(), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

threading.Thread(target=work).start()
""")
    assert done.stdout == "False True\n"
