"""Directories of plain arrays, such as an atlas or a connectome is: a JSON index, which is written last, and ``.npy`` files that are mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadData

if TYPE_CHECKING:
    import numpy as np


def prepare(path: Path, index: str) -> None:
    """See that a directory can be written, and take away the index of what is there.

    Args:
        index: name of the index, by which what is there is known.

    Raises:
        BadData: it holds something else, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / index).exists():
            raise BadData(f"{path} holds something else.", "Give a new directory.")
        (path / index).unlink(missing_ok=True)
    except OSError as error:
        raise BadData(f"{path} cannot be written: {error}.", "Give another.") from None


def create(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """A mapped array whose room on the disk is taken at once: a disk that fills under a mapping kills the
    process, and here it is an error.

    Raises:
        OSError: there is no room.
    """
    import numpy as np

    try:
        array = np.lib.format.open_memmap(file, "w+", dtype, shape)
        take_room(file)
    except OSError:
        file.unlink(missing_ok=True)  # it would look like one that has its room
        raise
    return array


def take_room(file: Path) -> None:
    """See that a file has all of its room on the disk, whatever is in it already.

    Raises:
        OSError: there is no room.
    """
    with file.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
