"""Amounts in words, as errors, tables and pictures say them.

Bytes are in KiB, MiB, GiB, as limits are given; a share of a sample is as precise as the sample is large.
"""

from __future__ import annotations

import math


def sized(count: float) -> str:
    """Bytes as people read them: "1.5 GiB"."""
    if count < 1024:
        return f"{count:.0f} bytes"
    power = min(4, int(math.log2(count)) // 10)
    return f"{count / (1 << 10 * power):.1f} {'KMGT'[power - 1]}iB"


def share(fraction: float, of: int | None = None) -> str:
    """A fraction in per cent.

    One of 150 more or less is 0.7 %, so two places behind the point would say what nobody has measured.

    Args:
        fraction: 0 to 1.
        of: how many were counted; None where nobody said, which gives three digits.
    """
    if of is None:
        return f"{float(f'{fraction * 100:.3g}'):g}%"
    places = min(3, max(0, math.ceil(math.log10(max(of, 1))) - 2))
    return f"{fraction:.{places}%}"


def of_tokens(fraction: float, tokens: int | None = None) -> str:
    """How often a unit fires: "fires on 1.2% of 4,096 tokens"."""
    counted = "" if tokens is None else f"{tokens:,} "
    return f"fires on {share(fraction, tokens)} of {counted}tokens"
