"""One line that changes while something long goes on: in a cell, or in a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from garcon_jupyter import imported
from garcon_jupyter.amounts import sized

SHORTEST = 0.1
"""Seconds between two changes of the line."""

MOMENT = 1.0
"""Seconds in which something may end without having been shown."""


class Line:
    """A line of text that is replaced by the next; at most ten times in a second."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._width = 0
        self._last = 0.0

    def show(self, text: str, now: bool = False) -> None:
        """Show a text in place of the one before.

        Args:
            now: however soon it comes.
        """
        if not now and time.monotonic() - self._last < SHORTEST:
            return
        self._last = time.monotonic()
        if _in_a_notebook():
            self._display(text)
        elif sys.stderr.isatty():
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)

    def _display(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def end(self, text: str) -> None:
        """Show the last text, and leave it."""
        self.show(text, now=True)
        if self._width:
            sys.stderr.write("\n")


class Amount:
    """How many bytes of something have come or gone; shown only where it takes more than a moment.

    Args:
        doing: what is done with them, such as "fetching".
        total: bytes.
    """

    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total = doing, total
        self._since = time.monotonic()
        self._line: Line | None = None
        self._done = 0

    def at(self, done: int) -> None:
        """So many bytes are done."""
        self._done = done
        took = time.monotonic() - self._since
        if took < MOMENT or not done:
            return
        self._line = self._line or Line()
        left = duration(took / done * (self._total - done))
        self._line.show(f"{self._told(done)} {bar(done / self._total)} {left} left")

    def end(self) -> None:
        """No more will be done."""
        if self._line:
            self._line.end(
                f"{self._told(self._done)} in {duration(time.monotonic() - self._since)}"
            )

    def _told(self, done: int) -> str:
        return f"{self._doing} {sized(done)} of {sized(self._total)}"


class Count:
    """How many of some things are done; shown only where it takes more than a moment.

    Args:
        total: how many there are.
        what: what they are, such as "cells".
    """

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._since = time.monotonic()
        self._line: Line | None = None

    def at(self, done: int) -> None:
        """So many are done."""
        took = time.monotonic() - self._since
        if took < MOMENT or done == self._total:
            return
        self._line = self._line or Line()
        left = duration(took / done * (self._total - done))
        part = bar(done / self._total)
        self._line.show(f"{done:,} of {self._total:,} {self._what} {part} {left} left")

    def end(self) -> None:
        """All are done."""
        if self._line:
            took = duration(time.monotonic() - self._since)
            self._line.end(f"{self._total:,} {self._what} in {took}")


def _in_a_notebook() -> bool:
    shell = imported.shell()
    return shell is not None and hasattr(shell, "kernel")


def bar(fraction: float | None, width: int = 20) -> str:
    """A bar of text; empty where nothing is known."""
    if fraction is None:
        return ""
    full = round(width * min(1.0, max(0.0, fraction)))
    return "▕" + "█" * full + " " * (width - full) + "▏"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
