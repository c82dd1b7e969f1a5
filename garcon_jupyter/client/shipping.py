"""Functions on their way to the server.

A function is pickled once, when it becomes a probe, with the free variables that it uses at that
moment. Functions and classes of a notebook travel by value, and so does what they use of the user's own modules
(:mod:`garcon_jupyter.user_code.own_modules`), as it is loaded at that moment. Installed modules travel by name.
"""

from __future__ import annotations

import builtins
import dis
import hashlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from garcon_jupyter.errors import BadProbe, CannotTravel
from garcon_jupyter.user_code import own_modules, pickling
from garcon_jupyter.wire.codec import dumps
from garcon_jupyter.wire.requests import Code


def ship(module: types.ModuleType) -> None:
    """Let a module travel with the functions that use it, which modules of your own do by themselves.

    From now on the functions and classes of an installed module, and of those below it, are sent by value as well, so
    that the server need not have it. Other libraries of this process that use cloudpickle send them so, too.
    """
    cloudpickle.register_pickle_by_value(module)


def pack(function: Callable[..., Any], what: str = "probe") -> Code:
    """A function as shipped code.

    Raises:
        BadProbe: it is not callable, or what it captures cannot be pickled; names the variable.
    """
    if not callable(function):
        raise BadProbe(
            f"A {what} is a function, not a {type(function).__name__}.", "Give a def or a lambda."
        )
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        payload = pickling.dumps(function)
    except Exception as error:
        culprit = _culprit(function)
        captured = f"{culprit[0]!r}, a {culprit[1]}," if culprit else "something it uses"
        raise BadProbe(
            f"{name} cannot be shipped: {captured} cannot be pickled ({error}).",
            "Capture plain data and tensors; open what else it needs inside the function.",
        ) from error
    return Code(payload, hashlib.sha256(payload).hexdigest(), name, tuple(_sizes(function)))


def captured(function: Callable[..., Any]) -> dict[str, Any]:
    """The free variables of a function: of its closure, and the globals that its code names."""
    if not isinstance(function, types.FunctionType):
        return {}
    code = function.__code__
    found = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in sorted(global_names(code)):
        if name in function.__globals__ and not hasattr(builtins, name):
            found[name] = function.__globals__[name]
    return found


def global_names(code: types.CodeType) -> set[str]:
    """The names that code, and the functions inside it, look up among the globals."""
    loads = ("LOAD_GLOBAL", "LOAD_NAME")  # co_names has attributes too
    names = {step.argval for step in dis.get_instructions(code) if step.opname in loads}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= global_names(constant)
    return names


def _sizes(function: Callable[..., Any]) -> Iterator[tuple[str, int]]:
    """Bytes of each captured variable that travels by value."""
    for name, value in captured(function).items():
        if isinstance(value, types.ModuleType) or _by_name(value):
            continue
        try:
            payload, buffers = dumps(value)
        except CannotTravel:
            continue
        yield name, len(payload) + sum(buffer.nbytes for buffer in buffers)


def _by_name(value: Any) -> bool:
    """Whether a function or class travels by name: it is of an installed module."""
    module = getattr(value, "__module__", None)
    if not isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return False
    if module == "__main__" or module not in sys.modules:
        return False
    return own_modules.own(sys.modules[module]) is None


def _culprit(function: Callable[..., Any]) -> tuple[str, str] | None:
    """Name and type of the captured variable that cannot be pickled."""
    for name, value in captured(function).items():
        try:
            pickling.dumps(value)
        except Exception:  # noqa: BLE001 - whatever it raises, this is the one
            return name, type(value).__name__
    return None
