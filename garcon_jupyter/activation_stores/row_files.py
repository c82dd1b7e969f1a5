"""A file of rows: safetensors, laid out before the rows are there.

A row has a ``place`` (document and offset, as recorders have them), a ``token`` and its ``activations``; 8-bit ones a
``scale`` too. How many rows a file takes decides its header and where each column begins. So rows are appended to columns that lie side by
side, and a file that is full needs no second copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.addresses import StoreAddress
from garcon_jupyter.activation_stores.journal import damaged
from garcon_jupyter.activation_stores.numbers import NUMBERS
from garcon_jupyter.activation_stores.pieces import opened
from garcon_jupyter.errors import BadData, GarconError

_HEAD = 1 << 14
"""Bytes of a file that are read to know what it is: nearly all headers have fewer."""

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
        self, path: Path | StoreAddress, layout: RowLayout, told: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.layout = path, layout
        try:
            self._file = opened(path)
        except OSError as error:
            if isinstance(error, GarconError):
                raise
            raise damaged(path, error.strerror or "it is gone") from None
        try:
            self.rows, self._begin = self._examined(told)
        except BadData:
            self.close()
            raise
        self._starts = layout.starts(self.rows)

    def _examined(self, told: Mapping[str, Any] | None) -> tuple[int, int]:
        """Its rows, and where the columns begin."""
        there = self._file.size
        begin = self._file.part(0, min(_HEAD, there))
        length = int.from_bytes(begin[:8], "little")
        if there < 8 or length > min(there, 1 << 24):
            raise damaged(self.path, f"its {there:,} bytes hold no header")
        try:
            if length + 8 > len(begin):
                begin = self._file.part(0, length + 8)
            table = json.loads(begin[8 : 8 + length])
            said = json.loads(table["__metadata__"]["garcon"])
            rows = int(table["activations"]["shape"][0])
        except (ValueError, KeyError, TypeError, IndexError):
            raise damaged(self.path, "its header is no header of rows") from None
        if told is not None and said != dict(told):
            raise damaged(self.path, f"it says that it is {said}, and should be {dict(told)}")
        header = self.layout.header(rows, said)
        if begin[: len(header)] != header:
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
        self._file.into(out, at)

    def expect(self, column: str, first: int, count: int) -> None:
        """Tell the system that entries of a column will be read soon: it reads ahead meanwhile."""
        _, dtype, width = self.layout.columns[column]
        each = dtype.itemsize * width
        at = self._begin + self._starts[column] + first * each
        self._file.expect(at, count * each)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
