"""A directory that one process works in."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from garcon_jupyter.errors import BadRequest

BETWEEN = ".between"
"""The directory, in that of a result, for files between passes; gone when it is complete."""


@contextlib.contextmanager
def alone(directory: Path, doing: str) -> Iterator[Path]:
    """The directory for files between passes, of this process alone.

    Args:
        directory: of the result.
        doing: what another process would be doing there: "shuffles into".

    Raises:
        BadRequest: another process is at it.
    """
    between = directory / BETWEEN
    between.mkdir(exist_ok=True)
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadRequest(f"Another process {doing} {directory}.", "Wait for its end.") from None
        yield between
    finally:
        os.close(lock)
