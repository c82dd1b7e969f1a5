"""The points of dictionaries that a server has loaded: latents, and what they are made of and make.

``layers.10.resid_post.sae.NAME.latents`` is the point that the dictionary reads, ``sae``, the name that it was loaded by, and one of
the parts below. Their sizes are the dictionary's own, so they stand in no table of the model's letters: a row's dims have numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from garcon_jupyter.points.table import PointSpec

MARK = "sae"
"""Stands in a name between the point that a dictionary reads and the dictionary's name."""

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*"


@dataclass(frozen=True)
class DictionaryPart:
    """One of the values of a dictionary that are points.

    Attributes:
        word: the last word of the point's name.
        what: what the tensor is, one phrase.
        of_latents: whether it has a number for each latent; else it is like what the dictionary writes.
    """

    word: str
    what: str
    of_latents: bool


PARTS = (
    DictionaryPart("pre_activation", "what decides whether latents of {name} are on", True),
    DictionaryPart("latents", "latents of {name}", True),
    DictionaryPart("reconstruction", "what the latents of {name} say is there", False),
    DictionaryPart("error", "what the reconstruction of {name} lacks", False),
)
"""In the order in which a pass comes by."""

WORDS = tuple(part.word for part in PARTS)

_POINT = re.compile(rf"(?P<host>.+)\.{MARK}\.(?P<name>{_NAME})\.(?P<part>{'|'.join(WORDS)})")


@dataclass(frozen=True)
class DictionaryPoint:
    """The name of such a point, taken apart.

    Attributes:
        host: the point that the dictionary reads.
        name: of the dictionary.
        part: which of its values.
    """

    host: str
    name: str
    part: DictionaryPart


def taken_apart(name: str) -> DictionaryPoint | None:
    """The parts of a name; None where it is none of a dictionary's point."""
    if (found := _POINT.fullmatch(name)) is None:
        return None
    return DictionaryPoint(found["host"], found["name"], PARTS[WORDS.index(found["part"])])


def is_name(word: str) -> bool:
    """Whether a dictionary may have this name: letters, digits, ``_`` and ``-``."""
    return re.fullmatch(_NAME, word) is not None


def name_of(path: str) -> str:
    """A name that a dictionary may have, made of the last part of the path of its files."""
    last = re.sub(r"\.(pt|npz|safetensors)$", "", PurePath(path).name)
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-") or "dictionary"


@dataclass(frozen=True)
class DictionaryPoints:
    """What a model has by a dictionary.

    Attributes:
        name: of the dictionary, on its server.
        reads: the point that it reads.
        writes: the point that it writes; the same of an autoencoder.
        latents: how many it has.
        split: whether each tensor-parallel rank has a part of the latents.
        formula: what it computes, in one line.
        path: of its files.
        words: the last words of its points.
        nbytes: that it takes in memory, of all ranks that hold a part.
    """

    name: str
    reads: str
    writes: str
    latents: int
    split: bool = False
    formula: str = ""
    path: str = ""
    words: tuple[str, ...] = WORDS
    nbytes: int = 0

    def names(self) -> list[str]:
        """All its points, in the order of a pass."""
        return [self.point(word) for word in self.words]

    def point(self, word: str = "latents") -> str:
        """The name of one of its points."""
        return f"{self.reads}.{MARK}.{self.name}.{word}"

    def spec(self, part: DictionaryPart, host: PointSpec) -> PointSpec:
        """The row that a table would have for a part.

        Args:
            host: of the point that it reads, or, of what is like its output, of the one that it writes.
        """
        dims, split = (*host.dims[:2], str(self.latents)), str(self.latents) if self.split else ""
        if not part.of_latents:
            dims, split = host.dims, ""
        what = part.what.format(name=self.name)
        return PointSpec(self.point(part.word), dims, split, what)
