"""What an engine runs: codes of rows, and the four passes, each a small value that says all that it needs.

Run again, by whomever, a job writes the same file. Rows go from pass to pass by an exchange, whose tasks read them from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.exchanges import piles
from garcon_jupyter.exchanges.exchange import Parts
from garcon_jupyter.features import widths
from garcon_jupyter.features.arrays import FeatureSizes, WindowsOfUnits, write_units
from garcon_jupyter.features.codes import TILE, Codes, CodesWriter
from garcon_jupyter.features.contexts import taken_apart, window_columns
from garcon_jupyter.features.reducing import Merging, Reduction
from garcon_jupyter.features.rows import LAYOUT, UnitRows, unit_rows, window_layout
from garcon_jupyter.features.source import CodesHeld, CodesOfShards, DataShard

Columns = dict[str, np.ndarray]

ENCODER = "garcon_backend.dictionaries.tiles"
"""The server's program that computes latents; only a process that does so has it."""


@dataclass(frozen=True)
class Without:
    """Tokens that are not recorded.

    Attributes:
        first: whether these are the first of each document.
        ids: their ids.
    """

    first: bool = False
    ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.first or bool(self.ids)

    def kept(self, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Which tokens are recorded, bool [n]."""
        found = ~np.isin(tokens, self.ids)
        if self.first:
            found &= (places & 0xFFFFFFFF) != 0
        return found


# -- codes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodeJob:
    """The codes of a data shard.

    Attributes:
        dictionary: path of its files.
        memory: bytes for its weights.
        shard: of the data.
        codes: where they go.
        edges: first unit of each feature shard, and the number of all.
    """

    dictionary: str
    memory: int
    shard: DataShard
    codes: CodesOfShards
    edges: tuple[int, ...]


@lru_cache(maxsize=1)
def encoder_of(path: str, memory: int) -> Any:
    """A dictionary that computes in tiles; the process keeps the last one."""
    return import_module(ENCODER).TiledEncoder(path, memory)


def encode(job: EncodeJob) -> dict[str, Any]:
    """Read rows, and write their codes."""
    told: list[dict[str, Any]] = []
    writer = CodesWriter(job.codes.path(job.shard.number), job.edges, job.shard.number)
    try:
        for tile, row, unit, value in walked(job.dictionary, job.memory, job.shard, told):
            writer.add(tile, row, unit, value)
        count = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return {"number": job.shard.number, "codes": count, "read": told}


def walked(dictionary: str, memory: int, shard: DataShard, told: list[dict[str, Any]]) -> Any:
    """The codes of tiles, computed by one thread: with more, a product would be rounded elsewhere."""
    import torch

    encoder = encoder_of(dictionary, memory)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seen: set[int] = set()

    def rows(tile: int) -> np.ndarray:
        found = shard.activations(tile, None if tile in seen else told)
        seen.add(tile)
        return found

    try:
        with torch.inference_mode():
            yield from encoder.walk(rows, shard.tiles)
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class LookJob:
    """What a dictionary is, and how many of its latents are not 0 at some rows."""

    dictionary: str
    memory: int
    shard: DataShard


def look(job: LookJob) -> dict[str, Any]:
    """Latents, what they read, bytes of the weights, parts in which they are held, and codes of a token.

    Raises:
        BadRequest: it reads another number of units than the store has.
    """
    encoder = encoder_of(job.dictionary, job.memory)
    said = encoder.description
    if said.d_in != job.shard.store.units:
        raise BadRequest(
            f"The dictionary reads {said.d_in} numbers of a token, and {job.shard.point} has {job.shard.store.units}.",
            "Give a store of the point that it was trained on.",
        )
    activation = said.form.activation
    codes = float(activation.k)
    if activation.kind not in ("topk", "abstopk", "groupmax"):
        rows = len(job.shard.span(job.shard.tiles))
        found = walked(job.dictionary, job.memory, job.shard, [])
        codes = sum(len(row) for _, row, _, _ in found) / max(1, rows)
    return {
        "latents": said.latents,
        "d_in": said.d_in,
        "weights": said.latents * encoder.latent_bytes,
        "parts": len(encoder.parts),
        "codes": codes,
        "formula": said.formula,
        "reads": [place.points[0] for place in said.reads if len(place.points) == 1],
    }


# -- the four passes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReduceRows:
    """Pass 1, whose rows go by unit to those who merge."""

    shard: DataShard
    codes: CodesOfShards | CodesHeld | None
    number: int
    first: int
    stop: int
    sizes: FeatureSizes
    without: Without

    def read(self) -> tuple[Columns, dict[str, Any]]:
        """What is kept of one data shard and one feature shard."""
        found, told = reduced(self)
        return found.columns, {"read": told} if self.codes is None and not self.number else {}


def reduced(job: ReduceRows) -> tuple[UnitRows, list[dict[str, Any]]]:
    """The rows of a data shard and a feature shard, and what was read of the store."""
    sizes, told = job.sizes, []  # type: tuple[FeatureSizes, list[dict[str, Any]]]
    keeps = Reduction(job.first, job.stop, sizes.k, sizes.sample, widths.KEPT, sizes.seed)
    for tile in job.shard.tiles:
        one = range(tile, tile + 1)
        places, tokens = job.shard.table(one)
        kept = job.without.kept(places, tokens)
        if job.codes is None:
            values = job.shard.activations(tile, told)[:, job.first : job.stop]
            keeps.take_dense(values[kept] if job.without else values, places[kept])
            continue
        for codes in job.codes.read(one, job.number):
            row = codes.row - tile * TILE
            mine = kept[row] & (codes.unit >= job.first) & (codes.unit < job.stop)
            if not mine.all():
                codes = Codes(codes.row[mine], codes.unit[mine], codes.value[mine])
                row = row[mine]
            keeps.take(codes, places[row])
    return keeps.rows(), told


@dataclass(frozen=True)
class MergeRows:
    """Pass 2, whose examples go by place to the data shards that have them."""

    parts: Parts
    directory: str
    first: int
    units: int
    sizes: FeatureSizes
    tokens: int

    def read(self) -> tuple[Columns, dict[str, Any]]:
        """The examples of some units; what else is known of these is written."""
        merging = self.merging()
        for part in self.parts:
            columns, _ = piles.read((part,), LAYOUT)
            merging.take(unit_rows(columns))
        found = write_units(Path(self.directory), merging, self.sizes, self.tokens)
        return found.columns, {}

    def merging(self) -> Merging:
        """What is merged into."""
        sizes = self.sizes
        return Merging(self.first, self.units, sizes.k, sizes.sample, widths.KEPT, sizes.seed)


@dataclass(frozen=True)
class ContextRows:
    """Pass 3, whose windows go by unit to those who write."""

    parts: Parts
    shard: DataShard
    codes: CodesOfShards | CodesHeld | None
    sizes: FeatureSizes

    def read(self) -> tuple[Columns, dict[str, Any]]:
        """The examples of one data shard with their windows."""
        columns, _ = piles.read(self.parts, LAYOUT)
        wanted, sizes = unit_rows(columns), self.sizes
        return window_columns(wanted, self.shard, self.codes, sizes.before, sizes.after), {}


@dataclass(frozen=True)
class WriteJob:
    """Pass 4: the windows of some units to the arrays of the atlas."""

    number: int
    parts: Parts
    directory: str
    first: int
    units: int
    sizes: FeatureSizes


def write(job: WriteJob) -> dict[str, Any]:
    """Read windows, and write them where they belong."""
    into = WindowsOfUnits(job.sizes, job.first, job.units)
    layout = window_layout(job.sizes.window)
    for part in job.parts:
        columns, _ = piles.read((part,), layout)
        into.take(unit_rows(columns), *taken_apart(columns, job.sizes.window))
    into.write(Path(job.directory))
    return {"number": job.number, "bytes": job.units * job.sizes.unit_bytes}


def counted(shards: Sequence[DataShard], without: Without) -> int:
    """Tokens that are recorded."""
    if not without:
        return shards[0].rows
    total = 0
    for shard in shards:
        for first in range(shard.first, shard.stop, 64):
            places, tokens = shard.table(range(first, min(first + 64, shard.stop)))
            total += int(without.kept(places, tokens).sum())
    return total
