"""A log that nobody can fill: messages that make no sense are logged, and whoever sends them can send millions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

MOST, WINDOW = 100, 60.0
"""Records of a logger in so many seconds; those beyond are counted."""


class LogLimit(logging.Filter):
    """Lets only so many records pass.

    Args:
        now: the clock, in seconds; tests bring their own.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._begun, self._passed, self._left_out = now(), 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes; the first of a window says how many did not in the last."""
        if self._now() - self._begun > WINDOW:
            if self._left_out:
                record.msg, record.args = f"{record.getMessage()} ({self._left_out} left out)", ()
            self._begun, self._passed, self._left_out = self._now(), 0, 0
        self._passed += 1
        self._left_out += self._passed > MOST
        return self._passed <= MOST


def limit(*loggers: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Limit loggers, each for itself; asyncio's and tornado's too, which report what others let fall."""
    others = ("asyncio", "tornado.application", "tornado.general")
    for logger in (*loggers, *map(logging.getLogger, others)):
        own = logger.logger if isinstance(logger, logging.LoggerAdapter) else logger
        own.addFilter(LogLimit())
