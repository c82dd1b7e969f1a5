"""The still picture of what moved a neuron: its timeline, tokens, data and flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from garcon_jupyter.widgets import colours, numbers, svg
from garcon_jupyter.widgets.still_text import cells

_MARGIN, _TALL, _CELL, _LINE = 18.0, 150.0, 7.2, 24.0
_DATA, _TOKENS, _FLIPS = 10, 10, 8
"""Rows of each part."""


@dataclass(frozen=True)
class MovesStill:
    """What is drawn, as the browser has it.

    Attributes:
        title, subtitle: the heading.
        table: [move, 3]: step, gradient, place of its text.
        names: of the moves.
        texts: the tokens of data.
        tokens: (token, lift, what else is said).
        flips: with "token", "said" and "places".
        limit: the gradient of full colour.
        selected: a move; −1 for none.
    """

    title: str
    subtitle: str
    table: Any
    names: Sequence[str]
    texts: Sequence[list[str]]
    tokens: Sequence[Any]
    flips: Sequence[Any]
    limit: float
    selected: int


def moves(widget: MovesStill) -> str:
    """The picture as HTML that loads nothing."""
    marks = [
        svg.text(_MARGIN, 28, svg.shorten(widget.title, 90), 15, bold=True),
        svg.text(_MARGIN, 47, svg.shorten(widget.subtitle, 130), 11.5, colour=svg.SOFT),
        *_timeline(widget, 64),
    ]
    y = 64 + _TALL + 40
    left, right = _tokens(widget, y), _flips(widget, y)
    marks += [*left, *right]
    if left or right:
        y += 22 + 18 * max(min(len(widget.tokens), _TOKENS), min(len(widget.flips), _FLIPS))
    marks += _data(widget, y)
    rows = min(len(widget.texts), _DATA)
    height = y + (24 + rows * _LINE if rows else 0)
    return svg.figure(svg.document(marks, height), widget.title, widget.subtitle)


def _timeline(widget: MovesStill, top: float) -> list[str]:
    table = widget.table
    left, width, middle = _MARGIN + 48, svg.WIDTH - 2 * _MARGIN - 48, top + _TALL / 2
    last = max(float(table[:, 0].max(initial=0.0)), 1.0)
    marks = [
        svg.box(left, top, width, _TALL),
        svg.line(left, middle, left + width, middle),
        svg.text(left - 6, top + 10, numbers.number(widget.limit), 10, "end", svg.SOFT),
        svg.text(left - 6, top + _TALL, numbers.number(-widget.limit), 10, "end", svg.SOFT),
        svg.text(left, top + _TALL + 15, "step 0", 10, colour=svg.SOFT),
        svg.text(left + width, top + _TALL + 15, f"step {last:,.0f}", 10, "end", svg.SOFT),
    ]
    codes = colours.codes(table[:, 1], widget.limit).tolist()
    for number, ((step, value, _), code) in enumerate(zip(table.tolist(), codes, strict=True)):
        x, y = left + width * step / last, middle - value / widget.limit * (_TALL / 2 - 4)
        edge = svg.INK if number == widget.selected else svg.SOFT
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours.css(code)}" stroke="{edge}" stroke-width="0.5"/>'
        )
    return marks


def _tokens(widget: MovesStill, y: float) -> list[str]:
    if not widget.tokens:
        return []
    marks = [svg.text(_MARGIN, y, "tokens of its data, over those of all", 11, colour=svg.SOFT)]
    most = max(lift for _, lift, _ in widget.tokens)
    for number, (word, lift, said) in enumerate(widget.tokens[:_TOKENS]):
        line = y + 18 * (number + 1)
        marks += [
            svg.text(_MARGIN, line, svg.shorten(word, 16), 11.5, code=True),
            svg.bar(_MARGIN + 130, line - 9, 100 * lift / most, 10, 220),
            svg.text(
                _MARGIN + 236, line, f"× {numbers.number(lift)} · {said}", 10.5, colour=svg.SOFT
            ),
        ]
    return marks


def _flips(widget: MovesStill, y: float) -> list[str]:
    if not widget.flips:
        return []
    x = 450.0
    marks = [svg.text(x, y, "predictions that change without it", 11, colour=svg.SOFT)]
    for number, flip in enumerate(widget.flips[:_FLIPS]):
        line = y + 18 * (number + 1)
        marks.append(svg.text(x, line, svg.shorten(flip["token"], 14), 11.5, code=True))
        marks.append(svg.text(x + 110, line, flip["said"], 10.5, colour=svg.SOFT))
        if flip["places"]:
            before, one, two, _ = flip["places"][0]
            shown = svg.shorten(f"…{before[-18:]} ({one} | {two})", 36)
            marks.append(svg.text(x + 185, line, shown, 10.5, code=True))
    return marks


def _data(widget: MovesStill, y: float) -> list[str]:
    table = widget.table
    if not widget.texts:
        return []
    marks = [svg.text(_MARGIN, y + 8, "the data that moved it most", 11, colour=svg.SOFT)]
    notable = {word.strip() for word, *_ in widget.tokens}
    shown: list[int] = []
    for at in np.argsort(-np.abs(table[:, 1]), kind="stable").tolist():
        text = int(table[at, 2])
        if text >= 0 and all(int(table[other, 2]) != text for other in shown):
            shown.append(at)
    for number, at in enumerate(shown[:_DATA]):
        line = y + 16 + number * _LINE
        marks.append(
            svg.text(
                _MARGIN, line + 14, widget.names[at].replace(", datum", " ·"), 10, colour=svg.SOFT
            )
        )
        code = int(colours.codes(table[at : at + 1, 1], widget.limit)[0])
        pieces = widget.texts[int(table[at, 2])]
        marks += _text(pieces, _MARGIN + 105, line, code, notable)
    return marks


def _text(pieces: list[str], x: float, y: float, code: int, notable: set[str]) -> list[str]:
    """One line of a text on the colour of its gradient; what is notable is underlined."""
    marks = []
    for piece in pieces:
        body = piece.replace("\n", "")
        body = body if body.startswith(" ") else f" {body}"
        width = _CELL * cells(body)
        if x + width > svg.WIDTH - _MARGIN:
            break
        marks.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="19" fill="{colours.behind_text(code)}"/>'
            f'<text x="{x:.1f}" y="{y + 13.5:.1f}" class="code" font-size="12" textLength="{width:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{svg.escape(body)}</text>'
        )
        if body.strip() in notable:
            marks.append(
                f'<path class="notable" d="M{x + _CELL:.1f} {y + 17:.1f}h{width - _CELL:.1f}" stroke="{svg.INK}" stroke-width="1.6"/>'
            )
        x += width
    return marks
