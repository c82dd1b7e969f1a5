"""Plain values of this room as JSON, and again from it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from garcon_jupyter.errors import BadData

_Made = TypeVar("_Made")


def as_json(result: Any) -> dict[str, Any]:
    """A result of this room as what ``json.dumps`` takes."""
    found: dict[str, Any] = dataclasses.asdict(result)
    return found


def from_json(kind: type[_Made], value: Any) -> _Made:
    """A result again from what :func:`as_json` made of it, also after it was a file.

    Args:
        kind: the class, such as :class:`ScoredExplanation`.

    Raises:
        BadData: it is none.
    """
    try:
        made: _Made = _made(kind, value)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadData(f"This is no {kind.__name__}: {error}.", "See who wrote it.") from None
    return made


def _made(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(
            **{name: _made(hints[name], part) for name, part in value.items()}
        )
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return (
            None if value is None else _made(next(p for p in parts if p is not type(None)), value)
        )
    if origin is tuple:
        return tuple(_made(parts[0], one) for one in value)
    if origin is Mapping:
        return {str(name): _made(parts[1], one) for name, one in value.items()}
    return value
