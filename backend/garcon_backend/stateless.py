"""Functions that cannot keep anything from one call to the next.

What a probe captured is as it was shipped, in every request anew: a probe that appends to a list of the notebook
begins each time with the list that was shipped. So its code is unpickled for each request, unless it is plain
that there is nothing to remember: it captured only numbers, words, modules and what modules hold, and writes
to no name outside of itself.
"""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None), types.ModuleType, types.EllipsisType)
_WRITES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_SEES_ALL = {"globals", "eval", "exec", "vars", "locals", "__import__"}


def is_stateless(function: Any) -> bool:
    """Whether calling a function once can make no difference to the next call of the same object."""
    if type(function) is not types.FunctionType or vars(function):
        return False
    code, outer = function.__code__, set(function.__code__.co_freevars)
    for step in _steps(code):
        if step.opname in _WRITES or (step.opname == "STORE_DEREF" and step.argval in outer):
            return False
        if step.argval in _SEES_ALL:
            return False
    cells = [cell.cell_contents for cell in function.__closure__ or () if _bound(cell)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    named = [value for name, value in function.__globals__.items() if not name.startswith("__")]
    return all(_is_fixed(value) for value in (*cells, *defaults, *named))


def _steps(code: types.CodeType) -> Iterator[dis.Instruction]:
    """The instructions of code, and of the functions inside it."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _steps(constant)


def _bound(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where it is not bound
    except ValueError:
        return False
    return True


def _is_fixed(value: Any) -> bool:
    """Whether nothing in a value can change, or it belongs to an installed module."""
    if type(value) in _PLAIN:
        return True
    if isinstance(value, tuple) and type(value) is tuple:
        return all(_is_fixed(item) for item in value)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        module = sys.modules.get(value.__module__ or "")
        return getattr(module, value.__name__, None) is value
    return False
