"""What can be told of a function before it is shipped: that it cannot be called so, or that its edit is lost."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from typing import Any

from garcon_jupyter.connection import prints
from garcon_jupyter.errors import BadProbe, file_shown

NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def check_call(function: Any, what: str, *arguments: str) -> None:
    """Refuse what cannot be called with these arguments.

    Raises:
        BadProbe: says what it takes.
    """
    if not callable(function):  # as will be said when it is packed
        return
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        signature = inspect.signature(_called(function))
    except (TypeError, ValueError):  # of functions written in C
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise BadProbe(
            f"{name}{signature} cannot be a {what} function: {error}.",
            f"It is called as fn({', '.join(arguments)}).",
        ) from None


def _called(function: Any) -> Any:
    torch = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    return function.forward if nn is not None and isinstance(function, nn.Module) else function


# -- edits that are lost -------------------------------------------------------------------------

_told: set[types.CodeType] = set()
"""Code of which it was told: a hint is given once."""


def hint_at_lost_edit(function: Any, body: Sequence[ast.stmt] | None = None) -> None:
    """Tell, once, of a probe that gives its tensor's name a new value, which nothing ever reads.

    ``tensor = tensor + v`` changes a name and not the tensor. It is plain that an edit was meant where the
    function returns nothing, changes nothing in place, and does nothing else with the new value.

    Args:
        body: of the function, where its source cannot be found.
    """
    if not isinstance(function, types.FunctionType) or function.__code__ in _told:
        return
    code = function.__code__
    if code.co_argcount < 2 or (function.__module__ or "").startswith("garcon_jupyter."):
        return
    parameter = code.co_varnames[1]
    line = lost_edit(body, parameter) if body is not None else _lost_edit_of(code, parameter)
    if line is None:
        return
    _told.add(code)
    prints.plain(
        0,
        "stderr",
        f"[garcon] {file_shown(code.co_filename)}, line {line}: {function.__name__} gives {parameter!r} a "
        f"new value and returns nothing, so the model goes on with the old one. `return {parameter}` "
        f"replaces it; `{parameter}[:] = …` changes it in place.\n",
    )


@functools.lru_cache(maxsize=1000)
def _lost_edit_of(code: types.CodeType, parameter: str) -> int | None:
    """As :func:`lost_edit`, of code whose source is found; None where it is not."""
    try:
        lines, first = inspect.getsourcelines(code)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None
    statement = tree.body[-1] if tree.body else None
    if not isinstance(statement, ast.FunctionDef) or statement.name != code.co_name:
        return None
    line = lost_edit(statement.body, parameter)
    return None if line is None else first + line - 1


def lost_edit(body: Sequence[ast.stmt], name: str) -> int | None:
    """The line where a body gives a name a new value that is meant to be an edit and is none; None without one."""
    nodes = [node for statement in body for node in _own(statement)]
    if any(_returns(node) or _changes_in_place(node, name) for node in nodes):
        return None
    renewals = [node for node in nodes if isinstance(node, ast.Assign) and _renews(node, name)]
    inside = {id(part) for node in renewals for part in ast.walk(node)}
    every = [part for statement in body for part in ast.walk(statement)]
    reads = [n for n in every if isinstance(n, ast.Name) and n.id == name and id(n) not in inside]
    looped = any(isinstance(node, (ast.For, ast.While)) for node in nodes)
    if not renewals or (looped and reads):
        return None
    first = min(node.lineno for node in renewals)
    return first if all(read.lineno < first for read in reads) else None


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it, without those of inner functions."""
    yield node
    if not isinstance(node, NESTED):
        for child in ast.iter_child_nodes(node):
            yield from _own(child)


def _returns(node: ast.AST) -> bool:
    if not isinstance(node, ast.Return) or node.value is None:
        return False
    return not (isinstance(node.value, ast.Constant) and node.value.value is None)


def _renews(node: ast.Assign, name: str) -> bool:
    """Whether this is ``name = …`` where the new value is computed from the old one."""
    if len(node.targets) != 1:
        return False
    target = node.targets[0]
    if not isinstance(target, ast.Name) or target.id != name:
        return False
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.value))


def _changes_in_place(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.AugAssign):
        return _root(node.target) == name
    if isinstance(node, ast.Assign):
        return any(not isinstance(t, ast.Name) and _root(t) == name for t in node.targets)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        in_place = node.func.attr.endswith("_") and not node.func.attr.endswith("__")
        return in_place and _root(node.func.value) == name
    return False


def _root(node: ast.AST) -> str | None:
    """The name at the beginning of ``name[…].of.something()``."""
    while isinstance(node, (ast.Subscript, ast.Attribute, ast.Call, ast.Starred)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None
