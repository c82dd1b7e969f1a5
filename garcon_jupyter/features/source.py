"""Where values of units come from: a store's own rows, or codes that a dictionary made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.numbers import as_float32
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.features.codes import TILE, Codes, CodesFile, joined


@dataclass(frozen=True)
class DataShard:
    """Some tiles of the rows of a point in a store.

    Attributes:
        directory, point, facts: of the store.
        number: of the shard.
        first: its first tile.
        stop: the tile after its last.
        rows: of the whole store.
    """

    directory: str
    point: str
    facts: Mapping[str, Any]
    number: int
    first: int
    stop: int
    rows: int

    @property
    def tiles(self) -> range:
        """Its tiles."""
        return range(self.first, self.stop)

    @cached_property
    def store(self) -> PointRows:
        """The files of the point."""
        return PointRows(self.directory, self.point, self.facts, whole=True)

    def span(self, tiles: range) -> range:
        """The rows of tiles, as far as there are such."""
        first = min(max(0, tiles.start * TILE), self.rows)
        return range(first, max(first, min(self.rows, tiles.stop * TILE)))

    def activations(self, tile: int, told: list[dict[str, Any]] | None = None) -> np.ndarray:
        """The rows of a tile, float32 [n, units].

        Args:
            told: is given what was read, with its checksums.
        """
        span = self.span(range(tile, tile + 1))
        read = self.store.read(span.start, len(span), _READ[self.store.stored], told)
        return as_float32(read["activations"], self.store.stored, read.get("scale"))

    def table(self, tiles: range) -> tuple[np.ndarray, np.ndarray]:
        """Places and tokens of the rows of tiles."""
        span = self.span(tiles)
        read = self.store.read(span.start, len(span), ("place", "token"))
        return read["place"], read["token"]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("store", None)  # open files do not travel
        return state


_READ: dict[str, tuple[str, ...]] = {
    "int8": ("scale", "activations"),
    **dict.fromkeys(("float32", "float16", "bfloat16"), ("activations",)),
}


@dataclass(frozen=True)
class CodesOfShards:
    """Codes in files, one of each data shard.

    Attributes:
        directory: of the files.
        stops: of each shard the tile after its last.
    """

    directory: str
    stops: tuple[int, ...]

    def path(self, shard: int) -> Path:
        """The file of a data shard."""
        return Path(self.directory) / f"{shard:05d}.codes"

    def read(self, tiles: range, feature_shard: int | None = None) -> Iterator[Codes]:
        """The codes of tiles, whichever files they are in."""
        first = 0
        for number, stop in enumerate(self.stops):
            mine = range(max(first, tiles.start), min(stop, tiles.stop))
            first = stop
            if len(mine):
                file = CodesFile(self.path(number), number)
                try:
                    yield from file.read(mine, feature_shard)
                finally:
                    file.close()


@dataclass(frozen=True)
class CodesHeld:
    """Codes in memory, by tile."""

    tiles: dict[int, list[Codes]]

    def read(self, tiles: range, feature_shard: int | None = None) -> Iterator[Codes]:
        """The codes of tiles."""
        for tile in tiles:
            yield from self.tiles.get(tile, ())


class Around:
    """Values of units at the rows around others, from codes: what is not among them is 0.

    Args:
        codes: of all rows that may be asked for.
    """

    def __init__(self, codes: Codes) -> None:
        self._order = np.lexsort((codes.row, codes.unit))
        self._row, self._unit = codes.row[self._order], codes.unit[self._order]
        self._value = codes.value[self._order]
        self._base = int(self._row.min()) if len(codes) else 0
        self._span = int(self._row.max()) - self._base + 1 if len(codes) else 1
        self._key = self._unit * self._span + (self._row - self._base)

    def values(self, row: np.ndarray, unit: np.ndarray, before: int, after: int) -> np.ndarray:
        """The values of units at rows and those around them, float32 [n, before + 1 + after]."""
        found = np.zeros((len(row), before + 1 + after), np.float32)
        at = self._key.searchsorted(unit * self._span + (row - self._base))
        for step in (-1, 1):
            mine, place = np.arange(len(row)), at if step > 0 else at - 1
            reach = after if step > 0 else before
            while len(mine):  # the codes of a unit lie side by side
                inside = (place >= 0) & (place < len(self._key))
                mine, place = mine[inside], place[inside]
                away = self._row[place] - row[mine]
                near = (self._unit[place] == unit[mine]) & (np.abs(away) <= reach)
                mine, place, away = mine[near], place[near], away[near]
                found[mine, before + away] = self._value[place]
                place = place + step
        return found


class AroundDense:
    """The same from the rows of a point.

    Args:
        values: float32 [rows, units].
        first: number of the first row.
    """

    def __init__(self, values: np.ndarray, first: int) -> None:
        self._values, self._first = values, first

    def values(self, row: np.ndarray, unit: np.ndarray, before: int, after: int) -> np.ndarray:
        """As :meth:`Around.values`."""
        near = row[:, None] - self._first + np.arange(-before, after + 1)
        found: np.ndarray = self._values[near.clip(0, len(self._values) - 1), unit[:, None]]
        return found


def around(
    shard: DataShard, codes: CodesOfShards | CodesHeld | None, tiles: range
) -> Around | AroundDense:
    """The values around rows of tiles: of codes, or of the store's own rows where there are none."""
    wide = range(max(0, tiles.start - 1), tiles.stop + 1)
    if codes is not None:
        return Around(joined(list(codes.read(wide))))
    parts = [shard.activations(tile) for tile in wide if len(shard.span(range(tile, tile + 1)))]
    return AroundDense(np.concatenate(parts), wide.start * TILE)
