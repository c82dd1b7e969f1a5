"""The same picture of several models side by side, and the selected value over all of them as a line.

Of checkpoints of a training run the line stands over their steps. All columns have one scale of colour, and one selection: what
differs between two columns differs between their models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, still_members
from garcon_jupyter.widgets.labels import label
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

MOST = 1 << 23
"""Values of all columns that are drawn at most: 32 MiB."""


class MembersWidget(Picture):
    """One column a member: hover, select a cell in all of them, walk with the arrow keys, m for the next sheet.

    Args:
        members: by label, in order: values [row, column] or [sheet, row, column], all of one shape; or an error, which its
            column then says.
        rows, columns: labels of the rows, the first at the top, and of the columns.
        sheets: what each sheet is called; where there are several, one is shown at a time.
        title: what is shown.
        row_name, column_name, sheet_name: what these are.
        steps: of the training run, for each member; None for even distances.

    Attributes:
        sheet: which is shown, by its place.
        selected_row, selected_column: the selected cell, in all columns; -1 for none. Set by the user or by you.

    Raises:
        BadRequest: shapes differ, no member has values, or they are too many to draw.
    """

    _esm = bundle.module("members")
    _css = bundle.style("members")

    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    errors = traitlets.List(traitlets.Unicode()).tag(sync=True)
    places = traitlets.List(traitlets.Float()).tag(sync=True)  # on the axis of steps, 0 to 1
    ticks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    axis = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sheets = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of a sheet, a row, a column
    numbers = traitlets.Bytes().tag(sync=True)  # float32 [member, sheet, row, column]
    limit = traitlets.Float(1.0).tag(sync=True)
    sheet = traitlets.Int(0).tag(sync=True)
    selected_row = traitlets.Int(-1).tag(sync=True)
    selected_column = traitlets.Int(-1).tag(sync=True)

    def __init__(
        self,
        members: Mapping[str, Any],
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        sheets: Sequence[str] = (),
        title: str = "",
        row_name: str = "row",
        column_name: str = "column",
        sheet_name: str = "sheet",
        steps: Sequence[int] | None = None,
    ) -> None:
        self._array = _together(members)
        _, count, tall, wide = self._array.shape
        self._steps = None if steps is None else list(steps)
        super().__init__(
            title=title,
            labels=list(members),
            errors=[_told(one) for one in members.values()],
            places=places_of(steps, len(members)),
            ticks=[*members] if steps is None else [f"{step:,}" for step in steps],
            axis="member" if steps is None else "step",
            rows=_labels(rows, tall, row_name),
            columns=_labels(columns, wide, column_name),
            sheets=_labels(sheets or None, count, sheet_name),
            names=[sheet_name, row_name, column_name],
            numbers=self._array.tobytes(),
            limit=arrays.colour_limit(self._array),
        )
        self.selected_row, self.selected_column = self._strongest()

    @traitlets.validate("sheet", "selected_row", "selected_column")
    def _a_place(self, proposal: Any) -> int:
        """The nearest that there is."""
        name, value = proposal["trait"].name, int(proposal["value"])
        there = {"sheet": self.sheets, "selected_row": self.rows}.get(name, self.columns)
        return min(max(value, 0 if name == "sheet" else -1), len(there) - 1)

    def _strongest(self) -> tuple[int, int]:
        """The cell of the sheet whose values differ most between members: where there is something to see."""
        shown = self._array[:, self.sheet]
        finite = np.isfinite(shown)
        high = np.where(finite, shown, -np.inf).max(0)
        spread = np.where(finite.any(0), high - np.where(finite, shown, np.inf).min(0), -1.0)
        row, column = np.unravel_index(int(spread.argmax()), spread.shape)
        return int(row), int(column)

    @property
    def values(self) -> Values:
        """Of all members, [member, row, column], with a sheet's axis before the rows where there are several."""
        sheet, row, column = self.names
        axes: tuple[str, ...] = ("member", sheet, row, column)
        array = self._array.copy()
        words = (self.labels, self.sheets, self.rows, self.columns)
        labels = {axis: tuple(each) for axis, each in zip(axes, words, strict=True)}
        if len(self.sheets) == 1:
            axes, array = ("member", row, column), array[:, 0]
            del labels[sheet]
        return Values(array, axes, labels, self.title or "members")

    @property
    def line(self) -> Values:
        """The selected value of each member, NaN where there is none.

        Raises:
            BadRequest: no cell is selected.
        """
        if min(self.selected_row, self.selected_column) < 0:
            raise BadRequest("No cell is selected.", "Set selected_row and selected_column.")
        chosen = self._array[:, self.sheet, self.selected_row, self.selected_column]
        return Values(chosen.copy(), ("member",), {"member": tuple(self.labels)}, self._selected())

    def _selected(self) -> str:
        """The selected cell in words."""
        sheet, row, column = self.names
        parts = [f"{sheet} {self.sheets[self.sheet]}"] if len(self.sheets) > 1 else []
        parts += [f"{row} {self.rows[self.selected_row]}"]
        return ", ".join([*parts, f"{column} {self.columns[self.selected_column]}"])

    @property
    def summary(self) -> str:
        failed = sum(map(bool, self.errors))
        said = f"{len(self.labels)} members, {len(self.rows)} × {len(self.columns)}"
        return f"{said}, {failed} failed" if failed else said

    def still(self) -> str:
        selected = self.selected_row, self.selected_column
        line = self.line.array if min(selected) >= 0 else None
        return still_members.members(
            self._array[:, self.sheet],
            self,
            line,
            self._selected() if line is not None else "",
        )


