"""The activations widget: tokens × units, or tokens × heads.

What the browser holds is a *frame*: the units of a range, pooled so that the frame has at most
:data:`~garcon_jupyter.widgets.arrays.CELLS` cells. One frame shows all units; where that one had to
pool, zooming in asks for a second frame of the visible range, with less pooling or none. So a
vocabulary of 10⁵ units opens as fast as a residual stream, and a saved notebook stays small.

The values stay where they are: in an array in Python, or behind a *source* (:mod:`.sources`) that
fetches frames from a server. The browser sets traits (`row`, `head`, `sort_token`, `window`), Python
answers with new frames. An array answers at once; a source that takes time is asked beside the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.widgets import arrays, bundle, labels
from garcon_jupyter.widgets.bins import histogram
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.sources import ArraySource, Source
from garcon_jupyter.widgets.values import Values


class ActivationsWidget(Picture):
    """A heatmap of tokens × units that zooms from all units to single cells.

    Click a cell or move with the arrow keys to select it; drag to zoom to a range of units; sort
    the units by their value at the selected token. Several texts: choose the row. Heads: the
    picture is the L2 norm of each head's vector, and each head opens to its units.

    Args:
        array: [row, token, unit], or [row, token, head, unit]; numpy or torch, any real dtype; or a
            :class:`~garcon_jupyter.widgets.sources.Source` of such values.
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
    TOKEN_TRAIT = "selected_token"

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

    counts = traitlets.Bytes().tag(sync=True)  # int32 [bin], of `spread` in equal bins
    spread = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.0, 0.0)).tag(
        sync=True
    )
    counted = traitlets.Int(0).tag(sync=True)  # how many values the histogram is of

    frame = traitlets.Bytes().tag(sync=True)  # float32 [token, ceil(units / pooled)]
    pooled = traitlets.Int(1).tag(sync=True)  # units in one column of `frame`
    order = traitlets.Bytes().tag(sync=True)  # int32 [unit]: the unit in each column, if sorted
    detail = traitlets.Bytes().tag(sync=True)  # float32, as `frame`, for `detail_window` alone
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
        self._source: Source = array if isinstance(array, Source) else ArraySource(array)
        rows, length, _ = self._source.shape
        self._labels = labels.token_labels(tokens, rows, length)
        super().__init__(
            title=title,
            unit_name=unit_name,
            rows=rows,
            heads=self._source.heads,
            **self._picture(0, -1, -1),
        )
        self.observe(self._redraw, ["row", "head", "sort_token"])
        self.observe(self._zoom, "window")

    @traitlets.validate("row", "head", "sort_token")
    def _in_range(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        last: int = {"row": self.rows, "head": self.heads, "sort_token": self._source.shape[1]}[
            name
        ]
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
        chosen = (self.row, self.head, self.sort_token)
        first, end = self.window

        def show() -> None:
            picture = self._picture(*chosen)
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

        self._soon("picture", show)

    def _zoom(self, _change: Any = None) -> None:
        """Send the visible range with less pooling, where the whole had to pool."""
        first, end = self.window
        finer = _pooling(self._source.shape[1], end - first)
        if finer >= self.pooled:
            self._detail(b"", 0, (0, 0))
            return
        row, head, order = self.row, self.head, self._order

        def show() -> None:
            part = self._source.frame(row, head, first, end, finer, order)
            self._detail(part.tobytes(), finer, (first, end))

        self._soon("zoom", show)

    def _detail(self, values: bytes, pooled: int, window: tuple[int, int]) -> None:
        with self.hold_sync():
            self.detail, self.detail_pooled, self.detail_window = values, pooled, window

    def _soon(self, kind: str, task: Callable[[], None]) -> None:
        """At once, or beside the kernel where the values have to be fetched."""
        if self._source.at_hand:
            task()
        else:
            self.later(kind, task)

    def _picture(self, row: int, head: int, sort_token: int) -> dict[str, Any]:
        """All traits that follow from what is chosen."""
        source = self._source
        rows, tokens, units = source.shape
        if source.heads:
            units = source.heads if head < 0 else source.width
        self._order = source.order(row, head, sort_token) if sort_token >= 0 else None
        size = _pooling(tokens, units)
        whole = np.zeros((0, units), dtype=np.float32)
        if rows and tokens:
            whole = source.frame(row, head, 0, units, size, self._order)
        limit, largest = source.scale(head)
        sample = source.sample(row, head) if rows else whole.reshape(-1)
        finite = sample[np.isfinite(sample)]
        counts, edges = histogram(finite)
        return {
            "labels": self._labels[row] if self._labels else [],
            "units": units,
            "window": (0, units),
            "frame": whole.tobytes(),
            "pooled": size,
            "order": b"" if self._order is None else self._order.tobytes(),
            "sort_token": sort_token,
            "limit": limit,
            "largest": largest,
            "counts": counts.astype("<i4").tobytes(),
            "spread": (float(edges[0]), float(edges[-1])),
            "counted": int(finite.size),
        }

    @property
    def values(self) -> Values:
        """All of them, [text, position, unit] or [text, position, head, unit], whatever part is shown; of values that
        stay on a server, they are fetched."""
        whole = self._source.whole()
        heads = ("head",) if self._source.heads else ()
        axes = ("text", "position", *heads, self.unit_name)
        labels = {"position": tuple(self._labels[0])} if self.rows == 1 else {}
        return Values(whole, axes, labels, self.title or "activations")

    @property
    def summary(self) -> str:
        rows, tokens, units = self._source.shape
        return f"{rows:,} × {tokens:,} × {units:,}"

    def still(self) -> str:
        """The shown text as a still picture, from what the browser has."""
        from garcon_jupyter.widgets import still, svg

        tokens, columns = len(self.labels), -(-self.units // self.pooled)
        values = np.frombuffer(self.frame, np.float32).reshape(tokens, columns)
        title = self.title or "activations"
        name = "head" if self.heads and self.head < 0 else self.unit_name
        picture = still.activations(values, self.labels, title, name, self.limit, units=self.units)
        return svg.figure(picture, title, self.summary)


def _pooling(tokens: int, units: int) -> int:
    """Units to a column so that [token, unit] keeps to CELLS; 256 columns at least."""
    columns = max(arrays.CELLS // max(tokens, 1), 256)
    return max(1, int(-(-units // columns)))
