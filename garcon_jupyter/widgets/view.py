"""What ``show`` returns: values to look at, live and still (:mod:`.picture` says how both stand)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, still, svg
from garcon_jupyter.widgets.activations import ActivationsWidget
from garcon_jupyter.widgets.attention import AttentionWidget
from garcon_jupyter.widgets.distribution import distribution
from garcon_jupyter.widgets.grid import GridWidget
from garcon_jupyter.widgets.labels import token_labels
from garcon_jupyter.widgets.picture import Picture, display_twice
from garcon_jupyter.widgets.sheet import Sheet
from garcon_jupyter.widgets.sources import Source
from garcon_jupyter.widgets.values import Values

if TYPE_CHECKING:
    import plotly.graph_objects as go

Tokens = Sequence[str] | Sequence[Sequence[str]] | None

Axis = str | Sequence[str]
"""What an axis is: a word for one step along it, or a label for each."""

UNIT_NAMES = {
    "D": "dimension",
    "M": "neuron",
    "m": "neuron",
    "S": "neuron",
    "V": "token id",
    "E": "expert",
    "H": "head",
    "K": "head",
    "d": "unit",
    "d_v": "unit",
    "d_n": "unit",
    "k": "choice",
    "1": "value",
}
"""What one step along the last axis is called, by its letter in the probe-point table."""


@dataclass(frozen=True)
class Subject:
    """What is to be drawn, brought to one of the two shapes the pictures know.

    Attributes:
        kind: "activations": [row, token, unit] or [row, token, head, unit];
            "attention": [row, head, query token, key token].
        values: float32, of that shape.
        tokens: as given.
        title, unit_name: words.
    """

    kind: Literal["activations", "attention"]
    values: arrays.Floats
    tokens: Tokens
    title: str
    unit_name: str

    @classmethod
    def of(
        cls, array: Any, dims: Sequence[str] | None, tokens: Tokens, title: str, name: str | None
    ) -> Subject:
        """Read the letters of an array's axes; unknown ones make the last two a heatmap."""
        values = arrays.as_float32(array)
        if dims is not None and len(dims) != values.ndim:
            raise BadRequest(
                f"dims names {len(dims)} axes, {tuple(dims)}, and the array has {values.ndim}.",
                "Give one letter for each axis, or None if they are unknown.",
            )
        match tuple(dims or ()):
            case (*batch, "H" | "K", "p_q" | "p_query", "p_k" | "p_key") if batch in ([], ["b"]):
                return cls("attention", _batched(values, 4), tokens, title, "head")
            case (*batch, "p" | "n", "H" | "K", "d" | "d_v" | "d_n" | "D" as last) if batch in (
                [],
                ["b"],
            ):
                named = name or UNIT_NAMES[last]
                return cls("activations", _batched(values, 4), tokens, title, named)
            case (*batch, "p" | "n", last) if batch in ([], ["b"]):
                named = name or UNIT_NAMES.get(last, "unit")
                return cls("activations", _batched(values, 3), tokens, title, named)
            case ("b", "p"):
                named = name or "value"
                return cls("activations", values[:, :, None], tokens, title, named)
        return cls.unknown(values, tokens, title, name)

    @classmethod
    def unknown(
        cls, values: arrays.Floats, tokens: Tokens, title: str, name: str | None
    ) -> Subject:
        """The last two axes as a heatmap, all earlier ones as rows to choose from."""
        while values.ndim < 2:
            values = values[None]
        rows = int(np.prod(values.shape[:-2], dtype=int))
        values = values.reshape(rows, *values.shape[-2:])
        try:
            token_labels(tokens, rows, values.shape[1])
        except BadRequest:
            tokens = None  # these axes may not be tokens at all
        return cls("activations", values, tokens, title, name or "column")

    def widget(self) -> Picture:
        """The live picture: attention for [row, head, query, key], else activations."""
        if self.kind == "attention":
            return AttentionWidget(self.values, self.tokens, self.title)
        return ActivationsWidget(self.values, self.tokens, self.title, self.unit_name)

    def html(self) -> str:
        """The first row as a still picture: an ``<img>`` that holds all it shows."""
        rows, axis = self.values.shape[0], 3 if self.kind == "attention" else 1
        labels = [*token_labels(self.tokens, rows, self.values.shape[axis]), []][0]
        note = f" · text 0 of {rows}" if rows > 1 else ""
        if self.kind == "attention":
            picture = still.attention(_first(self.values), labels, self.title or "attention", note)
        else:
            values, name = self.values, self.unit_name
            if values.ndim == 4:
                note = f" · L2 norm over {values.shape[3]:,} {name}s{note}"
                values, name = arrays.head_norms(values), "head"
            limit = arrays.colour_limit(values)
            picture = still.activations(_first(values), labels, self.title, name, limit, note)
        return svg.figure(picture, self.title, self.summary)

    @property
    def summary(self) -> str:
        """What is drawn, in a few words: its shape and what the axes are."""
        shape = " × ".join(f"{length:,}" for length in self.values.shape)
        return f"{self.kind} {shape}"


class View:
    """Values to look at. As the last value of a cell, or by ``display(view)``, it draws itself.

    Attributes:
        widget: the live widget (:class:`ActivationsWidget` or :class:`AttentionWidget`), made when
            first asked for.
        figure: the distribution of all values, a plotly figure.
        html: the still picture as HTML that needs no kernel, no JavaScript and no network.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @cached_property
    def widget(self) -> Picture:
        return self._subject.widget()

    @cached_property
    def figure(self) -> go.Figure:
        return distribution(self._subject.values, self._subject.title)

    @cached_property
    def html(self) -> str:
        return self._subject.html()

    @property
    def values(self) -> Values:
        """What is drawn, by named axes."""
        return self.widget.values

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it is whole; see :meth:`~garcon_jupyter.widgets.Picture.wait`."""
        self.widget.wait(timeout)
        return self

    def __repr__(self) -> str:
        title = f"{self._subject.title}: " if self._subject.title else ""
        return f"<View {title}{self._subject.summary}>"

    def _ipython_display_(self) -> None:
        display_twice(self.html, self.widget, repr(self))


