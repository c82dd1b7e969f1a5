"""The one clock that decides when an unused server ends.

Only requests count as activity; questions about the server do not, so that an open side bar or a widget
never keeps a model in memory. Nothing ends while a request runs or waits. Before the end the clients are
warned, twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

WARNINGS = (300.0, 60.0)
"""Seconds before the end at which clients are warned; nearer to it, in proportion, where the server ends after
less than twenty minutes."""

_IN_FULL = 1200.0


class IdleClock:
    """Counts the time since the last request.

    Args:
        timeout: seconds without requests after which the server ends; 0 or less for never.
        now: the clock, in seconds; tests bring their own.
    """

    def __init__(self, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
        self.timeout = timeout
        self._now = now
        self._last = now()
        self._busy = 0
        self._lock = threading.Lock()
        self._stage = self._number = 0

    def touch(self) -> None:
        """A request came, or somebody asked to keep the server."""
        self._last = self._now()
        self._stage = 0

    def begin(self) -> None:
        """A request waits or runs."""
        with self._lock:
            self._busy += 1
            self.touch()

    def end(self) -> None:
        """It is done."""
        with self._lock:
            self._busy -= 1
            self.touch()

    @property
    def left(self) -> float | None:
        """Seconds left, or None where the server never ends by itself."""
        if self.timeout <= 0:
            return None
        if self._busy:
            return self.timeout
        return max(0.0, self.timeout - (self._now() - self._last))

    @property
    def expired(self) -> bool:
        """Whether it is time to end."""
        return self.left == 0.0

    def warn(self) -> dict[str, Any] | None:
        """The warning that is new since this was asked last, if there is one.

        Returns:
            As :attr:`warning`.
        """
        stage = self._reached
        self._stage, news = stage, stage > self._stage
        self._number += news
        return self.warning if news else None

    @property
    def warning(self) -> dict[str, Any] | None:
        """The warning that is in force: ``number``, which counts all of this server, and the ``seconds`` that
        are left. None where the end is far."""
        if not (self._stage and self._reached):
            return None
        return {"number": self._number, "seconds": self.left}

    @property
    def _reached(self) -> int:
        """How many times to warn have come since the last request."""
        left, scale = self.left, min(1.0, self.timeout / _IN_FULL)
        return 0 if left is None else sum(left <= seconds * scale for seconds in WARNINGS)
