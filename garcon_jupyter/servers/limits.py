"""What a server may use, and for how long it stays: the part of a launch that is no matter of the model."""

from __future__ import annotations

import math
import re

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers.options import OPTIONS, LimitOptions
from garcon_jupyter.wire.launch_spec import HOUR, Limits


def taken(options: LimitOptions) -> Limits:
    """The limits that a launch asks for.

    Raises:
        BadRequest: an option is no duration, or no number of bytes or of threads.
    """
    forget = options.get("forget")
    return Limits(
        seconds(options.get("idle_timeout", OPTIONS["idle_timeout"].default)),
        _bytes(options.get("memory")),
        _bytes(options.get("keep")),
        HOUR if forget is None else seconds(forget),
        _count(options.get("threads")),
    )


def seconds(duration: float | str) -> float:
    """Seconds of ``3600``, ``"1h"``, ``"30m"``, ``"45s"``; 0 for ``"never"``.

    Raises:
        BadRequest: it is no duration.
    """
    countable = isinstance(duration, int | float) and not isinstance(duration, bool)
    if countable and 0 <= float(duration) < math.inf:
        return float(duration)
    if duration == "never":
        return 0.0
    written = duration.strip() if isinstance(duration, str) else ""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", written)
    if not found:
        raise BadRequest(f"{duration!r} is no duration.", 'Write seconds, or "30m", "1h", "never".')
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _bytes(count: int | str | None) -> int | None:
    """Bytes of ``1 << 30``, ``"512MiB"``, ``"8GiB"``.

    Raises:
        BadRequest: it is no number of bytes.
    """
    if count is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|[KMGT])(?:i?B)?", str(count).strip())
    if not found or not float(found[1]):
        raise BadRequest(f"{count!r} is no number of bytes.", 'Write it like "512MiB" or "8GiB".')
    return int(float(found[1]) * (1 << 10 * " KMGT".index(found[2] or " ")))


def _count(threads: int | None) -> int | None:
    if threads is None or (isinstance(threads, int) and threads > 0 and threads is not True):
        return threads
    raise BadRequest(f"threads={threads!r} is no number of threads.", "Give at least 1.")
