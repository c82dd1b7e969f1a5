"""A record on disk: its journal, the tokens of its data, and its outliers by step, by datum and by neuron."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.training.gradients.outliers import Unit
from garcon_jupyter.training.records import chunks
from garcon_jupyter.training.records.chunks import Forms, Matrix, matrices_of
from garcon_jupyter.training.records.files import JOURNAL, Line, is_written, lines_in, span_of
from garcon_jupyter.training.records.tables import SIDES, OutlierTable, joined
from garcon_jupyter.training.records.writing import DATA

Array = np.ndarray[Any, Any]


class StoredRecord:
    """A record, opened: its journal, its data and its outliers.

    Attributes:
        path: its directory.
        manifest: the content of ``record.json``.
        units: names of the weights whose outliers were kept.
        steps: the lines of the journal, by step.
        notes: what the journal says of steps that were not taken.
    """

    def __init__(self, path: Path, manifest: Line) -> None:
        self.path, self.manifest = path, manifest
        units, axes, first = [], [], 0
        for name, rows, columns, axis in manifest["units"]:
            parameter, _, part = name.partition("[")
            number = int(part[:-1]) if part else None
            units.append(Unit(name, parameter, number, rows, columns, first))
            axes.append(axis)
            first += rows * columns
        self.matrices = matrices_of(units, axes)
        self.forms = Forms(tuple(self.matrices), manifest["moves"])
        self.units = [unit.name for unit in units]
        self.steps: dict[int, Line] = {}
        self.notes: list[Line] = []
        self._complete: dict[int, Line] = {}
        for line, _ in lines_in(path / JOURNAL):
            if line["kind"] == "step":
                self.steps[line["step"]] = line
            elif line["kind"] == "chunk":
                self._complete[line["chunk"]] = line
            else:
                self.notes.append(line)
        self._tokens: dict[int, list[int]] | None = None
        self._least: dict[int, dict[int, float]] = {}

    @property
    def live(self) -> bool:
        """Whether a training writes it now."""
        return is_written(self.path)

    # -- data --------------------------------------------------------------------------------

    @property
    def tokens(self) -> dict[int, list[int]]:
        """The tokens of each datum, by id."""
        if self._tokens is None:
            lines = lines_in(self.path / DATA)
            self._tokens = {line["id"]: line["tokens"] for line, _ in lines}
        return self._tokens

    @property
    def occurrences(self) -> int:
        """How many times a datum was in a step, over all steps."""
        return sum(len(line["data"]) for line in self.steps.values())

    def _line(self, step: int) -> Line:
        if step not in self.steps:
            known = (
                f"It has steps {min(self.steps)} to {max(self.steps)}"
                if self.steps
                else "It has none"
            )
            raise UnknownName(f"There is no step {step} in the record.", f"{known}.")
        return self.steps[step]

    def _place(self, step: int, datum: int) -> int:
        data = self._line(step)["data"]
        if datum not in data:
            shown = ", ".join(map(str, data[:8])) + (", …" if len(data) > 8 else "")
            raise UnknownName(f"Datum {datum} was not in step {step}.", f"There were {shown}.")
        return int(data.index(datum))

    # -- outliers ----------------------------------------------------------------------------

    def outliers(self, step: int, datum: int) -> list[tuple[str, tuple[int, ...], float]]:
        """(weight, (row, column), gradient) of the outliers of a datum in a step, the largest first, exactly.

        Raises:
            UnknownName: there is no such step, or the datum was not in it.
        """
        at = self._place(step, datum)
        found = self.of_step(step)
        kept = found.where(found.data == self._line(step)["data"][at])
        places = zip(kept.units, kept.rows, kept.columns, kept.values, strict=True)
        return [(self.units[unit], (int(r), int(c)), float(v)) for unit, r, c, v in places]

    def of_step(self, step: int) -> OutlierTable:
        """All outliers of a step, datum by datum, the largest of each first."""
        line = self._line(step)
        number = step // self.manifest["steps"]
        if number not in self._complete:
            content = span_of(self.path, chunks.opened(number), line["outliers"])
            return self._table([line], np.frombuffer(content, self.forms.open))
        lines = self._lines(number)
        content = chunks.unseal(self.path, self.forms, self._complete[number], lines)
        found = self._table(lines, np.frombuffer(content, self.forms.open))
        return found.where(found.steps == step)

    def _lines(self, chunk: int) -> list[Line]:
        size = self.manifest["steps"]
        return [line for step, line in self.steps.items() if step // size == chunk]

    def _table(self, lines: list[Line], entries: Array) -> OutlierTable:
        """Of the entries of an open chunk, for some of its steps."""
        counts = [count for line in lines for count in line["counts"]]
        slot = np.repeat(np.arange(len(counts)), counts)
        starts = np.array([each.unit.first for each in self.matrices], np.int64)
        index = entries["index"].astype(np.int64)
        unit = np.searchsorted(starts, index, side="right") - 1
        columns = np.array([each.unit.columns for each in self.matrices], np.int64)[unit]
        row, column = np.divmod(index - starts[unit], columns)
        return self._with_data(lines, slot, unit, row, column, entries)

    def _with_data(
        self, lines: list[Line], slot: Array, unit: Array, row: Array, column: Array, entries: Array
    ) -> OutlierTable:
        steps = np.array([line["step"] for line in lines for _ in line["data"]], np.int64)
        data = np.array([each for line in lines for each in line["data"]], np.int64)
        moves = entries["move"] if self.forms.moves else np.full(len(entries), np.nan, "<f4")
        return OutlierTable(
            steps[slot], data[slot], unit, row, column, entries["value"].copy(), moves.copy()
        )

    @property
    def chunks(self) -> list[int]:
        """The numbers of the chunks of steps, in order."""
        return sorted({step // self.manifest["steps"] for step in self.steps})

    def matrix(self, unit: str) -> Matrix:
        """A weight of the record.

        Raises:
            UnknownName: there is none of this name.
        """
        if unit not in self.units:
            raise UnknownName.among("recorded weight", unit, self.units)
        return self.matrices[self.units.index(unit)]

    def axis(self, unit: str, side: str) -> int:
        """The axis of a weight along which a side is: 0 for rows, 1 for columns.

        Raises:
            BadRequest: there is no such side.
        """
        if side not in SIDES:
            raise BadRequest(
                f"There is no side {side!r} of a weight.", f"There are {' and '.join(SIDES)}."
            )
        own = self.matrix(unit).axis
        return own if side == SIDES[0] else 1 - own

    def select(self, patterns: str) -> list[str]:
        """Weights by a pattern, the name of a module, or the end of one: ``"layers.2.mlp"``.

        Raises:
            UnknownName: there are none.
        """
        parts = patterns.strip(".")
        found = [name for name in self.units if fnmatchcase(name, patterns)] or [
            name for name in self.units if f".{parts}." in f".{name}."
        ]
        if not found:
            shown = ", ".join(self.units[:8]) + (", …" if len(self.units) > 8 else "")
            raise UnknownName.among(
                "recorded weight", patterns, self.units, f"There are {shown or 'none'}."
            )
        return found

    def of_neuron(self, unit: str, neuron: int, side: str = "hidden unit") -> OutlierTable:
        """All outliers of a neuron, over all steps, in their order.

        Of a hidden unit they are one range of each complete chunk; of a residual channel they are picked out of the weight's.

        Args:
            unit: name of the weight.
            neuron: its number along the axis.
            side: "hidden unit" or "residual channel".

        Raises:
            BadRequest: the weight has no such neuron, or no such side.
        """
        matrix = self.matrix(unit)
        axis = self.axis(unit, side)
        size = (matrix.unit.rows, matrix.unit.columns)[axis]
        if not 0 <= neuron < size:
            raise BadRequest(f"{unit} has no {side} {neuron}.", f"It has {size}.")
        parts = []
        for number in self.chunks:
            if number in self._complete and axis == matrix.axis:
                parts.append(self._range(number, matrix.first + neuron, matrix.first + neuron + 1))
            else:
                of_unit = self._of_unit(number, matrix)
                at = of_unit.rows if axis == 0 else of_unit.columns
                parts.append(of_unit.where(at == neuron))
        return joined(parts)

    def least(self, largest: int) -> dict[int, float]:
        """By step, the size of the smallest of its so many largest outliers, over all of its data.

        The post that this follows looks at 1,000 of each step. Of a datum there are no more than were recorded, so that a step in which one datum has
        nearly all of the largest gives a few less.
        """
        if largest not in self._least:
            found: dict[int, float] = {}
            for number in self.chunks:
                whole = joined([self._of_unit(number, matrix) for matrix in self.matrices])
                order = np.argsort(whole.steps, kind="stable")
                steps, starts = np.unique(whole.steps[order], return_index=True)
                sizes = np.split(np.abs(whole.values[order]), starts[1:])
                for step, each in zip(steps.tolist(), sizes, strict=True):
                    at = max(0, len(each) - largest)
                    found[step] = float(np.partition(each, at)[at])
            self._least[largest] = found
        return self._least[largest]

    def of_unit(self, unit: str) -> OutlierTable:
        """All outliers of a weight, over all steps."""
        matrix = self.matrix(unit)
        return joined([self._of_unit(number, matrix) for number in self.chunks])

    def _of_unit(self, number: int, matrix: Matrix) -> OutlierTable:
        if number in self._complete:
            return self._range(number, matrix.first, matrix.first + matrix.neurons)
        lines = self._lines(number)
        content = b"".join(
            span_of(self.path, chunks.opened(number), line["outliers"]) for line in lines
        )
        found = self._table(lines, np.frombuffer(content, self.forms.open))
        return found.where(found.units == self.matrices.index(matrix))

    def _range(self, number: int, first: int, end: int) -> OutlierTable:
        """Of a complete chunk, the outliers of the neurons from one to another: one range of its file."""
        line, lines = self._complete[number], self._lines(number)
        outliers, beginning = chunks.sealed(number)
        form = self.forms.sealed(line["slots"])
        starts = np.memmap(self.path / beginning, "<u4", "r")
        one, other = int(starts[first]), int(starts[end])
        entries = np.zeros(0, form)
        if other > one:
            entries = np.array(np.memmap(self.path / outliers, form, "r")[one:other])
        begin: Array = starts[first : end + 1].astype(np.int64)
        counts = begin[1:] - begin[:-1]
        neuron = np.repeat(np.arange(first, end), counts)
        index = self.forms.join(neuron, entries["other"])
        order = np.lexsort((index, entries["slot"]))
        starts_of = np.array([each.unit.first for each in self.matrices], np.int64)
        unit = np.searchsorted(starts_of, index, side="right") - 1
        columns = np.array([each.unit.columns for each in self.matrices], np.int64)[unit]
        row, column = np.divmod(index - starts_of[unit], columns)
        found = self._with_data(lines, entries["slot"].astype(np.int64), unit, row, column, entries)
        return found.where(order)

    def _numbers(self, line: Line, name: str) -> Array:
        if name not in line["streams"]:
            kind = name.partition(".")[0]
            raise BadRequest(f"{kind} were not recorded.", f"Ask for them: record(…, {kind}=…).")
        return np.frombuffer(span_of(self.path, name, line["streams"][name]), "<f4")
