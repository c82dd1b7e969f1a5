"""Journals, whose lines carry their own checksum, and files that are there whole or not at all.

A process may be killed in the midst of a line. Such a line is the last one, and is cut; a line that is wrong anywhere else
was damaged, and is an error that names the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garcon_jupyter.activation_stores.addresses import StoreAddress
from garcon_jupyter.errors import BadData


class StoreJournal:
    """Lines of JSON, each behind a CRC-32 of itself.

    Args:
        path: its file; there or not.
    """

    def __init__(self, path: Path | StoreAddress) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """The lines that are whole.

        Raises:
            BadData: a line that is not the last one is damaged.
        """
        return [line for line, _ in self._lines()]

    @property
    def size(self) -> int:
        """Bytes of the lines that are whole."""
        return max((end for _, end in self._lines()), default=0)

    def _lines(self) -> list[tuple[dict[str, Any], int]]:
        if not self.path.exists():
            return []
        found, end = [], 0
        rows = self.path.read_bytes().splitlines(keepends=True)
        for number, row in enumerate(rows, 1):
            line = _checked(row)
            if line is None and number < len(rows):
                raise damaged(self.path, f"line {number} does not have its checksum")
            if line is None:
                if row.endswith(b"\n"):
                    raise damaged(self.path, f"line {number} does not have its checksum")
                break
            end += len(row)
            found.append((line, end))
        return found

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Add lines, which are on the disk when this returns; on a disk that is full none is there.

        Raises:
            OSError: there is no room.
        """
        content = b""
        for line in lines:
            text = json.dumps(line, separators=(",", ":")).encode()
            content += b"%08x %s\n" % (zlib.crc32(text), text)
        assert isinstance(self.path, Path), "at an address no file grows"
        with self.path.open("ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            try:
                while content:
                    content = content[stream.write(content) :]
                os.fsync(stream.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(before)
                raise

    def remove(self) -> None:
        """Begin without it."""
        if isinstance(self.path, Path):
            self.path.unlink(missing_ok=True)

    def cut(self, size: int) -> None:
        """Leave its first bytes only."""
        if isinstance(self.path, Path) and self.path.exists():
            os.truncate(self.path, size)


def _checked(row: bytes) -> dict[str, Any] | None:
    sum_, _, text = row.rstrip(b"\n").partition(b" ")
    if not row.endswith(b"\n") or sum_ != b"%08x" % zlib.crc32(text):
        return None
    line: dict[str, Any] = json.loads(text)
    return line


def damaged(path: Path | StoreAddress, how: str) -> BadData:
    """The error for a file that is not as it was written."""
    return BadData(
        f"{path.name} in {path.parent} is damaged: {how}.",
        "Take it from a copy, or make the store anew.",
    )


def put(path: Path, value: Mapping[str, Any]) -> None:
    """Write a value with its checksum into a file, whole or not at all."""
    text = json.dumps(value, sort_keys=True)
    told = {**value, "crc32": f"{zlib.crc32(text.encode()):08x}"}
    put_bytes(path, json.dumps(told, indent=1).encode())


def put_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: there is no room; what was there under this name still is.
    """
    temporary = path.with_name(f"{path.name}.writing")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    settle(path.parent)


def get(path: Path | StoreAddress) -> dict[str, Any]:
    """The value of a file that :func:`put` wrote.

    Raises:
        BadData: it is not as it was written.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        told = value.pop("crc32")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise damaged(path, "it is no JSON with a checksum") from None
    if told != f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}":
        raise damaged(path, "it does not have its checksum")
    return value


def settle(directory: Path) -> None:
    """See that the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
