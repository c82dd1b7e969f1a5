"""How what this room holds shows itself: :mod:`garcon_jupyter.display` says so, from above.

Recordings, probes and points know no tables and no pictures; each asks here who draws it. So a script that only
computes imports nothing that draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from garcon_jupyter.errors import BadRequest

Draw = Callable[..., Any]

_DRAWN: dict[tuple[str, str], Draw] = {}
"""What draws things of a class, by its full name, in a way such as "html" or "show"."""


def register(kind: type | str, **ways: Draw) -> None:
    """Say how things of a class show themselves.

    Args:
        kind: the class, or its full name where it should not be imported for this; its subclasses are shown alike,
            unless they have a way of their own.
        ways: a name for each way, and what draws it: ``register(Recording, html=table_of)``. Each is given the thing
            itself, and then what it is asked with.
    """
    for way, draw in ways.items():
        _DRAWN[kind if isinstance(kind, str) else _full_name(kind), way] = draw


def drawn(thing: Any, way: str, *arguments: Any) -> Any:
    """A thing, drawn in a way.

    Raises:
        BadRequest: nothing is registered that draws it.
    """
    if (draw := _found(thing, way)) is None:
        raise BadRequest(
            f"Nothing draws a {type(thing).__name__} in this process.",
            "import garcon_jupyter.display registers what does.",
        )
    return draw(thing, *arguments)


def html(thing: Any) -> str | None:
    """A thing as HTML; None, which IPython takes for "show the text", where nothing is registered that draws it."""
    draw = _found(thing, "html")
    return None if draw is None else draw(thing)


def _found(thing: Any, way: str) -> Draw | None:
    known = (_DRAWN.get((_full_name(kind), way)) for kind in type(thing).__mro__)
    return next((draw for draw in known if draw is not None), None)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
