"""How many shards and passes it takes to look at all units, what they read, write and hold; told before it starts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.exchanges import piles
from garcon_jupyter.features.arrays import FeatureSizes
from garcon_jupyter.features.codes import CODE, TILE
from garcon_jupyter.features.reducing import OF_A_SLOT, OF_A_UNIT
from garcon_jupyter.features.rows import LAYOUT, window_layout

OF_A_PROCESS = 44_000_000
"""Bytes that a process takes before it reads a row."""

OF_AN_ENCODER = 300_000_000
"""Bytes that a process takes which computes latents: torch, and a tile."""

MOST_WORKERS = 8

QUICK = 1e11
"""Operations of an encoder that are done before processes would have started to help."""

_OF_A_ROW = piles.row_bytes(LAYOUT)

_GRAIN = 256


@dataclass(frozen=True)
class FeaturesPlan:
    """How the features of all units are looked at.

    Attributes:
        rows: of the store.
        row_bytes: of a row of it.
        units: how many.
        codes: values of a token that are not 0, about; 0 where rows are read as they are.
        weights: bytes of a dictionary.
        encoder_parts: in how many parts it is held, one after the other.
        workers: processes at a time.
        data_shards: into which the rows are cut.
        feature_shards: into which the units are cut for pass 1.
        groups: into which they are cut for passes 2 and 4.
        passes: 1 where all fits into one process, else 4.
        held: bytes of all processes.
        read, written: bytes, at most, about; `activations` of those that are read are the store's.
    """

    rows: int
    row_bytes: int
    units: int
    codes: float
    weights: int
    encoder_parts: int
    workers: int
    data_shards: int
    feature_shards: int
    groups: int
    passes: int
    held: int
    activations: int
    read: int
    written: int

    @property
    def tiles(self) -> int:
        """Tiles of rows."""
        return -(-self.rows // TILE)

    def edges(self, parts: int) -> tuple[int, ...]:
        """The first unit of each of some parts, and the number of all: parts of whole tiles."""
        tiles = -(-self.units // _GRAIN)
        return (*(tiles * n // parts * _GRAIN for n in range(parts)), self.units)

    def __str__(self) -> str:
        how = (
            "one pass, in this process"
            if self.passes == 1
            else f"4 passes over {self.data_shards} × {self.feature_shards} shards, {self.groups} groups of units, "
            f"{self.workers} at a time"
        )
        return (
            f"{self.units:,} units, {self.rows:,} tokens ({sized(self.rows * self.row_bytes)}): {how}; "
            f"up to {sized(self.read)} read, {sized(self.activations)} of them activations, {sized(self.written)} written, "
            f"{sized(self.held)} of memory"
        )


def planned(
    rows: int,
    row_bytes: int,
    units: int,
    sizes: FeatureSizes,
    memory: int,
    workers: int | None = None,
    codes: float = 0.0,
    weights: int = 0,
    d_in: int = 0,
) -> FeaturesPlan:
    """How to look at all units within a memory.

    Args:
        codes: values of a token that are not 0; 0 for all units of a point.
        weights: bytes of a dictionary; 0 for a point.
        d_in: numbers that it reads.
        memory: bytes for all processes together.
        workers: processes; None for as many as there are cores, up to 8, and fewer where memory is short.

    Raises:
        DoesNotFit: one process would not have room; says how much it takes.
    """
    base = OF_AN_ENCODER if weights else OF_A_PROCESS
    tiles = max(1, -(-rows // TILE))
    most = min(workers or min(MOST_WORKERS, len(os.sched_getaffinity(0))), tiles)
    tile = TILE * row_bytes * 8 + 20 * TILE * _GRAIN
    least = OF_A_UNIT + OF_A_SLOT * sizes.kept
    needed = 2 * base + tile + _GRAIN * (least + 2 * sizes.unit_bytes)
    for count in range(most, 0, -1):
        own = (memory - OF_A_PROCESS - base * count) // count - tile
        if own >= _GRAIN * least * (8 if count > 1 else 1):
            break
    else:
        raise DoesNotFit(
            f"Features of {units:,} units take at least {sized(needed)}, and have {sized(memory)}.",
            f"Give memory={needed} or more.",
        )
    firings = rows * (codes or units * 0.5)
    one = units * least + 2 * min(units * sizes.examples, firings) * (24 + 8 * sizes.window)
    one += int(rows * codes * 20) + (weights if weights else 0)
    single = (workers == 1 or 2.0 * rows * d_in * units < QUICK) and one <= memory - base - tile
    if single:
        count, own = 1, memory - base - tile
    shard = max(_GRAIN, min(units, own // least // _GRAIN * _GRAIN))
    group = max(_GRAIN, min(shard, own // (3 * sizes.unit_bytes) // _GRAIN * _GRAIN))
    examples = min(units * sizes.examples, firings)
    windows = examples * 2 * piles.row_bytes(window_layout(sizes.window))
    data = int(min(tiles, max(count, math.ceil(windows / own), math.ceil(rows * row_bytes / 2e9))))
    feature_shards, groups = -(-units // shard), -(-units // group)
    parts = max(1, math.ceil(weights / max(1, own))) if weights and not single else 1
    if single:
        data = feature_shards = groups = 1
    kept = min(data * units * sizes.kept, firings * 3) + data * units * 40
    made = rows * codes * CODE
    passed = kept * _OF_A_ROW + examples * (
        _OF_A_ROW + piles.row_bytes(window_layout(sizes.window))
    )
    activations = rows * row_bytes * (parts if weights else feature_shards + 9 / 8)
    atlas = units * sizes.unit_bytes
    beside = 0.0 if single else made * (2 + 1 / 8) + passed + 36 * rows
    written = atlas + (0.0 if single else made + passed)
    if single and not weights:
        activations = 2 * rows * row_bytes
    held = min(memory, one + base + tile) if single else memory
    return FeaturesPlan(
        rows, row_bytes, units, codes, weights, parts, count, data, feature_shards, groups,
        1 if single else 4, int(held), int(activations), int(activations + beside), int(written),
    )  # fmt: skip
