"""How activations are stored: in 16 bits to the last bit, in fewer than they had only where nothing becomes infinite.

A model's own 16-bit values are stored as they are. float32 goes into float16 after a look at its range: a value that would
become infinite is refused, with the value. 8 bits are taken only when asked for, each row with a scale of its own, and what
they lose is measured and told. NumPy has no bfloat16, so its bits travel as uint16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from garcon_jupyter.errors import BadData, BadRequest

NUMBERS: dict[str, tuple[str, np.dtype]] = {
    "float32": ("F32", np.dtype("<f4")),
    "float16": ("F16", np.dtype("<f2")),
    "bfloat16": ("BF16", np.dtype("<u2")),
    "int8": ("I8", np.dtype("i1")),
}
"""Each way to store: what safetensors calls it, and what holds its bits here."""

LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
"""The largest number of each."""


@dataclass(frozen=True)
class StoredValues:
    """Rows as they are stored.

    Attributes:
        values: [n, units], of the storage's dtype.
        scale: float32 [n] by which 8-bit numbers are multiplied; None elsewhere.
        lost: the largest loss of a row, as a part of its length (L2); 0.0 where every bit was kept.
    """

    values: np.ndarray
    scale: np.ndarray | None = None
    lost: float = 0.0


def chosen(wanted: str | None, given: str) -> str:
    """How values of a dtype are stored: as was asked, else in the model's own 16 bits, float32 as float16.

    Raises:
        BadRequest: it is no way to store them.
    """
    stored = wanted or ("float16" if given == "float32" else given)
    if stored not in NUMBERS:
        raise BadRequest(
            f"Activations of {given} cannot be stored as {stored!r}.",
            f"Use {', '.join(NUMBERS)}.",
        )
    return stored


def encoded(values: np.ndarray, given: str, stored: str, where: str = "the point") -> StoredValues:
    """Values as they are stored.

    Args:
        values: [n, units], bfloat16 as its bits in uint16.
        given: their dtype.
        stored: how to store them.
        where: what to call them in errors.

    Raises:
        BadData: a finite value would become infinite.
    """
    if given == stored:
        return StoredValues(np.ascontiguousarray(values, NUMBERS[stored][1]))
    exact = as_float32(values, given)
    if stored == "float32":
        return StoredValues(exact)
    if stored == "int8":
        return _in_8_bits(exact, where)
    with np.errstate(over="ignore"):
        rounded = exact.astype("<f2") if stored == "float16" else to_bfloat16(exact)
    back = as_float32(rounded, stored)
    beyond = np.isinf(back) & np.isfinite(exact)
    if beyond.any():
        value = float(exact[beyond][0])
        raise BadData(
            f"{value:g} at {where} is beyond {stored}, whose largest number is {LARGEST[stored]:g}.",
            'Store it as dtype="float32", or "bfloat16", which has its range.',
        )
    return StoredValues(rounded, None, _lost(exact, back))


def as_float32(values: np.ndarray, dtype: str, scale: np.ndarray | None = None) -> np.ndarray:
    """Stored values as float32, which holds all of them exactly.

    Args:
        scale: of the rows, where they are stored in 8 bits.
    """
    if dtype == "bfloat16":
        return (values.astype("<u4") << np.uint32(16)).view("<f4")
    plain = values.astype("<f4")
    return plain if scale is None else plain * scale.reshape(len(plain), *[1] * (plain.ndim - 1))


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even, as bits in uint16; NaN stays NaN."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype("<u2")
    quiet = ((bits >> 16) | np.uint32(0x40)).astype("<u2")
    return np.where(np.isnan(values), quiet, rounded)


def _in_8_bits(exact: np.ndarray, where: str) -> StoredValues:
    if not np.isfinite(exact).all():
        raise BadData(
            f"There are values at {where} that are not finite, which 8 bits cannot hold.",
            'Store it as dtype="float16" or "float32".',
        )
    scale = (np.abs(exact).max(1, initial=0) / 127).astype("<f4")
    safe = np.where(scale == 0, np.float32(1), scale)
    rows = np.rint(exact / safe[:, None]).clip(-127, 127).astype("i1")
    return StoredValues(rows, scale, _lost(exact, as_float32(rows, "int8", scale)))


def _lost(exact: np.ndarray, back: np.ndarray) -> float:
    finite = np.isfinite(exact)
    was = np.where(finite, exact, 0).astype("f8")
    off = np.where(finite, back, 0) - was
    length = np.sqrt((was * was).sum(1))
    lost = np.sqrt((off * off).sum(1)) / np.where(length == 0, 1, length)
    return float(lost.max(initial=0.0))
