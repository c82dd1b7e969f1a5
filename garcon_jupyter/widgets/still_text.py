"""The still picture of a text: tokens as they stand in lines, each on its colour.

An SVG cannot break lines, and whoever opens the notebook may lack the font. So every character is
given a cell of one width (two for East Asian characters and emoji), and each token's text is told how
wide it is.
"""

from __future__ import annotations

import math
import unicodedata

from garcon_jupyter.widgets import arrays, colours, numbers, svg

MOST_TOKENS = 800
"""Tokens in a still picture; a note says how many more there are."""

_CELL, _LINE, _MARGIN, _TOP = 7.6, 24.0, 18.0, 66.0


def tokens(pieces: list[str], values: arrays.Floats, limit: float, title: str, metric: str) -> str:
    """A text with a colour behind each token, as HTML that loads nothing.

    Args:
        pieces: [token], as :func:`~garcon_jupyter.widgets.labels.written` writes them.
        values: [token].
        limit: the magnitude of full colour.
        title: heading.
        metric: what the values are.
    """
    shown = pieces[:MOST_TOKENS]
    more = f" · the first {MOST_TOKENS:,}" if len(pieces) > len(shown) else ""
    caption = f"{numbers.plural(len(pieces), 'token')}{more} · {metric}"
    marks = [
        svg.text(_MARGIN, 28, svg.shorten(title, 90), 15, bold=True),
        svg.text(_MARGIN, 47, caption, 11.5, colour=svg.SOFT),
    ]
    codes = colours.codes(values[: len(shown)], limit)
    x, y = _MARGIN, _TOP
    for piece, code in zip(shown, codes.tolist(), strict=True):
        body = piece.replace("\n", "")
        width = _CELL * max(cells(body), 0)
        if x + width > svg.WIDTH - _MARGIN and x > _MARGIN:
            x, y = _MARGIN, y + _LINE
        marks.append(_piece(body, x, y, width, code))
        x += width
        if "\n" in piece:
            x, y = _MARGIN, y + _LINE * piece.count("\n")
    bottom = y + _LINE + 22
    signed = bool((values < 0).any())
    marks.append(svg.colour_bar(svg.WIDTH - _MARGIN - 200, bottom, limit, signed=signed))
    return svg.figure(svg.document(marks, bottom + 34), title, caption)


def cells(text: str) -> int:
    """Cells that a text takes: none for marks that combine, two for wide characters."""
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn")
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def _piece(body: str, x: float, y: float, width: float, code: int) -> str:
    paper = ""
    if code != colours.ZERO:
        paper = (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 0.6:.1f}" height="20" rx="3" '
            f'fill="{colours.behind_text(code)}"/>'
        )
    if not body.strip() or not math.isfinite(width):
        return paper
    return (
        f'{paper}<text x="{x:.1f}" y="{y + 14.5:.1f}" class="code" font-size="12.6" '
        f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">'
        f"{svg.escape(body)}</text>"
    )
