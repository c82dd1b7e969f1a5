"""Outliers on disk: in order of the steps while a chunk of steps is written, and by neuron once it is complete.

While it is open a chunk is one stream, ``chunks/N.open``: for each datum its outliers, the largest first, as (index
uint32, value float32). A complete chunk is two files: ``chunks/N.outliers``, (slot, other, value) sorted by neuron, and
``chunks/N.first``, uint32 [neurons + 1], where each neuron begins. So all outliers of a neuron are one range. A slot is the number
of a datum in the chunk, counted through its steps; *other* is the place along the axis that is not that of
neurons. Either way an outlier takes eight bytes, where a chunk has fewer than 65,536 data and matrices as many
rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.training.gradients.outliers import Unit
from garcon_jupyter.training.records.files import Line, RecordFiles, Span, replace, span_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Matrix:
    """A weight, and along which of its axes neurons are counted.

    Attributes:
        unit: its entries.
        axis: 0 where a row is a neuron, 1 where a column is.
        first: number of its first neuron, counted through all weights.
    """

    unit: Unit
    axis: int
    first: int

    @property
    def neurons(self) -> int:
        """How many neurons it has."""
        return (self.unit.rows, self.unit.columns)[self.axis]


def matrices_of(units: Sequence[Unit], axes: Sequence[int]) -> list[Matrix]:
    """Weights with their axes of neurons, one after the other."""
    found, first = [], 0
    for unit, axis in zip(units, axes, strict=True):
        found.append(Matrix(unit, axis, first))
        first += found[-1].neurons
    return found


@dataclass(frozen=True)
class Forms:
    """The types of the numbers of a record's outliers.

    Args:
        matrices: its weights.
        slots: how many data a chunk may have.
        moves: whether each outlier has, beside its gradient, how far it moved the weight.
    """

    matrices: tuple[Matrix, ...]
    moves: bool

    @property
    def open(self) -> np.dtype[Any]:
        """An outlier of an open chunk."""
        whole = sum(each.unit.size for each in self.matrices) < 1 << 32
        return np.dtype([("index", "<u4" if whole else "<u8"), ("value", "<f4"), *self._more])

    def sealed(self, slots: int) -> np.dtype[Any]:
        """An outlier of a complete chunk of so many data."""
        others = [each.unit.size // each.neurons for each in self.matrices]
        slot = "<u2" if slots <= 1 << 16 else "<u4"
        other = "<u2" if max(others, default=0) <= 1 << 16 else "<u4"
        return np.dtype([("slot", slot), ("other", other), ("value", "<f4"), *self._more])

    @property
    def _more(self) -> list[tuple[str, str]]:
        return [("move", "<f4")] if self.moves else []

    @property
    def neurons(self) -> int:
        """How many neurons all weights have."""
        return sum(each.neurons for each in self.matrices)

    def split(self, index: Array) -> tuple[Array, Array]:
        """(number of the neuron, place along the other axis) of entries by their index."""
        starts = np.array([each.unit.first for each in self.matrices], dtype=np.int64)
        which = np.searchsorted(starts, index, side="right") - 1
        columns = np.array([each.unit.columns for each in self.matrices])[which]
        axis = np.array([each.axis for each in self.matrices])[which]
        first = np.array([each.first for each in self.matrices])[which]
        row, column = np.divmod(index.astype(np.int64) - starts[which], columns)
        return first + np.where(axis == 0, row, column), np.where(axis == 0, column, row)

    def join(self, neuron: Array, other: Array) -> Array:
        """The index of entries by their neuron and the place along the other axis."""
        starts = np.array([each.first for each in self.matrices], dtype=np.int64)
        which = np.searchsorted(starts, neuron, side="right") - 1
        columns = np.array([each.unit.columns for each in self.matrices])[which]
        axis = np.array([each.axis for each in self.matrices])[which]
        first = np.array([each.unit.first for each in self.matrices])[which]
        here, there = neuron - starts[which], other.astype(np.int64)
        row, column = np.where(axis == 0, here, there), np.where(axis == 0, there, here)
        found: Array = first + row * columns + column
        return found


def opened(number: int) -> str:
    """Name of the stream of an open chunk."""
    return f"chunks/{number:06}.open"


def sealed(number: int) -> tuple[str, str]:
    """Names of the files of a complete chunk."""
    return f"chunks/{number:06}.outliers", f"chunks/{number:06}.first"


def in_order(places: Array, values: Array) -> Array:
    """The order of a datum's outliers: the largest first, of equal ones the lower index."""
    return np.lexsort((places, -np.abs(values)))


def seal(files: RecordFiles, forms: Forms, number: int, lines: Sequence[Line]) -> Line:
    """Write a complete chunk by neuron, from its open stream, and return the journal's line of it.

    Args:
        lines: of the journal, for its steps.
    """
    content = b"".join(span_of(files.path, opened(number), each["outliers"]) for each in lines)
    entries = np.frombuffer(content, forms.open)
    counts = [count for each in lines for count in each["counts"]]
    slot = np.repeat(np.arange(len(counts)), counts)
    neuron, other = forms.split(entries["index"])
    order = np.lexsort((slot, other, neuron))
    found = np.empty(len(entries), forms.sealed(len(counts)))
    found["slot"], found["other"] = slot[order], other[order]
    for name in forms.open.names[1:]:  # type: ignore[index] # it has names
        found[name] = entries[name][order]
    first = np.searchsorted(neuron[order], np.arange(forms.neurons + 1)).astype("<u4")
    outliers, beginning = sealed(number)
    return {
        "kind": "chunk",
        "chunk": number,
        "slots": len(counts),
        "files": {
            outliers: replace(files.path / outliers, found.tobytes()),
            beginning: replace(files.path / beginning, first.tobytes()),
        },
    }


def unseal(path: Path, forms: Forms, line: Line, lines: Sequence[Line]) -> bytes:
    """The open stream of a complete chunk again, up to some of its steps: the bytes that were there."""
    outliers, beginning = sealed(line["chunk"])
    found = np.frombuffer(_whole(path, outliers, line), forms.sealed(line["slots"]))
    first = np.frombuffer(_whole(path, beginning, line), "<u4")
    begin: Array = first.astype(np.int64)
    neuron = np.repeat(np.arange(forms.neurons), begin[1:] - begin[:-1])
    index = forms.join(neuron, found["other"])
    order = np.lexsort((index, -np.abs(found["value"]), found["slot"]))
    kept = order[found["slot"][order] < sum(len(each["counts"]) for each in lines)]
    entries = np.empty(len(kept), forms.open)
    entries["index"] = index[kept]
    for name in forms.open.names[1:]:  # type: ignore[index] # it has names
        entries[name] = found[name][kept]
    return entries.tobytes()


def _whole(path: Path, name: str, line: Mapping[str, Any]) -> bytes:
    span: Span = line["files"][name]
    return span_of(path, name, span)
