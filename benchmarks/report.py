"""The table and the picture of ``docs/performance.md``."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "performance.svg"
RESULTS = ROOT / "benchmarks" / "results.json"
"""What each group last came to: its machine and rows. Page and picture are made of it, so that a group can be measured alone."""
BEGIN, END = "<!-- table: made by make bench -->", "<!-- end of table -->"

GROUPS = (
    "request",
    "reads",
    "backups",
    "fetching",
    "notebook",
    "launching",
    "sharded",
    "growth",
    "certificate",
    "atlas",
    "experiments",
    "fleets",
    "training",
    "dictionaries",
    "http_door",
)
"""Groups of rows, as modules of this folder and in the order of the page."""

_BAR, _LEFT, _WIDTH = 22, 430, 900
_MET, _MISSED, _INK = "#2a7f62", "#c2483d", "#444"


def write(group: str, rows: Sequence[Row], machine: str) -> None:
    """Put what a group came to in the place of what it came to before, in the results, the page and the picture."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[group] = {"machine": machine, "rows": [row.as_dict() for row in rows]}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    put(BEGIN, END, page(results))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(rows_of(results)))


def rows_of(results: Mapping[str, Any]) -> list[Row]:
    """The rows of all groups, in the order of the page."""
    told = [results[name]["rows"] for name in GROUPS if name in results]
    return [Row(**row) for rows in told for row in rows]


def page(results: Mapping[str, Any]) -> str:
    """A table for each group, below on which machine it was measured."""
    tables = []
    for name in GROUPS:
        if (told := results.get(name)) is not None:
            rows = [Row(**row) for row in told["rows"]]
            tables.append(f"**`{name}`**, on {told['machine']}:\n\n{markdown(rows)}")
    return "\n\n".join(tables)


def put(begin: str, end: str, table: str) -> None:
    """Put a table into the page, between its two marks."""
    text = PAGE.read_text() if PAGE.exists() else f"{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}")


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    lines = ["| Benchmark | Target | Measured: median (middle 80 %) | |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.what} | {row.target} | {row.measured} | {verdict(row)} |")
    return "\n".join(lines)


def verdict(row: Row) -> str:
    """Whether a row met its target, in a word."""
    return {True: "met", False: "**missed**", None: "reported"}[row.met]


def picture(rows: Sequence[Row]) -> str:
    """One bar for each target, on a logarithmic scale: how much of what is allowed was used; and the
    growth curves below."""
    bars = [row for row in rows if row.ratio]
    curves = [row for row in rows if row.curve]
    height = 40 + _BAR * len(bars)
    parts = [*_bars(bars), *_curves(curves, height + 30)]
    total = height + (260 * -(-len(curves) // 3) + 30 if curves else 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}" '
        f'font-family="sans-serif" font-size="11" fill="{_INK}">\n'
        f'<rect width="{_WIDTH}" height="{total}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _bars(rows: Sequence[Row]) -> list[str]:
    def x(ratio: float) -> float:
        place = (math.log10(min(max(ratio, 0.02), 50)) + 1.7) / 3.4
        return _LEFT + place * (_WIDTH - _LEFT - 20)

    one, bottom = x(1), 24 + _BAR * len(rows)
    parts = [
        f'<line x1="{one:.0f}" y1="18" x2="{one:.0f}" y2="{bottom}" stroke="{_INK}"/>',
        f'<text x="{one:.0f}" y="12" text-anchor="middle">the target</text>',
        f'<text x="{_LEFT}" y="12">better ←</text>',
    ]
    for number, row in enumerate(rows):
        y = 24 + number * _BAR
        end = x(row.ratio or 1)
        colour = _MET if row.met else _MISSED
        parts.append(_text(_LEFT - 8, y + 13, _short(row.what, 72), "end"))
        start, width = min(end, one), abs(end - one)
        parts.append(
            f'<rect x="{start:.1f}" y="{y + 3}" width="{max(width, 1):.1f}" height="{_BAR - 8}" '
            f'fill="{colour}"/>'
        )
        told = f"{row.ratio:.2f}" if (row.ratio or 1) >= 0.1 else f"{row.ratio:.1g}"
        if end < one and end - 30 < _LEFT:  # no room beside the bar: in it
            parts.append(_text(end + 4, y + 13, told, "start", "white"))
        else:
            anchor, beside = ("start", end + 4) if end >= one else ("end", end - 4)
            parts.append(_text(beside, y + 13, told, anchor))
    return parts


def _curves(rows: Sequence[Row], top: float) -> list[str]:
    """Small pictures, both axes logarithmic, with a dotted line of what linear growth would be."""
    parts: list[str] = []
    for number, row in enumerate(rows):
        parts += _curve(row, 20 + number % 3 * 295, top + number // 3 * 260)
    return parts


def _curve(row: Row, left: float, upper: float) -> list[str]:
    xs = [math.log10(x) for _, x, _ in row.curve]
    ys = [math.log10(y) for _, _, y in row.curve]
    span = max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)

    def at(x: float, y: float) -> tuple[float, float]:
        across, down = (x - min(xs)) / span, (y - min(ys)) / span
        return left + 10 + across * 230, upper + 200 - down * 160

    def line(points: Sequence[tuple[float, float]], style: str) -> str:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline points="{places}" fill="none" {style}/>'

    places = [at(x, y) for x, y in zip(xs, ys, strict=True)]
    linear = [places[0], at(xs[-1], ys[0] + xs[-1] - xs[0])]
    parts = [
        _text(left, upper, _short(row.what, 48), "start"),
        line(linear, 'stroke="#aaa" stroke-dasharray="3"'),
        line(places, f'stroke="{_MET}" stroke-width="2"'),
        _text(left + 10, upper + 234, "milliseconds; dotted: linear", "start"),
    ]
    for (label, _, seconds), (x, y) in zip(row.curve, places, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_MET}"/>')
        milliseconds = seconds * 1e3
        told = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
        parts.append(_text(x, y - 7, told, "middle"))
        parts.append(_text(x, upper + 218, label, "middle"))
    return parts


def _text(x: float, y: float, words: str, anchor: str, colour: str = _INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{html.escape(words)}</text>"


def _short(words: str, limit: int) -> str:
    words = words.replace("`", "")
    return words if len(words) <= limit else words[: limit - 1] + "…"
