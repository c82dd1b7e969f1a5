"""The lines of a function travel with it.

Code is pickled without its text, and without the name of its file. A traceback on the server, a warning, or what
a debugger would show, could then only say "line 2". So code takes its file's name and its own lines along, and
where it arrives ``linecache`` knows them, from which Python itself takes the lines that it shows. They are the
lines as they were when the function was packed.
"""

from __future__ import annotations

import linecache
import types
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import cloudpickle

LONGEST_LINE = 500
"""Characters of a line that travel."""

MOST_LINES = 1000
"""Lines of one function that travel."""

FILES = 500
"""Files and cells of which lines are remembered where they arrived."""


def reduce_code(code: types.CodeType) -> tuple[Any, tuple[Any, ...]]:
    """How code that travels by value is pickled (:mod:`garcon_jupyter.user_code.pickling`): with its lines."""
    make, args = _PLAIN(code)
    named = tuple(code.co_filename if arg == _ANONYMOUS else arg for arg in args)
    first = code.co_firstlineno
    return _remade, (make, named, code.co_filename, first, lines_of(code))


_PLAIN = cloudpickle.Pickler.dispatch_table[types.CodeType]
_ANONYMOUS = "<dynamic-code>"
"""What cloudpickle calls every file."""


def lines_of(code: types.CodeType) -> tuple[str, ...]:
    """The lines of a function, as far as they are known."""
    first, last = code.co_firstlineno, min(_last_line(code), code.co_firstlineno + MOST_LINES)
    lines = linecache.getlines(code.co_filename)[max(0, first - 1) : last]
    return tuple(line[:LONGEST_LINE].rstrip("\n") for line in lines)


def _last_line(code: types.CodeType) -> int:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    mine = (line for *_, line in code.co_lines() if line is not None)
    return max([code.co_firstlineno, *mine, *map(_last_line, inner)])


def _remade(make: Any, args: Any, file: str, first: int, lines: Sequence[str]) -> types.CodeType:
    remember(file, first, lines)
    made: types.CodeType = make(*args)
    return made


_remembered: OrderedDict[str, dict[int, str]] = OrderedDict()


def remember(file: str, first: int, lines: Sequence[str]) -> None:
    """Let ``linecache`` know lines of a file or cell, from line `first` on; the rest of it is empty."""
    if not lines:
        return
    there = linecache.getlines(file)[first - 1 : first - 1 + len(lines)]
    if [line.rstrip("\n") for line in there] == list(lines):
        return
    known = _remembered.setdefault(file, {})
    _remembered.move_to_end(file)
    known |= dict(enumerate(lines, first))
    text = [known.get(number, "") + "\n" for number in range(1, max(known) + 1)]
    # Without a time of change: it is not held against a file of that name, which may be another one here.
    linecache.cache[file] = (sum(map(len, text)), None, text, file)
    while len(_remembered) > FILES:
        linecache.cache.pop(_remembered.popitem(last=False)[0], None)
