"""Where the bytes of a message travel.

Small buffers go inside the Jupyter message. On one host, large ones go through files in shared memory
(:mod:`garcon_jupyter.wire.shared_files`): one that the sender writes, and others where some of the buffers lie in
such files already. Between hosts, large ones go over a socket of their own (:mod:`garcon_jupyter.wire.transfers`),
straight from the sender's tensors into the receiver's. The pickle itself, which says what the buffers are, is always
inside the message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from garcon_jupyter.errors import GarconError
from garcon_jupyter.wire import codec, shared_files
from garcon_jupyter.wire.checking import check_content
from garcon_jupyter.wire.shared_files import BufferPlace
from garcon_jupyter.wire.transfers import Outgoing, laid_out

INLINE_LIMIT = 64 * 1024
"""Bytes of buffers up to which a message carries them itself."""

_JOINED = 4 << 20
"""Bytes of several buffers up to which they are copied into one."""

Give = Callable[[Outgoing], str]
"""Offers a transfer, or sends it; its name."""

Take = Callable[[str, int], memoryview]
"""``take(name, size)``: the bytes of a transfer, once they are all there."""

Find = Callable[[Sequence[memoryview]], Sequence[BufferPlace | None]]
"""Where buffers lie in shared memory already; None for those that do not."""


class Corrupted(GarconError):
    """A message whose buffers are not those that were signed."""


def pack(
    value: Any,
    shared: Path | None = None,
    key: str = "value",
    give: Give | None = None,
    find: Find | None = None,
) -> tuple[dict[str, Any], list[codec.Buffer]]:
    """A value as the content and the buffers of a Jupyter message.

    Args:
        value: anything that pickles.
        shared: directory in shared memory which the receiver can read; None for no such way.
        key: name under which the description goes into the content.
        give: the way over the socket for data, where there is no shared memory; None to send all inline.
        find: tells what lies in that directory already and need not be written again.
    """
    payload, buffers = codec.dumps(value)
    total = sum(buffer.nbytes for buffer in buffers)
    description: dict[str, Any] = {"digests": [codec.digest(payload)]}
    if shared is not None and total > INLINE_LIMIT:
        description |= _in_files(buffers, shared, find)
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


class _ByOtherWay(TypedDict, total=False):
    files: list[str]
    places: list[list[int]]
    transfer: str
    spans: list[list[int]]


class _Description(_ByOtherWay):
    """What :func:`pack` says of the buffers: their digests, and which parts they are: of files, each as
    [number of the file, start, size]; of a transfer, or of one buffer that joins many, each as [start, size]."""

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
        shared: the only directory of which files are read, and removed; None to take none.
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
    if "files" in description:
        return codec.loads(payload, _of_files(description, shared))
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
    """Remove the files of a packed value, should its receiver not have taken them."""
    for file in content[key].get("files", ()):
        Path(file).unlink(missing_ok=True)


def _in_files(buffers: Sequence[memoryview], directory: Path, find: Find | None) -> dict[str, Any]:
    """The files in which buffers lie, and where: those that lie nowhere are written into one of their own."""
    found = find(buffers) if find else [None] * len(buffers)
    new = [buffer for buffer, place in zip(buffers, found, strict=True) if place is None]
    file, spans = shared_files.write(new, directory) if new else ("", [])
    written = iter(spans)
    places = [place or BufferPlace(file, next(written)[0]) for place in found]
    files = list(dict.fromkeys(place.file for place in places))
    number = {file: n for n, file in enumerate(files)}
    return {
        "files": files,
        "places": [
            [number[place.file], place.start, buffer.nbytes]
            for place, buffer in zip(places, buffers, strict=True)
        ],
    }


def _of_files(description: dict[str, Any], shared: Path | None) -> list[memoryview]:
    """The buffers of a description's files, which are gone afterwards."""
    files = [Path(file) for file in description["files"]]
    if shared is None or any(file.parent != shared for file in files):
        raise Corrupted("A message names a file that is not the server's.", "It was not read.")
    places = description.get("places", [])
    if not all(len(place) == 3 and 0 <= place[0] < len(files) for place in places):
        raise Corrupted("A message names parts that its file does not have.", "It was not read.")
    wholes = []
    for number, file in enumerate(files):
        spans = [place[1:] for place in places if place[0] == number]
        try:
            whole = shared_files.take(file)
        except OSError as error:
            raise Corrupted(
                f"The file of a message cannot be read: {error}.", "Ask again."
            ) from error
        if not _within(spans, whole.nbytes):
            raise Corrupted(
                "A message names parts that its file does not have.", "It was not read."
            )
        wholes.append(whole)
    return [wholes[number][start : start + size] for number, start, size in places]


def _within(spans: Sequence[Sequence[int]], size: int) -> bool:
    return all(len(span) == 2 and 0 <= span[0] <= sum(span) <= size for span in spans)
