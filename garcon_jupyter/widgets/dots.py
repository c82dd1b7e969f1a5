"""Dots on a map, each with a text, as a plotly figure that leaves a still picture.

plotly takes longer to import than all else here together, so this module is imported for the first figure.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import plotly.graph_objects as go

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays, colours, labels, svg
from garcon_jupyter.widgets.values import Values

HEIGHT = 560.0
"""Of the still picture, in its pixels."""

_MARGIN, _TOP = 24.0, 74.0
_MOST = 4000
"""Dots that a still picture has at most; of more, evenly chosen ones."""


class DotsFigure(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A map: point at a dot for its text; drag, or choose box or lasso, to select; double-click to see all."""

    @property
    def values(self) -> Values:
        """Where each dot is, [dot, coordinate]; the labels of dots are their names."""
        dots = self.data[0]
        names = tuple(str(name) for name in dots.customdata)
        places = np.stack([np.asarray(dots.x), np.asarray(dots.y)], 1)
        axes = {"dot": names, "coordinate": ("x", "y")}
        return Values(places, ("dot", "coordinate"), axes, str(self.layout.title.text or "map"))

    def wait(self, timeout: float | None = None) -> Self:
        """Itself: it is whole from the beginning."""
        return self

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        title, subtitle = self.layout.title.text or "", self.layout.title.subtitle.text or ""
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_json()),
            "text/html": svg.figure(self._still(title, subtitle), title, subtitle),
            "text/plain": f"<DotsFigure {title}: {subtitle}>",
        }

    def _still(self, title: str, subtitle: str) -> str:
        dots = self.data[0]
        places = np.stack([np.asarray(dots.x), np.asarray(dots.y)], 1).astype(float)
        some = np.linspace(0, len(places) - 1, min(_MOST, len(places))).round().astype(int)
        low, high = places.min(0), places.max(0)
        room = np.array([svg.WIDTH - 2 * _MARGIN, HEIGHT - _TOP - _MARGIN])
        scale = room / np.where(high > low, high - low, 1.0)
        marks = [
            svg.text(_MARGIN, 32, title, 15, bold=True),
            svg.text(_MARGIN, 52, subtitle, 12, colour=svg.SOFT),
        ]
        fills = [str(each) for each in dots.marker.color]
        for at in some.tolist():
            x, y = (places[at] - low) * scale
            marks.append(
                f'<circle cx="{_MARGIN + x:.1f}" cy="{HEIGHT - _MARGIN - y:.1f}" r="2.4" '
                f'fill="{fills[at]}" fill-opacity="0.7"/>'
            )
        return svg.document(marks, HEIGHT)


def dots(
    places: Any,
    texts: Sequence[str],
    names: Sequence[str],
    title: str = "",
    subtitle: str = "",
    shades: Any = None,
) -> DotsFigure:
    """A map of dots.

    Args:
        places: [dot, 2].
        texts: what stands behind each dot, shown when it is pointed at.
        names: what each is called.
        title: what is shown.
        subtitle: what is known of it.
        shades: [dot], by which dots are coloured: of the smallest size to the largest; None for all alike.

    Raises:
        BadRequest: another number of texts or names than of dots; places that are no numbers.
    """
    where = arrays.as_float32(places)
    count = len(where)
    if where.ndim != 2 or where.shape[1] != 2 or not (count == len(texts) == len(names)):
        raise BadRequest(
            f"Places of shape {[*where.shape]} have {len(texts)} texts and {len(names)} names.",
            "Give [dot, 2], and of each dot one text and one name.",
        )
    figure = go.Scattergl(
        x=where[:, 0],
        y=where[:, 1],
        mode="markers",
        text=[html.escape(labels.written(text), quote=False) for text in texts],
        customdata=list(names),
        marker={"color": _fills(shades, count), "size": 5, "opacity": 0.7},
        hovertemplate="<b>%{customdata}</b><br>%{text}<extra></extra>",
    )
    return DotsFigure(figure, _layout(title, subtitle))


def _fills(shades: Any, count: int) -> list[str]:
    """A colour for each dot."""
    if shades is None:
        return [colours.css(colours.ZERO + 90)] * count
    sizes = arrays.as_float32(shades).astype(float)
    low, high = float(sizes.min(initial=np.inf)), float(sizes.max(initial=-np.inf))
    part = (sizes - low) / (high - low) if high > low else np.full(count, 0.5)
    return [colours.css(int(code)) for code in (colours.ZERO + 30 + part * 90).astype(int)]


def _layout(title: str, subtitle: str) -> dict[str, Any]:
    grey, faint = "#808890", "rgba(128,136,144,0.25)"  # readable on light and dark pages
    axis = {"gridcolor": faint, "zerolinecolor": faint, "linecolor": faint, "showticklabels": False}
    return {
        "title": {"text": title or "map", "subtitle": {"text": subtitle}},
        "xaxis": axis,
        "yaxis": {**axis, "scaleanchor": "x"},
        "font": {"color": grey},
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 560,
        "margin": {"l": 20, "r": 20, "t": 70, "b": 20},
        "dragmode": "zoom",
        "modebar": {"add": ["select2d", "lasso2d"]},
        "showlegend": False,
    }
