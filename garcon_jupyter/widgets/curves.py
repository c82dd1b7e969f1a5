"""Curves of a training beside one another, each with a scale of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from garcon_jupyter.errors import WrongValue
from garcon_jupyter.widgets import numbers, svg

_ACROSS, _HEIGHT, _GAP = 4, 120, 26


@dataclass(frozen=True)
class NamedCurve:
    """One curve.

    Attributes:
        name: what its values are.
        x: where they are, rising.
        y: what they are; what is not finite is left out.
        percent: whether they are parts of a whole.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    percent: bool = False


def curves(given: Sequence[NamedCurve], title: str, summary: str, along: str = "tokens") -> str:
    """SVG of curves, four in a row; each says its last value.

    Args:
        given: the curves.
        title, summary: heading.
        along: what x counts.

    Raises:
        WrongValue: a curve has not as many x as y.
    """
    marks = [
        svg.text(16, 26, svg.shorten(title, 100), 15, bold=True),
        svg.text(16, 44, svg.shorten(summary, 130), 11.5, colour=svg.SOFT),
    ]
    width = (svg.WIDTH - 32 - _GAP * (_ACROSS - 1)) / _ACROSS
    for number, curve in enumerate(given):
        left = 16 + number % _ACROSS * (width + _GAP)
        top = 78 + number // _ACROSS * (_HEIGHT + 56)
        marks += _panel(curve, left, top, width, along)
    rows = math.ceil(len(given) / _ACROSS)
    return svg.document(marks, 78 + rows * (_HEIGHT + 56) - 16)


def _panel(curve: NamedCurve, left: float, top: float, width: float, along: str) -> list[str]:
    x, y = _finite(curve)
    said = _said(float(y[-1]), curve.percent) if len(y) else "not yet"
    marks = [
        svg.text(left, top - 8, curve.name, 11.5, bold=True),
        svg.text(left + width, top - 8, said, 11.5, "end"),
        svg.box(left, top, width, _HEIGHT),
    ]
    if not len(y):
        return marks
    low, high = min(0.0, float(y.min())), float(y.max())
    high = high if high > low else low + 1
    # The first steps are far off, and would leave the rest flat.
    tail = y[len(y) // 20 :]
    high = min(high, max(1.15 * float(tail.max()), low + 1e-12))
    last = max(float(x[-1]), 1.0)
    points = [
        f"{left + width * at / last:.1f} {top + _HEIGHT * (1 - (min(value, high) - low) / (high - low)):.1f}"
        for at, value in zip(x.tolist(), y.tolist(), strict=True)
    ]
    if len(points) == 1:
        points.append(points[0])
    path = "M" + "L".join(points)
    marks += [
        f'<path class="curve" d="{path}" fill="none" stroke="{svg.INK}" stroke-width="1.5"/>',
        svg.text(left + 4, top + 13, _said(high, curve.percent), 10, colour=svg.SOFT),
        svg.text(left + 4, top + _HEIGHT - 5, _said(low, curve.percent), 10, colour=svg.SOFT),
        svg.text(left + width, top + _HEIGHT + 15, f"{last:,.0f} {along}", 10, "end", svg.SOFT),
    ]
    return marks


def _finite(curve: NamedCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise WrongValue(
            f"The curve {curve.name} has x {list(x.shape)} and y {list(y.shape)}.",
            "Give as many of both, in one dimension.",
        )
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def _said(value: float, percent: bool) -> str:
    return numbers.percent(value) if percent else numbers.number(value)
