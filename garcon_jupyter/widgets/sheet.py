"""A sheet: one heatmap of a grid, layer × position of one statistic, or layer × head of a sweep.

Its colours are computed here, where the meaning of its values is known (a rank of 0 is strong, a
probability of 0 is not), so the browser and the still picture draw every sheet alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, colours
from garcon_jupyter.widgets.labels import label
from garcon_jupyter.widgets.values import Values

Scale = Literal["signed", "positive", "rank"]


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
