"""Numbers in words, as the browser writes them (common.js): a still picture says what the live one says.

Python's formats would do, but for where the two differ: a half is rounded away from zero here, as JavaScript
does, and a power of ten is written only where a plain number would be long. tests/widgets/contract holds
both sides against the same words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Context, Decimal

MINUS = "\N{MINUS SIGN}"


def number(value: float, figures: int = 3) -> str:
    """A number of so many figures, very large and very small ones by powers of ten.

    Three are what colour can tell: ``number(1234.5)`` is ``"1230"``, ``number(-0.00001)`` is ``"−1e−5"``.
    """
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    exact = Context(prec=figures, rounding=ROUND_HALF_UP).create_decimal_from_float(value)
    if not exact:
        return "0"
    plain = Decimal("1e-4") <= abs(exact) < Decimal(10**6)
    return f"{exact.normalize():{'f' if plain else 'e'}}".replace("-", MINUS)


def short(value: float) -> str:
    """What a cell has room for: two places behind the point, or none where it is large; nothing for NaN."""
    value = float(value)
    if math.isnan(value):
        return ""
    if abs(value) >= 1e6:
        return number(value)
    said = _rounded(value, "1" if abs(value) >= 100 else "0.01")
    return said.removeprefix("-") if said == "-0.00" else said.replace("-", MINUS)


def percent(probability: float) -> str:
    """``percent(0.25)`` is ``"25.0%"``; what is too small to be told from nothing is ``"<0.1%"``."""
    if not math.isfinite(probability):
        return "–"
    return "<0.1%" if 0 < probability < 0.001 else f"{_rounded(probability * 100, '0.1')}%"


def plural(count: int, noun: str) -> str:
    """``plural(1536, "neuron")`` is ``"1,536 neurons"``; of "query" it makes "queries"."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeou" else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def ticks(limit: float, root: bool = False) -> list[tuple[float, str]]:
    """Places on the scale of colour, from 0 to 1, with their numbers.

    Args:
        limit: the magnitude of full colour.
        root: whether colour grows with the square root, from 0; else it goes from -limit to limit.
    """
    if not root:
        return [(0.0, number(-limit)), (0.5, "0"), (1.0, number(limit))]
    figures = 3 if limit == 1 else 2  # ticks by the root are close to each other
    return [(part**0.5, number(part * limit, figures)) for part in (0.0, 0.1, 0.25, 0.5, 1.0)]


def round_step(least: float) -> int:
    """The least of 1, 2, 5, 10, 20, … that is not below `least`: how far apart numbers on an axis stand."""
    steps: Iterator[int] = (digit * 10**power for power in range(19) for digit in (1, 2, 5))
    return next(step for step in steps if step >= least)


def across(tiles: int, widest: int) -> int:
    """Tiles side by side, at most `widest`, for rows of equal length."""
    return math.ceil(tiles / math.ceil(tiles / widest)) if tiles else 1


def _rounded(value: float, unit: str) -> str:
    return str(Decimal(value).quantize(Decimal(unit), ROUND_HALF_UP))
