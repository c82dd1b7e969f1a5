"""Whether a disk has room for what is going to be written, and what to say where it has not: before, and in the midst of it."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit

GOES_ON = "Make room, and give the same call again: it goes on."


def require(directory: Path, needed: int, what: str, remedy: str) -> None:
    """Refuse what a disk has no room for.

    Args:
        directory: where it is going to be written.
        needed: bytes, beside what is there already.
        what: takes them, as the beginning of a sentence: "Shuffling p takes".

    Raises:
        DoesNotFit: the disk does not suffice; says what is needed, free and missing.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DoesNotFit(
            f"{what} {sized(needed)} of disk beside what is there, and {sized(free)} are free in {directory}: "
            f"{sized(needed - free)} are missing.",
            remedy,
        )


@contextlib.contextmanager
def named(directory: Path, needed: Callable[[], int] | None = None) -> Iterator[None]:
    """A disk that fills up while this is entered is an error of ours.

    Args:
        directory: where it is written.
        needed: bytes that are still to be written, beside what is there; None where that is not known.

    Raises:
        DoesNotFit: says what is free and what is missing.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(directory, error, None if needed is None else needed()) from None


def _full(directory: Path, error: OSError, needed: int | None) -> DoesNotFit:
    free = shutil.disk_usage(directory).free
    said = f"The disk of {directory} is full: {error.strerror or error}; {sized(free)} are free"
    if needed is None:
        return DoesNotFit(f"{said}.", GOES_ON)
    if needed <= free:
        return DoesNotFit(
            f"{said}, where {sized(needed)} are still to be written.",
            f"Is there a quota, or a file system that has no names left? {GOES_ON}",
        )
    return DoesNotFit(
        f"{said}, and {sized(needed)} are still to be written: {sized(needed - free)} are missing.",
        GOES_ON,
    )
