"""Work on other threads that was called off: Ctrl-C reaches the main thread only, and these ask now and then.

Who has several threads ask servers gives them one event; when it is set, a request that one of them waits for is stopped
as by an interrupt of its own, a launch is ended, and no other request begins.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EVENT: ContextVar[threading.Event | None] = ContextVar("called off", default=None)


@contextmanager
def by(event: threading.Event) -> Iterator[None]:
    """What this thread does meanwhile is called off when the event is set."""
    token = _EVENT.set(event)
    try:
        yield
    finally:
        _EVENT.reset(token)


def check() -> None:
    """Raise where what this thread does was called off.

    Raises:
        KeyboardInterrupt: it was.
    """
    event = _EVENT.get()
    if event is not None and event.is_set():
        raise KeyboardInterrupt
