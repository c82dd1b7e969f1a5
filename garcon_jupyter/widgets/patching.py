"""The patching picture: where in the model the difference between two texts lives.

*Activation patching* (Vig et al. 2020; Meng et al. 2022) runs a corrupted text with one activation
taken from a clean one, and asks how much of the clean answer comes back: once for every cell of layer ×
position, or of layer × head. The picture takes the result of any such sweep as plain arrays, and fills
while a sweep is running.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from garcon_jupyter.widgets.grid import GridWidget
from garcon_jupyter.widgets.sheet import Sheet

Rerun = Callable[[int, int, int], dict[str, Any]]
"""(sheet, row, column) to what is told of that cell, as :attr:`GridWidget.detail`."""


class PatchingWidget(GridWidget):
    """Heatmaps of a sweep; a click on a cell runs that cell again and tells what it predicts.

    Args:
        sheets: one heatmap for each kind of cell: layer × position, layer × head.
        rerun: runs one cell; None where there is nothing to run it on. It is called beside the kernel,
            one cell at a time; of several clicks the last one counts.
        title: what is shown.

    Attributes:
        detail: what `rerun` answered for the selected cell.
    """

    def __init__(
        self, sheets: Sequence[Sheet], rerun: Rerun | None = None, title: str = "patching"
    ) -> None:
        hint = "Point at a cell for its value"
        super().__init__(
            sheets, title, hint=f"{hint}; a click runs it again." if rerun else f"{hint}."
        )
        self._rerun = rerun
        if rerun:
            self.observe(self._ask, ["selected_row", "selected_column"])

    def fill(self, sheet: int, row: int, values: Any) -> None:
        """Set the values of a row of a sheet, and show them."""
        self._sheets[sheet].values[row] = values
        self.redraw()

    def fill_cells(self, sheet: int, cells: Sequence[tuple[int, int, float]]) -> None:
        """Set (row, column, value) of some cells of a sheet, and show them."""
        for row, column, value in cells:
            self._sheets[sheet].values[row, column] = value
        self.redraw()

    def _ask(self, _change: Any) -> None:
        cell = (self.sheet, self.selected_row, self.selected_column)
        if min(cell) < 0:
            return

        def run() -> None:
            assert self._rerun is not None
            self.detail = self._rerun(*cell)

        self.later("cell", run)