class FetchingView(View):
    """A view of values that stay where they are: only what is on the screen is fetched."""

    def __init__(self, source: Source, tokens: Tokens, title: str, unit_name: str) -> None:
        self._source = source
        self._words = (tokens, title, unit_name)

    @cached_property
    def widget(self) -> Picture:
        return ActivationsWidget(self._source, *self._words)

    @cached_property
    def figure(self) -> go.Figure:
        """The distribution of evenly chosen values of the first text."""
        return distribution(self._source.sample(0, -1), f"{self._words[1]} (a sample)")

    @cached_property
    def html(self) -> str:
        return self.widget.still()

    def __repr__(self) -> str:
        shape = " × ".join(f"{length:,}" for length in self._source.shape)
        return f"<View {self._words[1]}: {shape}, fetched as they are looked at>"


class GridView(View):
    """A view of an array of two axes that are no tokens: a cell with its number for each value."""

    def __init__(self, sheet: Sheet, title: str) -> None:
        self._sheet, self._title = sheet, title

    @cached_property
    def widget(self) -> Picture:
        return GridWidget([self._sheet], self._title)

    @cached_property
    def figure(self) -> go.Figure:
        return distribution(self._sheet.values, self._title)

    @cached_property
    def html(self) -> str:
        return self.widget.still()

    def __repr__(self) -> str:
        rows, columns = self._sheet.values.shape
        title = f"{self._title}: " if self._title else ""
        return f"<View {title}{rows:,} {self._sheet.row_name}s × {columns:,} {self._sheet.column_name}s>"


def show(
    array: Any,
    dims: Sequence[str] | None = None,
    tokens: Tokens = None,
    title: str = "",
    unit_name: str | None = None,
    rows: Axis | None = None,
    columns: Axis | None = None,
) -> View:
    """Look at an array: the view that suits the letters of its axes, or the words that you give.

    ``show(scores, rows="layer", columns="head")`` draws layer × head, each cell with its number.

    Args:
        array: numpy array or torch tensor, any real dtype, any device. It is copied: later changes
            do not show.
        dims: the letters of the probe-point table, one for each axis: ("b", "p", "M") draws tokens
            × neurons; ("b", "p", "H", "d") tokens × heads, by L2 norm, each of which opens to its
            units; ("b", "H", "p_q", "p_k") attention. The batch axis may be missing. Letters that
            are not known, or None, draw the last two axes.
        tokens: a list of token strings for each text; None numbers the positions.
        title: what is shown, such as the point's name.
        unit_name: what one unit is called; by default it follows from `dims`.
        rows, columns: of an array of two axes (or one, a single row), what a row and a column are: a word, or
            a label for each.

    Raises:
        BadRequest: `dims` names another number of axes; tokens do not fit; no numbers.
    """
    if rows is not None or columns is not None:
        if dims is not None or tokens is not None:
            raise BadRequest(
                "rows and columns say what the axes are, and so do dims and tokens.",
                "Give one or the other.",
            )
        return GridView(_sheet(array, rows or "row", columns or "column", title), title)
    return View(_checked(Subject.of(array, dims, tokens, title, unit_name)))


def static_html(
    array: Any,
    dims: Sequence[str] | None,
    tokens: Tokens = None,
    title: str = "",
    unit_name: str | None = None,
) -> str:
    """The still picture of an array as HTML: one ``<img>`` with an SVG inside; loads nothing.

    The heatmap in the SVG is a PNG encoded with the standard library (zlib); labels, title and
    colour bar are text. Of a batch it shows the first text. Arguments and errors as :func:`show`.
    """
    return _checked(Subject.of(array, dims, tokens, title, unit_name)).html()


def _sheet(array: Any, rows: Axis, columns: Axis, title: str) -> Sheet:
    """An array of two axes as a sheet; of one axis, as a sheet of one row."""
    values = arrays.as_float32(array)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2:
        raise BadRequest(
            f"rows and columns name two axes, and the array has {values.ndim}.",
            "Choose or reduce the others first, as in array[0] or array.mean(0).",
        )
    (row, row_labels), (column, column_labels) = (
        _named(axis, word, length)
        for axis, word, length in zip((rows, columns), ("row", "column"), values.shape, strict=True)
    )
    kind: Literal["signed", "positive"] = (
        "signed" if np.nanmin(values, initial=0) < 0 else "positive"
    )
    return Sheet(title or "value", values, row_labels, column_labels, row, column, kind)


def _named(axis: Axis, word: str, length: int) -> tuple[str, list[str]]:
    """What one step along an axis is called, and the label of each."""
    if isinstance(axis, str):
        return axis, [str(place) for place in range(length)]
    return word, [str(label) for label in axis]


def _checked(subject: Subject) -> Subject:
    """`subject`, whose tokens fit: the mistake is reported in the call, not when it is drawn."""
    axis = 3 if subject.kind == "attention" else 1
    token_labels(subject.tokens, subject.values.shape[0], subject.values.shape[axis])
    return subject


def _batched(values: arrays.Floats, axes: int) -> arrays.Floats:
    return values if values.ndim == axes else values[None]


def _first(values: arrays.Floats) -> arrays.Floats:
    """The first text of a batch; of an empty batch, a text of no tokens."""
    return values[0] if len(values) else values.reshape(0, *values.shape[2:])
