"""Which checkpoint the parameters of a rank are of: as it was launched, or what they were exchanged for since."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from garcon_backend.models.family import Family
from garcon_jupyter.model_files import weights
from garcon_jupyter.wire.private_files import write_private

NOTE = "weights.json"
"""Name of the note in the directory of a server, by which ranks that are started anew know what to load."""


@dataclass
class CurrentWeights:
    """The checkpoint that is loaded, and how it was.

    Attributes:
        directory: of the checkpoint.
        dtype: that was asked for; None for the checkpoint's own.
        trust_remote_code: whether code that the checkpoint brings may run.
        family: of the user's own, or None.
        note: where an exchange is put down; None where nobody would be started anew, or another rank does it.
        stamps: of each file of weights, its size and when it was written: the same path may hold others later.
    """

    directory: Path
    dtype: str | None = None
    trust_remote_code: bool = False
    family: Family | None = None
    note: Path | None = None
    stamps: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.stamps = stamps(self.directory)

    def are(self, directory: Path) -> bool:
        """Whether the files of a directory are what is loaded."""
        return directory == self.directory and stamps(directory) == self.stamps

    def put_down(self, directory: Path) -> None:
        """Note what ranks that are started anew are to load.

        Raises:
            OSError: it cannot be written.
        """
        if self.note is not None:
            write_private(self.note, {"directory": os.fspath(directory)})

    def become(self, directory: Path, read: dict[str, list[int]]) -> None:
        """From now on they are those of a directory, whose files were these when they were read."""
        self.directory, self.stamps = directory, read


def noted(note: Path) -> Path | None:
    """What was put down last; None where nothing was."""
    try:
        return Path(json.loads(note.read_text(encoding="utf-8"))["directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stamps(directory: Path) -> dict[str, list[int]]:
    """Of each file of weights its size, and when it was written.

    Raises:
        NotAModel: there are none.
    """
    found = {file.name: file.stat() for file in weights.weight_files(directory)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}
