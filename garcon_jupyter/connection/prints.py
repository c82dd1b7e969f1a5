"""What code prints on the server, shown here; and what Garçon itself has to say."""

from __future__ import annotations

import sys
from collections.abc import Callable

Show = Callable[[int, str, str], None]
"""(rank, "stdout" or "stderr", text) -> None"""


def plain(rank: int, stream: str, text: str) -> None:
    """Show a text as if it had been printed here."""
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
