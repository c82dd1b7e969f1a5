"""The distribution of an array's values, as a plotly figure that costs bins and not values.

Binning happens here, beside the array: a figure of a hundred bars is a few kilobytes whether the
array has a thousand values or a billion.

plotly takes longer to import than all else here together, so it is imported for the first figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.widgets import arrays, colours
from garcon_jupyter.widgets.bins import histogram

if TYPE_CHECKING:
    import plotly.graph_objects as go


def distribution(array: Any, title: str = "") -> go.Figure:
    """A histogram of all values of an array, with counts on a logarithmic axis.

    Args:
        array: any shape; numpy or torch, any real dtype.
        title: what the values are.

    Returns:
        A figure with one bar trace: `x` the centres of the bins, `y` the counts, `width` the bins'
        width. Values that are NaN or infinite have no bin; the subtitle counts them.

    Raises:
        BadRequest: the array holds no numbers.
    """
    import plotly.graph_objects as go

    from garcon_jupyter.widgets.figure import Distribution

    values = arrays.as_float32(array).reshape(-1)
    finite = values[np.isfinite(values)]
    counts, edges = histogram(finite)
    centres = (edges[:-1] + edges[1:]) / 2
    bars = go.Bar(
        x=centres,
        y=counts,
        width=np.diff(edges),
        marker={"color": [_colour(centre) for centre in centres], "line_width": 0},
        customdata=np.stack([edges[:-1], edges[1:]], axis=1),
        hovertemplate="%{customdata[0]:.4g} … %{customdata[1]:.4g}<br>%{y} values<extra></extra>",
    )
    return Distribution(bars, _layout(title, summary(values)))


def summary(values: arrays.Floats) -> str:
    """Count, mean, standard deviation and range in one line."""
    finite = values[np.isfinite(values)]
    strange = values.size - finite.size
    parts = [f"{values.size:,} values"]
    if finite.size:
        parts.append(f"mean {finite.mean(dtype=np.float64):.4g}")
        parts.append(f"standard deviation {finite.std(dtype=np.float64):.4g}")
        parts.append(f"from {finite.min():.4g} to {finite.max():.4g}")
    if strange:
        parts.append(f"{strange:,} not finite")
    return " · ".join(parts)


def _colour(value: float) -> str:
    red, green, blue = colours.NEGATIVE if value < 0 else colours.POSITIVE
    return f"rgb({red},{green},{blue})"


def _layout(title: str, subtitle: str) -> dict[str, Any]:
    grey, faint = "#808890", "rgba(128,136,144,0.25)"  # readable on light and dark pages
    axis = {"gridcolor": faint, "zerolinecolor": faint, "linecolor": faint}
    return {
        "title": {"text": title or "distribution", "subtitle": {"text": subtitle}},
        "xaxis": {**axis, "title": "value"},
        "yaxis": {**axis, "title": "count", "type": "log", "dtick": 1},
        "font": {"color": grey},
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "bargap": 0,
        "height": 320,
        "margin": {"l": 60, "r": 20, "t": 70, "b": 50},
        "showlegend": False,
    }