def places_of(steps: Sequence[int] | None, count: int) -> list[float]:
    """Where members stand on the axis, 0 to 1: by the logarithm of their steps, of which 0 stands a step before the first.

    Args:
        steps: one for each member; None for even distances.
        count: of members.
    """
    if steps is None or len(set(steps)) < 2:
        return [n / max(count - 1, 1) for n in range(count)]
    first = min((step for step in steps if step > 0), default=1)
    logs = [math.log(step) if step > 0 else math.log(first) - math.log(2) for step in steps]
    low, high = min(logs), max(logs)
    return [(each - low) / (high - low) for each in logs]


def _together(members: Mapping[str, Any]) -> arrays.Floats:
    """[member, sheet, row, column]; NaN of those that failed."""
    if not members:
        raise BadRequest("There is nothing to draw: no members.", "Give at least one.")
    found = {
        name: arrays.as_float32(one)
        for name, one in members.items()
        if not isinstance(one, BaseException)
    }
    shapes = {name: one.shape for name, one in found.items()}
    if not found or len(set(shapes.values())) > 1 or next(iter(found.values())).ndim not in (2, 3):
        raise BadRequest(
            f"Members have values of the shapes {shapes}.",
            "Give [row, column], or [sheet, row, column], of one shape for all that did not fail.",
        )
    shape = next(iter(shapes.values()))
    shape = shape if len(shape) == 3 else (1, *shape)
    if not math.prod(shape) or len(members) * math.prod(shape) > MOST:
        raise BadRequest(
            f"{len(members)} members with {math.prod(shape):,} values each cannot be drawn.",
            f"Give at least one, and {MOST:,} in all at most: fewer units, or a shorter text.",
        )
    missing = np.full(shape, np.nan, np.float32)
    return np.stack([found[name].reshape(shape) if name in found else missing for name in members])


def _told(one: Any) -> str:
    return f"{type(one).__name__}: {one}" if isinstance(one, BaseException) else ""


def _labels(given: Sequence[str] | None, count: int, name: str) -> list[str]:
    found = [str(n) for n in range(count)] if given is None else [label(str(one)) for one in given]
    if len(found) != count:
        raise BadRequest(
            f"There are {len(found)} labels for {count} {name}s.", "Give one for each."
        )
    return found
