"""What ``show`` returns: one thing to look at, live and still.

A saved notebook must show the picture with no kernel and no network, and a living one should show
only the widget. One mimebundle cannot do both: nbconvert prefers a widget's view to its HTML
wherever the widget's state is stored, and then needs a CDN to draw it. So a view makes two outputs,
the still picture and, after it, the widget. The widget's style sheet hides a still picture that
stands directly before a living widget; when the widget goes (its kernel restarted, the notebook
reopened) the picture is there again, and the "model not found" line is hidden in its stead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import anywidget
import numpy as np
import plotly.graph_objects as go

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, still, svg
from garcon_jupyter.widgets.activations import ActivationsWidget
from garcon_jupyter.widgets.attention import AttentionWidget
from garcon_jupyter.widgets.distribution import distribution
from garcon_jupyter.widgets.labels import token_labels

Tokens = Sequence[str] | Sequence[Sequence[str]] | None

UNIT_NAMES = {
    "D": "dimension",
    "M": "neuron",
    "V": "vocabulary id",
    "E": "expert",
    "H": "head",
    "K": "head",
    "d": "unit",
    "k": "choice",
    "1": "value",
}
"""What one step along the last axis is called, by its letter in the probe-point table."""

_WIDGET_MIMETYPE = "application/vnd.jupyter.widget-view+json"

_HIDE_DEAD_WIDGET = (
    "<style>.jp-OutputArea-child:has(.garcon-still)"
    "+.jp-OutputArea-child:has(.jupyter-widgets):not(:has(.garcon-live)){display:none}</style>"
)


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
            case (*batch, "p" | "n", "H" | "K", "d" | "D" as last) if batch in ([], ["b"]):
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

    def widget(self) -> anywidget.AnyWidget:
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
    def widget(self) -> anywidget.AnyWidget:
        return self._subject.widget()

    @cached_property
    def figure(self) -> go.Figure:
        return distribution(self._subject.values, self._subject.title)

    @cached_property
    def html(self) -> str:
        return self._subject.html()

    def __repr__(self) -> str:
        title = f"{self._subject.title}: " if self._subject.title else ""
        return f"<View {title}{self._subject.summary}>"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        still_output = {"text/html": self.html + _HIDE_DEAD_WIDGET, "text/plain": repr(self)}
        bundle = self.widget._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle or {}
        display(still_output, raw=True)
        # The empty HTML is what nbconvert takes where the widget's state was not saved.
        live_output = {_WIDGET_MIMETYPE: data[_WIDGET_MIMETYPE], "text/html": ""}
        display(live_output, raw=True)


def show(
    array: Any,
    dims: Sequence[str] | None,
    tokens: Tokens = None,
    title: str = "",
    unit_name: str | None = None,
) -> View:
    """Look at an array: the view that suits the letters of its axes.

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

    Raises:
        BadRequest: `dims` names another number of axes; tokens do not fit; no numbers.
    """
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
