"""The activations widget: tokens × units, or tokens × heads.

What the browser holds is a *frame*: the units of a range, pooled so that the frame has at most
:data:`~garcon_jupyter.widgets.arrays.CELLS` cells. One frame shows all units; where that one had to
pool, zooming in asks for a second frame of the visible range, with less pooling or none. So a
vocabulary of 10⁵ units opens as fast as a residual stream, and a saved notebook stays small.

The array stays in Python. The browser sets traits (`row`, `head`, `sort_token`, `window`), Python
answers with new frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, colours, labels


class ActivationsWidget(anywidget.AnyWidget):
    """A heatmap of tokens × units that zooms from all units to single cells.

    Click a cell or move with the arrow keys to select it; drag to zoom to a range of units; sort
    the units by their value at the selected token. Several texts: choose the row. Heads: the
    picture is the L2 norm of each head's vector, and each head opens to its units.

    Args:
        array: [row, token, unit], or [row, token, head, unit]; numpy or torch, any real dtype.
        tokens: token strings, one list for each row; None for the positions' numbers.
        title: what is shown.
        unit_name: what one unit is called: "neuron", "dimension", …

    Attributes:
        selected_token: position of the selected cell, -1 for none. Set by the user or by you;
            ``widget.observe(fn, ["selected_token", "selected_unit"])`` calls you on a change.
        selected_unit: unit (or head, where heads are shown) of the selected cell, -1 for none.
        row: which text of the batch is shown.
        head: which head's units are shown, -1 for the norms of all heads.
        sort_token: units are in order of falling value at this token; -1 for their natural order.
        window: first and one past the last visible column.

    Raises:
        BadRequest: the array has another number of axes, or no numbers; tokens do not fit it.
    """

    _esm = bundle.module("activations")
    _css = bundle.style("activations")

    title = traitlets.Unicode().tag(sync=True)
    unit_name = traitlets.Unicode("unit").tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    rows = traitlets.Int(1).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    heads = traitlets.Int(0).tag(sync=True)
    units = traitlets.Int(0).tag(sync=True)
    sort_token = traitlets.Int(-1).tag(sync=True)
    selected_token = traitlets.Int(-1).tag(sync=True)
    selected_unit = traitlets.Int(-1).tag(sync=True)
    window = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0)).tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)
    largest = traitlets.Float(0.0).tag(sync=True)
    palette = traitlets.Bytes().tag(sync=True)

    values = traitlets.Bytes().tag(sync=True)  # float32 [token, ceil(units / pooled)]
    pooled = traitlets.Int(1).tag(sync=True)  # units in one column of `values`
    order = traitlets.Bytes().tag(sync=True)  # int32 [unit]: the unit in each column, if sorted
    detail = traitlets.Bytes().tag(sync=True)  # float32, as `values`, for `detail_window` alone
    detail_pooled = traitlets.Int(0).tag(sync=True)  # 0: there is no detail
    detail_window = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0)).tag(
        sync=True
    )

    def __init__(
        self,
        array: Any,
        tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
        title: str = "",
        unit_name: str = "unit",
    ) -> None:
        whole = arrays.as_float32(array)
        if whole.ndim not in (3, 4):
            raise BadRequest(
                f"The activations widget draws 3 or 4 axes, and the array has {whole.ndim}.",
                "Give [row, token, unit] or [row, token, head, unit], or use show().",
            )
        self._whole = whole
        self._norms = arrays.head_norms(whole) if whole.ndim == 4 else None
        self._labels = labels.token_labels(tokens, whole.shape[0], whole.shape[1])
        self._limits: dict[bool, tuple[float, float]] = {}
        super().__init__(
            title=title,
            unit_name=unit_name,
            rows=whole.shape[0],
            heads=whole.shape[2] if whole.ndim == 4 else 0,
            palette=colours.palette().tobytes(),
            **self._picture(0, -1, -1),
        )
        self.observe(self._redraw, ["row", "head", "sort_token"])
        self.observe(self._zoom, "window")

    @traitlets.validate("row", "head", "sort_token")
    def _in_range(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        last: int = {"row": self.rows, "head": self.heads, "sort_token": self._whole.shape[1]}[name]
        first = 0 if name == "row" else -1
        if not first <= value < max(last, first + 1):
            raise traitlets.TraitError(f"{name} is {value}; it goes from {first} to {last - 1}.")
        return int(value)

    @traitlets.validate("window")
    def _inside(self, proposal: Any) -> tuple[int, int]:
        first, end = proposal["value"]
        first = min(max(first, 0), max(self.units - 1, 0))
        return first, min(max(end, first + 1), self.units)

    def _redraw(self, change: Any) -> None:
        other_units = change["name"] == "head"
        if other_units and self.sort_token >= 0:
            self.sort_token = -1  # an order of other units; setting it comes back here
        picture = self._picture(self.row, self.head, self.sort_token)
        first, end = self.window
        if change["name"] == "row":
            picture["window"] = (first, end)
        elif change["name"] == "sort_token":
            picture["window"] = (0, end - first)  # the strongest, as many as were visible
        with self.hold_sync():
            if other_units:
                self.selected_unit = -1
            for name, value in picture.items():
                setattr(self, name, value)
            self._zoom()

    def _zoom(self, _change: Any = None) -> None:
        """Send the visible range with less pooling, where the whole had to pool."""
        first, end = self.window
        seen = self._matrix[:, first:end]
        finer = _pooling(seen)
        with self.hold_sync():
            if finer >= self.pooled:
                self.detail, self.detail_pooled, self.detail_window = b"", 0, (0, 0)
            else:
                self.detail = arrays.pool(seen, finer).tobytes()
                self.detail_pooled, self.detail_window = finer, (first, end)

    def _picture(self, row: int, head: int, sort_token: int) -> dict[str, Any]:
        """All traits that follow from what is chosen; the matrix of it stays for zooming."""
        texts = self._whole if self._norms is None else self._norms
        if head >= 0:
            texts = self._whole[:, :, head]
        if not texts.shape[0]:
            texts = np.zeros((1, 0, texts.shape[2]), dtype=np.float32)
        matrix = texts[row]
        order = b""
        if sort_token >= 0:
            falling = np.argsort(-matrix[sort_token], kind="stable")  # NaN goes last
            matrix, order = matrix[:, falling], falling.astype("<i4").tobytes()
        self._matrix = np.ascontiguousarray(matrix)
        size = _pooling(matrix)
        limit, largest = self._scale(texts, head >= 0)
        return {
            "labels": self._labels[row] if self._labels else [],
            "units": matrix.shape[1],
            "window": (0, matrix.shape[1]),
            "values": arrays.pool(self._matrix, size).tobytes(),
            "pooled": size,
            "order": order,
            "sort_token": sort_token,
            "limit": limit,
            "largest": largest,
        }

    def _scale(self, texts: arrays.Floats, one_head: bool) -> tuple[float, float]:
        """Colour limit and largest magnitude: one for all rows and heads, to compare them by."""
        if one_head not in self._limits:
            every = self._whole if one_head else texts
            finite = np.abs(every[np.isfinite(every)])
            self._limits[one_head] = arrays.colour_limit(every), float(finite.max(initial=0.0))
        return self._limits[one_head]


def _pooling(matrix: arrays.Floats) -> int:
    """Units to a column so that the matrix [token, unit] keeps to CELLS; 256 columns at least."""
    tokens, units = matrix.shape
    columns = max(arrays.CELLS // max(tokens, 1), 256)
    return max(1, int(-(-units // columns)))
