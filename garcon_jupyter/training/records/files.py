"""The files of a record, below what they mean: streams that are appended to, and a journal that says what is whole.

A record is a directory. ``record.json`` says what is in it. Numbers are appended to streams, plain files of one type; then
a line of the journal says which bytes of each belong to a step, with their checksums. A line begins with its own checksum.
What was being written when a process died has no line, and is cut off by whoever goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadData

MANIFEST = "record.json"
JOURNAL = "journal.jsonl"
FORMAT = 1

Line = dict[str, Any]
Span = list[int]
"""[first byte, number of bytes, CRC-32] in a stream."""


def line_of(content: Line) -> bytes:
    """A line of a journal: eight digits of its CRC-32, a blank, JSON."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def lines_in(file: Path) -> Iterator[tuple[Line, int]]:
    """(content, the byte after it) of the whole lines of a journal, up to the first that is not whole."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return
    at = 0
    while (end := content.find(b"\n", at)) >= 0:
        told, _, text = content[at:end].partition(b" ")
        if told != b"%08x" % zlib.crc32(text):
            return
        at = end + 1
        yield json.loads(text), at


class RecordFiles:
    """Appends to the files of one record.

    Args:
        path: its directory, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, Any] = {}

    def _stream(self, name: str) -> Any:
        if name not in self._open:
            file = self.path / name
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._open[name] = file.open("ab", buffering=0)
            except OSError as error:
                raise BadData(f"{file} cannot be written: {error}.", "Make room.") from None
        return self._open[name]

    def append(self, name: str, content: bytes) -> Span:
        """Append to a stream.

        Raises:
            BadData: there is no room; what was written of it is cut off.
        """
        stream = self._stream(name)
        start = os.fstat(stream.fileno()).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[stream.write(rest) :]
        except OSError as error:
            with suppress(OSError):  # what has no line in the journal does not count
                stream.truncate(start)
            raise BadData(
                f"The record in {self.path} could not be written: {error.strerror or error}.",
                "Make room, and go on from the trainer's checkpoint with step=….",
            ) from None
        return [start, len(content), zlib.crc32(content)]

    def tell(self, content: Line) -> None:
        """Append a line to the journal."""
        self.append(JOURNAL, line_of(content))

    def forget(self, name: str) -> None:
        """Close a stream and delete its file."""
        if (stream := self._open.pop(name, None)) is not None:
            stream.close()
        (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all of them."""
        for stream in self._open.values():
            stream.close()
        self._open.clear()


class WritingLock:
    """That one process at a time writes a record: a lock on its ``record.json``, which the system gives up with the process.

    Args:
        path: the record's directory.

    Raises:
        BadData: another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._file = (path / MANIFEST).open("rb")
        for _ in range(100):  # whoever only looks whether it is held, holds it for a moment
            if _locked(self._file, fcntl.LOCK_EX):
                return
            time.sleep(0.01)
        self._file.close()
        raise BadData(
            f"The record in {path} is being written, by another process or another recording of this one.",
            "End that first, or give a new directory.",
        )

    def release(self) -> None:
        """Let others write it."""
        self._file.close()


def is_written(path: Path) -> bool:
    """Whether some process writes a record now."""
    try:
        with (path / MANIFEST).open("rb") as file:
            return not _locked(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _locked(file: Any, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace(file: Path, content: bytes) -> Span:
    """Write a whole file, or nothing of it."""
    beside = file.with_name(f".{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadData(
            f"{file} could not be written: {error.strerror or error}.",
            "Make room, and go on from the trainer's checkpoint with step=….",
        ) from None
    return [0, len(content), zlib.crc32(content)]


def cut(path: Path, streams: Iterable[str], ends: dict[str, int]) -> None:
    """Cut streams off behind what a journal knows of."""
    for name in streams:
        file = path / name
        if file.exists():
            with file.open("r+b") as stream:
                stream.truncate(ends.get(name, 0))


def span_of(path: Path, name: str, span: Span) -> bytes:
    """The bytes of a span.

    Raises:
        BadData: they are not what was written.
    """
    first, count, told = span
    try:
        with (path / name).open("rb") as stream:
            stream.seek(first)
            content = stream.read(count)
    except OSError as error:
        raise BadData(f"{path / name} cannot be read: {error.strerror}.", _DAMAGED) from None
    if len(content) != count or zlib.crc32(content) != told:
        raise BadData(f"{path / name} is damaged at byte {first}: its checksum differs.", _DAMAGED)
    return content


def manifest_of(path: Path) -> Line:
    """The content of ``record.json``.

    Raises:
        BadData: there is none, or of a newer format.
    """
    try:
        told: Line = json.loads((path / MANIFEST).read_text())
        newer = told["format"] > FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(
            f"{path} holds no record of a training: {error}.", "training.record() makes one."
        ) from None
    if newer:
        raise BadData(f"{path} is of format {told['format']}.", "Install a newer garcon-jupyter.")
    return told


_DAMAGED = "Record the step again, from the trainer's checkpoint before it."
