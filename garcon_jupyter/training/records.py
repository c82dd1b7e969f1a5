"""A record, opened: what moved which weight, by step, by datum, by neuron. Needs no model, and can be read while it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.training import chunks, exports
from garcon_jupyter.training.chunks import Forms, Matrix, matrices_of
from garcon_jupyter.training.files import JOURNAL, Line, lines_in, manifest_of, span_of
from garcon_jupyter.training.outliers import Unit
from garcon_jupyter.training.writing import DATA

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]

SIDES = ("hidden unit", "residual channel")
"""What a row or a column of a weight is."""


@dataclass(frozen=True, eq=False)
class OutlierTable:
    """Some outliers of a record, each with where and when it was.

    Attributes:
        steps: int64.
        data: ids, int64.
        units: number of the weight in the record's ``units``, int64.
        rows: int64.
        columns: int64.
        values: gradients, float32; before clipping.
        moves: how far the datum moved the weight there; NaN where that was not recorded.
    """

    steps: Array
    data: Array
    units: Array
    rows: Array
    columns: Array
    values: Array
    moves: Array

    def __len__(self) -> int:
        return len(self.steps)

    def where(self, kept: Array) -> OutlierTable:
        """Some of them, by a mask or their numbers."""
        return OutlierTable(*(each[kept] for each in vars(self).values()))


class TrainingRecord:
    """A record, opened.

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
            raise UnknownName.among("recorded weight", patterns, self.units)
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
        axis = _axis(matrix, side)
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

    # -- other numbers -----------------------------------------------------------------------

    def norms(self, step: int) -> dict[str, dict[int, float]]:
        """The norm of the gradient of each parameter, by datum."""
        line = self._line(step)
        rows = self._numbers(line, "norms.f4").reshape(len(line["data"]), -1)
        names = list(self.manifest["parameters"])
        return {
            name: dict(zip(line["data"], rows[:, at].tolist(), strict=True))
            for at, name in enumerate(names)
        }

    def dots(self, step: int) -> Array:
        """Dot products of the gradients of a step's data with each other, float32 [data, data].

        Raises:
            BadRequest: they were not recorded, or the step had several batches.
        """
        line = self._line(step)
        found = self._numbers(line, "dots.f4")
        size = len(line["data"])
        if len(found) != size * size:
            raise BadRequest(
                f"Step {step} had several batches, whose data were not multiplied with each other.",
                "Record with one batch a step.",
            )
        return found.reshape(size, size)

    def projections(self, step: int) -> Array:
        """Two-sided projections of the gradients of a step's data, float32 [data, units, k, k]."""
        line, k = self._line(step), self.manifest["projection"][0]
        return self._numbers(line, "projections.f4").reshape(len(line["data"]), -1, k, k)

    def to_bergson(self, path: str | Path) -> list[tuple[int, int]]:
        """Write the projections as an index of gradients that bergson reads: ``info.json`` and ``gradients.bin``.

        Its rows are the data of all steps, one after the other, and its modules the weights. A query has to be projected
        by the same matrices (:class:`garcon_jupyter.training.projections.Projections`), which are not bergson's own.

        Returns:
            (step, datum) of each row.

        Raises:
            BadRequest: there are no projections.
        """
        k = self.manifest["projection"][0]
        exports.to_bergson(Path(path), self.units, k, map(self.projections, self.steps))
        return [(step, datum) for step, line in self.steps.items() for datum in line["data"]]

    def gradient(self, step: int, datum: int, parameter: str) -> Array:
        """The whole gradient of a datum, where it was kept, in the parameter's shape."""
        at, full = self._place(step, datum), self.manifest["full"]
        if parameter not in full:
            raise UnknownName.among("parameter kept in full", parameter, full)
        found = self._numbers(self._line(step), f"full-{full.index(parameter)}.f4")
        shape = self.manifest["parameters"][parameter]
        whole: Array = found.reshape(-1, *shape)[at]
        return whole

    def _numbers(self, line: Line, name: str) -> Array:
        if name not in line["streams"]:
            kind = name.partition(".")[0]
            raise BadRequest(f"{kind} were not recorded.", f"Ask for them: record(…, {kind}=…).")
        return np.frombuffer(span_of(self.path, name, line["streams"][name]), "<f4")

    # -- over time ---------------------------------------------------------------------------

    def timeline(self) -> pd.DataFrame:
        """A row for each step: what the journal says, without the numbers' places."""
        import pandas as pd

        kept = ("step", "optimizer", "lr", "factor", "losses", "note", "data")
        rows = [{key: line.get(key) for key in kept} for line in self.steps.values()]
        return pd.DataFrame(rows, columns=list(kept))

    def where(self) -> pd.DataFrame:
        """How many outliers fell into each weight: a row for each chunk of steps, a column for each weight."""
        import pandas as pd

        size, rows = self.manifest["steps"], {}
        for number in self.chunks:
            counts = {m.unit.name: len(self._of_unit(number, m)) for m in self.matrices}
            rows[number * size] = counts
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("from step")

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __repr__(self) -> str:
        return (
            f"<record of {len(self.steps):,} steps, {self.occurrences:,} data, the {self.manifest['k']:,} largest of "
            f"{sum(m.unit.size for m in self.matrices):,} entries each: {self.path}>"
        )


def joined(tables: list[OutlierTable]) -> OutlierTable:
    """Tables, one after the other."""
    kinds: Mapping[str, Any] = {
        "steps": np.int64,
        "data": np.int64,
        "units": np.int64,
        "rows": np.int64,
        "columns": np.int64,
        "values": np.float32,
        "moves": np.float32,
    }
    return OutlierTable(
        **{
            name: np.concatenate([np.empty(0, kind), *(getattr(each, name) for each in tables)])
            for name, kind in kinds.items()
        }
    )


def _axis(matrix: Matrix, side: str) -> int:
    if side not in SIDES:
        raise BadRequest(
            f"There is no side {side!r} of a weight.", f"There are {' and '.join(SIDES)}."
        )
    return matrix.axis if side == SIDES[0] else 1 - matrix.axis


def open_record(path: str | Path) -> TrainingRecord:
    """A record from disk; needs no model.

    Raises:
        BadData: there is none, or of a newer format.
    """
    path = Path(path).expanduser()
    return TrainingRecord(path, manifest_of(path))
