"""A file of rows: safetensors, laid out before the rows are there.

A row has a ``place`` (document and offset, as recorders have them), a ``token`` and its ``activations``; 8-bit ones a
``scale`` too. How many rows a file takes decides its header and where each column begins. So rows are appended to columns that lie side by
side, and a file that is full needs no second copy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.journal import damaged
from garcon_jupyter.activation_stores.numbers import NUMBERS
from garcon_jupyter.errors import BadData

FILE_BYTES = 256_000_000
"""Bytes of a whole file, about."""


@dataclass(frozen=True)
class RowLayout:
    """What a row is made of.

    Attributes:
        units: activations of a row.
        stored: how they are stored.
    """

    units: int
    stored: str

    @property
    def columns(self) -> dict[str, tuple[str, np.dtype, int]]:
        """Of each column, in the order of the file: what safetensors calls its numbers, what holds them, how many a row has.
        The widest numbers come first, so that all are aligned."""
        found: dict[str, tuple[str, np.dtype, int]] = {"place": ("I64", np.dtype("<i8"), 1)}
        if self.stored == "int8":
            found["scale"] = ("F32", np.dtype("<f4"), 1)
        found["token"] = ("I32", np.dtype("<i4"), 1)
        found["activations"] = (*NUMBERS[self.stored], self.units)
        return found

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return sum(dtype.itemsize * width for _, dtype, width in self.columns.values())

    def rows_of(self, size: int = FILE_BYTES) -> int:
        """How many rows a file of about so many bytes has."""
        return max(8, size // self.row_bytes // 8 * 8)

    def starts(self, rows: int) -> dict[str, int]:
        """Where the columns of a file of so many rows begin, after its header."""
        found, at = {}, 0
        for name, (_, dtype, width) in self.columns.items():
            found[name] = at
            at += rows * dtype.itemsize * width
        return found

    def header(self, rows: int, told: Mapping[str, Any]) -> bytes:
        """What a file of so many rows begins with.

        Args:
            told: what the file says of itself.
        """
        table: dict[str, Any] = {"__metadata__": {"garcon": json.dumps(told, sort_keys=True)}}
        for name, start in self.starts(rows).items():
            code, dtype, width = self.columns[name]
            shape = [rows, width] if name == "activations" else [rows]
            stop = start + rows * dtype.itemsize * width
            table[name] = {"dtype": code, "shape": shape, "data_offsets": [start, stop]}
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def empty(self, rows: int) -> dict[str, np.ndarray]:
        """Room for the columns of so many rows."""
        return {
            name: np.empty((rows, width) if name == "activations" else rows, dtype)
            for name, (_, dtype, width) in self.columns.items()
        }


class RowFile:
    """A file of rows that is there, whole; or, while it is written, as far as its writer knows.

    Args:
        path: of the file.
        layout: of its rows.
        told: what it must say of itself; None where that is not known.

    Raises:
        BadData: it is too short or too long, has another layout, or is another file.
    """

    def __init__(
        self, path: Path, layout: RowLayout, told: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.layout, self._file = path, layout, -1
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise damaged(path, str(error.strerror)) from None
        try:
            self.rows, self._begin = self._examined(told)
        except BadData:
            self.close()
            raise
        self._starts = layout.starts(self.rows)

    def _examined(self, told: Mapping[str, Any] | None) -> tuple[int, int]:
        """Its rows, and where the columns begin."""
        there = os.fstat(self._file).st_size
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        if there < 8 or length > min(there, 1 << 24):
            raise damaged(self.path, f"its {there:,} bytes hold no header")
        try:
            table = json.loads(os.pread(self._file, length, 8))
            said = json.loads(table["__metadata__"]["garcon"])
            rows = int(table["activations"]["shape"][0])
        except (ValueError, KeyError, TypeError, IndexError):
            raise damaged(self.path, "its header is no header of rows") from None
        if told is not None and said != dict(told):
            raise damaged(self.path, f"it says that it is {said}, and should be {dict(told)}")
        header = self.layout.header(rows, said)
        if os.pread(self._file, len(header), 0) != header:
            raise damaged(self.path, "its header is not that of its rows")
        whole = len(header) + rows * self.layout.row_bytes
        if there != whole:
            raise damaged(self.path, f"it has {there:,} bytes of {whole:,}")
        return rows, len(header)

    def read(self, column: str, first: int, out: np.ndarray) -> None:
        """Read entries of a column, from a row on, into an array, which says how many.

        Raises:
            BadData: the file became shorter meanwhile.
        """
        _, dtype, width = self.layout.columns[column]
        at = self._begin + self._starts[column] + first * dtype.itemsize * width
        read_into(self._file, out, at, self.path)

    def expect(self, column: str, first: int, count: int) -> None:
        """Tell the system that entries of a column will be read soon: it reads ahead meanwhile."""
        if not hasattr(os, "posix_fadvise"):
            return
        _, dtype, width = self.layout.columns[column]
        each = dtype.itemsize * width
        at = self._begin + self._starts[column] + first * each
        os.posix_fadvise(self._file, at, count * each, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if os.close is not None:  # Python itself may be at its end
            self.close()


def bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def read_into(file: int, out: np.ndarray, at: int, path: Path) -> None:
    """Fill an array from a place of a file.

    Raises:
        BadData: there is not so much.
    """
    view = bytes_of(out)
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], at + done)
        if not count:
            raise damaged(path, f"it ends at {at + done:,} bytes")
        done += count


def write_from(file: int, array: np.ndarray, at: int) -> None:
    """Write an array to a place of a file."""
    view = bytes_of(np.ascontiguousarray(array))
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], at + done)
