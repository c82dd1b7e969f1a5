"""Functions that cannot keep anything from one call to the next.

What a probe captured is as it was shipped, in every request anew: a probe that appends to a list of the notebook
begins each time with the list that was shipped. So its code is unpickled for each request, unless it is plain
that there is nothing to remember: it captured only numbers, words, installed modules and what those hold, and functions
of which the same is true, and writes to no name outside of itself.
"""

from __future__ import annotations

import builtins
import dis
import itertools
import sys
import types
from collections.abc import Iterator
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None), types.EllipsisType)
_WRITES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_SEES_ALL = {"globals", "eval", "exec", "vars", "locals", "__import__", "setattr", "delattr"}


def is_stateless(function: Any) -> bool:
    """Whether calling a function once can make no difference to the next call of the same object."""
    todo = None if type(function) is not types.FunctionType else _behind_function(function)
    seen: set[int] = {id(function)}
    while todo:
        value = todo.pop()
        if type(value) in _PLAIN or id(value) in seen:
            continue
        seen.add(id(value))
        behind = _behind(value)
        if behind is None:
            return False
        todo += behind
    return todo is not None


def _behind(value: Any) -> list[Any] | None:
    """What a value that cannot change holds; None of one that can. What is of an installed module cannot."""
    if type(value) is tuple:
        return list(value)
    if isinstance(value, types.ModuleType):
        if sys.modules.get(value.__name__) is value:
            return []
        return [inner for name, inner in vars(value).items() if not name.startswith("__")]
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        module = sys.modules.get(value.__module__ or "")
        if getattr(module, value.__name__, None) is value:
            return []
    return _behind_function(value) if type(value) is types.FunctionType else None


def _behind_function(function: types.FunctionType) -> list[Any] | None:
    """What a function that writes to no name outside of itself captured; None of one that may."""
    if vars(function):
        return None
    if function.__globals__.get("__builtins__") is not vars(builtins):  # it imports what came too
        return None
    if _writes(function.__code__):
        return None
    cells = [cell.cell_contents for cell in function.__closure__ or () if _bound(cell)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names = function.__globals__
    used = {name for code in _codes(function.__code__) for name in code.co_names}
    return [*cells, *defaults, *(names[name] for name in used if name in names)]


def _writes(code: types.CodeType) -> bool:
    """Whether code may write to a name outside of itself."""
    outer = set(code.co_freevars)
    before = ""
    for step in itertools.chain.from_iterable(map(dis.get_instructions, _codes(code))):
        if step.opname in _WRITES or (step.opname == "STORE_DEREF" and step.argval in outer):
            return True
        if step.opname == "STORE_ATTR" and not before.startswith("LOAD_FAST"):  # helpers.count = 1
            return True
        if step.argval in _SEES_ALL:
            return True
        before = step.opname
    return False


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Code, and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _bound(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where it is not bound
    except ValueError:
        return False
    return True
