"""What came over the wire is checked before it is used.

Whoever has the key can send anything, also by mistake: another version of the package, a client of somebody's own.
What a message must look like is written down once, as types (:mod:`garcon_jupyter.wire.contents`,
:mod:`garcon_jupyter.wire.requests`, :mod:`garcon_jupyter.wire.tokenizer_messages`); here a value is held against its type.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Hashable, Sequence
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
    if wrong := _checker(hint)(value):
        problem = f"A message is wrong: {what}{' '.join(wrong)}."
        raise BadRequest(problem, "Use the same version on both sides.")


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


Wrong = tuple[str, str] | None
"""Where in a value, and what is wrong there; None where nothing is."""

Checker = Callable[[Any], Wrong]


@functools.cache
def _checker(hint: Any) -> Checker:
    """What looks for the first thing in a value that is not of a type. Made once: a request may hold thousands."""
    origin: Any = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if hint is Any:
        return lambda value: None
    if origin in (Union, types.UnionType):
        return _one_of([_checker(one) for one in inner])
    parts: Checker = lambda value: None  # noqa: E731 - of a value that has none
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        parts = _fields(hint)
    elif origin is dict:
        parts = _items(*map(_checker, inner))
    elif origin is tuple and inner[-1:] != (...,):
        parts = _places([_checker(one) for one in inner])
    elif origin in (list, tuple):
        parts = _row(_checker(inner[0]))
    return _of(origin or hint, hint, parts)


def _of(kind: Any, hint: Any, parts: Checker) -> Checker:
    """Of a kind, and then whatever its parts must be."""

    def checker(value: Any) -> Wrong:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return "", f"is of type {type(value).__name__}, not {_named(hint)}"
        return parts(value)

    return checker


def _one_of(checkers: Sequence[Checker]) -> Checker:
    def checker(value: Any) -> Wrong:
        wrongs = [one(value) for one in checkers]
        return None if None in wrongs else wrongs[0]

    return checker


def _fields(kind: Any) -> Checker:
    checkers = [(name, _checker(of)) for name, of in _hints(kind).items()]

    def checker(value: Any) -> Wrong:
        for name, of in checkers:
            if wrong := of(getattr(value, name, None)):
                return _below(f".{name}", wrong)
        return None

    return checker


def _items(key_checker: Checker, item_checker: Checker) -> Checker:
    def checker(value: Any) -> Wrong:
        for key, item in value.items():
            if wrong := key_checker(key):
                return "", f"has a key that {wrong[1]}"
            if wrong := item_checker(item):
                return _below(f"[{key!r}]", wrong)
        return None

    return checker


def _places(checkers: Sequence[Checker]) -> Checker:
    def checker(value: Any) -> Wrong:
        if len(value) != len(checkers):
            return "", f"has {len(value)} items, not {len(checkers)}"
        for number, (item, of) in enumerate(zip(value, checkers, strict=True)):
            if wrong := of(item):
                return _below(f"[{number}]", wrong)
        return None

    return checker


def _row(each: Checker) -> Checker:
    def checker(value: Any) -> Wrong:
        for number, item in enumerate(value):
            if wrong := each(item):
                return _below(f"[{number}]", wrong)
        return None

    return checker


def _below(step: str, wrong: tuple[str, str]) -> Wrong:
    return step + wrong[0], wrong[1]


def _named(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)
