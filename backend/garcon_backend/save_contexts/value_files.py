"""Values in files of their own: backups that are too large for the journal."""

from __future__ import annotations

import itertools
import os
import pickle
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from garcon_backend.save_contexts.as_left import unpickled
from garcon_backend.save_contexts.journal import Piece


class ValueFiles:
    """The files of one rank's values.

    What was replaced is removed later, by the thread that writes, as the request that replaced it may not be
    finished on all ranks: then a process that begins here needs it once more.

    Args:
        directory: where they are; made where it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._numbers = itertools.count(1)
        self._replaced: list[str] = []
        self._removable: deque[str] = deque()

    def go_on(self, needed: Collection[str]) -> None:
        """Begin beside what another process has left, of which only this is needed."""
        files = [path.name for path in self._directory.glob("*.value*")]
        self._numbers = itertools.count(1 + max(map(_number, files), default=0))
        self._removable.extend(file for file in files if file not in needed)

    def another(self) -> str:
        """The name of a file that is not there yet."""
        return f"{next(self._numbers)}.value"

    def read(self, name: str) -> Any:
        """The value in a file.

        Raises:
            OSError: it is not there.
            EOFError: it was cut off.
        """
        with (self._directory / name).open("rb") as stream:
            spans = pickle.load(stream)
            whole = bytearray(sum(spans))
            if stream.readinto(whole) < len(whole):
                raise EOFError("its file was cut off")
            return unpickled(whole, spans)

    def write(self, name: str, pieces: Sequence[Piece], intact: Callable[[], bool]) -> None:
        """Write a file (0600), whole or not at all, and not what is no longer intact.

        Raises:
            OSError: the disk has no room for it.
        """
        file = self._directory / name
        temporary = file.with_name(f"{name}.writing")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                for piece in (pickle.dumps(tuple(map(len, pieces)), protocol=5), *pieces):
                    stream.write(piece)
            if intact():
                temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def replaced(self, name: str) -> None:
        """A file is of no use when the request is finished."""
        self._replaced.append(name)

    def finished(self) -> None:
        """The request is: what it replaced may be removed."""
        self._removable.extend(self._replaced)
        self._replaced.clear()

    @property
    def removable(self) -> bool:
        """Whether there are files to be removed."""
        return bool(self._removable)

    def remove(self, *names: str) -> None:
        """Remove these files, and those of no use."""
        self._removable.extend(names)
        while self._removable:
            (self._directory / self._removable.popleft()).unlink(missing_ok=True)


def _number(file: str) -> int:
    return int(file.partition(".")[0])
