"""What features are asked for, by which a call that goes on is known to be the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from garcon_jupyter.activation_stores import ActivationStore, journal
from garcon_jupyter.atlas.files import Atlas, open_atlas
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.features.arrays import FeatureSizes
from garcon_jupyter.features.codes import TILE
from garcon_jupyter.features.jobs import Without

ASKED = "asked.json"
"""What was asked for, in the directory for files between passes."""


class FeaturesAsked:
    """What features are asked for, and of what."""

    def __init__(
        self,
        source: ActivationStore,
        dictionary: str | Path | None,
        point: str | None,
        k: int,
        sample: int,
        before: int,
        after: int,
        without: Sequence[str | int],
        seed: int,
        name: str,
    ) -> None:
        if source.order != "data":
            raise BadData(
                f"The store in {source.path} is shuffled, so no text stands around its tokens.",
                "Give the store that it was made of.",
            )
        if min(k, sample) < 1 or min(before, after) < 0 or max(before, after) > TILE:
            raise BadRequest(
                f"k={k}, sample={sample}, before={before}, after={after} keep nothing, or windows too wide.",
                f"Give k ≥ 1, sample ≥ 1, and windows of up to {TILE} tokens on each side.",
            )
        self.source, self.name = source, name
        self.rows = source.point_rows(point)
        if not self.rows.rows:
            raise BadData("The store has no rows.", "Give at least one document that is not empty.")
        self.dictionary = (
            None if dictionary is None else str(Path(dictionary).expanduser().absolute())
        )
        self.without = _without(without)
        self.kept = {"k": k, "sample": sample, "before": before, "after": after, "seed": seed}

    def sizes(self, units: int) -> FeatureSizes:
        """How much is kept of so many units."""
        return FeatureSizes(units, **self.kept)

    @property
    def said(self) -> dict[str, Any]:
        """By which another call is known to ask for the same."""
        sums = [sorted(p.sums.items()) for group in self.rows.groups for p in group.parts]
        found = {
            **self.kept,
            "point": self.rows.point,
            "rows": self.rows.rows,
            "store": f"{_crc(repr(sums)):08x}",
            "dictionary": None if self.dictionary is None else _files_said(Path(self.dictionary)),
            "without": asdict(self.without),
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain

    def opened(self, directory: Path) -> Atlas:
        """The atlas that is there already.

        Raises:
            BadData: it is another.
        """
        there = open_atlas(directory)
        if there.index.get("asked") != self.said:
            raise BadData(f"{directory} has another atlas already.", "Give a new directory.")
        return there

    def check(self, between: Path) -> None:
        """That what was begun in a directory is the same.

        Raises:
            BadData: it is something else; says what.
        """
        path = between / ASKED
        if path.exists():
            there = journal.get(path)
            other = [name for name, value in self.said.items() if there.get(name) != value]
            if other:
                raise BadData(
                    f"{between.parent} has features that were begun with another {', '.join(other)}.",
                    "Give a new directory, or the call that began them.",
                )
        else:
            journal.put(path, self.said)


def _crc(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode())


def _files_said(path: Path) -> list[Any]:
    """What files of a dictionary are known by."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]


def _without(words: Sequence[str | int]) -> Without:
    given = (words,) if isinstance(words, (str, int)) else tuple(words)
    wrong = [word for word in given if isinstance(word, str) and word != "first"]
    if wrong:
        raise BadRequest(
            f"Which tokens of a store are {wrong[0]!r} is not known.",
            'Give "first", of each document, or ids of tokens.',
        )
    return Without("first" in given, tuple(word for word in given if isinstance(word, int)))
