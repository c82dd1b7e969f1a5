"""A file of JSON lines with checksums, to which is only added: what is in it stays, whenever a process is killed.

Each line is ``{"crc": "8 hex digits", "value": …}``; the checksum is of the value as canonical JSON. A line that was cut short or damaged is left out
when the file is read, and counted; what is added after it begins on a new line.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from garcon_jupyter.errors import BadData


def canonical(value: Any) -> str:
    """A value as JSON that is the same for equal values."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )


class CheckedLines:
    """A file of values, to which several processes may add.

    In a store's own (:class:`garcon_jupyter.activation_stores.journal.StoreJournal`) a damaged line is an error, as rows would be missing. Here it is an
    answer that is asked for again.

    Args:
        path: of it; it is made with what is added first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[list[Any], int]:
        """(the values in the order in which they were added, how many lines were damaged)."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return [], 0
        found, damaged = [], 0
        for line in filter(None, lines):
            try:
                row = json.loads(line)
                value = row["value"]
                whole = row["crc"] == _checksum(canonical(value))
            except (ValueError, KeyError, TypeError):
                whole = False
            if whole:
                found.append(value)
            else:
                damaged += 1
        return found, damaged

    def add(self, values: Iterable[Any]) -> None:
        """Add values; those of several processes stand one after the other.

        Raises:
            BadData: the file cannot be written.
        """
        data = "".join(
            f'{{"crc":"{_checksum(text)}","value":{text}}}\n' for text in map(canonical, values)
        ).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"), self.path.open("ab+") as file:
                if file.tell() and not _ends_a_line(file):
                    data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BadData(
                f"{self.path} cannot be written: {error.strerror or error}.",
                "Make room, or give another directory with where=.",
            ) from None


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
