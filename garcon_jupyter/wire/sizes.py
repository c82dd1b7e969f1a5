"""Numbers of bytes, as errors, tables and pictures say them: in KiB, MiB, GiB, as limits are given."""

from __future__ import annotations

import math


def sized(count: float) -> str:
    """Bytes as people read them: "1.5 GiB"."""
    if count < 1024:
        return f"{count:.0f} bytes"
    power = min(4, int(math.log2(count)) // 10)
    return f"{count / (1 << 10 * power):.1f} {'KMGT'[power - 1]}iB"
