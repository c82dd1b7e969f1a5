"""The still pictures: what the widgets show when nobody touches them, with no JavaScript.

They are drawn from the same arrays by the same pooling and colours as the widgets. Cells are PNG
images inside the SVG (encoded by :mod:`garcon_jupyter.widgets.png`), text is text. A picture is
limited in cells, so it costs a saved notebook at most about 150 kB, and mostly a tenth of that.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.widgets import arrays, colours, numbers, svg
from garcon_jupyter.widgets.attention_scales import scale, thumbnails, without_masked

ROWS, COLUMNS = 64, 800
"""Most cells of a still picture of activations."""

_MARGIN, _TOP = 16, 58


def activations(
    values: arrays.Floats,
    labels: list[str],
    title: str,
    unit_name: str,
    limit: float,
    note: str = "",
    units: int = 0,
) -> str:
    """SVG of one text: `values` [token, unit] as a heatmap with a label for every token.

    Args:
        values: [token, unit].
        labels: one for each token; thinned where tokens share a row of cells.
        title: heading.
        unit_name: what a column is.
        limit: the magnitude of full colour.
        note: added to the line under the heading.
        units: how many there are, where the columns of `values` are pooled already.
    """
    tokens, columns = values.shape
    units = units or columns
    height = min(26 if tokens <= 16 else 18, 900 / max(tokens, 1)) * tokens
    gutter = _gutter(labels)
    left, width = _MARGIN + gutter, svg.WIDTH - 2 * _MARGIN - gutter
    marks = _heading(
        title, f"{numbers.plural(tokens, 'token')} × {numbers.plural(units, unit_name)}{note}"
    )
    if tokens and units:
        cells = arrays.pool(arrays.pool(values, -(-columns // COLUMNS)), -(-tokens // ROWS), axis=0)
        marks.append(svg.raster(colours.codes(cells, limit), left, _TOP, width, height))
        marks += _grid(left, _TOP, width, height, units, tokens)
        marks += _row_labels(labels, left - 6, _TOP, height)
        marks += _unit_ticks(left, _TOP + height, width, units)
    else:
        height = 30
        marks.append(svg.text(left, _TOP + 20, "Nothing to draw: no values.", colour=svg.SOFT))
    bottom = _TOP + height + 34
    marks.append(svg.text(left, bottom + 9, unit_name, 11, colour=svg.SOFT))
    marks.append(svg.colour_bar(left + width - 200, bottom, limit))
    marks.append(
        svg.text(left + width - 230, bottom + 9, _extremes(values, limit), 11, "end", svg.SOFT)
    )
    return svg.document(marks, bottom + 34)


def attention(
    values: arrays.Floats,
    labels: list[str],
    title: str,
    note: str = "",
    limit: float | None = None,
    root: bool = True,
) -> str:
    """SVG of one text: `values` [head, query, key], a tile for every head.

    Args:
        values: [head, query token, key token].
        labels: one for each key token; queries are the last of them.
        title: heading.
        note: added to the line under the heading.
        limit, root: the magnitude of full colour, and whether colour grows with the square root; None to choose
            them by the values.
    """
    heads, queries, keys = values.shape
    values = without_masked(values)
    if limit is None:
        limit, root = scale(values)
    marks = _heading(
        title, f"{numbers.plural(heads, 'head')} · {queries} query × {keys} key tokens{note}"
    )
    if not values.size:
        marks.append(svg.text(_MARGIN, _TOP + 20, "Nothing to draw: no values.", colour=svg.SOFT))
        return svg.document(marks, _TOP + 40)
    gutter = _gutter(labels)
    left, room = _MARGIN + gutter, svg.WIDTH - 2 * _MARGIN - gutter
    widest = 4 if heads <= 4 else 6 if heads <= 24 else 8
    across = numbers.across(heads, widest)
    gap = 14
    side = min((room - gap * (across - 1)) / across, 260)
    small = thumbnails(values, side=64 if heads <= 16 else 40)
    cells = colours.codes(small, limit, root)
    sheet = svg.raster(
        cells.reshape(-1, cells.shape[2]), 0, 0, cells.shape[2], heads * cells.shape[1], "heads"
    )
    marks.append(f"<defs>{sheet}</defs>")
    down = math.ceil(heads / across)
    for head in range(heads):
        x, y = left + head % across * (side + gap), _TOP + 14 + head // across * (side + gap + 14)
        marks.append(svg.text(x, y - 4, f"head {head}", 11, colour=svg.SOFT))
        marks.append(_tile(head, x, y, side, cells.shape[1], cells.shape[2]))
        if head % across == 0:
            marks += _row_labels(labels[keys - queries :], left - 6, y, side)
        if head + across >= heads:
            marks += _column_labels(labels, x, y + side, side)
    bottom = _TOP + down * (side + gap + 14) + (12 + 0.75 * gutter if labels else 0)
    marks.append(svg.colour_bar(svg.WIDTH - _MARGIN - 200, bottom, limit, root))
    marks.append(
        svg.text(left, bottom + 9, "rows: query tokens · columns: key tokens", 11, colour=svg.SOFT)
    )
    return svg.document(marks, bottom + 34)


def histogram(
    centres: NDArray[np.float64], counts: NDArray[np.int64], title: str, subtitle: str
) -> str:
    """SVG of a histogram of equal bins, counts on a logarithmic axis.

    Args:
        centres: [bin], rising.
        counts: [bin].
        title, subtitle: heading.
    """
    marks = _heading(title or "distribution", subtitle)
    left, width, height = _MARGIN + 50, svg.WIDTH - 2 * _MARGIN - 60, 200
    floor, decades = _TOP + height, math.ceil(math.log10(max(counts.max(initial=1), 10)))
    for power in range(decades + 1):
        y = floor - height * (power + 0.3) / (decades + 0.3)
        marks.append(svg.line(left, y, left + width, y))
        marks.append(svg.text(left - 8, y + 4, f"{10**power:,}", 10.5, "end", svg.SOFT))
    pitch = width / max(len(centres), 1)
    for place, (centre, count) in enumerate(zip(centres, counts, strict=True)):
        if count:
            tall = height * (math.log10(count) + 0.3) / (decades + 0.3)
            code = 1 if centre < 0 else 255
            marks.append(svg.bar(left + place * pitch, floor - tall, pitch, tall, code))
        if place % max(1, len(centres) // 8) == 0:
            x = left + (place + 0.5) * pitch
            marks.append(svg.text(x, floor + 16, numbers.number(centre), 10.5, "middle", svg.SOFT))
    marks.append(svg.line(left, floor, left + width, floor))
    return svg.document(marks, floor + 34)


def predictions(rows: list[tuple[str, float, float]], title: str, lines: list[str]) -> str:
    """SVG of probabilities as bars, each with a mark where it was before.

    Args:
        rows: (word, probability, probability before), likeliest first.
        title: heading.
        lines: what is said under it.
    """
    marks = [svg.text(_MARGIN, 26, svg.shorten(title, 100), 15, bold=True)]
    for number, words in enumerate(lines):
        y = 46.0 + 17 * number
        marks.append(svg.text(_MARGIN, y, svg.shorten(words, 120), 11.5, colour=svg.SOFT))
    top, left, width = 40 + 17 * len(lines), 160.0, svg.WIDTH - 260.0
    for number, (word, now, before) in enumerate(rows):
        y = top + 20.0 * number
        marks.append(
            svg.text(left - 10, y + 11, svg.shorten(word, 18), 12, anchor="end", code=True)
        )
        marks.append(svg.bar(left, y, max(width * now, 1.0), 13, 255))
        marks.append(svg.bar(left + width * before, y - 2, 2, 17, 1))
        marks.append(
            svg.text(left + width + 10, y + 11, numbers.percent(now), 11.5, colour=svg.SOFT)
        )
    return svg.document(marks, top + 20.0 * len(rows) + 12)


def lines(title: str, rows: list[str]) -> str:
    """SVG of a heading and lines of text."""
    marks = [svg.text(_MARGIN, 26, svg.shorten(title, 100), 15, bold=True)]
    for number, words in enumerate(rows):
        y = 48 + 18 * number
        marks.append(svg.text(_MARGIN, y, svg.shorten(words, 130), 12, colour=svg.SOFT))
    return svg.document(marks, 56 + 18 * len(rows))


def _heading(title: str, subtitle: str) -> list[str]:
    return [
        svg.text(_MARGIN, 26, svg.shorten(title or "activations", 100), 15, bold=True),
        svg.text(_MARGIN, 44, subtitle, 11.5, colour=svg.SOFT),
    ]


def _extremes(values: arrays.Floats, limit: float) -> str:
    finite = values[np.isfinite(values)]
    strange = values.size - finite.size
    parts = []
    if finite.size:
        parts.append(f"from {numbers.number(finite.min())} to {numbers.number(finite.max())}")
        if np.abs(finite).max() > limit:
            parts.append(f"full colour at {numbers.number(limit)}")
    if strange:
        parts.append(f"{strange:,} not finite")
    return " · ".join(parts)


def _gutter(labels: list[str]) -> float:
    return 14 + 7.3 * max((min(len(label), 16) for label in labels), default=0)


def _row_labels(labels: list[str], right: float, top: float, height: float) -> list[str]:
    pitch = height / max(len(labels), 1)
    every = max(1, math.ceil(10 / pitch))
    size = min(12.0, max(9.0, pitch * 0.8))
    return [
        svg.text(
            right,
            top + (place + 0.5) * pitch + size * 0.35,
            svg.shorten(label, 16),
            round(size, 1),
            "end",
            code=True,
        )
        for place, label in enumerate(labels)
        if place % every == 0
    ]


def _column_labels(labels: list[str], left: float, bottom: float, width: float) -> list[str]:
    pitch = width / max(len(labels), 1)
    every = max(1, math.ceil(13 / pitch))
    return [
        svg.text(
            left + (place + 0.5) * pitch + 3,
            bottom + 10,
            svg.shorten(label, 16),
            9.5,
            "end",
            colour=svg.SOFT,
            code=True,
            turn=-50,
        )
        for place, label in enumerate(labels)
        if place % every == 0
    ]


def _unit_ticks(left: float, bottom: float, width: float, units: int) -> list[str]:
    step = numbers.round_step(units / 16)
    marks = []
    for unit in range(0, units, step):
        x = left + (unit + 0.5) * width / units
        marks.append(svg.line(x, bottom, x, bottom + 4))
        marks.append(svg.text(x, bottom + 16, f"{unit}", 10.5, "middle", svg.SOFT))
    return marks


def _grid(
    left: float, top: float, width: float, height: float, columns: int, rows: int
) -> list[str]:
    """Paper-coloured lines between the cells that are large enough, and a frame."""
    lines = []
    if height / rows >= 9:
        for row in range(1, rows):
            y = top + row * height / rows
            lines.append(f"M{left:.1f} {y:.1f}H{left + width:.1f}")
    if width / columns >= 9:
        for column in range(1, columns):
            x = left + column * width / columns
            lines.append(f"M{x:.1f} {top:.1f}V{top + height:.1f}")
    marks = [f'<path d="{"".join(lines)}" stroke="{svg.PAPER}"/>'] if lines else []
    return [*marks, svg.box(left, top, width, height)]


def _tile(head: int, x: float, y: float, side: float, rows: int, columns: int) -> str:
    return (
        f'<svg x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" '
        f'viewBox="0 {head * rows} {columns} {rows}" preserveAspectRatio="none">'
        f'<use href="#heads"/></svg>{svg.box(x, y, side, side)}'
    )
