"""Where the bytes of a message travel.

Small buffers go inside the Jupyter message. On one host, large ones go through one file in shared
memory: written once by the sender, mapped by the receiver (no copy: the tensor *is* the mapping) and
unlinked by it at once, so that the memory lives exactly as long as the tensor. Files are 0600 in a
directory of the server that is 0700 and goes with it. Between hosts, large ones go over a socket of their own
(:mod:`garcon_jupyter.wire.transfers`), straight from the sender's tensors into the receiver's. The pickle itself,
which says what the buffers are, is always inside the message.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from garcon_jupyter.errors import DoesNotFit, GarconError
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.checking import check_content
from garcon_jupyter.wire.sizes import sized
from garcon_jupyter.wire.transfers import Outgoing, laid_out

INLINE_LIMIT = 64 * 1024
"""Bytes of buffers up to which a message carries them itself."""

_JOINED = 4 << 20
"""Bytes of several buffers up to which they are copied into one."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


Give = Callable[[Outgoing], str]
"""Offers a transfer, or sends it; its name."""

Take = Callable[[str, int], memoryview]
"""``take(name, size)``: the bytes of a transfer, once they are all there."""


class Corrupted(GarconError):
    """A message whose buffers are not those that were signed."""


def pack(
    value: Any, shared: Path | None = None, key: str = "value", give: Give | None = None
) -> tuple[dict[str, Any], list[codec.Buffer]]:
    """A value as the content and the buffers of a Jupyter message.

    Args:
        value: anything that pickles.
        shared: directory in shared memory which the receiver can read; None for no such way.
        key: name under which the description goes into the content.
        give: the way over the socket for data, where there is no shared memory; None to send all inline.
    """
    payload, buffers = codec.dumps(value)
    total = sum(buffer.nbytes for buffer in buffers)
    description: dict[str, Any] = {"digests": [codec.digest(payload)]}
    if shared is not None and total > INLINE_LIMIT:
        description["file"], description["spans"] = _share(buffers, shared)
        return {key: description}, [payload]
    if give is not None and total > INLINE_LIMIT:
        outgoing = Outgoing(buffers)
        description["transfer"], description["spans"] = give(outgoing), outgoing.spans
        return {key: description}, [payload]
    if len(buffers) > 1 and total <= _JOINED:  # one frame and one digest for all of them
        description["spans"], size = _laid_out(buffers)
        buffers = [_joined(buffers, description["spans"], size)]
    description["digests"] += [codec.digest(buffer) for buffer in buffers]
    return {key: description}, [payload, *buffers]


class _Elsewhere(TypedDict, total=False):
    file: str
    transfer: str
    spans: list[list[int]]


class _Description(_Elsewhere):
    """What :func:`pack` says of the buffers: their digests, and which parts of a file, of a transfer, or of one
    buffer that joins many, they are."""

    digests: list[str]


def unpack(
    content: dict[str, Any],
    buffers: Sequence[codec.Buffer],
    key: str = "value",
    shared: Path | None = None,
    take: Take | None = None,
) -> Any:
    """The value of :func:`pack`.

    Args:
        shared: the only directory of which a file is read, and removed; None to take none.
        take: the way over the socket for data; None to take nothing from there.

    Raises:
        Corrupted: a buffer is not the one that was signed, or the file is not of that directory. Nothing was
            unpickled.
        BadRequest: the description is none.
        GarconError: what `take` says.
    """
    description: Any = content.get(key)
    check_content(description, _Description)
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
        file = Path(description["file"])
        if shared is None or file.parent != shared:
            raise Corrupted("A message names a file that is not the server's.", "It was not read.")
        return codec.loads(payload, _map(file, description.get("spans", [])))
    if "transfer" in description:
        return codec.loads(payload, _taken(description, take))
    if "spans" in description and len(rest) == 1:
        rest = [rest[0][start : start + size] for start, size in description["spans"]]
    return codec.loads(payload, rest)


def _taken(description: dict[str, Any], take: Take | None) -> list[memoryview]:
    """The buffers of a transfer."""
    if take is None:
        raise Corrupted("A message names a transfer where none is taken.", "It was not read.")
    spans = description.get("spans", [])
    size = max((sum(span) for span in spans), default=0)
    if not _within(spans, size):
        raise Corrupted("A message names parts that no transfer has.", "It was not read.")
    whole = take(description["transfer"], size)
    return [whole[start : start + length] for start, length in spans]


def _laid_out(buffers: Sequence[memoryview]) -> tuple[list[list[int]], int]:
    return laid_out([buffer.nbytes for buffer in buffers])


def _joined(buffers: Sequence[memoryview], spans: Sequence[Sequence[int]], size: int) -> memoryview:
    whole = memoryview(bytearray(size))
    for buffer, (start, length) in zip(buffers, spans, strict=True):
        whole[start : start + length] = buffer
    return whole


def discard(content: dict[str, Any], key: str = "value") -> None:
    """Remove the file of a packed value, should its receiver not have taken it."""
    if "file" in content[key]:
        Path(content[key]["file"]).unlink(missing_ok=True)


def _share(buffers: Sequence[memoryview], directory: Path) -> tuple[str, list[list[int]]]:
    spans, offset = _laid_out(buffers)
    try:
        return _filled(buffers, spans, max(offset, 1), directory), spans
    except OSError as error:
        if error.errno not in _FULL:
            raise
        there = shutil.disk_usage(directory).free
        raise DoesNotFit(
            f"An answer of {sized(offset)} does not fit into shared memory: {sized(there)} are "
            f"free ({error.strerror}).",
            "Fetch a slice of it, or reduce it on the server.",
        ) from None


def _filled(
    buffers: Sequence[memoryview], spans: Sequence[Sequence[int]], size: int, directory: Path
) -> str:
    """A new file with these buffers."""
    descriptor, name = tempfile.mkstemp(dir=directory, suffix=".tensors")
    try:
        # Written, not mapped: a full memory is then an error here, and not a signal at the first touch;
        # and pages need not be cleared first, which would cost a third more.
        os.ftruncate(descriptor, size)
        for buffer, (start, _) in zip(buffers, spans, strict=True):
            _write_all(descriptor, buffer, start)
    except BaseException:
        Path(name).unlink()
        raise
    finally:
        os.close(descriptor)
    return name


def _write_all(descriptor: int, buffer: memoryview, start: int) -> None:
    done = 0
    while done < buffer.nbytes:
        done += os.pwrite(descriptor, buffer[done:], start + done)


def _map(path: Path, spans: Sequence[Sequence[int]]) -> list[memoryview]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Corrupted(f"The file of a message cannot be read: {error}.", "Ask again.") from error
    try:
        found = os.fstat(descriptor)
        _check_spans(spans, found.st_size if stat.S_ISREG(found.st_mode) else 0)
        path.unlink()
        # A private mapping: writable for its owner, and a write never reaches anybody else.
        mapping = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(descriptor)
    return [mapping[start : start + size] for start, size in spans]


def _check_spans(spans: Sequence[Sequence[int]], size: int) -> None:
    if not (size and _within(spans, size)):
        raise Corrupted("A message names parts that its file does not have.", "It was not read.")


def _within(spans: Sequence[Sequence[int]], size: int) -> bool:
    return all(len(span) == 2 and 0 <= span[0] <= sum(span) <= size for span in spans)


def shared_memory_root() -> Path:
    """Where files live in memory: ``/dev/shm`` on Linux, the temporary directory elsewhere."""
    root = Path("/dev/shm")
    return root if root.is_dir() and os.access(root, os.W_OK) else Path(tempfile.gettempdir())
