"""The attention widget: which key tokens each query token looks at, for every head of a layer.

All heads are thumbnails of colour codes, one byte a cell; a head one clicks is sent whole, as
float32, so the number shown is the model's. A layer of 9 heads × 128 tokens is 147 kB of thumbnails
and 66 kB for the open head. Of a whole model one layer is held at a time: the others are asked for when
they are chosen, so thirty layers cost what one costs. The *overview* (:mod:`.overview`) has smaller
thumbnails of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import traitlets

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, bundle, colours, labels, overview, still, svg
from garcon_jupyter.widgets.attention_scales import (
    scale,
    thumbnails,
    without_first,
    without_masked,
)
from garcon_jupyter.widgets.picture import Picture
from garcon_jupyter.widgets.values import Values

Load = Callable[[int], Any]
"""A layer to its attention, [row, head, query token, key token]."""

Glance = Callable[[Sequence[int], int, int, bool], Sequence[Any]]
"""Layers, a row, the most cells along a side, and whether the first token is hidden, to each layer's heads,
[head, query, key], pooled to that."""


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
        glance: gives several layers, pooled where they are; by default they are loaded and pooled here.
        overview: whether to begin with all layers at a glance.
        hide_first: whether to leave out what is looked at in the first token, on which many heads rest most of
            their weight (an *attention sink*, Xiao et al. 2023): the rest is then coloured by the largest of what is left.

    Attributes:
        selected_head: the open head, -1 for the grid.
        selected_query: position of the selected query token, -1 for none.
        selected_key: position of the selected key token, -1 for none. Each of the three can be set,
            and observed by ``widget.observe(fn, "selected_key")``.
        row: which text of the batch is shown.
        layer: which layer is shown; its values follow when they have come.
        view: how an open head is shown, "matrix" or "lines".
        overview: whether all layers are shown at a glance, a row of heads for each.
        hide_first: whether the first token is left out.

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
    hide_first = traitlets.Bool(False).tag(sync=True)

    thumbnails = traitlets.Bytes().tag(sync=True)  # uint8 colour codes [head, *thumbnail_shape]
    thumbnail_shape = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0)).tag(
        sync=True
    )
    matrix = traitlets.Bytes().tag(sync=True)  # float32 [query, key] of `matrix_head`
    matrix_head = traitlets.Int(-1).tag(sync=True)
    here = traitlets.Int(0).tag(sync=True)  # the layer that these are of; `layer` is the one wanted

    # Of the overview. Each layer has a trait of its own, `small_0` and so on: uint8 colour codes
    # [head, *small_shape], empty until it has come.
    overview = traitlets.Bool(False).tag(sync=True)
    small_shape = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0)).tag(
        sync=True
    )

    def __init__(
        self,
        array: Any,
        tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
        title: str = "",
        layers: int = 0,
        layer: int = 0,
        load: Load | None = None,
        glance: Glance | None = None,
        overview: bool = False,
        hide_first: bool = False,
    ) -> None:
        self._whole = _four_axes(array)
        self._load, self._glance = load, glance or self._pooled_here
        self._glanced = (0, hide_first)  # of which row the overview is, and how
        rows, heads, _, keys = self._whole.shape
        self._labels = labels.token_labels(tokens, rows, keys)
        limit, root = self._scale(hide_first)
        layers = layers if load else 0
        self.add_traits(**{name: traitlets.Bytes().tag(sync=True) for name in _smalls(layers)})
        super().__init__(
            title=title,
            rows=rows,
            heads=heads,
            limit=limit,
            root=root,
            layer=layer,
            here=layer,
            layers=layers,
            overview=overview and layers > 1,
            hide_first=hide_first,
            **self._grid(0, limit, root, hide_first),
        )
        self.observe(self._change_layer, "layer")
        self.observe(self._change_row, "row")
        self.observe(self._change_first, "hide_first")
        self.observe(self._open_head, "selected_head")
        self.observe(self._fill_overview, "overview")
        self._fill_overview()

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
            if self.layer != layer:
                return  # thought better of
            whole = self._whole if layer == self.here else _four_axes(load(layer))
            if whole.shape != self._whole.shape:
                raise BadRequest(
                    f"Layer {layer} has shape {whole.shape}, and the others {self._whole.shape}.",
                    "Show layers of one shape together.",
                )
            self._whole = whole
            with self.hold_sync():
                self.limit, self.root = self._scale(self.hide_first)
                self.here = layer
                self._change_row()

        self.later("layer", show)

    def _change_row(self, change: Any = None) -> None:
        with self.hold_sync():
            for name, value in self._grid(self.row, self.limit, self.root, self.hide_first).items():
                setattr(self, name, value)
            self._open_head()
        if change is not None:
            self._fill_overview()

    def _change_first(self, change: Any) -> None:
        with self.hold_sync():
            self.limit, self.root = self._scale(self.hide_first)
            self._change_row(change)

    def _scale(self, hide_first: bool) -> tuple[float, bool]:
        return scale(without_first(self._whole), True) if hide_first else scale(self._whole)

    def _fill_overview(self, _change: Any = None) -> None:
        """Send the thumbnails of the layers that are missing, a few layers at a time."""
        if self.overview:
            self.later("overview", self._fill_some())

    def _fill_some(self) -> Iterator[None]:
        """A few layers at a time; what somebody waits for, such as an open head, has its turn in between."""
        row, hidden, names = self.row, self.hide_first, _smalls(self.layers)
        side = overview.side(self.layers * self.heads)
        if (row, hidden) != self._glanced:  # what has come is of another text
            with self.hold_sync():
                self._glanced = row, hidden
                for name in names:
                    setattr(self, name, b"")
        while missing := [n for n, name in enumerate(names) if not getattr(self, name)]:
            if not self.overview:
                return  # an open head is looked at; the rest comes when all are
            layers = missing[: overview.TOGETHER]
            glanced = self._glance(layers, row, side, hidden)
            for layer, heads in zip(layers, glanced, strict=True):
                small = thumbnails(without_masked(arrays.as_float32(heads)), side)
                with self.hold_sync():
                    self.small_shape = small.shape[1:]
                    setattr(self, names[layer], colours.codes(small, *scale(small)).tobytes())
            yield

    def _pooled_here(
        self, layers: Sequence[int], row: int, side: int, hide_first: bool
    ) -> list[arrays.Floats]:
        """A glance at layers that come whole."""
        assert self._load is not None
        wholes = [_four_axes(self._load(layer))[row] for layer in layers]
        return [thumbnails(without_first(w) if hide_first else w, side) for w in wholes]

    def _open_head(self, _change: Any = None) -> None:
        head = self.selected_head if self.layer == self.here or not self.layers else -1
        with self.hold_sync():
            self.matrix = self._whole[self.row, head].tobytes() if head >= 0 else b""
            self.matrix_head = head

    def _grid(self, row: int, limit: float, root: bool, hide_first: bool) -> dict[str, Any]:
        if not self._whole.shape[0]:
            return {}
        heads = self._whole[row]
        small = thumbnails(without_first(heads) if hide_first else heads)
        keys = self._labels[row]
        return {
            "key_labels": keys,
            "query_labels": keys[len(keys) - heads.shape[1] :],
            "thumbnails": colours.codes(small, limit, root).tobytes(),
            "thumbnail_shape": small.shape[1:],
        }

    @property
    def values(self) -> Values:
        """Of the layer that is loaded, [head, query, key], or [text, head, query, key] where there are several; -inf
        where the model masks. Of all layers at a glance only thumbnails are here."""
        keys = self._labels[self.row] if self._labels else []
        queries = keys[len(keys) - self._whole.shape[2] :]
        axes: tuple[str, ...] = ("text", "head", "query", "key")
        whole = self._whole
        if whole.shape[0] == 1:
            axes, whole = axes[1:], whole[0]
        labels = {} if self.rows > 1 else {"query": tuple(queries), "key": tuple(keys)}
        title = self.title or "attention"
        return Values(
            whole.copy(), axes, labels, f"{title}, layer {self.here}" if self.layers else title
        )

    @property
    def summary(self) -> str:
        _, heads, queries, keys = self._whole.shape
        if self.overview:
            return f"{self.layers} layers × {heads} heads, {queries} × {keys} tokens"
        layers = f"layer {self.here} of {self.layers}, " if self.layers else ""
        return f"{layers}{heads} heads, {queries} × {keys} tokens"

    def still(self) -> str:
        title = self.title or "attention"
        if self.overview:
            smalls = [getattr(self, name) for name in _smalls(self.layers)]
            left = self.unfinished
            picture = overview.still(smalls, self.heads, self.small_shape, title, left)
            return svg.figure(picture, title, " · ".join(filter(None, [self.summary, left])))
        heads = self._whole[self.row] if len(self._whole) else self._whole.reshape(0, 0, 0)
        note = f" · layer {self.here} of {self.layers}" if self.layers else ""
        if self.hide_first:
            heads, note = without_first(heads), f"{note} · without the first token"
        labels = self._labels[self.row] if self._labels else []
        picture = still.attention(heads, labels, title, note, self.limit, self.root)
        return svg.figure(picture, title, self.summary)


def _smalls(layers: int) -> list[str]:
    """The traits of the overview's layers."""
    return [f"small_{layer}" for layer in range(layers)]


def _four_axes(array: Any) -> arrays.Floats:
    """Attention as float32 with masked cells at -inf."""
    whole = arrays.as_float32(array)
    if whole.ndim != 4:
        raise BadRequest(
            f"The attention widget draws 4 axes, and the array has {whole.ndim}.",
            "Give [row, head, query token, key token].",
        )
    return without_masked(whole)
