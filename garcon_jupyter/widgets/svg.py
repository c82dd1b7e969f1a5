"""The few marks a still picture is made of, as SVG text.

A still picture is one SVG inside an ``<img>``: JupyterLab shows it even in a notebook it does not
trust (where it strips inline SVG, styles and scripts), and nothing inside an image can load or run
anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.widgets import colours, numbers, png

WIDTH = 900
"""Width of every picture, in CSS pixels."""

INK, SOFT, LINE, PAPER = "#1d2430", "#667085", "#d5d9e0", "#ffffff"
MISSING, HATCH = "#f2f4f7", "#c3c9d2"
"""Paper and lines of cells that have no value (yet)."""

_CODE_FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_TEXT_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(marks: Iterable[str], height: float) -> str:
    """A whole SVG of WIDTH × `height`, on paper of its own so that it reads on any page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="{_TEXT_FONT}" font-size="12">'
        "<style>.code{font-family:" + _CODE_FONT + "}image{image-rendering:pixelated}</style>"
        f'<rect width="{WIDTH}" height="{height:.0f}" rx="8" fill="{PAPER}"/>'
        f"{''.join(marks)}</svg>"
    )


def text(
    x: float,
    y: float,
    string: str,
    size: float = 12,
    anchor: str = "start",
    colour: str = INK,
    bold: bool = False,
    code: bool = False,
    turn: float = 0,
) -> str:
    """A line of text, escaped, with its baseline at (x, y)."""
    extra = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    extra += ' font-weight="600"' if bold else ""
    extra += ' class="code"' if code else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{colour}" xml:space="preserve"{extra}>{escape(string)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str = LINE) -> str:
    """A straight line between two points, in pixels of the picture."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}"/>'


def box(x: float, y: float, width: float, height: float) -> str:
    """The outline of a rectangle; x and y are its upper left corner."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="none" stroke="{LINE}"/>'
    )


def bar(x: float, y: float, width: float, height: float, code: int) -> str:
    """A filled rectangle in the colour of a code, 0 to 255 (:func:`garcon_jupyter.widgets.colours.codes`)."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colours.css(code)}"/>'
    )


def hatched(x: float, y: float, width: float, height: float, pitch: float = 7.0) -> str:
    """A rectangle that says: there is nothing here, not even a zero."""
    steps = np.arange(pitch, width + height, pitch)
    lines = "".join(
        f"M{x + max(0.0, at - height):.1f} {y + min(height, at):.1f}"
        f"L{x + min(width, at):.1f} {y + max(0.0, at - width):.1f}"
        for at in steps.tolist()
    )
    return (
        f'<rect class="missing" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{MISSING}"/>'
        f'<path d="{lines}" stroke="{HATCH}"/>'
    )


def missing_key(x: float, y: float, words: str) -> str:
    """What hatched cells are, for the legend."""
    return (
        hatched(x, y, 18, 10, 5.0)
        + box(x, y, 18, 10)
        + text(x + 25, y + 9, words, 10.5, colour=SOFT)
    )


def blocks(cells: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """The true cells of [row, column] as rectangles: first row and column, rows and columns."""
    found: list[tuple[int, int, int, int]] = []
    open_: dict[tuple[int, int], int] = {}
    for row in range(len(cells) + 1):
        runs: set[tuple[int, int]] = set()
        if row < len(cells):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], cells[row].astype(np.int8), [0]])))
            runs = set(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
        for run in open_.keys() - runs:
            first = open_.pop(run)
            found.append((first, run[0], row - first, run[1] - run[0]))
        for run in runs:
            open_.setdefault(run, row)
    return sorted(found)


def raster(
    codes: NDArray[np.uint8], x: float, y: float, width: float, height: float, name: str = ""
) -> str:
    """Colour codes [height, width] as an image stretched over a rectangle."""
    data = png.data_uri(png.encode(codes, colours.palette()), "image/png")
    identity = f'id="{name}" ' if name else ""
    return (
        f'<image {identity}x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'preserveAspectRatio="none" href="{data}"/>'
    )


def colour_bar(x: float, y: float, limit: float, root: bool = False, signed: bool = True) -> str:
    """The scale of colour: -limit to limit, or from 0 by the root, or (not signed) from 0."""
    ticks = numbers.ticks(limit, root)
    if not signed:
        ticks = [(place, numbers.number(place * limit)) for place in (0.0, 0.5, 1.0)]
    return scale_bar(x, y, colours.ZERO if root or not signed else 1, ticks)


def scale_bar(x: float, y: float, first: int, ticks: Iterable[tuple[float, str]]) -> str:
    """Colours from code `first` on, 180 wide and 30 high, with words at places from 0 to 1."""
    width = 180
    strip = np.arange(first, 256, dtype=np.uint8)[None]
    marks = [raster(strip, x, y, width, 9), box(x, y, width, 9)]
    for place, string in ticks:
        marks.append(text(x + place * width, y + 22, string, 10, "middle", SOFT))
    return "".join(marks)


def shorten(string: str, length: int) -> str:
    """At most `length` characters of a text; an ellipsis stands for the rest."""
    return string if len(string) <= length else string[: length - 1] + "…"


def escape(string: str) -> str:
    """`string` as XML text: markup escaped, what XML cannot hold replaced."""
    return html.escape(_NOT_XML.sub("\ufffd", string), quote=True)


def figure(picture: str, title: str, caption: str) -> str:
    """An SVG document as HTML that loads nothing, with a caption that can be read and searched."""
    words = escape(" ".join(part for part in (title, caption) if part))
    address = png.data_uri(picture.encode("utf-8"), "image/svg+xml")
    return (
        '<figure class="garcon-still" style="margin:4px 0">'
        f'<img alt="{words}" width="{WIDTH}" style="max-width:100%;height:auto" src="{address}">'
        "</figure>"
    )
