"""Where the bytes of a message travel.

Small buffers go inside the Jupyter message. On one host, large ones go through one file in shared
memory: written once by the sender, mapped by the receiver (no copy: the tensor *is* the mapping) and
unlinked by it at once, so that the memory lives exactly as long as the tensor. Files are 0600 in a
directory of the server that is 0700 and goes with it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import GarconError
from garcon_jupyter.wire import codec

INLINE_LIMIT = 64 * 1024
"""Bytes of buffers up to which a message carries them itself."""

_ALIGN = 64


class Corrupted(GarconError):
    """A message whose buffers are not those that were signed."""


def pack(
    value: Any, shared: Path | None = None, key: str = "value"
) -> tuple[dict[str, Any], list[codec.Buffer]]:
    """A value as the content and the buffers of a Jupyter message.

    Args:
        value: anything that pickles.
        shared: directory in shared memory which the receiver can read; None to send all inline.
        key: name under which the description goes into the content.
    """
    payload, buffers = codec.dumps(value)
    total = sum(buffer.nbytes for buffer in buffers)
    description: dict[str, Any] = {"digests": [codec.digest(payload)]}
    if shared is not None and total > INLINE_LIMIT:
        description["file"], description["spans"] = _share(buffers, shared)
        return {key: description}, [payload]
    description["digests"] += [codec.digest(buffer) for buffer in buffers]
    return {key: description}, [payload, *buffers]


def unpack(content: dict[str, Any], buffers: Sequence[codec.Buffer], key: str = "value") -> Any:
    """The value of :func:`pack`.

    Raises:
        Corrupted: a buffer is not the one that was signed. Nothing was unpickled.
    """
    description = content[key]
    flat = [memoryview(buffer).cast("B") for buffer in buffers]
    digests = description["digests"]
    if len(flat) != len(digests) or any(
        codec.digest(buffer) != expected for buffer, expected in zip(flat, digests, strict=True)
    ):
        raise Corrupted(
            "A message arrived with buffers other than those that were signed.",
            "It was not read; send it again.",
        )
    payload, *rest = flat
    if "file" in description:
        return codec.loads(payload, _map(Path(description["file"]), description["spans"]))
    return codec.loads(payload, rest)


def _share(buffers: Sequence[memoryview], directory: Path) -> tuple[str, list[list[int]]]:
    spans, offset = [], 0
    for buffer in buffers:
        spans.append([offset, buffer.nbytes])
        offset += -(-buffer.nbytes // _ALIGN) * _ALIGN
    descriptor, name = tempfile.mkstemp(dir=directory, suffix=".tensors")
    try:
        # Reserving first turns a full memory into an error here, not a signal at the first touch.
        os.posix_fallocate(descriptor, 0, max(offset, 1))
        for buffer, (start, _) in zip(buffers, spans, strict=True):
            _write_all(descriptor, buffer, start)
    except BaseException:
        Path(name).unlink()
        raise
    finally:
        os.close(descriptor)
    return name, spans


def _write_all(descriptor: int, buffer: memoryview, start: int) -> None:
    done = 0
    while done < buffer.nbytes:
        done += os.pwrite(descriptor, buffer[done:], start + done)


def _map(path: Path, spans: Sequence[Sequence[int]]) -> list[memoryview]:
    with path.open("rb") as file:
        path.unlink()
        # A private mapping: writable for its owner, and a write never reaches anybody else.
        mapping = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return [mapping[start : start + size] for start, size in spans]


def shared_memory_root() -> Path:
    """Where files live in memory: ``/dev/shm`` on Linux, the temporary directory elsewhere."""
    root = Path("/dev/shm")
    return root if root.is_dir() and os.access(root, os.W_OK) else Path(tempfile.gettempdir())
