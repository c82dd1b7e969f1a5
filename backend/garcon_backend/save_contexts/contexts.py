"""Save contexts: what probes keep on the server.

One :class:`SaveContext` per (session, point), or per (session, point, name) where a probe is named. It
lives on the rank where its probe runs, until it is cleared.

A *snapshot* is what ``recordings()`` sees. Taking one copies nothing; the first probe that runs in a
context after it makes the copy, so that snapshots never change and cost nothing where nobody goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from garcon_backend.save_contexts.backups import Backups, Lost, Restored
from garcon_backend.save_contexts.copies import copied
from garcon_backend.save_contexts.ledger import Key
from garcon_backend.save_contexts.merging import Sharded
from garcon_backend.save_contexts.quota import Kept, Quota
from garcon_backend.save_contexts.save_context import Bereft, SaveContext
from garcon_backend.save_contexts.walking import IMMUTABLE, Memo
from garcon_jupyter.errors import NoRecording
from garcon_jupyter.wire.requests import RecordingRef


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
        self._adapters: dict[Key, tuple[str, ...]] = {}
        self.certificate: dict[str, Any] | None = None
        """The certificate of the model, as plain data, with its "id"."""
        self._certificates: dict[Key, str] = {}

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

    def adapters(self, session: str) -> dict[tuple[str, str | None], tuple[str, ...]]:
        """Which adapters were on when contexts of a session were opened, "" for the base model, the last one last; of
        those that were opened with one at least."""
        mine = {key[1:]: names for key, names in self._adapters.items() if key[0] == session}
        return {ref: names for ref, names in mine.items() if any(names)}

    def certificates(self, session: str) -> dict[tuple[str, str | None], str]:
        """The model's certificate when a session's probes last ran, by point and name; "" where there was none."""
        return {key[1:]: id for key, id in self._certificates.items() if key[0] == session}

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

    def open(
        self, session: str, point: str, name: str | None, adapter: str | None = None
    ) -> SaveContext:
        """The context to save into; made where there is none, copied where a snapshot holds it.

        Args:
            adapter: that is on.
        """
        key = (session, point, name)
        former = self._adapters.get(key, ()) if key in self._live else ()
        now = adapter or ""
        self._adapters[key] = (*(each for each in former if each != now), now)
        self._touched.add(key)
        self._silent.pop(key, None)
        self._certificates[key] = self.certificate["id"] if self.certificate else ""
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
            memo: Memo = {}
            mine.update({name: copied(value, memo) for name, value in mine.items()})
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
                self._adapters.pop(key, None)
                self._origins.pop(key, None)
                self._certificates.pop(key, None)
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
        snapshot.get(name) is value and type(value) not in IMMUTABLE for name, value in mine.items()
    )


def _owning(values: dict[str, Any]) -> dict[str, Any]:
    """Values that were saved once and came back: their lists and dictionaries own what will be put in."""
    return {n: copied(v) if type(v) in (list, dict) else v for n, v in values.items()}
