"""Save contexts: what probes keep on the server.

One :class:`SaveContext` per (session, point), or per (session, point, name) where a probe is named. It
lives on the rank where its probe runs, until it is cleared. What is assigned to it is kept as it is at
that moment: a copy with memory of its own (``copies``), so that a later change of the value in place, by this
probe or by the next, does not reach what was saved.

A *snapshot* is what ``recordings()`` sees. Taking one copies nothing; the first probe that runs in a
context after it makes the copy, so that snapshots never change and cost nothing where nobody goes on.
"""

from __future__ import annotations

import copy
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_backend.process import memory
from garcon_backend.save_contexts.backups import Backups, Lost, Restored
from garcon_backend.save_contexts.containers import Rows, Table
from garcon_backend.save_contexts.copies import IMMUTABLE, apart, copied
from garcon_backend.save_contexts.merging import Sharded
from garcon_backend.save_contexts.quota import COUNTED_AT_ONCE, Kept, Quota
from garcon_jupyter.errors import NoRecording, WrongValue
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
    __slots__ = ("__dict__", "_admit", "_given", "_of", "_parts", "_taken", *LENT)

    here: SimpleNamespace
    params: dict[str, Tensor]
    source: SourceRecording | None
    shard: SimpleNamespace | None
    _given: Tensor | None
    _of: Sharded | None
    _parts: dict[str, Sharded]
    _taken: str | None
    _admit: Callable[[int], None]

    def __init__(self, admit: Callable[[int], None] = lambda count: None) -> None:
        object.__setattr__(self, "_parts", {})
        object.__setattr__(self, "_admit", admit)
        _lend(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SaveContext.__slots__:
            raise AttributeError(
                f"save_ctx.{name} is what Garçon tells the probe; save under another name."
            )
        if (count := _bytes_at_once(value)) >= COUNTED_AT_ONCE:
            self._admit(count)
        if value is self._given and value is not None:  # once: what is saved has its own memory
            _set(self, _given=None, _taken=name)
            SaveContext._keep(self, name, value.detach())
        else:
            SaveContext._keep(self, name, copied(value))

    def _keep(self, name: str, value: Any) -> None:
        """Save a value that has memory of its own, without a copy: recorders use this for their states."""
        object.__setattr__(self, name, value)
        self._parts.pop(name, None)
        if self._of is not None:
            self._parts[name] = self._of

    def __repr__(self) -> str:
        return f"<save context: {', '.join(vars(self)) or 'empty'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a save context holds others' values; save its attributes")


class Bereft(SaveContext):
    """One in which something was lost with its rank: whoever asks for that is told, and does not begin anew."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return there(super().__getattribute__(name), f"save_ctx.{name}")


def there(value: Any, what: str) -> Any:
    """A saved value that somebody asks for.

    Raises:
        NoRecording: it was lost; says with which rank, and why.
    """
    if isinstance(value, Lost):
        raise NoRecording(f"{what} was {value}.", "Run the request again, or clear the recording.")
    return value


def _bytes_at_once(value: Any) -> int:
    """Bytes of a tensor or an array, where they are quickly told."""
    if isinstance(value, Tensor):
        return value.nbytes if value.layout is torch.strided else 0
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _set(context: SaveContext, **slots: Any) -> None:
    for name, value in slots.items():
        object.__setattr__(context, name, value)


def _lend(context: SaveContext, of: Sharded | None = None, **things: Any) -> None:
    _set(context, _of=of, _given=None, **(_NOTHING | things))


_NOTHING = dict.fromkeys(LENT)


class LentToProbe:
    """What a probe is told while it runs, and no longer: a context must not keep weights alive.

    Args:
        of: what the values that are saved meanwhile are a part of; None where they are whole.
        given: the value, where its memory may become what is saved of it, without a copy: nobody else
            has it, and the probe must not change it.
    """

    __slots__ = ("_context", "_given", "_of", "_things")

    def __init__(
        self, context: SaveContext, of: Sharded | None, given: Tensor | None, **things: Any
    ) -> None:
        self._context, self._of, self._given, self._things = context, of, given, things

    def __enter__(self) -> None:
        _lend(self._context, self._of, **self._things)
        _set(self._context, _given=self._given, _taken=None)

    def __exit__(self, *raised: object) -> None:
        _lend(self._context)


class SourceRecording:
    """An earlier recording as a probe is given it. Every touch is a fresh copy: the copy may become
    the value of the point, and be changed in place there."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__["_values"] = values

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(
                f"The source has no {name!r}; saved there: {', '.join(self._values)}."
            )
        return copied(there(self._values[name], f"source.{name}"))

    def __dir__(self) -> list[str]:
        return list(self._values)


