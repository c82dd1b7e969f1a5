"""The quota: how much may be kept, and what a request leaves that exceeded it.

Save contexts stay until they are cleared, so what probes save adds up, over requests and over sessions. Each
rank keeps so much and no more. A probe that saves a tensor for which there is no room fails at that line;
what grew unseen, such as a list, is counted when the request is over. Such a request fails alone, and so does
one during which memory ended: *what it saved on this rank is taken back*, so that what was recorded before it
is still there, and the next request has room.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_backend.libraries.torch_internals import storage_of
from garcon_backend.process import memory
from garcon_backend.save_contexts.walking import inside, walk
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit

COUNTED_AT_ONCE = 1 << 20
"""Bytes of a tensor from which on it is counted when it is saved, and not only when the request is over."""

_DEPTH = 4
"""How deep containers and objects are looked into, to count what is in them."""

Kept = Iterable[tuple[str, Mapping[str, Any]]]
"""(session, what is saved by attribute), of all contexts and snapshots."""


class Quota:
    """The limit of one rank, and what its contexts held when the request began."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._without = 0  # what this process uses without what it keeps, at most
        self._former: dict[int, _Former] = {}

    def set_limit(self, limit: int) -> None:
        """Keep at most so many bytes, counted from now on."""
        self.limit, self._without = limit, _memory_used()

    def begin(self) -> None:
        """A request begins."""
        self._former.clear()

    def opened(self, values: dict[str, Any], parts: dict[str, Any]) -> None:
        """A probe of this request is about to write into a context."""
        if id(values) not in self._former:
            self._former[id(values)] = _Former(values, parts)

    @property
    def grown(self) -> bool:
        """Whether this request may have saved anything."""
        return bool(self._former)

    def take_back(self) -> None:
        """Let the contexts hold what they held when the request began."""
        for former in self._former.values():
            former.restore()
        self._former.clear()

    def room(self, kept: Kept) -> int:
        """Bytes that may be kept beside what is."""
        if self.limit is None:
            return 1 << 62
        return max(0, self.limit - sum(_bytes_by_session(kept).values()))

    def check(self, kept: Kept, more: int = 0) -> None:
        """Refuse to keep so much more.

        Raises:
            DoesNotFit: with the numbers, and who keeps the most.
        """
        if self.limit is None:
            return
        used = _memory_used()
        if self._without <= used <= self._without + self.limit - more:
            return  # nothing can be kept that no memory was used for: no need to count
        by_session = _bytes_by_session(kept)
        total = sum(by_session.values())
        self._without = min(
            self._without, used - total
        )  # what loading had left over was given back
        if total + more <= self.limit:
            return
        most = by_session.most_common(1)
        holder = f" (session {most[0][0]!r} {sized(most[0][1])})" if most else ""
        needed = f", and {sized(more)} more do not fit" if more else ""
        raise DoesNotFit(
            f"Recordings take {sized(total)}{holder} of the {sized(self.limit)} that this rank "
            f"keeps{needed}.",
            "rmodel.clear_recordings() makes room, and so does letting go of recordings().",
        )


class _Former:
    """What a context held, with the content of its lists and dictionaries."""

    def __init__(self, values: dict[str, Any], parts: dict[str, Any]) -> None:
        saved = list(walk(values.values()))
        dictionaries = (values, parts, *(held for held in saved if isinstance(held, dict)))
        self._dictionaries = [(held, dict(held)) for held in dictionaries]
        self._lists = [(held, list(held)) for held in saved if isinstance(held, list)]

    def restore(self) -> None:
        for held, content in self._dictionaries:
            held.clear()
            dict.update(held, content)
        for row, items in self._lists:
            list.__setitem__(row, slice(None), items)


def _bytes_by_session(kept: Kept) -> Counter[str]:
    """Bytes of tensors, arrays, texts and states of recorders; what several hold counts for the first."""
    seen: set[Any] = set()
    found: Counter[str] = Counter()
    for session, values in kept:
        everything = walk(values.values(), _counted_inside, _DEPTH, seen)
        found[session] += sum(_bytes(value, seen) for value in everything)
    return found


def _counted_inside(value: Any) -> Iterable[Any] | None:
    """What is in a container, a dataclass, a namespace or an object of the user's."""
    if (held := inside(value)) is not None:
        return held
    if isinstance(value, (Tensor, np.ndarray)):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    attributes = vars(value) if hasattr(value, "__dict__") else None
    return attributes.values() if isinstance(attributes, dict) else None


def _bytes(value: Any, seen: set[Any]) -> int:
    """Bytes of a leaf, the first time."""
    identity: Any
    if isinstance(value, Tensor) and value.layout is torch.strided:
        identity, size = (str(value.device), storage_of(value)), value.untyped_storage().nbytes()
    elif isinstance(value, np.ndarray):
        identity, size = id(value), value.nbytes
    elif isinstance(value, (str, bytes, bytearray)):
        identity, size = id(value), sys.getsizeof(value)
    else:
        return 0
    if identity in seen:
        return 0
    seen.add(identity)
    return size


def _memory_used() -> int:
    """Bytes of memory of its own that this process uses, on the host and on a device."""
    host = memory.resident()
    if not host:  # not told: then everything is counted every time
        return 1 << 62
    return host + (torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0)
