"""Lists and dictionaries of a save context: what is put into them is copied then, too.

``save_ctx.rows.append(tensor)`` assigns nothing to the context, and the next line may change the tensor in place.
So the plain containers that a probe saves become these. They are lists and dictionaries in all else, and travel as
such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Own = Callable[[Any, dict[int, tuple[Any, Any]]], Any]
"""What makes a copy with memory of its own of a value, given what was copied already: (value, its copy) by id."""


def _owned(container: Any, item: Any) -> Any:
    """A copy of what is put into a container, in which the container itself, if it is in there, stays the same."""
    return container._own(item, {id(container): (container, container)})


class Rows(list[Any]):
    """A list that owns what is in it."""

    def __init__(self, own: Own) -> None:
        super().__init__()
        self._own = own

    def append(self, item: Any) -> None:
        """As of a list; a tensor gets memory of its own."""
        super().append(_owned(self, item))

    def insert(self, index: Any, item: Any) -> None:
        """As of a list; a tensor gets memory of its own."""
        super().insert(index, _owned(self, item))

    def extend(self, items: Iterable[Any]) -> None:
        """As of a list; tensors get memory of their own."""
        super().extend([_owned(self, item) for item in items])

    def __iadd__(self, items: Iterable[Any]) -> Rows:  # type: ignore[misc]
        self.extend(items)
        return self

    def __setitem__(self, index: Any, item: Any) -> None:
        several = isinstance(index, slice)
        super().__setitem__(
            index, [_owned(self, one) for one in item] if several else _owned(self, item)
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return list, (), None, iter(self)


class Table(dict[Any, Any]):
    """A dictionary that owns what is in it."""

    def __init__(self, own: Own) -> None:
        super().__init__()
        self._own = own

    def __setitem__(self, key: Any, item: Any) -> None:
        super().__setitem__(key, _owned(self, item))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As of a dictionary; a tensor gets memory of its own."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **items: Any) -> None:
        """As of a dictionary; tensors get memory of their own."""
        super().update({key: _owned(self, item) for key, item in dict(*others, **items).items()})

    def __ior__(self, other: Any) -> Table:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (), None, None, iter(self.items())
