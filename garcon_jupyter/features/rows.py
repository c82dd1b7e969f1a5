"""What passes hand on about units, as rows that an exchange carries: kept examples, counts and sums.

A row has a unit (where a shuffle has the row's number), a place, a *slot* (which says what it is of the unit), and values. Rows of the
first two exchanges have one value, those of the last the windows of an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from garcon_jupyter.activation_stores.row_files import RowLayout
from garcon_jupyter.exchanges.piles import NUMBER

TOP, SAMPLE, WIDE, HISTOGRAM, SUMS, RANGE = range(6)
"""What a row is: a strongest token, one of the sample, one of the wide intervals; a count of a bin, a part of a sum, an end of the range."""

KINDS = ("top", "sample", "wide")
"""Kinds of examples, as the arrays of an atlas are called by them."""

_KIND = 24

LAYOUT = RowLayout(1, "float32")
"""Of a row with one value: 24 bytes with its unit."""

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class UnitRows:
    """Rows about units.

    Attributes:
        unit: int64 [n], counted over all units.
        kind: int32 [n].
        index: int32 [n]: the slot of an example; the bin of a count, the number of a part of a sum.
        place: int64 [n]: of an example; of a count or a sum the number itself.
        value: float32 [n].
    """

    unit: np.ndarray
    kind: np.ndarray
    index: np.ndarray
    place: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.unit)

    def of(self, *kinds: int) -> UnitRows:
        """Those of some kinds, in their order."""
        which = np.isin(self.kind, kinds).nonzero()[0]
        return self.take(which)

    def take(self, which: np.ndarray) -> UnitRows:
        """Some of them, by number."""
        return UnitRows(*(getattr(self, name)[which] for name in _FIELDS))

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """As an exchange carries them."""
        return {
            NUMBER: np.ascontiguousarray(self.unit, "<i8"),
            "place": np.ascontiguousarray(self.place, "<i8"),
            "token": (self.kind.astype("<i4") << _KIND) | self.index.astype("<i4"),
            "activations": np.ascontiguousarray(self.value, "<f4")[:, None],
        }


_FIELDS = ("unit", "kind", "index", "place", "value")


def unit_rows(columns: Columns) -> UnitRows:
    """Rows as an exchange carried them; where there are several values, the first."""
    slot = columns["token"]
    return UnitRows(
        columns[NUMBER],
        slot >> _KIND,
        slot & ((1 << _KIND) - 1),
        columns["place"],
        columns["activations"][:, 0],
    )


def joined(parts: list[UnitRows]) -> UnitRows:
    """Rows one after the other."""
    if not parts:
        return made(np.empty(0, np.int64), TOP)
    return UnitRows(*(np.concatenate([getattr(part, n) for part in parts]) for n in _FIELDS))


def made(
    unit: np.ndarray,
    kind: int,
    index: np.ndarray | int = 0,
    place: np.ndarray | int = 0,
    value: np.ndarray | float = 0.0,
) -> UnitRows:
    """Rows of one kind."""
    n = len(unit)
    return UnitRows(
        unit.astype(np.int64),
        np.full(n, kind, np.int32),
        np.broadcast_to(index, n).astype(np.int32),
        np.broadcast_to(place, n).astype(np.int64),
        np.broadcast_to(value, n).astype(np.float32),
    )


@dataclass(frozen=True)
class UnitKey:
    """The key by which rows go to feature shards: their unit."""

    def __call__(self, columns: Columns) -> np.ndarray:
        return columns[NUMBER].view(np.uint64)


@dataclass(frozen=True)
class PlaceKey:
    """The key by which examples go to data shards: their place."""

    def __call__(self, columns: Columns) -> np.ndarray:
        return columns["place"].view(np.uint64)


def window_layout(width: int) -> RowLayout:
    """Of an example with its window: the unit's value at each token of it, and the bits of the tokens."""
    return RowLayout(2 * width, "float32")
