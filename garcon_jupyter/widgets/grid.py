"""A grid of named rows and columns: what the lens and the patching picture are made of.

A *sheet* is one heatmap of the grid: layer × position of one statistic, or layer × head of a sweep.
Its colours are computed here, where the meaning of its values is known (a rank of 0 is strong, a
probability of 0 is not), so the browser draws every sheet alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import traitlets
from numpy.typing import NDArray

from garcon_jupyter.display.values import Values
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, colours, still_grid
from garcon_jupyter.widgets.labels import label
from garcon_jupyter.widgets.picture import Picture

Scale = Literal["signed", "positive", "rank"]

Cells = Sequence[Sequence[Sequence[tuple[str, float]]]]
"""[row][column][choice] of (word, probability)."""


@dataclass
class Sheet:
    """One heatmap of a grid.

    Attributes:
        name: what the values are.
        values: float32 [row, column]; NaN where there is none (yet).
        rows, columns: their labels.
        row_name, column_name: what a row and a column are.
        scale: "signed" colours by sign; "positive" from 0; "rank" is strongest at 0.
        limit: the magnitude of full colour (of a rank: of none); None to choose it by the values.
    """

    name: str
    values: arrays.Floats
    rows: Sequence[str]
    columns: Sequence[str]
    row_name: str = "layer"
    column_name: str = "token"
    scale: Scale = "signed"
    limit: float | None = None

    def __post_init__(self) -> None:
        self.values = arrays.as_float32(self.values)
        self.rows = [str(row) for row in self.rows]
        self.columns = [label(str(column)) for column in self.columns]
        if self.values.shape != (len(self.rows), len(self.columns)):
            raise BadRequest(
                f"{self.name!r} has shape {self.values.shape}, and the grid "
                f"{len(self.rows)} {self.row_name}s × {len(self.columns)} {self.column_name}s.",
                "Give one value for every cell, NaN where there is none.",
            )

    def full(self) -> float:
        """The magnitude of full colour (of a rank: the first that has none)."""
        return self.limit if self.limit is not None else arrays.colour_limit(self.values)

    def missing(self) -> NDArray[np.bool_]:
        """Which cells have no value (yet)."""
        return np.isnan(self.values)

    def numbers(self) -> Values:
        """Its values by the names of its axes."""
        axes = tuple(
            "position" if name == "token" else name for name in (self.row_name, self.column_name)
        )
        labels = dict(zip(axes, (tuple(self.rows), tuple(self.columns)), strict=True))
        return Values(self.values.copy(), axes, labels, self.name)

    def codes(self) -> NDArray[np.uint8]:
        """The colour code of every cell; a cell without a value (yet) is empty."""
        empty = self.missing()
        if self.scale != "rank":
            return np.where(empty, colours.ZERO, colours.codes(self.values, self.full()))
        rising = 1.0 - np.log1p(self.values) / math.log1p(max(self.full(), 1.0))
        shown = colours.codes(np.clip(rising, 0.0, 1.0).astype(np.float32), 1.0)
        return np.where(empty, colours.ZERO, shown)

    def ticks(self) -> list[tuple[float, str]]:
        """Places on the colour scale, 0 to 1, with their numbers."""
        full = self.full()
        if self.scale == "signed":
            return [(0.0, f"{-full:.3g}"), (0.5, "0"), (1.0, f"{full:.3g}")]
        if self.scale == "positive":
            return [(0.0, "0"), (0.5, f"{full / 2:.3g}"), (1.0, f"{full:.3g}")]
        middle = math.expm1(math.log1p(max(full, 1.0)) / 2)
        return [(0.0, f"{full:,.0f}"), (0.5, f"{middle:,.0f}"), (1.0, "0")]

    def packed(self) -> dict[str, Any]:
        """All of it as the browser takes it."""
        return {
            "name": self.name,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "row_name": self.row_name,
            "column_name": self.column_name,
            "values": self.values.tobytes(),
            "codes": self.codes().tobytes(),
            "ticks": [list(tick) for tick in self.ticks()],
            "signed": self.scale == "signed",
        }


@dataclass(frozen=True)
class Words:
    """What stands in the cells.

    Attributes:
        names: the words that occur.
        places: [row, column, choice] of them, likeliest first; -1 for none.
        probabilities: [row, column, choice].
    """

    names: list[str]
    places: NDArray[Any]
    probabilities: NDArray[Any]

    @classmethod
    def of(cls, cells: Cells | None, shape: tuple[int, ...]) -> Words:
        """From words with their probabilities, cell by cell."""
        from garcon_jupyter.widgets.tokens import packed

        names, places, probabilities = packed(
            [choices for row in cells or () for choices in row], math.prod(shape)
        )
        shape = (*shape, places.shape[-1])
        return cls(names, places.reshape(shape), probabilities.reshape(shape))

    def traits(self) -> dict[str, Any]:
        """As the browser takes them."""
        return {
            "words": self.names,
            "tops": self.places.astype("<i4").tobytes(),
            "top_probabilities": self.probabilities.astype("<f4").tobytes(),
        }


class GridWidget(Picture):
    """Sheets of a grid, one at a time: hover, select, walk with the arrow keys, m for the next sheet.

    Args:
        sheets: the heatmaps; at least one.
        title: what is shown.
        words: what stands in the cells, as :class:`Words` or ``[row][column][choice]`` of (word,
            probability): the first word in the cell, all of them beside the pointer.

    Attributes:
        sheet: which sheet is shown, by its place.
        selected_row, selected_column: the selected cell, -1 for none; set by the user or by you.
        detail: what is told of the selected cell: "title", "text", and "rows" of
            (word, probability, probability before).
    """

    _esm = bundle.module("grid")
    _css = bundle.style("grid")
    TOKEN_TRAIT = "selected_column"

    sheets: Any = traitlets.List().tag(sync=True)
    sheet = traitlets.Int(0).tag(sync=True)
    selected_row = traitlets.Int(-1).tag(sync=True)
    selected_column = traitlets.Int(-1).tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)

    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    tops = traitlets.Bytes().tag(sync=True)  # int32 [row, column, choice] into words
    top_probabilities = traitlets.Bytes().tag(sync=True)  # float32

    def __init__(
        self,
        sheets: Sequence[Sheet],
        title: str = "",
        words: Words | Cells | None = None,
        hint: str = "Point at a cell; click or use the arrow keys to select one.",
    ) -> None:
        if not sheets:
            raise BadRequest("There is nothing to draw: no sheets.", "Give at least one.")
        self._sheets = list(sheets)
        if not isinstance(words, Words):
            words = Words.of(words, self._sheets[0].values.shape)
        self._words = words
        super().__init__(
            title=title,
            sheets=[sheet.packed() for sheet in self._sheets],
            hint=hint,
            **words.traits(),
        )

    @traitlets.validate("sheet")
    def _a_sheet(self, proposal: Any) -> int:
        value = int(proposal["value"])
        if not 0 <= value < len(self._sheets):
            raise traitlets.TraitError(f"sheet is {value}; there are {len(self._sheets)}.")
        return value

    def redraw(self, words: Words | None = None) -> None:
        """Show what the sheets' values are now, and other words."""
        with self.hold_sync():
            if words is not None:
                self._words = words
                for name, value in words.traits().items():
                    setattr(self, name, value)
            self.sheets = [sheet.packed() for sheet in self._sheets]

    @property
    def values(self) -> Values:
        """Of the sheet that is shown, [layer, position] or what its rows and columns are."""
        return self._sheets[self.sheet].numbers()

    def values_of(self, sheet: str) -> Values:
        """Of any sheet, by its name.

        Raises:
            BadRequest: there is none of this name.
        """
        for each in self._sheets:
            if each.name == sheet:
                return each.numbers()
        names = ", ".join(each.name for each in self._sheets)
        raise BadRequest(f"There is no sheet {sheet!r}.", f"There are {names}.")

    @property
    def summary(self) -> str:
        rows, columns = self._sheets[0].values.shape
        names = ", ".join(sheet.name for sheet in self._sheets)
        return f"{rows} × {columns}: {names}"

    def still(self) -> str:
        shown = self._sheets[self.sheet]
        cells: list[str] = []
        names, places = self._words.names, self._words.places
        if places.size and places.shape[:2] == shown.values.shape:
            cells = [names[place] if place >= 0 else "" for place in places[:, :, 0].flat]
        return still_grid.grid(shown, cells, self.title or shown.name, self.unfinished)
