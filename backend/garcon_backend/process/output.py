"""What user code prints appears in the cell that caused it, and nowhere else.

While user code runs, ``sys.stdout`` and ``sys.stderr`` of the rank are this object's: text goes to
the request that runs, with a limit, so that a probe that prints without end costs a message and not
the notebook. Threads that a probe started are part of its request while that runs; what they print later
goes to the server's log, for the cell of somebody else is not theirs. Nobody sits at the server, so code that
asks, by ``input()`` or a debugger, is told so at once; where somebody does sit at this process, it may ask.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable

from garcon_jupyter.errors import BadProbe

LIMIT = 1 << 20
"""Characters that one request may print on one rank."""

LINES = 10_000
"""Lines that it may."""


def log(line: str) -> None:
    """Write a line into the server's log; what rank 0 prints otherwise goes to consoles."""
    print(f"[garcon] {line}", file=sys.__stdout__, flush=True)


Emit = Callable[[str, str], None]
"""(stream name, text) -> None"""


class UserOutput:
    """Captures what user code prints on this rank.

    Args:
        attended: whether a person sits at this process, and may be asked.
    """

    def __init__(self, attended: bool = False) -> None:
        self._attended = attended
        self._emit: Emit = lambda stream, text: None
        self._left, self._lines = LIMIT, LINES
        self._withheld = Counter[str]()
        self._earlier: set[threading.Thread] = set()
        self._runs = threading.main_thread()

    def to(self, emit: Emit) -> None:
        """Where text goes."""
        self._emit = emit

    def begin(self) -> None:
        """A new request, with a new limit."""
        self._left, self._lines = LIMIT, LINES
        self._withheld.clear()
        self._runs = threading.current_thread()
        self._earlier = set(threading.enumerate()) - {self._runs}

    @property
    def mine(self) -> bool:
        """Whether the thread that asks is the one that runs the request."""
        return threading.current_thread() is self._runs

    @property
    def strange(self) -> bool:
        """Whether the thread that asks was there before this request."""
        return threading.current_thread() in self._earlier

    def end(self) -> None:
        """Say what was cut."""
        lines, characters = self._withheld["lines"], self._withheld["characters"]
        if lines:
            self._emit("stderr", f"\n… and {lines:,} more lines were cut\n")
        elif characters:
            self._emit("stderr", f"\n… and {characters:,} more characters were cut\n")

    def captured(self) -> _Captured:
        """While this is entered, user code runs."""
        out, err = _TextStream(self, "stdout"), _TextStream(self, "stderr")
        return _Captured(out, err, self._attended)

    def withhold(self, text: str) -> None:
        """Do not pass on text."""
        if text and not self._withheld:
            most = f"{LINES:,} lines or {LIMIT:,} characters"
            self._emit(
                "stderr", f"\n… a request prints {most} at most; what follows is counted only\n"
            )
        self._withheld.update(characters=len(text), lines=text.count("\n"))

    def write(self, stream: str, text: str) -> None:
        """Pass on text within the limit."""
        shown = _beginning(text[: self._left], self._lines)
        self._left -= len(shown)
        self._lines -= shown.count("\n")
        if shown:
            self._emit(stream, shown)
        if len(shown) < len(text):
            self._left = self._lines = 0
            self.withhold(text[len(shown) :])


def _beginning(text: str, lines: int) -> str:
    """At most so many lines of a text."""
    if text.count("\n") <= lines and lines:
        return text
    return "".join(text.splitlines(keepends=True)[:lines])


class _Captured:
    __slots__ = ("_attended", "_err", "_former", "_out")

    def __init__(self, out: _TextStream, err: _TextStream, attended: bool) -> None:
        self._out, self._err, self._attended = out, err, attended

    def __enter__(self) -> None:
        self._former = sys.stdout, sys.stderr, sys.stdin, sys.breakpointhook
        sys.stdout, sys.stderr = self._out, self._err
        if not self._attended:
            sys.stdin, sys.breakpointhook = _NOBODY, _no_breakpoint

    def __exit__(self, *raised: object) -> None:
        sys.stdout, sys.stderr, sys.stdin, sys.breakpointhook = self._former
        self._out.flush()
        self._err.flush()


class _TextStream(io.TextIOBase):
    """Gathers text into messages of a sensible size.

    They are sent by the thread that runs the request alone, for the sockets are its own; what other threads print
    goes with them.
    """

    def __init__(self, output: UserOutput, name: str) -> None:
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
        if self._size > LIMIT:  # of a thread, while the one that sends has no time
            self._output.withhold(text)
            return len(text)
        self._parts.append(text)
        self._size += len(text)
        if self._size > 8192:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if not self._parts or not self._output.mine:
            return
        self._size = 0
        parts = []
        while self._parts:
            parts.append(self._parts.popleft())
        if text := "".join(parts):
            self._output.write(self._name, text)


def _no_breakpoint(*args: object, **kwargs: object) -> None:
    """In place of the debugger.

    Raises:
        BadProbe: always.
    """
    raise BadProbe(
        "Code cannot stop at breakpoint() on the server, where nobody could type.",
        "print(…) shows here what it is at; a model that garcon_backend.in_process.open_here opens stops there; or save "
        "the tensor, fetch it, and debug the function on it in the notebook: fn(types.SimpleNamespace(), tensor).",
    )


class _Nobody(io.TextIOBase):
    """Standard input where nobody sits."""

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """In place of what somebody would type.

        Raises:
            BadProbe: always.
        """
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller in ("cmd", "pdb", "bdb"):
            _no_breakpoint()
        raise BadProbe(
            "Code cannot ask by input() on the server, where nobody could type.",
            "Give it the answer in a variable of the notebook, which travels with it.",
        )

    read = readline


_NOBODY = _Nobody()
