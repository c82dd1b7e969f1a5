"""Files of rows by ranges of the key: what one task writes for all that come after.

A file has a *pile* for each range: its rows, column by column, with their numbers. Before them stand how many each pile has and their
checksums. It is written under another name and renamed when it is on the disk, so a file that is there is whole; a byte that
changes later is an error that names it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from garcon_jupyter.activation_stores.journal import damaged, settle
from garcon_jupyter.activation_stores.pieces import bytes_of, read_into
from garcon_jupyter.activation_stores.row_files import RowLayout

NUMBER = "number"
"""The column of the rows' numbers in the source."""

_MAGIC = b"garcon piles 1\n\0"

BLOCK = 1 << 22
"""Bytes gathered at a time on their way to a file."""

_INDEX = np.dtype([("rows", "<i8"), ("crc32", "<u4"), ("of", "<u4")])

Columns = Mapping[str, np.ndarray]


def widths(layout: RowLayout) -> dict[str, tuple[np.dtype, int]]:
    """Of each column of a pile what holds its numbers, and how many a row has."""
    found = {name: (dtype, width) for name, (_, dtype, width) in layout.columns.items()}
    return {NUMBER: (np.dtype("<i8"), 1), **found}


def row_bytes(layout: RowLayout) -> int:
    """Bytes of a row in a pile."""
    return sum(dtype.itemsize * width for dtype, width in widths(layout).values())


def room(layout: RowLayout, rows: int) -> dict[str, np.ndarray]:
    """Room for the columns of so many rows."""
    return {
        name: np.empty((rows, width) if name == "activations" else rows, dtype)
        for name, (dtype, width) in widths(layout).items()
    }


def write(
    path: Path, layout: RowLayout, columns: Columns, pile: np.ndarray, piles: int, own: int
) -> int:
    """Write rows by piles; where the file is there already, it is replaced by the same.

    Args:
        columns: of the rows, numbers included.
        pile: of each row, [n].
        piles: how many there are.
        own: a number by which the file is known from others.

    Returns:
        Its bytes.
    """
    order = pile.argsort(kind="stable")
    counts = np.bincount(pile, minlength=piles)
    index = np.zeros(piles, _INDEX)
    index["rows"], index["of"] = counts, own
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.writing")
    try:
        with temporary.open("wb", buffering=0) as stream:
            head = len(_MAGIC) + index.nbytes + 4
            stream.seek(head)
            first = 0
            for number, count in enumerate(counts):
                rows = order[first : first + count]
                first += count
                for name in widths(layout):
                    for block in gathered(columns[name], rows):
                        index["crc32"][number] = zlib.crc32(
                            bytes_of(block), int(index["crc32"][number])
                        )
                        _write(stream.fileno(), bytes_of(block))
            end = stream.tell()
            stream.seek(0)
            told = _MAGIC + index.tobytes()
            _write(stream.fileno(), memoryview(told + zlib.crc32(told).to_bytes(4, "little")))
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    settle(path.parent)
    return end


def gathered(column: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of a column in an order, a block of them at a time."""
    width = column.dtype.itemsize * (column.shape[1] if column.ndim > 1 else 1)
    each = max(1, BLOCK // width)
    for first in range(0, len(rows), each):
        yield column.take(rows[first : first + each], axis=0)


def _write(file: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.write(file, view[done:])


@dataclass(frozen=True)
class PileFile:
    """A file of piles that is there.

    Attributes:
        path: of the file.
        own: the number by which it is known.
        piles: how many it has.
    """

    path: str
    own: int
    piles: int

    def _index(self) -> np.ndarray:
        size = len(_MAGIC) + self.piles * _INDEX.itemsize
        path = Path(self.path)
        try:
            with path.open("rb") as stream:
                told = stream.read(size + 4)
        except OSError as error:
            raise damaged(path, str(error.strerror)) from None
        if told[size:] != zlib.crc32(told[:size]).to_bytes(4, "little"):
            raise damaged(path, "what it says of its piles does not have its checksum")
        index = np.frombuffer(told[len(_MAGIC) : size], _INDEX)
        if (index["of"] != self.own).any():
            raise damaged(path, f"it is file {index['of'][0]}, and should be {self.own}")
        return index


def read(
    files: Sequence[tuple[PileFile, int]], layout: RowLayout
) -> tuple[dict[str, np.ndarray], int]:
    """The rows of piles of several files together, in the order of the files.

    Args:
        files: each with the pile that is wanted of it.

    Returns:
        The columns, and how many rows they have.

    Raises:
        BadData: a file is damaged; names it.
    """
    indices = [(file, pile, file._index()) for file, pile in files]
    total = sum(int(index["rows"][pile]) for _, pile, index in indices)
    out, done = room(layout, total), 0
    each = row_bytes(layout)
    for file, pile, index in indices:
        rows = int(index["rows"][pile])
        at = len(_MAGIC) + index.nbytes + 4 + int(index["rows"][:pile].sum()) * each
        part = {name: column[done : done + rows] for name, column in out.items()}
        if _filled(Path(file.path), at, part) != int(index["crc32"][pile]):
            raise damaged(Path(file.path), f"pile {pile} does not have its checksum")
        done += rows
    return out, total


def _filled(path: Path, at: int, part: Columns) -> int:
    """Read columns that lie one after the other; their checksum."""
    found = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for column in part.values():
            if column.nbytes:
                read_into(descriptor, column, at, path)
                found = zlib.crc32(bytes_of(column), found)
                at += column.nbytes
    finally:
        os.close(descriptor)
    return found
