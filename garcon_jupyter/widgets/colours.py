"""One palette for everything: blue above zero, orange below, nothing at zero.

Colour is a *code*, a byte that indexes a table of 256 colours: 128 is zero, 255 and 1 are plus and
minus the limit, 0 is NaN. Blue and orange stay apart for all common forms of colour blindness, and
sign is CircuitsVis's (blue is positive). Strength is opacity: zero is transparent, so the same
picture is right on a light and on a dark page.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.widgets.arrays import Floats

POSITIVE = (32, 112, 220)
NEGATIVE = (230, 104, 18)
NOT_A_NUMBER = (128, 128, 128, 120)

ZERO = 128
BEHIND_TEXT = 0.62
"""Full opacity behind text, which stays readable on a light and on a dark page."""

FULL = 127
"""Codes between zero and full colour."""


def palette() -> NDArray[np.uint8]:
    """The colour of every code: [256, 4] bytes, red, green, blue, opacity."""
    table = np.zeros((256, 4), dtype=np.uint8)
    steps = np.arange(256) - ZERO
    table[:, :3] = np.where(steps[:, None] > 0, POSITIVE, NEGATIVE)
    table[:, 3] = np.round(255 * (np.minimum(np.abs(steps), FULL) / FULL) ** 0.9)
    table[0] = NOT_A_NUMBER
    return table


def codes(values: Floats, limit: float, root: bool = False) -> NDArray[np.uint8]:
    """Values to colour codes of the same shape.

    Args:
        values: any shape; infinities take full colour.
        limit: the magnitude of full colour.
        root: colour grows with the square root of magnitude, for attention weights, where 0.05
            matters and would be invisible beside 1.
    """
    with np.errstate(over="ignore"):
        strength = np.clip(values / np.float32(limit), -1.0, 1.0)
    if root:
        strength = np.sign(strength) * np.sqrt(np.abs(strength))
    steps = np.where(np.isnan(strength), -ZERO, np.round(strength * FULL))
    return (steps + ZERO).astype(np.uint8)


def css(code: int, share: float = 1.0) -> str:
    """The colour of a code as CSS, such as ``rgba(24,100,200,0.5)``, with a share of its opacity."""
    red, green, blue, opacity = (int(part) for part in palette()[code])
    return f"rgba({red},{green},{blue},{opacity / 255 * share:.3f})"


def behind_text(code: int) -> str:
    """The colour behind a token of the text, as CSS. What is no number is fainter than in a grid of cells:
    it is still to be read."""
    if code == 0:
        return "rgba({},{},{},0.180)".format(*NOT_A_NUMBER[:3])
    return css(code, BEHIND_TEXT)
