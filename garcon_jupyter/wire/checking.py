"""What came over the wire is checked before it is used.

Whoever has the key can send anything, also by mistake: another version of the package, a client of somebody's own.
What a message must look like is written down once, as types (:mod:`garcon_jupyter.wire.contents`,
:mod:`garcon_jupyter.wire.requests`, :mod:`garcon_jupyter.wire.questions`); here a value is held against its type.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Iterable
from typing import Any, Union

from garcon_jupyter.errors import BadRequest

LONGEST_NAME = 1000
"""Characters of a text in the content of a message. All of them are names; what is longer travels in buffers."""

LARGEST_NUMBER = 2**31 - 1


def check(value: Any, hint: Any, what: str) -> None:
    """Refuse a value that is not of a type.

    Raises:
        BadRequest: says which part of it is not.
    """
    if wrong := _misfit(value, hint, what):
        raise BadRequest(f"A message is wrong: {wrong}.", "Use the same version on both sides.")


def check_content(content: Any, hint: Any, largest: int = LARGEST_NUMBER) -> None:
    """Refuse the content of a message that is not of its type, or absurd.

    Args:
        hint: a TypedDict. What it does not name is not looked at.
        largest: number that makes sense in it.

    Raises:
        BadRequest: says what is wrong.
    """
    check(content, dict, "its content")
    hints = _hints(hint)
    for name in sorted(hint.__required_keys__ - content.keys()):
        check(None, hints[name], name)
    for name in hints.keys() & content.keys():
        value = content[name]
        check(value, hints[name], name)
        if isinstance(value, str):
            _check_name(value, name)
        if isinstance(value, int) and not 0 <= value <= largest:
            raise BadRequest(f"A message is wrong: {name} is {value}.", "")


def _check_name(text: str, what: str) -> None:
    if len(text) > LONGEST_NAME:
        raise BadRequest(f"A message is wrong: {what} has {len(text)} characters.", "")
    if encodable(text) != text:
        raise BadRequest(f"A message is wrong: {what} is no text: {text!r}.", "")


def encodable(value: Any) -> Any:
    """A value of JSON with ? for what UTF-8 cannot say: lone surrogates, such as those that Python makes of
    file names."""
    if isinstance(value, str):
        return value.encode("utf8", "replace").decode()
    if isinstance(value, dict):
        return {encodable(name): encodable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable(item) for item in value]
    return value


def _misfit(value: Any, hint: Any, what: str) -> str:
    """What of a value is not of a type; nothing where all is."""
    origin: Any = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if hint is Any:
        return ""
    if origin in (Union, types.UnionType):
        wrongs = [_misfit(value, one, what) for one in inner]
        return "" if "" in wrongs else wrongs[0]
    if not isinstance(value, origin or hint) or (hint is int and isinstance(value, bool)):
        return f"{what} is of type {type(value).__name__}, not {_named(hint)}"
    if isinstance(hint, type) and dataclasses.is_dataclass(value):
        return _first(
            _misfit(getattr(value, name, None), of, f"{what}.{name}")
            for name, of in _hints(hint).items()
        )
    if origin is dict:
        return _first(
            _misfit(key, inner[0], f"a key of {what}")
            or _misfit(item, inner[1], f"{what}[{key!r}]")
            for key, item in value.items()
        )
    if origin in (list, tuple):
        if origin is tuple and inner[-1:] != (...,) and len(value) != len(inner):
            return f"{what} has {len(value)} items, not {len(inner)}"
        each = inner if origin is tuple and inner[-1:] != (...,) else inner[:1] * len(value)
        return _first(
            _misfit(item, of, f"{what}[{n}]")
            for n, (item, of) in enumerate(zip(value, each, strict=True))
        )
    return ""


def _first(wrongs: Iterable[str]) -> str:
    return next(filter(None, wrongs), "")


def _named(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)
