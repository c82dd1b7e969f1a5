"""The answers of other ranks on their way to rank 0, and on to the client.

On one host a rank writes what is large into the server's directory in shared memory, as rank 0 does, and says where
(:func:`frames`). Rank 0 maps these files, to cut values or to put parts together; and a value that it leaves as it is
goes on as the very file that its rank wrote, for the client to map (:class:`AnswerFiles`). So a value is written once, by the
rank that made it. What did not go on is removed when the request is over. A rank of another host sends all it has.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.wire import codec, shared_files
from garcon_jupyter.wire.shared_files import BufferPlace
from garcon_jupyter.wire.transport import INLINE_LIMIT

_WORTH = 0.5
"""What part of a file must go on; the client would hold all of it for less."""


def frames(value: Any, shared: Path | None) -> list[Any]:
    """A value as the frames of a message to rank 0.

    Args:
        shared: directory in shared memory that rank 0 can read; None where it cannot.

    Raises:
        CannotTravel: something inside cannot be pickled.
    """
    payload, buffers = codec.dumps(value)
    if shared is not None and sum(buffer.nbytes for buffer in buffers) > INLINE_LIMIT:
        with contextlib.suppress(DoesNotFit):  # then it goes as it does between hosts
            return [json.dumps(shared_files.write(buffers, shared)).encode(), payload]
    return [b"", payload, *buffers]


class AnswerFiles:
    """The files of one request's answers, on rank 0."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], BufferPlace] = {}
        self._sizes: dict[str, int] = {}

    def opened(self, frames: Sequence[Any]) -> Any:
        """The value of :func:`frames`."""
        where, payload, *buffers = frames
        if where:
            buffers = self._look(*json.loads(where))
        return codec.loads(payload, buffers)

    def _look(self, file: str, spans: Sequence[Sequence[int]]) -> list[memoryview]:
        whole = shared_files.look_into(Path(file))
        self._sizes[file] = whole.nbytes
        buffers = [whole[start : start + size] for start, size in spans]
        for buffer, (start, _) in zip(buffers, spans, strict=True):
            if buffer.nbytes:
                self._places[_memory(buffer)] = BufferPlace(file, start)
        return buffers

    def find(self, buffers: Sequence[memoryview]) -> list[BufferPlace | None]:
        """Where buffers of the answer lie already, each in a place of its own; None for what is to be written."""
        if not self._places:
            return [None] * len(buffers)
        free = dict(self._places)
        found = [free.pop(_memory(buffer), None) for buffer in buffers]
        used: Counter[str] = Counter()
        for place, buffer in zip(found, buffers, strict=True):
            if place:
                used[place.file] += buffer.nbytes
        return [
            place if place and used[place.file] > _WORTH * self._sizes[place.file] else None
            for place in found
        ]

    def hand_on(self, files: Sequence[str]) -> None:
        """These files are the client's now."""
        for file in files:
            self._sizes.pop(file, None)

    def end(self) -> None:
        """Remove what was not handed on: the request is over."""
        for file in self._sizes:
            Path(file).unlink(missing_ok=True)
        self._places.clear()
        self._sizes.clear()


def _memory(buffer: memoryview) -> tuple[int, int]:
    """Address and size."""
    return np.frombuffer(buffer, np.uint8).ctypes.data if buffer.nbytes else 0, buffer.nbytes
