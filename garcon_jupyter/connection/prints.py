"""What code prints on the server, shown here; and what Garçon itself has to say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Show = Callable[[int, str, str], None]
"""(rank, "stdout" or "stderr", text) -> None"""


_SHOWN_BY: ContextVar[Show | None] = ContextVar("shown by", default=None)
"""What shows the prints of this thread's requests, where it is not this process."""


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """What requests of this thread print meanwhile is given to `show`, and not printed here."""
    token = _SHOWN_BY.set(show)
    try:
        yield
    finally:
        _SHOWN_BY.reset(token)


def plain(rank: int, stream: str, text: str) -> None:
    """Show a text as if it had been printed here."""
    if (show := _SHOWN_BY.get()) is not None:
        show(rank, stream, text)
        return
    out = sys.stderr if stream == "stderr" else sys.stdout
    out.write(text)
    out.flush()


def silent(rank: int, stream: str, text: str) -> None:
    """Show nothing."""


def notice(line: str) -> None:
    """Tell the person at the notebook something that no cell asked for; nothing where it is ""."""
    if line:
        print(f"[garcon] {line}", file=sys.stderr, flush=True)


class ByRank:
    """Shows what several ranks print, every line with the rank that printed it.

    Ranks print at the same time, and in pieces: a line is shown when it is whole.
    """

    def __init__(self) -> None:
        self._begun: dict[tuple[int, str], str] = {}

    def __call__(self, rank: int, stream: str, text: str) -> None:
        *lines, rest = (self._begun.pop((rank, stream), "") + text).split("\n")
        if rest:
            self._begun[rank, stream] = rest
        for line in lines:
            plain(rank, stream, f"[rank {rank}] {line}\n")

    def end(self) -> None:
        """Show the lines that nobody ended."""
        for rank, stream in sorted(self._begun):
            self(rank, stream, "\n")
