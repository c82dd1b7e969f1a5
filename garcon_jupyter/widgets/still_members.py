"""The still picture of several models side by side, with the line of the selected value below."""

from __future__ import annotations

import math
import textwrap
from typing import Any, Protocol

import numpy as np

from garcon_jupyter.widgets import arrays, colours, numbers, svg

MOST_CELLS = 400
"""Rows or columns of a member in a still picture; what is more is pooled by the strongest."""

_MARGIN, _GAP, _TOP = 16.0, 14.0, 62.0
_CHART = 130.0


class Shown(Protocol):
    """What is said beside the values: the traits of a members' widget."""

    title: Any
    labels: Any
    errors: Any
    places: Any
    ticks: Any
    axis: Any
    rows: Any
    columns: Any
    names: Any
    limit: Any
    selected_row: Any
    selected_column: Any


def members(values: arrays.Floats, shown: Shown, line: Any, selected: str) -> str:
    """All members as HTML that loads nothing.

    Args:
        values: [member, row, column].
        shown: what is said of them.
        line: [member], the selected value of each; None where nothing is selected.
        selected: the selected cell, in words.
    """
    count, tall, wide = values.shape
    _, row_name, column_name = shown.names
    caption = (
        f"{numbers.plural(count, 'member')} · {numbers.plural(tall, row_name)} × "
        f"{numbers.plural(wide, column_name)}"
    )
    if failed := sum(map(bool, shown.errors)):
        caption += f" · {failed} failed"
    marks = [
        svg.text(_MARGIN, 28, svg.shorten(shown.title or "members", 90), 15, bold=True),
        svg.text(_MARGIN, 46, caption, 11.5, colour=svg.SOFT),
    ]
    gutter = 10 + 6.6 * max(min(len(row), 12) for row in shown.rows)
    across = numbers.across(count, 6)
    width = (svg.WIDTH - 2 * _MARGIN - gutter - _GAP * (across - 1)) / across
    height = min(max(tall * 14.0, 40.0), 300.0)
    for number, picture in enumerate(values):
        x = _MARGIN + gutter + (number % across) * (width + _GAP)
        y = _TOP + 16 + (number // across) * (height + 34)
        marks += _member(picture, shown, number, x, y, width, height)
        if number % across == 0:
            marks += _row_labels(shown.rows, x - 6, y, height)
    bottom = _TOP + 16 + math.ceil(count / across) * (height + 34) - 8
    marks.append(svg.colour_bar(svg.WIDTH - _MARGIN - 190, bottom, shown.limit))
    if line is not None:
        marks += _line(line, shown, selected, bottom + 40)
        bottom += 40 + _CHART + 40
    return svg.figure(svg.document(marks, bottom + 34), shown.title, f"{caption} · {selected}")


def _member(
    picture: arrays.Floats,
    shown: Shown,
    number: int,
    x: float,
    y: float,
    width: float,
    height: float,
) -> list[str]:
    room = int(width / 6.4)
    marks = [svg.text(x, y - 5, svg.shorten(shown.labels[number], room), 11.5, bold=True)]
    if error := shown.errors[number]:
        marks.append(svg.hatched(x, y, width, height))
        for place, words in enumerate(textwrap.wrap(error, room)[: max(1, int(height / 14))]):
            marks.append(svg.text(x + 4, y + 14 + 13 * place, words, 10, colour=svg.INK))
        return [*marks, svg.box(x, y, width, height)]
    tall, wide = picture.shape
    pooled = arrays.pool(picture, math.ceil(wide / MOST_CELLS))
    pooled = arrays.pool(pooled, math.ceil(tall / MOST_CELLS), 0)
    marks += [
        svg.raster(colours.codes(pooled, shown.limit), x, y, width, height),
        svg.box(x, y, width, height),
    ]
    row, column = shown.selected_row, shown.selected_column
    if min(row, column) >= 0:
        w, h = width / wide, height / tall
        ink = f'fill="none" stroke="{svg.INK}" stroke-width="1.5"'
        marks.append(
            f'<rect class="selected" x="{x + column * w - 1:.1f}" y="{y + row * h - 1:.1f}" '
            f'width="{max(w, 2) + 2:.1f}" height="{max(h, 2) + 2:.1f}" {ink}/>'
        )
    return marks


def _row_labels(rows: list[str], right: float, top: float, height: float) -> list[str]:
    pitch = height / len(rows)
    every = max(1, math.ceil(11 / pitch))
    return [
        svg.text(
            right,
            top + (place + 0.5) * pitch + 3.5,
            svg.shorten(rows[place], 12),
            10,
            "end",
            svg.SOFT,
            code=True,
        )
        for place in range(0, len(rows), every)
    ]


def _line(line: Any, shown: Shown, selected: str, top: float) -> list[str]:
    """The selected value over the members; ticks stand where members are."""
    left, right = _MARGIN + 60, svg.WIDTH - _MARGIN - 20
    finite = line[np.isfinite(line)]
    low, high = min(0.0, *finite.tolist(), 0.0), max(0.0, *finite.tolist(), 0.0)
    high = high if high > low else low + 1.0
    xs = [left + place * (right - left) for place in shown.places]
    ys = [top + 18 + (high - float(value)) / (high - low) * (_CHART - 18) for value in line]
    zero = top + 18 + high / (high - low) * (_CHART - 18)
    marks = [svg.text(_MARGIN, top + 4, svg.shorten(selected, 110), 12, bold=True)]
    marks.append(svg.line(left, zero, right, zero))
    for value in {low, 0.0, high}:
        y = top + 18 + (high - value) / (high - low) * (_CHART - 18)
        marks.append(svg.text(left - 8, y + 3.5, numbers.number(value), 10, "end", svg.SOFT))
    path, pen = "", "M"
    for x, y in zip(xs, ys, strict=True):
        path, pen = (path, "M") if math.isnan(y) else (f"{path}{pen}{x:.1f} {y:.1f}", "L")
    colour = colours.css(255)
    marks.append(f'<path class="line" d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    last = -math.inf
    for x, y, tick in zip(xs, ys, shown.ticks, strict=True):
        if not math.isnan(y):
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        marks.append(svg.line(x, top + _CHART, x, top + _CHART + 5))
        if x - last > 7 * len(tick):
            marks.append(svg.text(x, top + _CHART + 17, tick, 10, "middle", svg.SOFT))
            last = x
    marks.append(svg.text(right, top + _CHART + 31, shown.axis, 10, "end", svg.SOFT))
    return marks
