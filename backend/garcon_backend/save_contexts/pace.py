"""When a thread may write, beside requests that shall not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

QUIET = 0.01
"""Seconds without a request after which backups are written."""

WORK = 0.05
"""Seconds that a request has been running when they are written beside it."""

LATEST = 2.0
"""Seconds after which they are written though short requests follow one another."""

SHARE = 0.05
"""Of the time, that writing may take: large contexts that change all the time are written less often."""

REST = 0.25
"""Seconds without a request after which writing may take all of the time."""


class WritingPace:
    """Knows when requests run, and so when there is time to write."""

    def __init__(self) -> None:
        self._busy_since: float | None = None
        self._last = 0.0
        self._oldest = self._not_before = 0.0
        self._wake = threading.Event()

    def begin(self) -> None:
        """A request begins."""
        self._busy_since = time.monotonic()

    @property
    def running(self) -> float:
        """Seconds for which a request has been running."""
        now = time.monotonic()
        return now - (self._busy_since or now)

    def end(self, due: bool) -> None:
        """A request is over; whether it left something to write."""
        self._busy_since = None
        self._last = time.monotonic()
        if due:
            self._oldest = self._oldest or self._last
            self._wake.set()

    def follow(self, write: Callable[[], None]) -> None:
        """Write whenever there is something and time for it; begins with what there is, and does not return."""
        self._wake.set()
        while True:
            self._wake.wait()
            now, since = time.monotonic(), self._busy_since
            idle = now - self._last if since is None else 0.0
            calm = idle > QUIET if since is None else now - since > WORK
            if not calm and now - self._oldest < LATEST:
                time.sleep(QUIET)
                continue
            if now < self._not_before and idle < REST:
                time.sleep(min(REST, self._not_before - now))
                continue
            self._wake.clear()
            self._oldest = 0.0
            write()
            took = time.monotonic() - now
            self._not_before = now + took / SHARE if took > QUIET else 0.0
