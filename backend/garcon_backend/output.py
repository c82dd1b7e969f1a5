"""What user code prints appears in the cell that caused it, and nowhere else.

While user code runs, ``sys.stdout`` and ``sys.stderr`` of the rank are this object's: text goes to
the request that runs, with a limit, so that a probe that prints a gigabyte costs a message and not
the notebook. Threads that a probe started are part of its request while that runs; what they print later
goes to the server's log, for the cell of somebody else is not theirs.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Callable

LIMIT = 1 << 20
"""Characters that one request may print on one rank."""


def log(line: str) -> None:
    """Write a line into the server's log. (What rank 0 prints otherwise goes to consoles.)"""
    print(f"[garcon] {line}", file=sys.__stdout__, flush=True)


Emit = Callable[[str, str], None]
"""(stream name, text) -> None"""


class Output:
    """Captures what user code prints on this rank."""

    def __init__(self) -> None:
        self._emit: Emit = lambda stream, text: None
        self._left = LIMIT
        self._withheld = 0
        self._earlier: set[threading.Thread] = set()

    def to(self, emit: Emit) -> None:
        """Where text goes."""
        self._emit = emit

    def begin(self) -> None:
        """A new request, with a new limit."""
        self._left, self._withheld = LIMIT, 0
        self._earlier = set(threading.enumerate()) - {threading.main_thread()}

    @property
    def strange(self) -> bool:
        """Whether the thread that asks was there before this request."""
        return threading.current_thread() in self._earlier

    def end(self) -> None:
        """Say what was withheld."""
        if self._withheld:
            self._emit("stderr", f"\n[{self._withheld:,} more characters were not shown]\n")

    def captured(self) -> _Captured:
        """While this is entered, user code runs."""
        return _Captured(_Stream(self, "stdout"), _Stream(self, "stderr"))

    def withhold(self, text: str) -> None:
        """Do not pass on text."""
        self._withheld += len(text)

    def write(self, stream: str, text: str) -> None:
        """Pass on text within the limit."""
        shown = text[: self._left]
        self._left -= len(shown)
        self._withheld += len(text) - len(shown)
        if shown:
            self._emit(stream, shown)


class _Captured:
    __slots__ = ("_err", "_former", "_out")

    def __init__(self, out: _Stream, err: _Stream) -> None:
        self._out, self._err = out, err

    def __enter__(self) -> None:
        self._former = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._out, self._err

    def __exit__(self, *raised: object) -> None:
        sys.stdout, sys.stderr = self._former
        self._out.flush()
        self._err.flush()


class _Stream(io.TextIOBase):
    """Gathers text into messages of a sensible size.

    They are sent by the main thread alone, for the sockets are its own; what other threads print goes with
    them.
    """

    def __init__(self, output: Output, name: str) -> None:
        self._output, self._name = output, name
        self._parts: deque[str] = deque()  # which threads may fill and empty without a lock
        self._size = 0

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return sys.__stdout__.fileno() if sys.__stdout__ else super().fileno()

    def write(self, text: str) -> int:
        if self._output.strange:
            log = getattr(sys, f"__{self._name}__")
            return log.write(text) if log else len(text)
        if self._size > LIMIT:  # of a thread, while the main thread has no time
            self._output.withhold(text)
            return len(text)
        self._parts.append(text)
        self._size += len(text)
        if self._size > 8192:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if not self._parts or threading.current_thread() is not threading.main_thread():
            return
        self._size = 0
        parts = []
        while self._parts:
            parts.append(self._parts.popleft())
        if text := "".join(parts):
            self._output.write(self._name, text)
