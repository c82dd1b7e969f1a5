"""The points of dictionaries that a server has loaded: latents, and what they are made of and make.

``layers.10.resid_post.sae.NAME.latents`` is the point that the dictionary reads, ``sae``, the name that it was loaded by, and one of
the parts below. Their sizes are the dictionary's own, so they stand in no table of the model's letters: a row's dims have numbers.

A dictionary of several points has these at each. A *cross-layer transcoder* has latents where each layer is read, and at each layer the
reconstruction of what that layer writes, of its latents and all earlier ones'. A *crosscoder* has latents once all its points
are read, which is at the last: there is its one pre-activation, and what it says of the earlier points is known there, but the pass
has left them: a change can go nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

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


CROSSCODER, CROSS_LAYER = "crosscoder", "cross-layer"
"""Kinds of dictionaries that have several points."""


@dataclass(frozen=True)
class DictionaryPoints:
    """What a model has by a dictionary.

    Attributes:
        name: of the dictionary, on its server.
        reads: the point that it reads; of several, the last.
        writes: the point that it writes; the same of an autoencoder; of several, the last.
        latents: how many it has (at each point that it reads, if it is cross-layer).
        split: whether each tensor-parallel rank has a part of the latents.
        formula: what it computes, in one line.
        path: of its files.
        words: the last words of its points.
        nbytes: that it takes in memory, of all ranks that hold a part; 0 where it is not known.
        kind: "token", or one of those that have several points.
        several: of those, the points that they read, each with the one that is written for it, in the order of a pass.
        untrained: positions of a text that it was not trained on, which splices let by.
        layout: what its format calls it, behind the format's name.
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
    kind: str = "token"
    several: tuple[tuple[str, str], ...] = ()
    untrained: tuple[int, ...] = ()
    layout: str = ""

    @property
    def ends(self) -> tuple[tuple[str, str], ...]:
        """Each point that it reads, with the one that is written for it, in the order of a pass."""
        return self.several or ((self.reads, self.writes),)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The points that it reads."""
        return tuple(reads for reads, _ in self.ends)

    @property
    def where(self) -> str:
        """The points that it reads and writes, in words."""
        return " → ".join(dict.fromkeys(self.sides))

    @property
    def sides(self) -> tuple[str, str]:
        """The points that it reads, and those that it writes, each side in words."""
        both = zip(*self.ends, strict=True)
        reads, writes = (_together(list(dict.fromkeys(side))) for side in both)
        return reads, writes

    def names(self) -> list[str]:
        """All its points, in the order of a pass."""
        return [self.point(word, host) for host in self.hosts for word in self.words_at(host)]

    def words_at(self, host: str) -> tuple[str, ...]:
        """The last words of its points whose names begin so: a crosscoder has one pre-activation, where it reads last."""
        if self.kind != CROSSCODER or host == self.reads:
            return self.words
        return tuple(word for word in self.words if word != "pre_activation")

    def point(self, word: str = "latents", host: str = "") -> str:
        """The name of one of its points.

        Args:
            host: the point that is read there, where it reads several; by default the last.
        """
        return f"{host or self.reads}.{MARK}.{self.name}.{word}"

    def pattern(self, word: str) -> str:
        """What selects that part at all points that it reads; the one name, where there is one that can be edited.

        A crosscoder's latents are those of the point that it reads last.
        """
        of_latents = word not in WORDS or PARTS[WORDS.index(word)].of_latents
        alone = not self.several or (self.kind == CROSSCODER and of_latents)
        return self.point(word, self.reads if alone else _together([*self.hosts]))

    def visited_at(self, host: str) -> str:
        """The point of the model at whose visit the parts are there whose names begin so."""
        return self.reads if self.kind == CROSSCODER else host

    def left_behind(self, name: str) -> str:
        """Why a point of its can be read alone; "" where an edit goes on."""
        found = taken_apart(name)
        if self.kind != CROSSCODER or found is None or found.host == self.reads:
            return ""
        return f"the crosscoder has its latents once {self.reads} is read, and the pass has left {found.host} behind"

    def spec(self, part: DictionaryPart, like: PointSpec, host: str = "") -> PointSpec:
        """The row that a table would have for a part.

        Args:
            like: of the point that it reads, or, of what is like its output, of the one that it writes.
            host: as for :meth:`point`.
        """
        dims, split = (*like.dims[:2], str(self.latents)), str(self.latents) if self.split else ""
        if not part.of_latents:
            dims, split = like.dims, ""
        what = part.what.format(name=self.name)
        return PointSpec(self.point(part.word, host), dims, split, what)


def _together(hosts: list[str]) -> str:
    """Points of several layers as one pattern, such as ``layers.{0-3}.mlp.in``; where they are none, one by one."""
    if len(hosts) == 1:
        return hosts[0]
    parted = [re.fullmatch(r"layers\.(\d+)\.(.+)", host) for host in hosts]
    if not all(parted) or len({found[2] for found in parted if found}) > 1:
        return ", ".join(hosts)
    layers = [int(found[1]) for found in parted if found]
    run = layers == [*range(layers[0], layers[-1] + 1)]
    said = f"{layers[0]}-{layers[-1]}" if run else ",".join(map(str, layers))
    return f"layers.{{{said}}}.{parted[0][2]}" if parted[0] else ""


Told = Callable[[], Mapping[str, DictionaryPoints] | None]
"""Who tells which dictionaries there are now; None where nobody answers."""


class KnownDictionaries(dict[str, DictionaryPoints]):
    """The dictionaries that are known by name. Where others may have loaded some, a name that is not known is asked for, once each time.

    Args:
        known: those that there were.
        told: who is asked; None where nobody else knows better, as on the server.
    """

    def __init__(
        self, known: Mapping[str, DictionaryPoints] | None = None, told: Told | None = None
    ) -> None:
        super().__init__(known or {})
        self._told = told

    def renew(self) -> bool:
        """Ask which there are now; whether they are others than those that were known."""
        found = self._told() if self._told is not None else None
        if found is None or found == {**self}:
            return False
        self.update(found)  # first: at no moment is one missing that stays
        for name in self.keys() - found.keys():
            self.pop(name, None)
        return True

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (self.renew() and super().__contains__(name))

    def get(self, name: str, default: Any = None) -> Any:
        """That of a name; asked for, where it is not known."""
        try:
            return self[name]
        except KeyError:
            return default

    def __missing__(self, name: str) -> DictionaryPoints:
        if self.renew() and super().__contains__(name):
            return self[name]
        raise KeyError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return KnownDictionaries, ({**self},)  # whoever it arrives at asks for himself
