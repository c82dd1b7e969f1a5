"""Buffers on their way over the socket for data, chunk by chunk.

A *transfer* is the buffers of one message, laid one after the other. The side that has them (:class:`Outgoing`)
sends nothing unasked. The side that wants them (:class:`Incoming`) asks for chunks, a few more than are on their
way, and each is received straight into its place. So one that is slow, or gone, holds up nobody and takes no memory
elsewhere; and one whose connection broke asks for what it lacks.

Each message is a *header*, sealed with the key of the server, and perhaps a chunk. The seal says that somebody
with the key sent it; nothing else is looked at. Chunks are raw numbers, never a pickle (those travel in Jupyter's
messages, under their signature and digest). Over a network CURVE vouches for every byte of them. On one host
nobody else can reach into a connection, so no digest is computed of what may be gigabytes.
"""

from __future__ import annotations

import bisect
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.wire.codec import Buffer

CHUNK = 1 << 20
"""Bytes of a chunk; the last one of a transfer has what is left."""

WINDOW = 16
"""Chunks that are on their way at most."""

LARGEST_MESSAGE = CHUNK + (64 << 10)
"""Bytes of a message at most; whoever says more is cut off before it is read."""

LARGEST_TRANSFER = 1 << 50
"""Bytes of a transfer at most: what is more is a mistake."""

ALIGN = 64
"""Bytes of which the place of a buffer is a multiple."""

_SEAL = hashlib.sha256().digest_size


def sealed(key: bytes, header: dict[str, Any]) -> bytes:
    """The header of a message, with the seal before it."""
    text = json.dumps(header).encode()
    return hmac.digest(key, text, "sha256") + text


def opened(key: bytes, frame: bytes) -> dict[str, Any] | None:
    """The header of a message; None where it was not sealed with this key."""
    seal, text = frame[:_SEAL], frame[_SEAL:]
    if not hmac.compare_digest(seal, hmac.digest(key, text, "sha256")):
        return None
    header = json.loads(text)
    return header if isinstance(header, dict) else None


def laid_out(sizes: Sequence[int]) -> tuple[list[list[int]], int]:
    """Where each of several buffers lies when they are put one after the other, and where the next would begin."""
    spans, offset = [], 0
    for size in sizes:
        spans.append([offset, size])
        offset += -(-size // ALIGN) * ALIGN
    return spans, offset


def chunks_of(size: int) -> int:
    """How many chunks so many bytes are."""
    return -(-size // CHUNK)


class Outgoing:
    """A transfer on the side that has it. Nothing is copied but where buffers meet within a chunk.

    Attributes:
        spans: place and size of each buffer.
        size: bytes of all.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = [memoryview(buffer).cast("B") for buffer in buffers]
        self.spans, _ = laid_out([buffer.nbytes for buffer in self._buffers])
        self.size = sum(self.spans[-1]) if self.spans else 0
        self._starts = [start for start, _ in self.spans]

    def __len__(self) -> int:
        return chunks_of(self.size)

    def chunk(self, number: int) -> Buffer:
        """One of its chunks."""
        start = number * CHUNK
        end = min(start + CHUNK, self.size)
        first = bisect.bisect_right(self._starts, start) - 1
        begin, size = self.spans[first]
        if end <= begin + size:
            return self._buffers[first][start - begin : end - begin]
        joined = memoryview(bytearray(end - start))
        for begin, buffer in zip(self._starts[first:], self._buffers[first:], strict=True):
            if begin >= end:
                break
            part = buffer[max(0, start - begin) : end - begin]
            place = max(0, begin - start)
            joined[place : place + part.nbytes] = part
        return joined


class Incoming:
    """A transfer on the side that wants it: its memory, and what of it is there.

    Args:
        into: memory to receive into, of that size; else it is made.

    Attributes:
        memory: the bytes; right where they have come.

    Raises:
        DoesNotFit: there is no such memory.
    """

    def __init__(self, size: int, into: memoryview | None = None) -> None:
        try:
            # Which clears nothing.
            self.memory = np.empty(size, np.uint8).data if into is None else into
        except MemoryError:
            raise DoesNotFit(
                f"There is no memory for {sized(size)} that are to be received.",
                "Take a slice, or less at once.",
            ) from None
        self._lacking = set(range(chunks_of(size)))
        self._asked: set[int] = set()
        self._next = 0

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return not self._lacking

    @property
    def lacking(self) -> int:
        """About how many bytes are not there."""
        return min(self.memory.nbytes, len(self._lacking) * CHUNK)

    def wanted(self) -> tuple[int, int] | None:
        """The first and the number of chunks to ask for now; None while enough are on their way."""
        if len(self._asked) > WINDOW // 2:
            return None
        chunks = chunks_of(self.memory.nbytes)
        while self._next < chunks and self._next not in self._lacking:
            self._next += 1
        first = self._next
        while self._next in self._lacking and len(self._asked) < WINDOW:
            self._asked.add(self._next)
            self._next += 1
        return (first, self._next - first) if self._next > first else None

    def place(self, number: int) -> memoryview | None:
        """Where a chunk belongs; None where it is there already, or is none."""
        start = number * CHUNK
        return self.memory[start : start + CHUNK] if number in self._lacking else None

    def arrived(self, number: int) -> None:
        """A chunk is in its place."""
        self._lacking.discard(number)
        self._asked.discard(number)

    def ask_again(self) -> None:
        """What was asked for and has not come will not come: the connection broke."""
        self._asked.clear()
        self._next = 0
