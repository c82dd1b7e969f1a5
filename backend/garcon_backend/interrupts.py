"""When an interrupt may raise.

A signal that unwinds a rank in the middle of a collective would leave the others waiting for ever. So a
cancelled request raises at once only where nobody else waits: inside user code, or anywhere when there
is a single rank. Elsewhere it sets a flag, and the ranks agree on it before the next forward.

Our handler is in place only while a request runs, and raises only for *that* request: nobody's
interrupt reaches the request of another.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

AGAIN = 0.3
"""Seconds after which a request that did not stop is told once more."""


class Cancelled(BaseException):
    """The running request was cancelled. Not an Exception, so that user code cannot swallow it."""


class Interrupts:
    """Delivers the cancellation of a request to the main thread, which runs it."""

    def __init__(self, solo: bool) -> None:
        self.solo = solo
        self._running: str | None = None
        self._depth_of_user_code = 0
        self._cancelled: set[str] = set()

    @property
    def cancelled(self) -> bool:
        """Whether the running request is to stop."""
        return self._running in self._cancelled

    def cancel(self, request: str) -> None:
        """Stop a request, running or yet to run. May be called from any thread.

        Code that catches everything can swallow the exception, so it comes again until the request
        has ended.
        """
        self._cancelled.add(request)
        if request == self._running:
            self._signal(request)

    def _signal(self, request: str) -> None:
        ident = threading.main_thread().ident
        if request != self._running or ident is None:
            return
        signal.pthread_kill(ident, signal.SIGINT)
        again = threading.Timer(AGAIN, self._signal, (request,))
        again.daemon = True
        again.start()

    def check(self) -> None:
        """Raise if the running request is to stop."""
        if self.cancelled:
            raise Cancelled

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.cancelled and (self.solo or self._depth_of_user_code):
            raise Cancelled

    @contextlib.contextmanager
    def running(self, request: str) -> Iterator[None]:
        """While a request runs, on the main thread."""
        former = signal.signal(signal.SIGINT, self._on_signal)
        self._running = request
        try:
            yield
        finally:
            self._running = None
            self._cancelled.discard(request)
            signal.signal(signal.SIGINT, former)

    @contextlib.contextmanager
    def user_code(self) -> Iterator[None]:
        """While code of the user runs."""
        self._depth_of_user_code += 1
        try:
            self.check()
            yield
        finally:
            self._depth_of_user_code -= 1
