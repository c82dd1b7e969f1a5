"""Save contexts: what probes keep on the server.

One :class:`SaveContext` per (session, point), or per (session, point, name) where a probe is named. It
lives on the rank where its probe runs, until it is cleared. What is assigned to it is kept as it is at
that moment: tensors are detached copies, so that a later change of the value in place, by this probe or
by the next, does not reach what was saved.

A *snapshot* is what ``recordings()`` sees. Taking one copies nothing; the first probe that runs in a
context after it makes the copy, so that snapshots never change and cost nothing where nobody goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from garcon_backend.merging import Sharded
from garcon_jupyter.errors import NoRecording
from garcon_jupyter.wire.requests import AttributeInfo, RecordingRef

Key = tuple[str, str, str | None]
"""(session, point, name of the probe or None)"""

_PASSING = ("here", "params", "source", "shard")


class SaveContext:
    """The namespace a probe saves into.

    Attributes:
        here: where the probe runs: point, layer, tokens, mask, positions, step, token_index (of
            experts), shard (of sharded probes), generator (seeded by the request).
        params: the parameters that the probe asked for, by name.
        source: the earlier recording that the probe asked for.
        shard: which slice this rank holds (sharded probes only).
    """

    here: SimpleNamespace
    params: dict[str, Tensor]
    source: SimpleNamespace | None
    shard: Any

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value if name in _PASSING else detached(value))

    def __repr__(self) -> str:
        return f"<save context: {', '.join(saved(self)) or 'empty'}>"


def saved(context: SaveContext) -> dict[str, Any]:
    """What was saved: all attributes but those that Garçon puts there while a probe runs."""
    return {name: value for name, value in vars(context).items() if name not in _PASSING}


def detached(value: Any) -> Any:
    """A copy of all tensors in plain containers, off the graph; other objects as they are."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(detached(item) for item in value)
    if type(value) is dict:
        return {key: detached(item) for key, item in value.items()}
    return value


def release_aliases(context: SaveContext, value: Tensor) -> None:
    """Copy what a probe put into a saved container behind our back: views of the point's value."""
    storage = value.untyped_storage().data_ptr()

    def owned(item: Any) -> Any:
        if isinstance(item, Tensor):
            alias = item.numel() and item.untyped_storage().data_ptr() == storage
            return item.detach().clone() if alias else item
        return item

    for kept in saved(context).values():
        if type(kept) is list:
            kept[:] = [owned(item) for item in kept]
        elif type(kept) is dict:
            for key, item in kept.items():
                kept[key] = owned(item)


class Contexts:
    """All save contexts of one rank, and the snapshots taken of them."""

    def __init__(self) -> None:
        self._live: dict[Key, SaveContext] = {}
        self._snapshots: dict[tuple[str, int], dict[tuple[str, str | None], dict[str, Any]]] = {}
        self.sharded: dict[Key, Sharded] = {}

    def open(self, session: str, point: str, name: str | None) -> SaveContext:
        """The context to save into; made where there is none, copied where a snapshot holds it."""
        key = (session, point, name)
        context = self._live.setdefault(key, SaveContext())
        held = [
            contents[point, name]
            for (owner, _), contents in self._snapshots.items()
            if owner == session and (point, name) in contents
        ]
        mine = saved(context)
        if any(_shares(snapshot, mine) for snapshot in held):
            for attribute, value in copy.deepcopy(mine).items():
                object.__setattr__(context, attribute, value)
        return context

    def snapshot(self, session: str, number: int) -> dict[tuple[str, str | None], dict[str, Any]]:
        """Remember what each context of the session holds now."""
        contents = {
            (point, name): saved(context)
            for (owner, point, name), context in self._live.items()
            if owner == session and saved(context)
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

    def contents(self, session: str, ref: RecordingRef) -> dict[str, Any] | None:
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
    preview = repr(value)
    return AttributeInfo(kind, preview=preview if len(preview) < 80 else preview[:77] + "…")


def seeded_generator(device: torch.device, seed: int) -> torch.Generator:
    """A random generator of a probe's own."""
    return torch.Generator(device=device).manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
