"""The one clock that decides when an unused server ends.

Only requests count as activity; questions about the server do not, so that an open side bar or a widget
never keeps a model in memory. Nothing ends while a request runs or waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


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

    def touch(self) -> None:
        """A request came."""
        self._last = self._now()

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
