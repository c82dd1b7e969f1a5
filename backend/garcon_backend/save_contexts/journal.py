"""A file of records that outlives its process: what was put down is there, whole or not at all.

What a process has written into a file stays when the process is killed: the system has it. (It is not forced onto
the disk, so the loss of the host is another matter.) Each record carries a checksum, so that one which was cut off in
its middle ends the reading.

Two files take turns: when one is full, what still counts is put down as the first record of the other. Their room is
taken beforehand, so a record goes into memory that the system has already, which takes a tenth of the time that
fresh pages take; and a disk that is full later has room for it all the same.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<QQQ")
"""Which turn it is, bytes of the pieces, bytes of the content."""

_CHECK = struct.Struct("<I")

_BEFORE = _HEADER.size + _CHECK.size

_OF_FREE = 32
"""Of the room that a disk has left, each of the two files takes one part in so many beforehand."""

_AT_A_TIME = 512
"""Pieces that one call of the system writes."""

Piece = bytes | bytearray | memoryview


@dataclass
class _Turn:
    """What is in one file."""

    number: int
    contents: list[Any]


class Journal:
    """The journal of one process.

    Args:
        directory: where its files are.
        capacity: bytes of each of its files that are taken beforehand.

    Attributes:
        contents: of the records that are there when it is opened, in order.
    """

    def __init__(self, directory: Path, capacity: int) -> None:
        room = min(capacity, shutil.disk_usage(directory).free // _OF_FREE)
        paths = [directory / "journal-0", directory / "journal-1"]
        self._files = [_opened(path, room) for path in paths]
        turns = [_read(path) for path in paths]
        last = max(turns, key=lambda turn: turn.number)
        self._turn, self.contents = last.number, last.contents
        self._file = self._files[turns.index(last)]
        self.end = 0  # nothing is appended to what another process wrote

    first = _BEFORE
    """Where the pieces of the first record of a turn begin."""

    @property
    def next(self) -> int:
        """Where the pieces of the record that is appended next will begin."""
        return self.end + _BEFORE

    def append(self, content: Any, pieces: Sequence[Piece] = ()) -> None:
        """Put down a record.

        Args:
            content: anything that pickles.
            pieces: raw bytes beside it, to be read by their place.

        Raises:
            OSError: there is no room; the record is not there.
        """
        payload = pickle.dumps(content, protocol=5)
        header = _HEADER.pack(self._turn, sum(map(_nbytes, pieces)), len(payload))
        check = zlib.crc32(header)
        for piece in (*pieces, payload):
            check = zlib.crc32(piece, check)
        whole = [header, _CHECK.pack(check), *pieces, payload]
        self.end += _write(self._file, whole, self.end)

    def renew(self) -> None:
        """Begin the turn of the other file. Until a record was appended, what is read is the turn before."""
        self._file = self._files[(self._files.index(self._file) + 1) % 2]
        self._turn += 1
        self.end = 0

    def wipe(self) -> None:
        """Leave nothing, and give back the room."""
        for file in self._files:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)

    def read(self, start: int, size: int) -> bytearray:
        """The bytes of pieces."""
        found = bytearray(size)
        os.preadv(self._file, [found], start)
        return found

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            os.close(file)


def _opened(path: Path, capacity: int) -> int:
    """A file for its owner alone, whose room is taken."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    there = os.fstat(file).st_size
    if there < capacity:
        try:
            _write(file, [bytes(capacity - there)], there)
        except OSError:  # then records are written as long as there is room
            os.ftruncate(file, there)
    return file


def _read(path: Path) -> _Turn:
    """The records of a file, up to the first that is not whole or of an earlier turn."""
    data = memoryview(path.read_bytes())
    found, at = _Turn(0, []), 0
    while at + _BEFORE <= len(data):
        turn, pieces, content = _HEADER.unpack_from(data, at)
        (check,) = _CHECK.unpack_from(data, at + _HEADER.size)
        body = data[at + _BEFORE : at + _BEFORE + pieces + content]
        if not turn or (found.contents and turn != found.number) or len(body) < pieces + content:
            break
        if zlib.crc32(body, zlib.crc32(data[at : at + _HEADER.size])) != check:
            break
        found.number = turn
        found.contents.append(pickle.loads(body[pieces:]))
        at += _BEFORE + len(body)
    return found


def _write(file: int, pieces: Sequence[Piece], start: int) -> int:
    """Write all pieces, one after the other; how many bytes.

    Raises:
        OSError: there is no room.
    """
    done = 0
    for first in range(0, len(pieces), _AT_A_TIME):
        some = pieces[first : first + _AT_A_TIME]
        written = os.pwritev(file, some, start + done)
        size = sum(map(_nbytes, some))
        while written < size:  # it was cut short: the rest says why, or goes
            written += os.pwrite(file, b"".join(some)[written:], start + done + written)
        done += size
    return done


def _nbytes(piece: Piece) -> int:
    return piece.nbytes if isinstance(piece, memoryview) else len(piece)
