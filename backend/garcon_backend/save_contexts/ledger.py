"""What there is a backup of, and where: the index of a rank's backups, kept in its journal.

Every request that leaves something adds a record, which counts from when the request is finished. Read again, the
records up to the last finished request give the index as it was then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from garcon_backend.process.output import log
from garcon_backend.save_contexts.journal import Journal, Piece
from garcon_jupyter.wire.failures import text_of

Key = tuple[str, str, str | None]
"""Which save context: (session, point, name of the probe or None)."""

CAPACITY = 8 << 20
"""Bytes of a journal before it begins anew; half of them may be values."""


class Backup(NamedTuple):
    """Where the backup of one value is.

    Attributes:
        request: what saved the value.
        size: its bytes, as far as they are known.
        start: where it begins in the journal.
        spans: bytes there of its pickle, and of the buffers of that; empty where it is elsewhere.
        file: the name of its file; of one that is due it is not there yet.
        why: it has none.
    """

    request: str
    size: int
    start: int = 0
    spans: tuple[int, ...] = ()
    file: str = ""
    why: str = ""

    def none(self, why: str) -> Backup:
        """In its place, that there is none, and why."""
        return Backup(self.request, 0, why=f"{why}, saved by {self.request}")


class Entry(NamedTuple):
    """A context: which of its values are parts, and their backups."""

    parts: dict[str, Any]
    backups: dict[str, Backup]


@dataclass
class LedgerRecord:
    """What is put down at once.

    Attributes:
        number: of the request that left this; 0 for what no request did.
        contexts: those that changed; None for one that is no more.
        whole: whether these are all contexts, of requests that are finished.
        finished: a request that all ranks have finished.
        later: by the file that a value was to be written into, its backup now.
    """

    number: int = 0
    contexts: dict[Key, Entry | None] = field(default_factory=dict)
    whole: bool = False
    finished: int | None = None
    later: dict[str, Backup] = field(default_factory=dict)


class Ledger:
    """The index of one rank, and its journal.

    Args:
        directory: of the journal.
        limit: bytes that all backups may take.

    Attributes:
        index: what there is a backup of, by context.
        finished: number of the last request that is known to be finished; -1 where nobody said.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._limit = limit
        self._journal = Journal(directory, CAPACITY)
        told = [r.finished for r in self._journal.contents if r.finished is not None]
        self.finished = told[-1] if told else -1
        self.index: dict[Key, Entry] = {}
        self._used = self._inside = 0
        self._behind, self._most = False, CAPACITY

    def read(self, finished: int) -> None:
        """Have the index as a finished request left it; -1 for the last that was put down."""
        self.finished = max(0, finished)  # from now on somebody knows
        self.index = _told_by(self._journal.contents, finished)
        self._journal.contents.clear()
        self._count_all()

    def bytes_of(self, backup: Backup) -> bytearray:
        """What the journal has of a value."""
        return self._journal.read(backup.start, sum(backup.spans))

    @property
    def next(self) -> int:
        """Where the next value goes that is put down."""
        return self._journal.next

    @property
    def room(self) -> int:
        """Bytes that backups may still take."""
        return max(0, self._limit - self._used)

    def takes(self, size: int) -> bool:
        """Whether the journal takes so many bytes more of values."""
        return self._inside + size <= CAPACITY // 2 and not self._behind

    def count(self, backup: Backup, sign: int = 1) -> None:
        """Bear in mind what a backup takes."""
        self._used += sign * backup.size
        self._inside += sign * sum(backup.spans)

    def _count_all(self) -> None:
        self._used = self._inside = 0
        for entry in self.index.values():
            for backup in entry.backups.values():
                self.count(backup)

    def put_down(self, record: LedgerRecord, pieces: Sequence[Piece] = ()) -> None:
        """Append a record of what the index has; where there is no room, say so in place of the values.

        Args:
            pieces: values, one after the other from :attr:`next`.
        """
        if not self._behind:
            try:
                self._journal.append(record, pieces)
                return
            except OSError as error:
                tell(f"the journal of backups: {text_of(error)}")
        self._lose(lambda backup: backup.start >= self._journal.next)
        self.begin_anew()

    @property
    def full(self) -> bool:
        """Whether it is time to begin anew."""
        return self._journal.end > self._most

    def begin_anew(self) -> None:
        """Go on in the other file with what counts now; where there is no room, with the names of it."""
        with contextlib.suppress(OSError, MemoryError):
            self._renew()
            return
        self._lose(lambda backup: True)
        self._journal.wipe()
        try:
            self._renew()
        except OSError:  # nobody will know what was there
            self._journal.wipe()
            self._behind = True

    def _renew(self) -> None:
        pieces: list[Piece] = []
        start = self._journal.first
        for entry in self.index.values():
            for name, backup in entry.backups.items():
                if backup.spans:
                    pieces.append(self.bytes_of(backup))
                    entry.backups[name] = backup._replace(start=start)
                    start += sum(backup.spans)
        self._journal.renew()
        self._journal.append(LedgerRecord(0, dict(self.index), True, self.finished), pieces)
        self._most = max(CAPACITY, 2 * self._journal.end)
        self._count_all()
        self._behind = False

    def _lose(self, which: Callable[[Backup], bool]) -> None:
        """Of what is in the journal, keep the names alone."""
        for entry in self.index.values():
            for name, backup in entry.backups.items():
                if backup.spans and which(backup):
                    entry.backups[name] = backup.none(no_room(backup.size))
        self._count_all()


def _told_by(records: Iterable[LedgerRecord], finished: int) -> dict[Key, Entry]:
    index: dict[Key, Entry] = {}
    later: dict[str, Backup] = {}
    for record in records:
        later |= record.later
        if record.whole:
            index = {}
        elif 0 <= finished < record.number:
            continue
        for key, entry in record.contexts.items():
            if entry is None:
                index.pop(key, None)
            else:
                index[key] = entry
    for entry in index.values():
        for name, backup in entry.backups.items():
            entry.backups[name] = later.get(backup.file, backup)
    return index


def tell(line: str) -> None:
    """Into the server's log, should there be room for it."""
    with contextlib.suppress(OSError):
        log(line)


def beyond(size: int, there: int) -> str:
    """Why there is no backup of what is larger than the limit."""
    return f"{size:,} bytes, with {max(0, there):,} left for backups"


def no_room(size: int) -> str:
    """Why there is no backup where the disk is full."""
    return f"{size:,} bytes, for which the disk had no room"
