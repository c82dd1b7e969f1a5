"""Values of units that are not 0, of tiles of rows: kept in files of one data shard each, or read from a store where a point is dense.

A file of codes has *sections*, each with the codes of one tile and one feature shard. What is in a file is written once and read by all passes
that come after, so that activations are read, and encoded, once. It is written under another name and renamed when it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from garcon_jupyter.activation_stores.journal import damaged, settle
from garcon_jupyter.activation_stores.pieces import bytes_of, read_into

TILE = 1024
"""Rows of a tile: those whose numbers divided by it are one number."""

CODE = 10
"""Bytes of a code: its row in the tile, its unit, its value."""

_SECTION = np.dtype(
    [("tile", "<i8"), ("shard", "<i4"), ("crc32", "<u4"), ("count", "<i8"), ("at", "<i8")]
)

_MAGIC = b"garcon codes 1\n\0"

_END = 20
"""Bytes of its end: which file it is, how many sections it has, and the checksum of both and of what it says of them."""


@dataclass(frozen=True)
class Codes:
    """Values that are not 0.

    Attributes:
        row: int64 [n], numbers of rows.
        unit: int64 [n], counted over all units.
        value: float32 [n].
    """

    row: np.ndarray
    unit: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def joined(parts: Sequence[Codes]) -> Codes:
    """Codes one after the other."""
    if not parts:
        return Codes(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    return Codes(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in ("row", "unit", "value"))
    )


class CodesWriter:
    """A file of codes in the making.

    Args:
        path: of the file.
        edges: the first unit of each feature shard, and the number of all units.
        own: a number by which the file is known from others.
    """

    def __init__(self, path: Path, edges: Sequence[int], own: int) -> None:
        self.path, self._edges, self._own = path, np.asarray(edges), own
        self._temporary = path.with_name(f"{path.name}.{uuid4().hex}.writing")
        self._stream = self._temporary.open("wb")
        self._stream.write(_MAGIC)
        self._sections: list[tuple[int, int, int, int, int]] = []

    def add(self, tile: int, row: np.ndarray, unit: np.ndarray, value: np.ndarray) -> None:
        """The codes of a tile, in the order of rows; a tile may come again with other units."""
        shard = self._edges[1:-1].searchsorted(unit, side="right")
        for number in np.unique(shard):
            mine = shard == number
            columns = (
                np.ascontiguousarray(row[mine], "<u2"),
                np.ascontiguousarray(unit[mine], "<u4"),
                np.ascontiguousarray(value[mine], "<f4"),
            )
            at, sum_ = self._stream.tell(), 0
            for column in columns:
                sum_ = zlib.crc32(bytes_of(column), sum_)
                self._stream.write(bytes_of(column))
            self._sections.append((tile, int(number), sum_, len(columns[0]), at))

    def finish(self) -> int:
        """Put the file in its place; how many codes it has."""
        index = np.array(self._sections, _SECTION)
        told = index.tobytes() + self._own.to_bytes(8, "little") + len(index).to_bytes(8, "little")
        self._stream.write(told + zlib.crc32(told).to_bytes(4, "little"))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._temporary.replace(self.path)
        settle(self.path.parent)
        return int(index["count"].sum())

    def abandon(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):  # of a full disk, which what still waits is for
            self._stream.close()
        self._temporary.unlink(missing_ok=True)


class CodesFile:
    """A file of codes that is there.

    Args:
        path: of the file.
        own: the number by which it is known.

    Raises:
        BadData: it is damaged, or another; names it.
    """

    def __init__(self, path: Path, own: int) -> None:
        self.path, self._file = path, -1
        try:
            self._file = os.open(path, os.O_RDONLY)
            size = os.fstat(self._file).st_size
        except OSError as error:
            raise damaged(path, str(error.strerror)) from None
        try:
            if size < len(_MAGIC) + _END or os.pread(self._file, len(_MAGIC), 0) != _MAGIC:
                raise damaged(path, "it does not begin as a file of codes")
            tail = os.pread(self._file, _END, size - _END)
            length = int.from_bytes(tail[8:16], "little") * _SECTION.itemsize
            if not 0 <= length <= size - _END - len(_MAGIC):
                raise damaged(path, "its end is not that of a file of codes")
            told = os.pread(self._file, length, size - _END - length)
            if tail[16:] != zlib.crc32(told + tail[:16]).to_bytes(4, "little"):
                raise damaged(path, "what it says of its sections does not have its checksum")
            if (there := int.from_bytes(tail[:8], "little")) != own:
                raise damaged(path, f"it is file {there}, and should be {own}")
        except BaseException:
            self.close()
            raise
        self.sections = np.frombuffer(told, _SECTION)

    def read(self, tiles: range, shard: int | None = None) -> Iterator[Codes]:
        """The codes of tiles, section by section; of one feature shard, or of all."""
        index = self.sections
        wanted = (index["tile"] >= tiles.start) & (index["tile"] < tiles.stop)
        if shard is not None:
            wanted &= index["shard"] == shard
        for section in index[wanted]:
            yield self._section(section)

    def _section(self, section: np.void) -> Codes:
        count, at, sum_ = int(section["count"]), int(section["at"]), 0
        columns = []
        for kind in ("<u2", "<u4", "<f4"):
            column = np.empty(count, kind)
            read_into(self._file, column, at, self.path)
            sum_ = zlib.crc32(bytes_of(column), sum_)
            at += column.nbytes
            columns.append(column)
        if sum_ != int(section["crc32"]):
            raise damaged(self.path, f"tile {section['tile']} does not have its checksum")
        row, unit, value = columns
        return Codes(
            row.astype(np.int64) + int(section["tile"]) * TILE, unit.astype(np.int64), value
        )

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if os.close is not None:  # Python itself may be at its end
            self.close()
