"""When an interrupt may raise.

A signal that unwinds a rank in the middle of a collective would leave the others waiting for ever. So a
cancelled request raises at once only where nobody else waits: inside user code, or anywhere in the pass when
there is a single rank. Where ranks depend on each other they stop together, between two layers (see
:mod:`garcon_backend.process.cooperative_stop`).

Nor does it raise while something of ours is begun or put back (a ``with`` is entered or left), which would
leave it half done, hooks in the model for example. It comes again a moment later.

Our handler is in place only while a request runs, and raises only for *that* request: nobody's interrupt
reaches the request of another. Where a person sits at this very process (*attended*), an interrupt of the keyboard
means the request that runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Iterator
from types import FrameType

from garcon_backend.process.cooperative_stop import Stop

AGAIN = 0.1
"""Seconds after which a request that did not stop is told once more."""

_REMEMBERED = 64
"""Cancellations that are remembered: one may come before its request does, or when that is over."""

_OURS = tuple(f"{os.sep}{name}{os.sep}" for name in ("garcon_backend", "torch", "transformers"))
"""Whose ``with`` blocks are entered and left whole."""


class Cancelled(BaseException):
    """The running request was cancelled. Not an Exception, so that user code cannot swallow it."""


class Interrupts:
    """Delivers the cancellation of a request to the main thread, which runs it on a server.

    Where another thread runs it, in a process that a person sits at, it stops when user code is called next.

    Args:
        solo: whether this is the only rank.
        attended: whether a person sits at this process, whose Ctrl-C stops the running request.

    Attributes:
        stop: how this rank stops together with others.
        in_user_code: whether code of the user runs.
        point: the probed point at which the pass is, or was last.
        phase: what the request is at: preparing, running, forward, generating, gathering, user code, ….
    """

    def __init__(self, solo: bool, attended: bool = False) -> None:
        self.solo, self._attended = solo, attended
        self.stop = Stop()
        self.in_user_code = False
        self.point = ""
        self.phase = ""
        self._running: str | None = None
        self._lock = threading.Lock()  # a signal that is on its way arrives while its request runs
        self._heard = False  # whether our handler is in place
        self._depth = 0  # of blocks in which a signal may raise
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    @property
    def request(self) -> str | None:
        """The running request."""
        return self._running

    @property
    def cancelled(self) -> bool:
        """Whether the running request is to stop."""
        return self._running in self._cancelled

    def cancel(self, request: str) -> None:
        """Stop a request, running or yet to run. May be called from any thread.

        Code that catches everything can swallow the exception, so it comes again until the request
        has ended.
        """
        first = request not in self._cancelled
        self._cancelled[request] = None
        while len(self._cancelled) > _REMEMBERED:
            oldest = next(known for known in self._cancelled if known != self._running)
            del self._cancelled[oldest]
        if first and request == self._running:
            self._signal(request)

    def _signal(self, request: str) -> None:
        ident = threading.main_thread().ident
        with self._lock:
            if request != self._running or ident is None or not self._heard:
                return
            signal.pthread_kill(ident, signal.SIGINT)
        self._signal_again(request)

    def _signal_again(self, request: str) -> None:
        again = threading.Timer(AGAIN, self._signal, (request,))
        again.daemon = True
        again.start()

    def check(self) -> None:
        """Raise if the running request is to stop."""
        if self.cancelled:
            raise Cancelled

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._attended and self._running and not self.cancelled:
            self._cancelled[self._running] = None
            self._signal_again(self._running)  # should it not raise now
        if self._depth and self.cancelled and not _half_done(frame):
            raise Cancelled

    @contextlib.contextmanager
    def running(self, request: str) -> Iterator[None]:
        """While a request runs. Nothing is raised but inside of the blocks below."""
        self._heard = threading.current_thread() is threading.main_thread()
        former = signal.signal(signal.SIGINT, self._on_signal) if self._heard else None
        self._depth, self.in_user_code, self.point = 0, False, ""
        self.phase = "preparing"
        self._running = request
        self.stop.begin(request, self.cancelled)
        try:
            if self.cancelled:  # before it began: the signal is still to come
                self._signal(request)
            yield
        finally:
            self.shut()
            with self._lock:
                self._running = None
            if self._heard:
                signal.signal(signal.SIGINT, former)

    @contextlib.contextmanager
    def the_pass(self) -> Iterator[None]:
        """While the request's work is done: anywhere in it a single rank may stop."""
        if not self.solo:
            yield
            return
        with self._may_raise():
            yield

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """While a request is at something that takes time, for the log."""
        outer, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = outer

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While something is done that must not be left half done."""
        if threading.current_thread() is not threading.main_thread():  # a thread of the user's
            yield
            return
        depth, self._depth = self._depth, 0
        try:
            yield
        finally:
            self._depth = depth

    def user_code(self, phase: str = "user code") -> _UserCode:
        """While this is entered, code of the user runs."""
        return _UserCode(self, phase)

    @contextlib.contextmanager
    def _may_raise(self) -> Iterator[None]:
        depth = self._depth
        self._depth = depth + 1
        try:
            self.check()
            yield
        finally:
            self._depth = depth  # not `-= 1`: a signal may have left an inner block half done

    def shut(self) -> None:
        """From now on nothing is raised: what remains is to answer."""
        self._depth, self.in_user_code = 0, False


class _UserCode:
    __slots__ = ("_interrupts", "_outer", "_phase")

    def __init__(self, interrupts: Interrupts, phase: str) -> None:
        self._interrupts, self._phase = interrupts, phase

    def __enter__(self) -> None:
        interrupts = self._interrupts
        interrupts.check()
        self._outer = interrupts.phase, interrupts.in_user_code, interrupts._depth
        interrupts.phase, interrupts.in_user_code = self._phase, True
        interrupts._depth += 1

    def __exit__(self, *raised: object) -> None:
        interrupts = self._interrupts
        interrupts.phase, interrupts.in_user_code, interrupts._depth = self._outer


def _half_done(frame: FrameType | None) -> bool:
    """Whether a ``with`` block of ours is being entered or left."""
    while frame is not None:
        caller = frame.f_back
        if frame.f_code.co_name in ("__enter__", "__exit__") and caller is not None:
            file = caller.f_code.co_filename
            if any(ours in file for ours in _OURS):
                return True
        frame = caller
    return False