def uses(tensor: Tensor) -> int:
    """How often a tensor or its memory is referred to. It grows when somebody keeps the tensor or a
    view of it, and tells so without a walk through all that was saved."""
    storage = tensor.untyped_storage()._cdata
    return sys.getrefcount(tensor) + torch._C._storage_Use_Count(storage)


def took(context: SaveContext) -> bool:
    """Whether the probe that ran last saved the value that it was given, without a copy."""
    return context._taken is not None


def release_aliases(context: SaveContext, *values: Tensor, edited: bool = False) -> None:
    """Copy what a probe put into something saved behind our back: memory of the point's values; and what was
    saved without a copy, as somebody else has it now.

    Args:
        edited: whether the probe changed the value in place: before it saved it, or after, which nobody knows.

    Raises:
        WrongValue: it was edited, and somewhere in what was saved is its memory.
    """
    name = context._taken
    if name is not None and name in vars(context):
        setattr(context, name, vars(context)[name])
    for name, kept in vars(context).items():
        if isinstance(kept, Tensor):
            continue
        own, found = apart(kept, *values)
        object.__setattr__(context, name, own)
        if found and edited:
            raise WrongValue(
                f"What save_ctx.{name} was given is the tensor itself, which the probe changes in place: whether "
                "it is meant as it was before or after, nobody knows.",
                "Save a copy: tensor.clone().",
            )


@dataclass(frozen=True)
class Saved:
    """What a context held when a snapshot was taken.

    Attributes:
        values: what was saved, by attribute.
        parts: of those that are one rank's part, what of.
    """

    values: dict[str, Any]
    parts: dict[str, Sharded] = field(default_factory=dict)


Exported = dict[tuple[str, str | None], tuple[dict[str, Any], dict[str, Sharded]]]
"""What contexts hold: (values, which of them are parts) by point and name."""


