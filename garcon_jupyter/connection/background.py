"""Requests that nobody sits and waits for: of pictures that fill, and of lists beside the notebook.

What a person runs goes first. So a thread may say that what it asks for now stands :func:`behind`: such requests travel
on a line of their own, on which they keep no cell waiting, and the server runs one when nobody's request waits. That
takes pieces: a request in the midst of which another one comes is not put aside, so each should take a moment only.
How much fits into a moment is measured by a :class:`Pace`.

A picture that answers a click, such as one that opens a layer, asks :func:`beside`: on that line, but not behind.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Generic, Literal, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MOMENT = 0.4
"""Seconds that a piece of work in the background shall take on the server."""

_Where = Literal["", "beside", "behind"]

_WHERE: ContextVar[_Where] = ContextVar("where", default="")
"""How this thread asks."""

_SPENT: ContextVar[list[float] | None] = ContextVar("spent", default=None)
"""Seconds that the server took for requests of this thread, while they are measured."""


@contextmanager
def behind() -> Iterator[None]:
    """What this thread asks for meanwhile stands behind what persons run."""
    with _asking("behind"):
        yield


@contextmanager
def beside() -> Iterator[None]:
    """What this thread asks for meanwhile keeps no cell waiting, but does not stand behind."""
    with _asking("beside"):
        yield


@contextmanager
def _asking(where: _Where) -> Iterator[None]:
    token = _WHERE.set(where)
    try:
        yield
    finally:
        _WHERE.reset(token)


def is_beside() -> bool:
    """Whether this thread asks on the line of its own, behind or not."""
    return _WHERE.get() != ""


def is_behind() -> bool:
    """Whether what this thread asks for stands behind what persons run."""
    return _WHERE.get() == "behind"


def answering(function: Callable[P, R]) -> Callable[P, R]:
    """A function that asks :func:`beside`, such as what runs when somebody clicks."""

    @wraps(function)
    def asks(*args: P.args, **kwargs: P.kwargs) -> R:
        with beside():
            return function(*args, **kwargs)

    return asks


def standing_behind(function: Callable[P, R]) -> Callable[P, R]:
    """A function that asks :func:`behind`, such as one that gives a piece of what fills."""

    @wraps(function)
    def asks(*args: P.args, **kwargs: P.kwargs) -> R:
        with behind():
            return function(*args, **kwargs)

    return asks


class Filling(Iterator[None], Generic[T]):
    """Work in pieces, each of which asks :func:`behind`; so does the end of it, where it is left off.

    Args:
        pieces: the work.
        show: is given what each piece has found.
    """

    def __init__(self, pieces: Generator[T, None, None], show: Callable[[T], None]) -> None:
        self._pieces, self._show = pieces, show

    def __next__(self) -> None:
        with behind():
            self._show(next(self._pieces))

    def close(self) -> None:
        """Leave off, also before the first piece."""
        with behind():
            self._pieces.close()


def spend(seconds: float) -> None:
    """The server took so long for a request of this thread."""
    if (spent := _SPENT.get()) is not None:
        spent.append(seconds)


@dataclass
class Pace:
    """How much is done at a time, so that a piece takes a moment.

    Attributes:
        size: how much comes next, such as rows of a batch; at least 1.
        most: at most so much.
    """

    size: int
    most: int

    @contextmanager
    def piece(self, size: int) -> Iterator[None]:
        """Measure a piece of this size by what the server takes for its requests; the next is sized by it."""
        spent: list[float] = []
        token = _SPENT.set(spent)
        try:
            yield
        finally:
            _SPENT.reset(token)
        self.took(size, sum(spent))

    def took(self, size: int, seconds: float) -> None:
        """A piece of this size took so long; what comes next is at most twice as much, for pieces differ."""
        fits = int(size * MOMENT / max(seconds, 1e-6))
        self.size = max(1, min(fits, 2 * size, self.most))
