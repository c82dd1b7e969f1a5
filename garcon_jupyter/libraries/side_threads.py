"""Threads beside the notebook's own, which are over before Python is.

When Python ends, it unwinds daemon threads where they stand, as soon as they ask for the interpreter. In the midst of
torch's C++, which forbids that (an answer of the server that becomes tensors), the process is aborted, with "terminate
called without an active exception": after a script that did all that it should (torch 2.12 to 2.15 with Python 3.11).
So threads that may touch torch are started here. At the end of the process each is told to stop, and waited for.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
import weakref
from collections.abc import Callable

LONGEST = 5.0
"""Seconds for which the end of the process waits for them all: one may wait for a server that does not answer."""

_STOPS: weakref.WeakKeyDictionary[threading.Thread, Callable[[], object]] = (
    weakref.WeakKeyDictionary()
)


def start(name: str, run: Callable[[], object], stop: Callable[[], object]) -> threading.Thread:
    """Start a thread.

    Args:
        name: as debuggers show it.
        run: what it does.
        stop: has it end soon; called on another thread, once, when the process ends.
    """
    _wait_at_exit()
    thread = threading.Thread(target=run, name=name, daemon=True)
    _STOPS[thread] = stop
    thread.start()
    return thread


def end(longest: float = LONGEST) -> bool:
    """Stop all that run; whether they ended in so many seconds."""
    running = [(thread, stop) for thread, stop in _STOPS.items() if thread.is_alive()]
    for _, stop in running:
        stop()
    until = time.monotonic() + longest
    for thread, _ in running:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread, _ in running)


@functools.cache
def _wait_at_exit() -> None:
    atexit.register(end)
