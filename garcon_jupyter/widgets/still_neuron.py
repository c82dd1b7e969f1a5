"""The still picture of a neuron: its histogram, its logits, and its strongest examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from garcon_jupyter.widgets import colours, numbers, svg
from garcon_jupyter.widgets.still_text import cells

_MARGIN, _CELL, _LINE = 18.0, 7.2, 22.0

_SAID = 3
"""Explanations that there is room for."""


def neuron(record: Mapping[str, Any], title: str) -> str:
    """A record as HTML that loads nothing."""
    known = record.get("largest")
    largest = "" if known is None else f"largest value {numbers.number(known, 4)}"
    caption = " · ".join(filter(None, (record.get("fires"), largest)))
    said = list(record.get("said", ()))[:_SAID]
    below = 66.0 + 18.0 * len(said)
    marks = [
        svg.text(_MARGIN, 28, svg.shorten(title, 90), 15, bold=True),
        svg.text(_MARGIN, 47, caption, 11.5, colour=svg.SOFT),
        *_explanations(said, 68),
        *_histogram(record.get("histogram") or {}, _MARGIN, below, 250, 90),
        *_logits("raises", record.get("up", ()), 300, below, 255),
        *_logits("lowers", record.get("down", ()), 590, below, 1),
    ]
    shown = any(record.get(part) for part in ("histogram", "up", "down"))
    y = below + 124 if shown or not record.get("connections") else below
    for example in list(record.get("top", ()))[:8]:
        marks += _example(example, record.get("largest") or 1.0, y)
        y += _LINE + 4
    kinds = record.get("connections", ())
    for first in range(0, len(kinds), 3):
        for x, kind in zip((_MARGIN, 300, 590), kinds[first : first + 3], strict=False):
            rows = [(word, value) for word, value, _ in kind["rows"]]
            head = svg.shorten(f"{kind['name']} · {kind['said']}", 44)
            marks += _logits(head, rows, x, y + 18, 255, 1)
        y += 18 + 16.0 * (1 + max(len(kind["rows"][:6]) for kind in kinds[first : first + 3]))
    return svg.figure(svg.document(marks, y + 10), title, caption)


def _explanations(said: Any, y: float) -> list[str]:
    """What the unit is said to fire for, a line each, with who says so and how well that predicts it."""
    marks = []
    for row, one in enumerate(said):
        line = y + 18.0 * row
        text = svg.shorten(f"“{one['text']}”", 72)
        beside = " · ".join(filter(None, (one["by"], one["scores"])))
        marks.append(svg.text(_MARGIN, line, text, 12.5))
        place = _MARGIN + 6.6 * cells(text) + 12
        marks.append(
            svg.text(
                place,
                line,
                svg.shorten(beside, int((svg.WIDTH - place) / 5.6)),
                10.5,
                colour=svg.SOFT,
            )
        )
    return marks


def _histogram(
    histogram: Mapping[str, Any], x: float, y: float, width: float, height: float
) -> list[str]:
    counts = list(histogram.get("counts", ()))
    if not counts or not max(counts):
        return []
    pitch, most = width / len(counts), math.log1p(max(counts))
    marks = [svg.line(x, y + height, x + width, y + height)]
    for place, count in enumerate(counts):
        tall = height * math.log1p(count) / most
        marks.append(svg.bar(x + place * pitch, y + height - tall, max(pitch - 1, 1), tall, 255))
    edges, foot = histogram.get("edges") or [0, 0], y + height + 14
    for edge_x, edge, anchor in ((x, edges[0], "start"), (x + width, edges[-1], "end")):
        marks.append(svg.text(edge_x, foot, numbers.number(edge), 10, anchor, svg.SOFT))
    return marks


def _logits(
    word: str, rows: Any, x: float, y: float, code: int, minus: int | None = None
) -> list[str]:
    """Words with bars of one colour; of negative numbers in the other, where one is given."""
    if not rows:
        return []
    marks = [svg.text(x, y, word, 11, colour=svg.SOFT)]
    most = max(abs(value) for _, value in rows) or 1.0
    for number, (token, value) in enumerate(list(rows)[:6]):
        line = y + 16.0 * (number + 1)
        marks.append(svg.text(x, line, svg.shorten(token, 14), 11, code=True))
        marks.append(
            svg.bar(x + 110, line - 8, 110 * abs(value) / most, 9, _one(code, minus, value))
        )
        marks.append(svg.text(x + 228, line, numbers.number(value), 10.5, colour=svg.SOFT))
    return marks


def _one(code: int, minus: int | None, value: float) -> int:
    return code if minus is None or value >= 0 else minus


def _example(example: Mapping[str, Any], largest: float, y: float) -> list[str]:
    """One line: as much around the strongest token as there is room for."""
    pieces = [token.replace("\n", "") for token in example["tokens"]]
    values = example["values"]
    middle = max(range(len(values)), key=values.__getitem__, default=0)
    first = middle
    room = (svg.WIDTH - 2 * _MARGIN) / _CELL
    while first > 0 and sum(map(cells, pieces[first - 1 : middle + 1])) < room * 0.7:
        first -= 1
    marks: list[str] = []
    x = _MARGIN
    codes = colours.codes(np.array(values, np.float32), largest).tolist()
    for piece, code in zip(pieces[first:], codes[first:], strict=True):
        width = _CELL * cells(piece)
        if x + width > svg.WIDTH - _MARGIN:
            break
        if code != colours.ZERO:
            marks.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 0.5:.1f}" height="19" rx="3" '
                f'fill="{colours.behind_text(code)}"/>'
            )
        if piece.strip():
            marks.append(
                f'<text x="{x:.1f}" y="{y + 13.5:.1f}" class="code" font-size="12" '
                f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">'
                f"{svg.escape(piece)}</text>"
            )
        x += width
    return marks
