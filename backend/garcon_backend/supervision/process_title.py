"""The command line that ``ps`` shows of a forked process: its own, and not that of the process it was forked from."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_ARG_START, _ARG_END = 47, 48
"""Places of the first and last address of the command line in ``/proc/PID/stat``, counted from zero."""


def retitle(words: list[str]) -> None:
    """Show other words as the command line of this process, as many of them as there is room for.

    Linux shows what the memory holds that the first command line was in. A forked process owns a copy of it, and
    nobody reads it any more: Python has its own. What the former words had left over reads as nothing.
    """
    stat = Path("/proc/self/stat").read_text()
    fields = stat.rpartition(")")[2].split()  # the name before may hold blanks
    start, end = int(fields[_ARG_START - 2]), int(fields[_ARG_END - 2])
    if not 0 < start < end:
        return
    title = b"".join(word.encode() + b"\0" for word in words)[: end - start - 1]
    ctypes.memmove(start, title.ljust(end - start, b"\0"), end - start)
    sys.orig_argv[:] = words
