"""A grid of named rows and columns: what the lens and the patching picture are made of.

It shows one *sheet* (:mod:`garcon_jupyter.widgets.sheet`) at a time, and what stands in its cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import traitlets
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import bundle, still_grid
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.sheet import Sheet
from garcon_jupyter.widgets.values import Values

Cells = Sequence[Sequence[Sequence[tuple[str, float]]]]
"""[row][column][choice] of (word, probability)."""


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
