"""Writing the files of an atlas: arrays of all units, filled point by point, and the index at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.journal import put_bytes
from garcon_jupyter.array_files import create, take_room
from garcon_jupyter.atlas.files import FORMAT, INDEX, VOCABULARY
from garcon_jupyter.errors import BadData


class Writer:
    """The files of one atlas.

    Args:
        path: the directory.
        units: how many units each point has, in the order of the points.
    """

    def __init__(self, path: Path, units: Mapping[str, int]) -> None:
        self.path, self.units = path, dict(units)
        starts = np.cumsum([0, *self.units.values()]).tolist()
        self.first: dict[str, int] = dict(zip(self.units, starts, strict=False))
        self._files: dict[str, np.ndarray] = {}

    def put(self, point: str, what: str, rows: np.ndarray) -> None:
        """Write the rows of a point's units into an array of all units.

        Raises:
            OSError: there is no room.
        """
        if what not in self._files:
            shape = (sum(self.units.values()), *rows.shape[1:])
            self._files[what] = create(self.path / f"{what}.npy", rows.dtype, shape)
        first = self.first[point]
        self._files[what][first : first + len(rows)] = rows

    def reserve(self, what: str, dtype: str, shape: Sequence[int]) -> None:
        """Make an array of all units, which others fill; one that is there already stays.

        Args:
            shape: of what it has of each unit.

        Raises:
            OSError: there is no room.
        """
        path, wanted = self.path / f"{what}.npy", (sum(self.units.values()), *shape)
        if path.exists():
            there = _mapped(path)
            if there is not None and there.shape == wanted and there.dtype == np.dtype(dtype):
                take_room(path)  # whoever made it may have been killed just before
                self._files[what] = there
                return
            path.unlink()
        self._files[what] = create(path, np.dtype(dtype), wanted)

    def put_whole(self, what: str, array: np.ndarray) -> None:
        """Write an array that is not of units.

        Raises:
            OSError: there is no room.
        """
        self._files[what] = create(self.path / f"{what}.npy", array.dtype, array.shape)
        self._files[what][:] = array

    def finish(self, vocabulary: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Write the texts of the tokens, and last the index, which says that all is there; each whole or not at all.

        Raises:
            OSError: there is no room.
        """
        for file in self._files.values():
            file.flush()  # type: ignore[attr-defined] # it is a np.memmap
        put_bytes(self.path / VOCABULARY, json.dumps(vocabulary).encode())
        arrays = {what: [str(file.dtype), list(file.shape)] for what, file in self._files.items()}
        index = {"format": FORMAT, **facts, "points": self.units, "arrays": arrays}
        put_bytes(self.path / INDEX, json.dumps(index, indent=1).encode())


def _mapped(path: Path) -> np.ndarray | None:
    """An array that is there, to be filled; None where it is none: its process was killed before it had a shape."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r+")
        return array
    except (OSError, ValueError, EOFError):
        return None


@contextmanager
def writing(path: Path, units: Mapping[str, int], otherwise: str) -> Iterator[Writer]:
    """A writer; where the disk is full, nothing of what it wrote stays: half an atlas takes room, and is in the
    way of a whole one.

    Args:
        otherwise: where what could not be written still is.

    Raises:
        BadData: the disk is full.
    """
    try:
        yield Writer(path, units)
    except OSError as error:
        for file in (*path.glob("*.npy"), path / VOCABULARY):
            file.unlink(missing_ok=True)
        raise BadData(
            f"The atlas in {path} could not be written: {error.strerror or error}.",
            f"Make room; {otherwise}.",
        ) from None
