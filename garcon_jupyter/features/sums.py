"""Sums of powers that are exact, and so the same in whatever order they are added up.

A number is cut into digits of 32 bits, and digits of the same weight are added as integers. Three digits hold all of a float64, so nothing is
rounded but the power itself, which is the number's own. From the sums follow mean, variance, skewness and kurtosis.
"""

from __future__ import annotations

import numpy as np

POWERS = (1, 2, 3, 4)

_REACH = 40
"""Values between 2**-40 and 2**40 are added exactly; smaller ones lose their end, of larger ones there are no moments."""

_LOW = {power: (-_REACH * power) // 32 - 2 for power in POWERS}
_HIGH = {power: (_REACH * power) // 32 for power in POWERS}
_START = dict(
    zip(POWERS, np.cumsum([0, *(_HIGH[p] - _LOW[p] + 1 for p in POWERS)]).tolist(), strict=False)
)

BEYOND = _START[4] + _HIGH[4] - _LOW[4] + 1
"""The digit that counts values which are too large."""

FIRED = BEYOND + 1
"""The digit that counts values above zero."""

DIGITS = FIRED + 1
"""Numbers that are kept of each unit."""


def add(table: np.ndarray, unit: np.ndarray, value: np.ndarray) -> None:
    """Add the powers of values to the sums of their units.

    Args:
        table: int64 [units, DIGITS].
        unit: int64 [n].
        value: [n], in any order.
    """
    exact = value.astype(np.float64)
    power = exact.copy()
    for number in POWERS:
        add_terms(table, unit, power, number)
        power *= exact


def add_terms(table: np.ndarray, unit: np.ndarray, term: np.ndarray, power: int) -> None:
    """Add terms of the sum of a power, float64 [n]."""
    flat = table.reshape(-1)
    size = np.abs(term)
    beyond = ~(size < 2.0 ** (_REACH * power))
    if beyond.any():
        np.add.at(flat, unit[beyond] * DIGITS + BEYOND, 1)
        unit, term, size = unit[~beyond], term[~beyond], size[~beyond]
    low = _LOW[power]
    digit = (np.frexp(size)[1].astype(np.int64) - 1) >> 5
    np.clip(digit, low + 2, _HIGH[power], out=digit)
    sign = np.where(term < 0, -1, 1)
    at = unit * DIGITS + _START[power] + digit - low
    rest = size
    for _ in range(3):
        weight = np.ldexp(1.0, digit * 32)
        part = np.floor(rest / weight)
        rest = rest - part * weight
        np.add.at(flat, at, part.astype(np.int64) * sign)
        digit = digit - 1
        at = at - 1


def moments(table: np.ndarray, tokens: int) -> np.ndarray:
    """Mean, variance, skewness and kurtosis of units of which so many values were seen, zeros included; float64 [units, 4].

    Skewness and kurtosis are NaN where nothing varies; all four where a value was too large to be added.
    """
    n = np.longdouble(tokens)
    raw = []
    for power in POWERS:
        whole = np.zeros(len(table), np.longdouble)
        for digit in range(_HIGH[power], _LOW[power] - 1, -1):
            sums = table[:, _START[power] + digit - _LOW[power]].astype(np.longdouble)
            whole += sums * np.ldexp(np.longdouble(1), digit * 32)
        raw.append(whole / n)
    mean, second, third, fourth = raw
    variance = np.maximum(second - mean * mean, 0)
    m3 = third - 3 * mean * second + 2 * mean**3
    m4 = fourth - 4 * mean * third + 6 * mean * mean * second - 3 * mean**4
    varies = variance > np.spacing(np.abs(second).astype(np.float64)) * 4
    variance = np.where(varies, variance, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(varies, m3 / variance**1.5, np.nan)
        kurtosis = np.where(varies, m4 / variance**2, np.nan)
    found = np.stack([mean, variance, skewness, kurtosis], 1).astype(np.float64)
    found[table[:, BEYOND] > 0] = np.nan
    return found
