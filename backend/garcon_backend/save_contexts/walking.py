"""Saved values as trees: one walk to look at them, and one to make them anew.

What is saved may hold other values. Lists, tuples, dictionaries, sets and the states of recorders are looked into;
everything else is a *leaf*, a tensor as well as an object of the notebook's own class.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from torch import Tensor

from garcon_backend.save_contexts.containers import Rows, Table
from garcon_jupyter.recorders.states import State

NUMBERS = frozenset({int, float, complex, bool, type(None)})
"""Of these there may be millions in a list."""

IMMUTABLE = NUMBERS | {str, bytes}

_CONTAINERS = frozenset({list, Rows, dict, Table, set, tuple, frozenset})

_RECORDERS = State.__module__.rpartition(".")[0] + "."

Memo = dict[int, tuple[Any, Any]]
"""(value, what was made of it), by the value's id; the value is held, so that no other gets its id."""


def inside(value: Any) -> Collection[Any] | None:
    """What a container holds: of a dictionary its values, of a state its attributes; None of a leaf."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    return vars(value).values() if _is_state(value) else None


def walk(
    values: Iterable[Any],
    opened: Callable[[Any], Iterable[Any] | None] = inside,
    depth: float = math.inf,
    seen: set[Any] | None = None,
) -> Iterator[Any]:
    """Values and all that is inside them, but for numbers, those that are less deep first.

    Args:
        opened: what a container holds; None of a leaf.
        depth: how many containers deep it goes.
        seen: ids of what was looked into already, by this walk or one before: that does not come again.
    """
    seen = set() if seen is None else seen
    level = list(values)
    while level:
        deeper: list[Any] = []
        for value in level:
            if type(value) in NUMBERS or id(value) in seen:
                continue
            yield value
            if depth and (held := opened(value)) is not None:
                seen.add(id(value))
                deeper += held
        level, depth = deeper, depth - 1


class Rebuild:
    """Makes a value anew: containers with what is in them, everything else as the methods here say. What is referred to
    twice is so in what was made, and a list that holds itself does so there.

    Attributes:
        memo: what was made already.
    """

    def __init__(self, memo: Memo | None = None) -> None:
        self.memo: Memo = {} if memo is None else memo

    def __call__(self, value: Any) -> Any:
        """What is made of a value."""
        kind = type(value)
        if kind in IMMUTABLE:
            return self.simple(value)
        if (known := self.memo.get(id(value))) is not None:
            return known[1]
        if kind is Tensor or (kind not in _CONTAINERS and not self.opens(value)):
            made = self.leaf(value)
            self.memo[id(value)] = value, made
        elif isinstance(value, (tuple, frozenset)):
            items = self.each(value)
            made = value if _same(items, value) else _of_kind(value, items)
            made = self.memo.setdefault(id(value), (value, made))[1]  # it may be in a list in it
        else:
            made = self.empty(value)
            self.memo[id(value)] = value, made  # it may be inside itself
            self._fill(made, value)
        return made

    def leaf(self, value: Any) -> Any:
        """What is made of a leaf."""
        return value

    def simple(self, value: Any) -> Any:
        """What is made of a number or a text."""
        return value

    def numbers(self, values: Collection[Any]) -> list[Any]:
        """What is made of numbers that are among themselves in a container."""
        return list(values)

    def opens(self, value: Any) -> bool:
        """Whether a value that is none of the plain containers is looked into all the same."""
        return _is_state(value)

    def empty(self, value: Any) -> Any:
        """What a list, a dictionary, a set or a state becomes, before its content is in it."""
        if isinstance(value, list):
            return []
        if isinstance(value, dict):
            return {}
        return set() if isinstance(value, set) else copy.copy(value)

    def each(self, values: Collection[Any]) -> list[Any]:
        """What is made of each."""
        if NUMBERS.issuperset(map(type, values)):
            return self.numbers(values)
        return [self(value) for value in values]

    def _fill(self, made: Any, value: Any) -> None:
        if isinstance(value, list):
            items = self.each(value)
            if made is not value or not _same(items, value):
                list.__setitem__(made, slice(None), items)
        elif isinstance(value, set):
            items = self.each(value)
            made.clear()
            made.update(items)
        else:
            told, named = (made, value) if isinstance(value, dict) else (vars(made), vars(value))
            dict.update(told, zip(list(named), self.each(named.values()), strict=True))


def _same(items: list[Any], values: Collection[Any]) -> bool:
    return all(map(operator.is_, items, values))


def _is_state(value: Any) -> bool:
    """Whether a value is the state of a recorder of Garçon's own, of which it is known what is in it."""
    kind = type(value)
    return issubclass(kind, State) and kind.__module__.startswith(_RECORDERS)


def _of_kind(value: Any, items: list[Any]) -> Any:
    """A tuple or frozen set of the same type: a named tuple too, or one of torch's, such as topk returns."""
    make = getattr(type(value), "_make", type(value))
    try:
        return make(items)
    except TypeError:  # a tuple that is made from something else than its items
        return tuple(items)
