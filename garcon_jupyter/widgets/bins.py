"""Counting values into bins, without drawing them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.widgets.arrays import Floats

BINS = 81


def histogram(finite: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts and edges of equal bins from the smallest to the largest value."""
    if not finite.size:
        return np.zeros(0, dtype=np.int64), np.zeros(1)
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        margin = abs(low) * 1e-3 or 0.5
        return np.array([finite.size]), np.array([low - margin, high + margin])
    return np.histogram(finite.astype(np.float64), bins=BINS, range=(low, high))
