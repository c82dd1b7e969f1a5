"""Buffers in files of shared memory, on one host.

Whoever has them writes them, once, into a file; whoever wants them maps it: no copy, the tensor *is* the mapping. The
receiver unlinks the file as it maps it, so that the memory lives exactly as long as the tensor. Files are 0600 in a
directory of the server that is 0700 and goes with it.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.wire.transfers import laid_out

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


class BufferPlace(NamedTuple):
    """Where a buffer lies: in which file, and at which byte it begins."""

    file: str
    start: int


def write(buffers: Sequence[memoryview], directory: Path) -> tuple[str, list[list[int]]]:
    """Write buffers into a new file; its name, and [start, size] of each.

    Raises:
        DoesNotFit: there is no room.
    """
    spans, offset = laid_out([buffer.nbytes for buffer in buffers])
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


def take(file: Path) -> memoryview:
    """A file's memory, for oneself alone; the file is gone.

    Raises:
        OSError: it is none.
    """
    # A private mapping: writable for its owner, and a write never reaches anybody else.
    whole = _mapped(file, os.O_RDONLY, mmap.ACCESS_COPY)
    file.unlink()
    return whole


def look_into(file: Path) -> memoryview:
    """A file's memory, which others may map too: what is written there, they see.

    Raises:
        OSError: it is none.
    """
    return _mapped(file, os.O_RDWR, mmap.ACCESS_WRITE)


def _mapped(file: Path, flag: int, access: int) -> memoryview:
    descriptor = os.open(file, flag | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            raise OSError(errno.EINVAL, "it is no file of tensors")
        return memoryview(mmap.mmap(descriptor, 0, access=access))
    finally:
        os.close(descriptor)


def shared_memory_root() -> Path:
    """Where files live in memory: ``/dev/shm`` on Linux, the temporary directory elsewhere."""
    root = Path("/dev/shm")
    return root if root.is_dir() and os.access(root, os.W_OK) else Path(tempfile.gettempdir())
