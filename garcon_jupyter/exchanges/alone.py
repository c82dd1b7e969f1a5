"""A directory that one process works in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from garcon_jupyter.errors import BadRequest

BETWEEN = ".between"
"""The directory, in that of a result, for files between passes; gone when it is complete."""

LOCK = ".lock"
"""The file that says whether somebody is at it; it stays."""


@contextlib.contextmanager
def alone(directory: Path, doing: str) -> Iterator[Path]:
    """The directory for files between passes, of this process alone.

    Halves of files that a killed process left in it, or in that of the result, are gone then.

    Args:
        directory: of the result.
        doing: what another process would be doing there: "shuffles into".

    Raises:
        BadRequest: another process is at it.
    """
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadRequest(f"Another process {doing} {directory}.", "Wait for its end.") from None
        between = directory / BETWEEN
        between.mkdir(exist_ok=True)
        clear_halves(directory)
        yield between
    finally:
        os.close(lock)


def clear_halves(directory: Path) -> None:
    """Take away files that were being written when their process was killed."""
    for left in (*directory.glob("*.writing"), *(directory / BETWEEN).rglob("*.writing")):
        left.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Take away what lies between the passes of a result that is complete: its process may have been killed just then."""
    if (directory / BETWEEN).exists():
        with contextlib.suppress(BadRequest), alone(directory, "works in") as between:
            shutil.rmtree(between)
