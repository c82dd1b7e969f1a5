"""The still picture of a grid: cells as one PNG, labels and words as text."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.widgets import colours, numbers, svg
from garcon_jupyter.widgets.sheet import Sheet

MOST_COLUMNS = 400
"""Columns in a still picture; a note says how many more there are."""

TALL = 16
"""Rows from which on the columns are labelled at both ends."""

STRONG = 78
"""Colour codes further than this from no colour are dark enough for white letters."""

_MARGIN, _TOP = 16.0, 62.0


def grid(sheet: Sheet, words: list[str], title: str, unfinished: str = "") -> str:
    """A sheet as HTML that loads nothing; its first row is at the bottom, as the model flows up.

    Args:
        sheet: what to draw.
        words: [row · column], written into cells that have room; where there are none, the numbers are.
        title: heading.
        unfinished: why it is not whole; "" where it is.
    """
    rows, every = sheet.values.shape
    columns = min(every, MOST_COLUMNS)
    more = f" · the first {columns}" if every > columns else ""
    size = f"{numbers.plural(rows, sheet.row_name)} × {numbers.plural(every, sheet.column_name)}"
    caption = f"{sheet.name} · {size}{more}"
    caption += f" · {unfinished}" if unfinished else ""
    missing = sheet.missing()[::-1, :columns]
    gutter = 14 + 7 * max((len(row) for row in sheet.rows), default=0)
    left, width = _MARGIN + gutter, svg.WIDTH - 2 * _MARGIN - gutter
    width = min(width, columns * 96.0)
    height = rows * (20.0 if rows <= 16 else 16.0)
    marks = [
        svg.text(_MARGIN, 28, svg.shorten(title, 90), 15, bold=True),
        svg.text(_MARGIN, 46, caption, 11.5, colour=svg.SOFT),
    ]
    if rows and columns:
        codes = np.ascontiguousarray(sheet.codes()[::-1, :columns])
        marks.append(svg.raster(codes, left, _TOP, width, height))
        marks += _hatched(missing, left, width, height)
        marks.append(svg.box(left, _TOP, width, height))
        marks += _words(sheet, words, columns, left, width, height)
        marks += _labels(sheet, columns, left, width, height)
    bottom = _TOP + height + (22 if width / max(columns, 1) >= 40 else 66)
    first = 1 if sheet.scale == "signed" else colours.ZERO
    marks.append(svg.scale_bar(svg.WIDTH - _MARGIN - 200, bottom, first, sheet.ticks()))
    if missing.any():
        words_of_key = "not computed yet" if unfinished else "no value"
        marks.append(svg.missing_key(_MARGIN + gutter, bottom, words_of_key))
    return svg.figure(svg.document(marks, bottom + 34), title, caption)


def _hatched(missing: NDArray[np.bool_], left: float, width: float, height: float) -> list[str]:
    """The cells without a value, the uppermost row first."""
    rows, columns = missing.shape
    tall, wide = height / rows, width / columns
    return [
        svg.hatched(left + column * wide, _TOP + row * tall, across * wide, down * tall)
        for row, column, down, across in svg.blocks(missing)
    ]


def _words(
    sheet: Sheet, words: list[str], columns: int, left: float, width: float, height: float
) -> list[str]:
    """What stands in the cells, as in the browser (grid.js): the word of each, or its number."""
    rows, every = sheet.values.shape
    wide, tall = width / columns, height / rows
    if wide < 30 or tall < 14:
        return []
    written = words or [numbers.short(float(value)) for value in sheet.values.flat]
    strong = np.abs(sheet.codes().astype(int) - colours.ZERO) > STRONG
    room = int((wide - 4) / 6.2)
    return [
        svg.text(
            left + (column + 0.5) * wide,
            _TOP + (rows - row - 0.5) * tall + 3.5,
            svg.shorten(written[row * every + column], room),
            10,
            "middle",
            svg.PAPER if strong[row, column] else svg.INK,
            code=bool(words),
        )
        for row in range(rows)
        for column in range(columns)
        if written[row * every + column]
    ]


def _labels(sheet: Sheet, columns: int, left: float, width: float, height: float) -> list[str]:
    wide, tall = width / columns, height / len(sheet.rows)
    each = max(1, math.ceil(11 / tall))
    marks = [
        svg.text(left - 6, _TOP + height - (row + 0.5) * tall + 3.5, name, 10.5, "end", svg.SOFT)
        for row, name in enumerate(sheet.rows)
        if row % each == 0
    ]
    flat = wide >= 40
    each = 1 if flat else max(1, math.ceil(13 / wide))
    for column in range(0, columns, each):
        x = left + (column + 0.5) * wide
        ends = [_TOP + height + 13]
        if flat and len(sheet.rows) > TALL:
            ends.append(_TOP - 4)
        words = svg.shorten(sheet.columns[column], max(int(wide / 6.6), 4) if flat else 12)
        turned = (words, 10.5, "middle") if flat else (words, 9.5, "end")
        marks += [svg.text(x, y, *turned, code=True, turn=0 if flat else -50) for y in ends]
    return marks
