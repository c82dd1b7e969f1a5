"""The attention widget: which key tokens each query token looks at, for every head of a layer.

All heads are thumbnails of colour codes, one byte a cell; a head one clicks is sent whole, as
float32, so the number shown is the model's. A layer of 9 heads × 128 tokens is 147 kB of thumbnails
and 66 kB for the open head. Of a whole model one layer is held at a time: the others are asked for when
they are chosen, so thirty layers cost what one costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, colours, labels
from garcon_jupyter.widgets.picture import Picture

Load = Callable[[int], Any]
"""A layer to its attention, [row, head, query token, key token]."""

THUMBNAIL_BYTES = 262_144
"""Most bytes for the thumbnails of all heads together."""

THUMBNAIL_SIDE = 128
"""Most cells along one side of a thumbnail."""

MASKED_BELOW = -1e4
"""A score at or below this is masked: models write -inf, the dtype's minimum, -1e9 or -1e4."""


class AttentionWidget(Picture):
    """A grid of heads; a head opens to the matrix of query tokens × key tokens, or to lines between them.

    Weights (all values within 0 and 1) are coloured by their square root, so that the small ones
    beside an attention sink are seen; scores are coloured by sign, with masked cells left empty.

    Args:
        array: [row, head, query token, key token]; numpy or torch, any real dtype.
        tokens: token strings of the keys, one list for each row; None for the positions' numbers.
            Where there are fewer queries than keys (generation), the queries are the last ones.
        title: what is shown.
        layers: how many layers there are, where `array` is of one of many.
        layer: which of them `array` is.
        load: gives the attention of another layer, of the same shape; called beside the kernel.

    Attributes:
        selected_head: the open head, -1 for the grid.
        selected_query: position of the selected query token, -1 for none.
        selected_key: position of the selected key token, -1 for none. Each of the three can be set,
            and observed by ``widget.observe(fn, "selected_key")``.
        row: which text of the batch is shown.
        layer: which layer is shown; its values follow when they have come.
        view: how an open head is shown, "matrix" or "lines".

    Raises:
        BadRequest: the array has another number of axes, or no numbers; tokens do not fit it.
    """

    _esm = bundle.module("attention")
    _css = bundle.style("attention")
    TOKEN_TRAIT = "selected_query"

    query_labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    rows = traitlets.Int(1).tag(sync=True)
    heads = traitlets.Int(0).tag(sync=True)
    selected_head = traitlets.Int(-1).tag(sync=True)
    selected_query = traitlets.Int(-1).tag(sync=True)
    selected_key = traitlets.Int(-1).tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)
    root = traitlets.Bool(True).tag(sync=True)  # colour by the square root: these are weights
    layer = traitlets.Int(0).tag(sync=True)
    layers = traitlets.Int(0).tag(sync=True)
    view = traitlets.Enum(["matrix", "lines"], "matrix").tag(sync=True)

    thumbnails = traitlets.Bytes().tag(sync=True)  # uint8 colour codes [head, *thumbnail_shape]
    thumbnail_shape = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0)).tag(
        sync=True
    )
    matrix = traitlets.Bytes().tag(sync=True)  # float32 [query, key] of `matrix_head`
    matrix_head = traitlets.Int(-1).tag(sync=True)

    def __init__(
        self,
        array: Any,
        tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
        title: str = "",
        layers: int = 0,
        layer: int = 0,
        load: Load | None = None,
    ) -> None:
        self._whole = _four_axes(array)
        self._load = load
        rows, heads, _, keys = self._whole.shape
        self._labels = labels.token_labels(tokens, rows, keys)
        limit, root = scale(self._whole)
        super().__init__(
            title=title,
            rows=rows,
            heads=heads,
            limit=limit,
            root=root,
            layer=layer,
            layers=layers if load else 0,
            **self._grid(0, limit, root),
        )
        self.observe(self._change_layer, "layer")
        self.observe(self._change_row, "row")
        self.observe(self._open_head, "selected_head")

    @traitlets.validate("row", "selected_head", "layer")
    def _in_range(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        ranges = {
            "row": (0, self.rows),
            "selected_head": (-1, self.heads),
            "layer": (0, self.layers or value + 1),
        }
        first, last = ranges[name]
        if not first <= value < max(last, first + 1):
            raise traitlets.TraitError(f"{name} is {value}; it goes from {first} to {last - 1}.")
        return int(value)

    def _change_layer(self, _change: Any) -> None:
        layer, load = self.layer, self._load
        if load is None:
            return

        def show() -> None:
            whole = _four_axes(load(layer))
            if whole.shape != self._whole.shape:
                raise BadRequest(
                    f"Layer {layer} has shape {whole.shape}, and the others {self._whole.shape}.",
                    "Show layers of one shape together.",
                )
            self._whole = whole
            with self.hold_sync():
                self.limit, self.root = scale(whole)
                self._change_row()

        self.later("layer", show)

    def _change_row(self, _change: Any = None) -> None:
        with self.hold_sync():
            for name, value in self._grid(self.row, self.limit, self.root).items():
                setattr(self, name, value)
            self._open_head()

    def _open_head(self, _change: Any = None) -> None:
        head = self.selected_head
        with self.hold_sync():
            self.matrix = self._whole[self.row, head].tobytes() if head >= 0 else b""
            self.matrix_head = head

    def _grid(self, row: int, limit: float, root: bool) -> dict[str, Any]:
        if not self._whole.shape[0]:
            return {}
        heads = self._whole[row]
        small = thumbnails(heads)
        keys = self._labels[row]
        return {
            "key_labels": keys,
            "query_labels": keys[len(keys) - heads.shape[1] :],
            "thumbnails": colours.codes(small, limit, root).tobytes(),
            "thumbnail_shape": small.shape[1:],
        }

    @property
    def summary(self) -> str:
        _, heads, queries, keys = self._whole.shape
        layers = f"layer {self.layer} of {self.layers}, " if self.layers else ""
        return f"{layers}{heads} heads, {queries} × {keys} tokens"

    def still(self) -> str:
        from garcon_jupyter.widgets import still, svg

        title = self.title or "attention"
        heads = self._whole[self.row] if len(self._whole) else self._whole.reshape(0, 0, 0)
        note = f" · layer {self.layer} of {self.layers}" if self.layers else ""
        labels = self._labels[self.row] if self._labels else []
        return svg.figure(still.attention(heads, labels, title, note), title, self.summary)


def _four_axes(array: Any) -> arrays.Floats:
    """Attention as float32 with masked cells at -inf."""
    whole = arrays.as_float32(array)
    if whole.ndim != 4:
        raise BadRequest(
            f"The attention widget draws 4 axes, and the array has {whole.ndim}.",
            "Give [row, head, query token, key token].",
        )
    return without_masked(whole)


def without_masked(scores: arrays.Floats) -> arrays.Floats:
    """`scores` with every masked cell at -inf, however the model wrote it."""
    return np.where(scores <= MASKED_BELOW, np.float32(-np.inf), scores)


def scale(values: arrays.Floats) -> tuple[float, bool]:
    """Magnitude of full colour, and whether colour grows with the square root (weights)."""
    seen = values[np.isfinite(values)]
    weights = bool(seen.size) and seen.min() >= 0.0 and seen.max() <= 1.001
    return (1.0, True) if weights else (arrays.colour_limit(values), False)


def thumbnails(heads: arrays.Floats, side: int = THUMBNAIL_SIDE) -> arrays.Floats:
    """[head, query, key] pooled to at most `side` × `side` and THUMBNAIL_BYTES in all.

    Masked cells are zero, so that they neither win over a score nor take colour.
    """
    count, queries, keys = heads.shape
    side = max(1, min(side, int((THUMBNAIL_BYTES / max(count, 1)) ** 0.5)))
    size = max(1, -(-max(queries, keys) // side))
    seen = np.where(np.isneginf(heads), np.float32(0.0), heads)
    return arrays.pool(arrays.pool(seen, size, axis=1), size, axis=2)
