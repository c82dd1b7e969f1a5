"""Save contexts: what probes keep on the server.

One :class:`SaveContext` per (session, point), or per (session, point, name) where a probe is named. It
lives on the rank where its probe runs, until it is cleared. What is assigned to it is kept as it is at
that moment: tensors are detached copies, so that a later change of the value in place, by this probe or
by the next, does not reach what was saved.

A *snapshot* is what ``recordings()`` sees. Taking one copies nothing; the first probe that runs in a
context after it makes the copy, so that snapshots never change and cost nothing where nobody goes on.
"""

from __future__ import annotations

import contextlib
import copy
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from garcon_backend.merging import Sharded
from garcon_jupyter.errors import NoRecording
from garcon_jupyter.wire.requests import AttributeInfo, RecordingRef

Key = tuple[str, str, str | None]
"""(session, point, name of the probe or None)"""

LENT = ("here", "params", "source", "shard")


class SaveContext:
    """The namespace a probe saves into. What is *lent* to it is there only while a probe runs.

    Attributes:
        here: where the probe runs: point, layer, tokens, mask, positions, step, token_index (of
            experts), shard (of sharded probes), generator (seeded by the request).
        params: the parameters that the probe asked for, by name.
        source: the earlier recording that the probe asked for; None without one.
        shard: which slice this rank holds; None for a probe that sees the whole.
    """

    # Slots, so that the dictionary of a context is exactly what was saved.
    __slots__ = ("__dict__", "_of", "_parts", *LENT)

    here: SimpleNamespace
    params: dict[str, Tensor]
    source: Source | None
    shard: SimpleNamespace | None
    _of: Sharded | None
    _parts: dict[str, Sharded]

    def __init__(self) -> None:
        object.__setattr__(self, "_parts", {})
        _lend(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SaveContext.__slots__:
            raise AttributeError(
                f"save_ctx.{name} is what Garçon tells the probe; save under another name."
            )
        object.__setattr__(self, name, detached(value))
        self._parts.pop(name, None)
        if self._of is not None:
            self._parts[name] = self._of

    def __repr__(self) -> str:
        return f"<save context: {', '.join(vars(self)) or 'empty'}>"


def _lend(context: SaveContext, of: Sharded | None = None, **things: Any) -> None:
    object.__setattr__(context, "_of", of)
    for name in LENT:
        object.__setattr__(context, name, things.get(name))


@contextmanager
def lent(context: SaveContext, of: Sharded | None, **things: Any) -> Iterator[None]:
    """What a probe is told while it runs, and no longer: a context must not keep weights alive.

    Args:
        of: what the values that are saved meanwhile are a part of; None where they are whole.
    """
    _lend(context, of, **things)
    try:
        yield
    finally:
        _lend(context)


class Source:
    """An earlier recording as a probe is given it. Every touch is a fresh copy: the copy may become
    the value of the point, and be changed in place there."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__["_values"] = values

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(
                f"The source has no {name!r}; saved there: {', '.join(self._values)}."
            )
        return detached(self._values[name])

    def __dir__(self) -> list[str]:
        return list(self._values)


def detached(value: Any) -> Any:
    """A copy of all tensors in plain containers, off the graph; other objects as they are."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        return _tuple_like(value, [detached(item) for item in value])
    if type(value) is list:
        return [detached(item) for item in value]
    if type(value) is dict:
        return {key: detached(item) for key, item in value.items()}
    return value


def _tuple_like(value: tuple[Any, ...], items: list[Any]) -> Any:
    """A tuple of the same type: a named tuple, or one of torch's, such as topk returns."""
    make = getattr(type(value), "_make", type(value))
    try:
        return make(items)
    except TypeError:  # a tuple that is made from something else than its items
        return tuple(items)


def uses(tensor: Tensor) -> int:
    """How often a tensor or its memory is referred to. It grows when somebody keeps the tensor or a
    view of it, and tells so without a walk through all that was saved."""
    storage = tensor.untyped_storage()._cdata
    return sys.getrefcount(tensor) + torch._C._storage_Use_Count(storage)


def _memory(tensor: Tensor) -> int | None:
    """Where a tensor's memory begins; None where it has none of the common kind."""
    has_some = tensor.layout is torch.strided and tensor.device.type != "meta" and tensor.numel()
    return tensor.untyped_storage().data_ptr() if has_some else None


def release_aliases(context: SaveContext, *values: Tensor) -> None:
    """Copy what a probe put into a saved container behind our back: views of the point's values."""
    memories = {_memory(value) for value in values} - {None}

    def owned(tensor: Tensor) -> Tensor:
        return tensor.detach().clone() if _memory(tensor) in memories else tensor

    for name, kept in vars(context).items():
        if isinstance(kept, (list, tuple, dict)):
            object.__setattr__(context, name, _with_tensors(kept, owned))


def _with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A value with its tensors changed: lists and dictionaries in place, as others may hold them."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        for index, item in enumerate(value):
            if (new := _with_tensors(item, change)) is not item:
                value[index] = new
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            if (new := _with_tensors(item, change)) is not item:
                value[key] = new
    elif isinstance(value, tuple):
        items = [_with_tensors(item, change) for item in value]
        if any(new is not item for new, item in zip(items, value, strict=True)):
            return _tuple_like(value, items)
    return value


@dataclass(frozen=True)
class Saved:
    """What a context held when a snapshot was taken.

    Attributes:
        values: what was saved, by attribute.
        parts: of those that are one rank's part, what of.
    """

    values: dict[str, Any]
    parts: dict[str, Sharded] = field(default_factory=dict)


class Contexts:
    """All save contexts of one rank, and the snapshots taken of them."""

    def __init__(self) -> None:
        self._live: dict[Key, SaveContext] = {}
        self._snapshots: dict[tuple[str, int], dict[tuple[str, str | None], Saved]] = {}

    def open(self, session: str, point: str, name: str | None) -> SaveContext:
        """The context to save into; made where there is none, copied where a snapshot holds it."""
        key = (session, point, name)
        context = self._live.setdefault(key, SaveContext())
        held = [
            contents[point, name].values
            for (owner, _), contents in self._snapshots.items()
            if owner == session and (point, name) in contents
        ]
        mine = vars(context)
        if any(_shares(snapshot, mine) for snapshot in held):
            mine.update(_copied(mine))
        return context

    def snapshot(self, session: str, number: int) -> dict[tuple[str, str | None], Saved]:
        """Remember what each context of the session holds now."""
        contents = {
            (point, name): Saved(dict(vars(context)), dict(context._parts))
            for (owner, point, name), context in self._live.items()
            if owner == session and vars(context)
        }
        self._snapshots[session, number] = contents
        return contents

    def release(self, session: str, numbers: Iterable[int]) -> None:
        """Forget snapshots that no client holds any more."""
        for number in numbers:
            self._snapshots.pop((session, number), None)

    def clear(
        self, session: str, points: Iterable[str] | None = None, name: str | None = None
    ) -> None:
        """Forget contexts of the session: of these points, of this name, or all. Snapshots keep
        theirs."""
        chosen = None if points is None else set(points)
        for key in [k for k in self._live if k[0] == session]:
            if (chosen is None or key[1] in chosen) and name in (None, key[2]):
                del self._live[key]

    def drop(self, session: str) -> None:
        """Forget a session whole."""
        self.clear(session)
        for key in [k for k in self._snapshots if k[0] == session]:
            del self._snapshots[key]

    def contents(self, session: str, ref: RecordingRef) -> Saved | None:
        """What a snapshot holds of one context; None where it lives on another rank.

        Raises:
            NoRecording: the snapshot was released.
        """
        found = self._snapshots.get((session, ref.snapshot))
        if found is None:
            raise NoRecording(
                "These recordings were released on the server.",
                "Call rmodel.recordings() again.",
            )
        return found.get((ref.point, ref.name))


_IMMUTABLE = (int, float, complex, str, bytes, bool, type(None))


def _shares(snapshot: dict[str, Any], mine: dict[str, Any]) -> bool:
    return any(
        snapshot.get(name) is value and not isinstance(value, _IMMUTABLE)
        for name, value in mine.items()
    )


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    """A deep copy; what cannot be copied, such as an open file, stays shared."""
    with contextlib.suppress(Exception):  # objects may raise anything when asked for a copy
        return copy.deepcopy(values)
    copies = {}
    for name, value in values.items():
        copies[name] = value
        with contextlib.suppress(Exception):
            copies[name] = copy.deepcopy(value)
    return copies


def describe(value: Any) -> AttributeInfo:
    """What a handle may know of a value without fetching it."""
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return AttributeInfo(
            kind,
            tuple(value.shape),
            str(value.dtype).removeprefix("torch."),
            str(value.device),
            value.numel() * value.element_size(),
        )
    try:
        preview = reprlib.repr(value)
    except Exception:  # noqa: BLE001 - objects may raise anything when asked what they are
        preview = f"<{kind}>"
    return AttributeInfo(kind, preview=preview if len(preview) < 80 else preview[:77] + "…")
