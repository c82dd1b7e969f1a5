"""What a server may use, and for how long it stays: the part of a launch that is no matter of the model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypedDict, cast

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers.hosts import Several

HOUR = 3600.0


class LimitWords(TypedDict, total=False):
    """Keywords of :func:`garcon_jupyter.launch` that limit what a server uses.

    memory: bytes, or "8GiB", that requests may use on a host beside the model; by default nine tenths of
        what is free there when the model is loaded. A request that needs more fails, and the server goes on.
    keep: bytes of recordings that the ranks of a host keep; by default half of what is free. A request that
        saves more fails, and what it saved is taken back.
    forget: seconds, or "30m", "1h", "never", after which a session without a name, whose client is gone, is
        forgotten with its recordings; by default an hour.
    """

    memory: int | str | None
    keep: int | str | None
    forget: float | str | None


class LaunchWords(Several, LimitWords, total=False):
    """All keywords of :func:`garcon_jupyter.launch` that most launches leave out."""


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Attributes:
        idle_timeout: seconds without a request after which it ends; 0 for never.
        memory: bytes that requests may use on a host; None for most of what is free.
        keep: bytes of recordings that are kept on a host; None for half of what is free.
        forget: seconds after which a session without a name and client is forgotten; 0 for never.
    """

    idle_timeout: float = HOUR
    memory: int | None = None
    keep: int | None = None
    forget: float = HOUR


def taken(idle_timeout: float | str, words: LaunchWords) -> tuple[Limits, Several]:
    """The limits that a launch asks for, and the rest of its words.

    Raises:
        BadRequest: a word is no duration, or no number of bytes.
    """
    forget = words.get("forget")
    limits = Limits(
        seconds(idle_timeout),
        _bytes(words.get("memory")),
        _bytes(words.get("keep")),
        HOUR if forget is None else seconds(forget),
    )
    rest = {word: value for word, value in words.items() if word not in LimitWords.__annotations__}
    return limits, cast(Several, rest)


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
