"""Neurons of a record: how many outliers each has, of which data, and when.

A row and a column of a weight are two things: one is a *hidden unit*, the other a *residual channel*
(:mod:`garcon_jupyter.training.recording.axes`). Of query, key, value and output weights hidden units are dimensions of heads; ``group`` joins those of a head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.records.journal import StoredRecord
from garcon_jupyter.training.records.tables import SIDES, OutlierTable, joined

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NeuronSummary:
    """What a record knows of one neuron.

    Attributes:
        unit: name of the weight.
        neuron: its number along the side; of a group, the group's.
        outliers: how many entries of its weights were among the largest of a datum.
        data: of how many different data.
        occurrences: of how many data of a step, each time counted.
        first_step: when that was first.
        last_step: when it was last.
        largest: the largest gradient, with its sign.
        step: when that was.
        datum: whose it was.
    """

    unit: str
    neuron: int
    outliers: int
    data: int
    occurrences: int
    first_step: int
    last_step: int
    largest: float
    step: int
    datum: int


@dataclass(frozen=True, repr=False)
class NeuronTable:
    """Neurons, those with the most data first.

    Attributes:
        side: "hidden unit" or "residual channel".
        neurons: with at least one outlier that is not zero.
        group: how many neighbours count as one; 1 for neurons, the size of a head for heads.
    """

    side: str
    neurons: list[NeuronSummary]
    group: int = 1

    def __len__(self) -> int:
        return len(self.neurons)

    def to_frame(self) -> pd.DataFrame:
        """A row for each neuron."""
        import pandas as pd

        names = list(NeuronSummary.__dataclass_fields__)
        return pd.DataFrame([asdict(each) for each in self.neurons], columns=names)

    def __repr__(self) -> str:
        best = self.neurons[0] if self.neurons else None
        shown = f"; most data: {best.unit} {best.neuron}, {best.data}" if best else ""
        return f"<{len(self)} × {self.side}{shown}>"


def summarised(
    record: StoredRecord,
    pattern: str = "*",
    side: str = SIDES[0],
    group: int = 1,
    largest: int | None = None,
) -> NeuronTable:
    """The neurons of some weights that have outliers.

    Args:
        record: a record.
        pattern: of names of weights, or the name of a module: ``"layers.2.mlp"``.
        side: "hidden unit" or "residual channel".
        group: join so many neighbours into one, such as the dimensions of a head.
        largest: count so many of each step, over all of its data; by default all that were recorded.

    Raises:
        UnknownName: there is no such weight.
        BadRequest: there is no such side, or groups do not divide a weight.
    """
    found = []
    for unit in record.select(pattern):
        table, numbers = of_side(record, unit, side, group, largest)
        order = np.lexsort((table.data, table.steps, numbers))
        table, numbers = table.where(order), numbers[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(numbers)], strict=False):
            part = table.where(np.arange(start, end))
            found.append(_summary(unit, int(numbers[start]), part))
    found.sort(key=lambda each: (-each.data, -each.outliers))
    return NeuronTable(side, found, group)


def of_side(
    record: StoredRecord, unit: str, side: str, group: int = 1, largest: int | None = None
) -> tuple[OutlierTable, Array]:
    """The outliers of a weight that are not zero, or of them the so many largest of each step, and the number of each one's neuron."""
    matrix = record.matrix(unit)
    axis = record.axis(unit, side)
    size = (matrix.unit.rows, matrix.unit.columns)[axis]
    if group < 1 or size % group:
        raise BadRequest(
            f"{unit} has {size} × {side}, not a multiple of {group}.", "Give the size of a head."
        )
    table = record.of_unit(unit)
    table = table.where(table.values != 0)
    if largest is not None:
        least = record.least(largest)
        steps, places = np.unique(table.steps, return_inverse=True)
        bounds = np.array([least[step] for step in steps.tolist()], np.float64)[places]
        table = table.where(np.abs(table.values) >= bounds)
    return table, (table.rows if axis == 0 else table.columns) // group


def data_of(
    record: StoredRecord, unit: str, neuron: int, side: str = SIDES[0], group: int = 1
) -> OutlierTable:
    """The outliers of a neuron, or of a group of them, that are not zero."""
    members = range(neuron * group, (neuron + 1) * group)
    found = joined([record.of_neuron(unit, each, side) for each in members])
    return found.where(found.values != 0)


def _summary(unit: str, neuron: int, table: OutlierTable) -> NeuronSummary:
    at = int(np.abs(table.values).argmax())
    both = np.unique(np.stack([table.steps, table.data]), axis=1)
    return NeuronSummary(
        unit,
        neuron,
        len(table),
        len(np.unique(table.data)),
        both.shape[1],
        int(table.steps.min()),
        int(table.steps.max()),
        float(table.values[at]),
        int(table.steps[at]),
        int(table.data[at]),
    )
