"""The dictionaries that a rank holds beside its part of the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from garcon_backend.dictionaries import Dictionary
from garcon_backend.distributed.collectives import Layout
from garcon_backend.process.output import log
from garcon_jupyter.dictionaries import Description
from garcon_jupyter.points import DictionaryPoints
from garcon_jupyter.wire.private_files import write_private
from garcon_jupyter.wire.requests import LoadDictionary

LATENT_DIM = 2
"""Which dimension of [b, p, F] the latents are."""


@dataclass(frozen=True)
class StagesOfPoints:
    """Which stages of the pipeline have the points of a dictionary that reads several.

    Attributes:
        own: the number of this rank's.
        each: of each point.
    """

    own: int
    each: tuple[int, ...]


@dataclass(frozen=True)
class LoadedDictionary:
    """A dictionary on one rank.

    Attributes:
        points: what the model has by it.
        description: what its files say.
        here: the part that this rank holds; None where another stage has its points.
        parts: into how many its latents are cut over the tensor-parallel ranks; 1 where each holds all.
        stages: which have its points, where it reads several.
    """

    points: DictionaryPoints
    description: Description
    here: Dictionary | None
    parts: int = 1
    stages: StagesOfPoints | None = None

    @property
    def layout(self) -> Layout:
        """How latents lie on the tensor-parallel ranks."""
        return Layout(LATENT_DIM, self.parts) if self.parts > 1 else Layout()

    @property
    def nbytes(self) -> int:
        """That it takes in this rank's memory."""
        return 0 if self.here is None else self.here.nbytes


NOTE = "dictionaries.json"
"""Name of the note in the directory of a server, by which ranks that are started anew know what to load."""


@dataclass
class LoadedDictionaries:
    """All of them, by name.

    Attributes:
        note: where they are put down; None where nobody would be started anew, or another rank does it.
    """

    by_name: dict[str, LoadedDictionary] = field(default_factory=dict)
    note: Path | None = None

    def __getitem__(self, name: str) -> LoadedDictionary:
        return self.by_name[name]

    def put(self, loaded: LoadedDictionary) -> None:
        """Hold one, by the name that its points have."""
        self.by_name[loaded.points.name] = loaded
        self._put_down()

    def let_go(self, name: str) -> None:
        """Hold it no more."""
        self.by_name.pop(name, None)
        self._put_down()

    def _put_down(self) -> None:
        if self.note is None:
            return
        each = [loaded.points for loaded in self.by_name.values()]
        told = [{"path": p.path, "name": p.name, "at": _sides(p)} for p in each]
        try:
            write_private(self.note, {"dictionaries": told})
        except OSError as error:
            log(f"dictionaries could not be noted, so a lost rank would lose them: {error}")


def _sides(points: DictionaryPoints) -> list[str]:
    """The points that it reads, then those that it writes."""
    return [*points.hosts, *(writes for _, writes in points.ends)]


def noted(note: Path) -> list[LoadDictionary]:
    """Requests for what was put down last."""
    try:
        told = json.loads(note.read_text(encoding="utf-8"))["dictionaries"]
        return [LoadDictionary(path=t["path"], name=t["name"], at=tuple(t["at"])) for t in told]
    except (OSError, ValueError, KeyError, TypeError):
        return []
