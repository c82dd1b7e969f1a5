"""What both sides of the widgets must say, reckoned from the rules alone: ``python tests/widgets/contract/reckon.py``.

A picture is drawn twice, by Python (the still one) and by JavaScript (the live one). The rules that they share are
written down here a third time, in exact arithmetic and as slowly as one likes, with nothing imported from either
side; the JSON files beside this one hold the outcome, and both sides are tested against those.

Numbers are written so that both read the same: float32 values exactly, what is not finite as "NaN", "Infinity" and
"-Infinity". Wherever a rule rounds, cases are kept away from the edge by far more than float32 can err, unless a case
is meant to stand on it.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import struct
import unicodedata
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
getcontext().prec = 60


def single(value: float) -> float:
    """The float32 nearest to a number."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def written(value: float) -> Any:
    """A number as JSON has it."""
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


# -- colour --------------------------------------------------------------------------------------


def strength(value: float, limit: float, root: bool) -> Decimal:
    """Signed strength of colour, from -127 to 127, before it is rounded to a code."""
    if math.isinf(value):
        return Decimal(127).copy_sign(Decimal(value))
    share = Fraction(value) / Fraction(single(limit))
    share = max(Fraction(-1), min(Fraction(1), share))
    exact = Decimal(share.numerator) / Decimal(share.denominator)
    size = abs(exact).sqrt() if root else abs(exact)
    return (size * 127).copy_sign(exact)


def code(value: float, limit: float, root: bool) -> int | None:
    """128 is no colour, 255 and 1 are plus and minus the limit, 0 is NaN; a half goes to the even code.

    None where float32 could take the case for one on the other side of a half.
    """
    if math.isnan(value):
        return 0
    exact = strength(value, limit, root)
    past = abs(exact) - math.floor(abs(exact))
    if past != Decimal("0.5") and abs(past - Decimal("0.5")) < Decimal("0.001"):
        return None
    return 128 + round(exact)  # which rounds a half to even


def colour(number: int) -> list[int]:
    """Blue above zero, orange below; opacity grows a little faster than the value. NaN is grey."""
    if number == 0:
        return [128, 128, 128, 120]
    part = min(abs(number - 128), 127) / 127
    return [*((32, 112, 220) if number > 128 else (230, 104, 18)), round(255 * part**0.9)]


def behind_text(number: int) -> str:
    """The colour behind a token: 0.62 of the palette's opacity; grey of 0.18 where there is no value."""
    red, green, blue, opacity = colour(number)
    return f"rgba({red},{green},{blue},{0.18 if number == 0 else opacity / 255 * 0.62:.3f})"


def colours() -> dict[str, Any]:
    draw = random.Random(0)
    plain = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 9.0, -9.0, 0.01, 1e-30, -3e38, 3e38]
    cases = [(value, limit) for value in plain for limit in (1.0, 2.0, 4.0, 0.3)]
    cases += [(value, 1.0) for value in (math.nan, math.inf, -math.inf)]
    for _ in range(300):
        limit = 10 ** draw.uniform(-4, 4)
        cases.append((single(draw.gauss(0, 0.5) * limit), limit))
    rows = []
    for (value, limit), root in itertools.product(cases, (False, True)):
        value = single(value)
        found = code(value, limit, root)
        if found is not None:
            rows.append([written(value), limit, root, found])
    return {
        "codes": rows,
        "palette": [colour(number) for number in range(256)],
        "behind_text": [behind_text(number) for number in range(256)],
    }


# -- numbers -------------------------------------------------------------------------------------