class Contexts:
    """All save contexts of one rank, and the snapshots taken of them."""

    def __init__(self) -> None:
        self.quota = Quota()
        self._live: dict[Key, SaveContext] = {}
        self._snapshots: dict[tuple[str, int], dict[tuple[str, str | None], Saved]] = {}
        self._backups: Backups | None = None
        self._origins: dict[Key, Restored] = {}
        self._touched: set[Key] = set()
        self.finished = 0
        """Number of the last request that was finished before this process began."""
        self._silent: dict[Key, str] = {}

    def news(self) -> dict[Key, bool]:
        """Of the contexts that were opened or cleared since this was asked last: whether anything is in them."""
        touched, self._touched = self._touched, set()
        return {key: key in self._live and bool(vars(self._live[key])) for key in touched}

    def back_up(self, backups: Backups, finished: int = -1) -> None:
        """Keep backups, and begin with what they have of the last finished request."""
        self._backups, self.finished = backups, max(0, finished)
        for key, restored in backups.restore(finished).items():
            lossy = any(isinstance(value, Lost) for value in restored.values.values())
            context = self._live[key] = (Bereft if lossy else SaveContext)(self.check_room)
            restored.values = _owning(restored.values)
            vars(context).update(restored.values)
            context._parts.update(restored.parts)
            self._origins[key] = restored
            self._touched.add(key)

    def origin(self, session: str, ref: tuple[str, str | None], name: str, value: Any) -> str:
        """Of which finished request a value was left, where it was brought back after a loss."""
        restored = self._origins.get((session, *ref))
        if restored is None or restored.values.get(name) is not value or value is None:
            return ""
        return restored.requests[name]

    def note_silent(self, session: str, point: str, name: str | None, why: str) -> bool:
        """Remember why a probe did not run; whether that is news."""
        key = (session, point, name)
        news = self._silent.get(key) != why
        self._silent[key] = why
        return news

    def silent(self, session: str) -> dict[tuple[str, str | None], str]:
        """Why probes of a session did not run when they last could have, by point and name."""
        return {key[1:]: why for key, why in self._silent.items() if key[0] == session}

    def begin(self) -> None:
        """A request begins."""
        if self._backups:
            self._backups.begin()

    def keep(self, number: int, request: str) -> None:
        """A request has run on this rank; `request` is what to call it."""
        if self._backups:
            self._backups.keep(number, request, self._hold)

    def end(self, finished: int | None = None) -> None:
        """A request is over; where it is known to be on all ranks, its number."""
        if self._backups:
            self._backups.end(finished)

    def _hold(self, key: Key) -> tuple[dict[str, Any], dict[str, Sharded]] | None:
        context = self._live.get(key)
        return None if context is None else (dict(vars(context)), dict(context._parts))

    def open(self, session: str, point: str, name: str | None) -> SaveContext:
        """The context to save into; made where there is none, copied where a snapshot holds it."""
        key = (session, point, name)
        self._touched.add(key)
        self._silent.pop(key, None)
        context = self._live.get(key)
        if context is None:
            context = self._live[key] = SaveContext(self.check_room)
        held = [
            contents[point, name].values
            for (owner, _), contents in self._snapshots.items()
            if owner == session and (point, name) in contents
        ]
        mine = vars(context)
        self.quota.opened(mine, context._parts)
        written = self._backups is not None and self._backups.opened(key)
        if written or any(_shares(snapshot, mine) for snapshot in held):
            mine.update(_copied(mine))
        return context

    def check_room(self, more: int = 0) -> None:
        """Refuse to keep so many bytes more.

        Raises:
            DoesNotFit: with the numbers.
        """
        self.quota.check(self._kept(), more)

    def room(self) -> int:
        """Bytes that may be kept beside what is."""
        return self.quota.room(self._kept())

    def _kept(self) -> Kept:
        live = ((key[0], vars(context)) for key, context in self._live.items())
        snapshots = (
            (session, saved.values)
            for (session, _), contents in self._snapshots.items()
            for saved in contents.values()
        )
        return (*live, *snapshots)

    def names(self, session: str, point: str, name: str | None) -> Collection[str]:
        """What is saved in a context, by name."""
        context = self._live.get((session, point, name))
        return () if context is None else vars(context).keys()

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
        for key in [k for k in {**self._live, **self._silent} if k[0] == session]:
            if (chosen is None or key[1] in chosen) and name in (None, key[2]):
                self._touched.add(key)
                self._live.pop(key, None)
                self._silent.pop(key, None)
                self._origins.pop(key, None)
                if self._backups:
                    self._backups.cleared(key)

    def export(self, session: str, wanted: Iterable[tuple[str, str | None]]) -> Exported:
        """What these contexts of a session hold here: (values, parts) by point and name."""
        found = {ref: self._hold((session, *ref)) for ref in wanted}
        return {ref: held for ref, held in found.items() if held is not None}

    def install(self, session: str, contents: Exported) -> None:
        """Let contexts of a session hold this, in place of what they held."""
        for (point, name), (values, parts) in contents.items():
            key = (session, point, name)
            self._live.pop(key, None)
            self._origins.pop(key, None)
            context = self.open(session, point, name)
            vars(context).update(_owning(values))
            context._parts.update(parts)

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


def _shares(snapshot: dict[str, Any], mine: dict[str, Any]) -> bool:
    return any(
        snapshot.get(name) is value and not isinstance(value, IMMUTABLE)
        for name, value in mine.items()
    )


def _owning(values: dict[str, Any]) -> dict[str, Any]:
    """Values that were saved once and came back: their lists and dictionaries own what will be put in."""
    return {n: copied(v) if type(v) in (list, dict) else v for n, v in values.items()}


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    """A deep copy; what cannot be copied, such as an open file, stays shared."""
    with _unless_memory_ended():
        return copy.deepcopy(values)
    copies = {}
    for name, value in values.items():
        copies[name] = value
        with _unless_memory_ended():
            copies[name] = copy.deepcopy(value)
    return copies


@contextmanager
def _unless_memory_ended() -> Iterator[None]:
    """Objects may raise anything when asked for a copy; that there is no room for one is told."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if memory.ended(error):
            raise


class _Preview(reprlib.Repr):
    repr_Rows = reprlib.Repr.repr_list
    repr_Table = reprlib.Repr.repr_dict


def describe(value: Any) -> AttributeInfo:
    """What a handle may know of a value without fetching it."""
    kind = {Rows: "list", Table: "dict"}.get(type(value), type(value).__name__)
    if isinstance(value, Lost):
        return AttributeInfo("lost", preview=repr(value))
    if isinstance(value, Tensor):
        return AttributeInfo(
            kind,
            tuple(value.shape),
            str(value.dtype).removeprefix("torch."),
            str(value.device),
            value.numel() * value.element_size(),
        )
    try:
        preview = _Preview().repr(value)
    except (Exception, SystemExit):  # noqa: BLE001 - objects may raise anything when asked that
        preview = f"<{kind}>"
    return AttributeInfo(kind, preview=preview if len(preview) < 80 else preview[:77] + "…")
