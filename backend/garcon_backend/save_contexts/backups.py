"""What probes saved outlives a lost rank: each rank has a backup of its save contexts, and says what it has of which.

When a request is over, and before its answer is given, each rank puts down in its journal what its contexts hold
now: the name of every value, which request saved it, how large it is, and, where it is small, the value itself. What
is larger is *due*: it is held as it is, without a copy, and a thread writes it into a file of its own as soon as
requests leave it time. Meanwhile another request may have changed a held tensor in place: its version tells, and
nothing is written. Objects of other kinds tell nothing, so they are copied when a request opens their context before
they were written.

Ranks do not end a request at the same moment, so rank 0 puts down, when all have done theirs, that the request is
*finished*. After a loss every rank goes back to what the last finished request left. A value that was not written by
then, that does not fit into the limit or does not pickle, is named in its place (:class:`Lost`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garcon_backend.save_contexts.as_left import AsLeft, pickled, unpickled
from garcon_backend.save_contexts.journal import Piece
from garcon_backend.save_contexts.ledger import (
    Backup,
    Entry,
    Key,
    Ledger,
    LedgerRecord,
    beyond,
    no_room,
    tell,
)
from garcon_backend.save_contexts.pace import WritingPace
from garcon_backend.save_contexts.value_files import ValueFiles
from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.wire.failures import text_of

LIMIT = int(os.environ.get("GARCON_BACKUP_BYTES", 1 << 30))
"""Bytes that the backups of one server may take, over all its ranks on a host."""

AT_ONCE = 256 << 10
"""Cost (:attr:`AsLeft.cost`) up to which values are written before the answer of a request, the smallest first."""

PACE = 96 << 20
"""The same for each second that the request took: about a thirtieth of its time."""

SMALL = 64 << 10
"""Bytes of a value up to which the thread, too, puts it into the journal."""

TOGETHER = 64
"""Of such values, how many it writes at a time."""

Content = tuple[dict[str, Any], dict[str, Any]]
"""What a context holds, and what of it are parts."""

Held = dict[Key, Content | None]
"""That of several; None where one is no more."""


class Lost:
    """Stands for a saved value that could not be kept when a rank was lost; says of which, and why."""

    def __init__(self, rank: int, why: str) -> None:
        self.rank, self.why = rank, why

    def __str__(self) -> str:
        return f"lost with rank {self.rank}: {self.why}"

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass
class Restored:
    """A context as the last finished request left it, and for each value what saved it."""

    values: dict[str, Any]
    parts: dict[str, Any]
    requests: dict[str, str]


@dataclass
class _Due:
    """A value that is to be written."""

    key: Key
    name: str
    backup: Backup
    left: AsLeft

    @property
    def small(self) -> bool:
        return self.left.plain and self.left.size <= SMALL


class Backups:
    """The backups of one rank.

    Args:
        directory: of this rank; made where it is not there.
        limit: bytes that they may take.
        rank: which this is.
    """

    def __init__(self, directory: Path, limit: int = LIMIT, rank: int = 0) -> None:
        self._rank = rank
        self._files = ValueFiles(directory)
        self._ledger = Ledger(directory, limit)
        self._lock = threading.Lock()
        self._touched: dict[Key, None] = {}  # in their order
        self._due: dict[str, _Due] = {}
        self._writing: Sequence[_Due] = ()
        self._pace = WritingPace()

    @property
    def finished(self) -> int:
        """Number of the last request that is known to be finished; rank 0 knows it, -1 says nothing."""
        return self._ledger.finished

    # -- after a loss ------------------------------------------------------------------------

    def restore(self, finished: int = -1) -> dict[Key, Restored]:
        """What the last finished request left, by context; from now on backups are kept.

        Args:
            finished: the number of that request; -1 where nobody knows, then all that was put down counts.
        """
        self._ledger.read(finished)
        index = self._ledger.index
        found = {key: self._restored(entry) for key, entry in index.items()}
        self._ledger.begin_anew()
        needed = {b.file for entry in index.values() for b in entry.backups.values()}
        self._files.go_on(needed)
        threading.Thread(
            target=self._pace.follow, args=(self.flush,), daemon=True, name="backups"
        ).start()
        return found

    def _restored(self, entry: Entry) -> Restored:
        values = {}
        for name, backup in entry.backups.items():
            try:
                values[name] = self._value(backup)
            except Exception as error:  # noqa: BLE001 - objects may raise anything when they are made
                lost = backup if backup.why else backup.none(_gone(backup, error))
                values[name], entry.backups[name] = Lost(self._rank, lost.why), lost
        requests = {name: backup.request for name, backup in entry.backups.items()}
        return Restored(values, dict(entry.parts), requests)

    def _value(self, backup: Backup) -> Any:
        if backup.spans:
            return unpickled(self._ledger.bytes_of(backup), backup.spans)
        return self._files.read(backup.file)

    # -- told by the main thread -------------------------------------------------------------

    def opened(self, key: Key) -> bool:
        """A request is about to write into a context; whether it must be copied first."""
        self._touched[key] = None
        if not self._due and not self._writing:
            return False
        with self._lock:
            for due in self._due.values():
                if due.key == key:
                    due.left.copy_opaque()
            return any(due.key == key and due.left.opaque for due in self._writing)

    def cleared(self, key: Key) -> None:
        """A context is no more."""
        self._touched[key] = None

    def begin(self) -> None:
        """A request begins, so the one before is finished."""
        self._pace.begin()
        self._files.finished()
        if self._ledger.full:
            with self._lock:
                self._ledger.begin_anew()

    def keep(self, number: int, request: str, hold: Callable[[Key], Content | None]) -> None:
        """Put down what a request leaves; it has run, and others may still.

        Args:
            number: of the request.
            request: what to call it.
            hold: tells what contexts hold.
        """
        if not self._touched:
            return
        allowed = max(AT_ONCE, int(PACE * self._pace.running))
        with self._lock:
            held = {key: hold(key) for key in self._touched}
            self._touched.clear()
            try:
                self._put_down(number, request, held, allowed)
            except Exception as error:  # noqa: BLE001 - a request does not fail for want of a backup
                tell(f"no backup of {request}: {text_of(error)}")
                self._name(request, held)

    def _put_down(self, number: int, request: str, held: Held, allowed: int) -> None:
        record = LedgerRecord(number)
        values: list[tuple[AsLeft, Key, str]] = []
        for key, content in held.items():
            self._forget(key)
            if not content or not content[0]:
                self._ledger.index.pop(key, None)
                record.contexts[key] = None
            else:
                self._ledger.index[key] = record.contexts[key] = Entry(content[1], {})
                values += [(AsLeft(value), key, name) for name, value in content[0].items()]
        pieces: list[Piece] = []
        for left, key, name in sorted(values, key=lambda value: value[0].cost):
            start = self._ledger.next + sum(map(len, pieces))
            backup, written = self._backup(left, request, allowed, start)
            if written:
                allowed -= left.cost
                pieces += written
            elif backup.file:
                self._due[backup.file] = _Due(key, name, backup, left)
            self._ledger.count(backup)
            self._ledger.index[key].backups[name] = backup
        self._ledger.put_down(record, pieces)

    def _name(self, request: str, held: Held) -> None:
        """Put down the names of what there is no backup of, and no more."""
        for key, content in held.items():
            if content and content[0]:
                none = Backup(request, 0).none("a value that could not be backed up")
                backups = dict.fromkeys(content[0], none)
                self._ledger.index[key] = Entry(content[1], backups)
        self._ledger.begin_anew()

    def _forget(self, key: Key) -> None:
        """What there was of a context is of no use when the request is finished."""
        entry = self._ledger.index.get(key)
        for backup in entry.backups.values() if entry else ():
            self._ledger.count(backup, -1)
            if backup.file:
                self._files.replaced(backup.file)
                self._due.pop(backup.file, None)

    def _backup(
        self, left: AsLeft, request: str, allowed: int, start: int
    ) -> tuple[Backup, list[Piece]]:
        """The backup of a value, and what of it is written at once."""
        if isinstance(left.value, Lost):
            return Backup(request, 0, why=left.value.why), []
        backup = Backup(request, left.size, file=self._files.another())
        if left.size > self._ledger.room:
            return backup.none(beyond(left.size, self._ledger.room)), []
        if left.plain and left.cost <= allowed and self._ledger.takes(left.size):
            with contextlib.suppress(Exception):  # memory may have ended: the thread tries again
                pieces = pickled(left.value)
                spans = tuple(map(len, pieces))
                return Backup(request, sum(spans), start, spans), pieces
        return backup, []

    def end(self, finished: int | None = None) -> None:
        """A request is over; rank 0 says which, when all ranks have put down what it left."""
        if finished is not None:
            with self._lock:
                self._ledger.finished = finished
                self._ledger.put_down(LedgerRecord(finished=finished))
        self._pace.end(bool(self._due) or self._files.removable)

    # -- the thread --------------------------------------------------------------------------

    def flush(self) -> None:
        """Write all that is due."""
        self._files.remove()
        while some := self._next():
            try:
                self._write(some)
            except Exception as error:  # noqa: BLE001 - the request is long over, the log tells
                tell(f"no backup of {some[0].key[1]}: {text_of(error)}")
            finally:
                self._writing = ()

    def _next(self) -> Sequence[_Due]:
        """What is written next: many that are small, or one that is not."""
        with self._lock:
            small = [due for due in self._due.values() if due.small]
            self._writing = small[:TOGETHER] or list(self._due.values())[:1]
            for due in self._writing:
                del self._due[due.backup.file]
            return self._writing

    def _write(self, some: Sequence[_Due]) -> None:
        written: list[tuple[_Due, Backup, bytes]] = []
        for due in some:
            backup, content = self._written(due)
            if due.left.intact:  # else the request that changes it will be over, too
                written.append((due, backup, content))
            elif backup.file:
                self._files.remove(backup.file)
        with self._lock:
            record, pieces = LedgerRecord(), list[Piece]()
            for due, backup, content in written:
                entry = self._ledger.index.get(due.key)
                if entry is None or entry.backups.get(due.name) is not due.backup:
                    continue  # it was replaced meanwhile
                if content:
                    backup = backup._replace(start=self._ledger.next + sum(map(len, pieces)))
                    pieces.append(content)
                self._ledger.count(due.backup, -1)
                self._ledger.count(backup)
                entry.backups[due.name] = record.later[due.backup.file] = backup
            if record.later:
                self._ledger.put_down(record, pieces)

    def _written(self, due: _Due) -> tuple[Backup, bytes]:
        """The backup of what was due, and what of it goes into the journal."""
        backup, value = due.backup, due.left.value
        there = self._ledger.room + backup.size
        nbytes = getattr(value, "nbytes", 0)
        if isinstance(nbytes, int) and nbytes > there:
            return backup.none(beyond(nbytes, there)), b""
        try:
            pieces = pickled(value)
        except CannotTravel as error:
            return backup.none(error.problem.rstrip(".")), b""
        spans = tuple(map(len, pieces))
        if (size := sum(spans)) > there:
            return backup.none(beyond(size, there)), b""
        if due.small and self._ledger.takes(size):
            return backup._replace(size=size, spans=spans, file=""), b"".join(pieces)
        try:
            self._files.write(backup.file, pieces, lambda: due.left.intact)
        except OSError as error:
            tell(f"no backup of {due.key[1]}: {text_of(error)}")
            return backup.none(no_room(size)), b""
        return backup._replace(size=size), b""


def _gone(backup: Backup, error: Exception) -> str:
    """Why a value is not there, for whoever looks for it."""
    size = f"{backup.size:,} bytes" if backup.size else "a value"
    if isinstance(error, FileNotFoundError):
        return f"{size}, not written yet"
    return f"{size}, which cannot be read again ({text_of(error)})"