def figures(value: float, count: int) -> str:
    """A number of so many figures, half away from zero, with no zeros at its end; by a power of ten from a
    million on and below a ten-thousandth."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    exact = Fraction(value)
    if not exact:
        return "0"
    sign, size = ("−" if exact < 0 else ""), abs(exact)
    power = 0
    while size >= Fraction(10) ** (power + 1):
        power += 1
    while size < Fraction(10) ** power:
        power -= 1
    digits = _half_up(size / Fraction(10) ** (power - count + 1))
    if digits == 10**count:
        digits, power = digits // 10, power + 1
    text = str(digits).rstrip("0")
    if power >= 6 or power < -4:
        mantissa = text if len(text) == 1 else f"{text[0]}.{text[1:]}"
        return f"{sign}{mantissa}e{'+' if power >= 0 else '−'}{abs(power)}"
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{text}"
    whole, rest = text[: power + 1].ljust(power + 1, "0"), text[power + 1 :]
    return f"{sign}{whole}{'.' + rest if rest else ''}"


def places(value: float, count: int) -> str:
    """A number of so many places behind the point, half away from zero."""
    digits = str(_half_up(abs(Fraction(value)) * 10**count)).rjust(count + 1, "0")
    sign = "−" if value < 0 and digits.strip("0") else ""
    return f"{sign}{digits[:-count]}.{digits[-count:]}" if count else f"{sign}{digits}"


def in_a_cell(value: float) -> str:
    if math.isnan(value):
        return ""
    if abs(value) >= 1e6:
        return figures(value, 3)
    return places(value, 0 if abs(value) >= 100 else 2)


def percent(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "<0.1%" if 0 < value < 0.001 else places(value * 100, 1) + "%"


def _half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def numbers() -> dict[str, Any]:
    draw = random.Random(1)
    values = [0.0, -0.0, 1.0, -1.0, 0.125, -0.125, 0.375, 0.625, 2.5, -2.5, 100.5, -100.5, 99.996]
    values += [0.001, -0.001, 0.004, 0.00009999, 0.0001, 0.00012345, -0.0000123456, 1234.5]
    values += [999999.4, 999999.6, -1e6, 1234567.0, 1e21, 3.4e38, 1e-45, 0.1, 1 / 3, -2 / 3]
    values += [math.nan, math.inf, -math.inf]
    values += [single(draw.choice((1, -1)) * 10 ** draw.uniform(-7, 8)) for _ in range(120)]
    chances = [0.0, 1.0, 0.5, 0.0005, 0.001, 0.00099, 0.0625, 0.003125, 0.9999, math.nan]
    chances += [single(draw.random()) for _ in range(40)]
    counts = [(0, "token"), (1, "token"), (2, "head"), (999, "unit"), (1000, "unit")]
    counts += [(1536, "neuron"), (1234567, "row"), (1, "query"), (20, "query"), (20, "key")]
    scales = [(limit, root) for limit in (1.0, 0.25, 0.037, 12.5, 2048.0) for root in (True, False)]
    return {
        "figures": [
            [written(v), count, figures(v, count)] for v in values for count in (2, 3, 4, 5)
        ],
        "cells": [[written(v), in_a_cell(v)] for v in values],
        "percents": [[written(v), percent(v)] for v in chances],
        "plurals": [[count, noun, _plural(count, noun)] for count, noun in counts],
        "ticks": [[limit, root, _ticks(limit, root)] for limit, root in scales],
    }


def _plural(count: int, noun: str) -> str:
    digits = str(count)
    head = len(digits) % 3 or 3
    groups = [digits[:head], *(digits[at : at + 3] for at in range(head, len(digits), 3))]
    many = {"query": "queries"}.get(noun, f"{noun}s")
    return f"{','.join(groups)} {noun if count == 1 else many}"


def _ticks(limit: float, root: bool) -> list[Any]:
    if not root:
        return [[0.0, figures(-limit, 3)], [0.5, "0"], [1.0, figures(limit, 3)]]
    count = 3 if limit == 1 else 2
    parts = (0.0, 0.1, 0.25, 0.5, 1.0)
    return [[math.sqrt(part), figures(part * limit, count)] for part in parts]


# -- labels --------------------------------------------------------------------------------------


LABELS = {
    # token: (as a label, in a running text), worked by hand
    "The": ("The", "The"),
    " cat": ("·cat", " cat"),
    "  ": ("··", "  "),
    "": ("∅", "∅"),
    "\n": ("⏎", "⏎\n"),
    " a b ": ("·a b·", " a b "),
    "x\n\ny": ("x⏎⏎y", "x⏎\n⏎\ny"),
    "\t\x00": ("⇥␀", "⇥␀"),
    "\u00a0": ("⍽", "⍽"),
    "\u202eevil": ("⟨202E⟩evil", "⟨202E⟩evil"),
    "\u0301": ("◌\u0301", "◌\u0301"),
    "\ufeff": ("⟨FEFF⟩", "⟨FEFF⟩"),
    "🙂🙂": ("🙂🙂", "🙂🙂"),
    "antidisestablishmentarianism": ("antidisestablishmentarianism",) * 2,
    " ממשלה ארוכה מאוד": ("·ממשלה ארוכה מאוד", " ממשלה ארוכה מאוד"),
}


def cut(text: str, room: int) -> str:
    """A label in room for so many characters; … stands for what is left out."""
    return text if len(text) <= room else text[: room - 1] + "…"


def labels() -> dict[str, Any]:
    assert all(unicodedata.is_normalized("NFC", token) for token in LABELS)
    return {
        "labels": [[token, label, text] for token, (label, text) in LABELS.items()],
        "cut": [
            [label, room, cut(label, room)] for label, _ in LABELS.values() for room in (4, 8, 16)
        ],
    }


# -- layout --------------------------------------------------------------------------------------


def arrangement(layers: int, heads: int, width: int) -> tuple[int, Fraction]:
    """Blocks of layers side by side, with the largest tiles for which all fit; the fewest blocks of those.

    A block is as wide as its heads and a gutter of 24; 620 is as tall as all may be, 64 as large as a tile, 12 as small.
    """
    sizes = {}
    for blocks in range(1, layers + 1):
        rows = next(rows for rows in range(1, layers + 1) if rows * blocks >= layers)
        sizes[blocks] = min(
            (Fraction(width, blocks) - 24) / heads, Fraction(620, rows), Fraction(64)
        )
    largest = max(sizes.values())
    if largest <= 0:
        return 1, Fraction(12)
    return next(b for b, size in sizes.items() if size == largest), max(largest, Fraction(12))


def in_a_row(tiles: int, widest: int) -> int:
    """The fewest tiles in a row that take no more rows than the most in a row would."""
    rows = next(rows for rows in range(1, tiles + 1) if rows * widest >= tiles)
    return next(row for row in range(1, tiles + 1) if row * rows >= tiles)


def step(least: Fraction) -> int:
    """The first of 1, 2, 5, 10, 20, 50, … that is large enough."""
    rounds = (digit * 10**power for power in range(20) for digit in (1, 2, 5))
    return next(each for each in rounds if each >= least)


def layout() -> dict[str, Any]:
    models = [(1, 1), (2, 2), (6, 8), (12, 12), (24, 16), (30, 9), (32, 32), (48, 25), (80, 64)]
    arranged = []
    for (layers, heads), width in itertools.product(models, (320, 640, 868, 1200, 1871)):
        blocks, tile = arrangement(layers, heads, width)
        arranged.append([layers, heads, width, blocks, float(tile), math.floor(tile)])
    tiles = itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 25, 32, 64), (1, 4, 6, 7, 8))
    leasts = [Fraction(n, 16) for n in (1, 16, 17, 32, 33, 80, 81, 576, 1536, 49152, 10**9)]
    return {
        "overview": arranged,
        "across": [[count, widest, in_a_row(count, widest)] for count, widest in tiles],
        "steps": [[float(least), step(least)] for least in leasts],
    }


# -- pooling -------------------------------------------------------------------------------------


def strongest(run: list[float]) -> float:
    """The value furthest from zero, with its sign: the first NaN, else the first of the largest."""
    for value in run:
        if math.isnan(value):
            return value
    best = run[0]
    for value in run[1:]:
        if abs(value) > abs(best):
            best = value
    return best


def first_token(queries: int, keys: int) -> list[list[int]]:
    """Cells [query, key] that are of the first token: it as a key; and as a query, where it sees only itself."""
    if keys == 1:
        return []
    return [
        [query, key]
        for query in range(queries)
        for key in range(keys)
        if key == 0 or (query == 0 and queries == keys)
    ]


def pooling() -> dict[str, Any]:
    draw = random.Random(2)
    rows = [[1.0, -3.0, 2.0, 3.0, 0.0], [math.nan, 1.0, math.inf, -math.inf, 2.0], [0.0, -0.0, 0.0]]
    rows += [[-1.0, 1.0, -1.0], [5.0], [math.inf, math.nan, math.nan, -7.0]]
    rows += [[single(draw.gauss(0, 1)) for _ in range(length)] for length in (7, 16, 33)]
    cases = []
    for row, size in itertools.product(rows, (1, 2, 3, 5, 8)):
        runs = [row[at : at + size] for at in range(0, len(row), size)]
        cases.append([list(map(written, row)), size, [written(strongest(run)) for run in runs]])
    sizes = [(1, 1), (3, 3), (2, 3), (1, 4), (3, 1)]
    return {
        "runs": cases,
        "first_token": [[*size, first_token(*size)] for size in sizes],
    }


FILES = {
    "colours": colours,
    "numbers": numbers,
    "labels": labels,
    "layout": layout,
    "pooling": pooling,
}


def told(name: str) -> str:
    """A file's text: a case to a line."""
    parts = []
    for kind, cases in FILES[name]().items():
        escape = name == "labels"  # which hold characters that would turn the line around
        lines = ",\n".join(f"    {json.dumps(case, ensure_ascii=escape)}" for case in cases)
        parts.append(f"  {json.dumps(kind)}: [\n{lines}\n  ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    for file in FILES:
        (HERE / f"{file}.json").write_text(told(file), encoding="utf-8")
