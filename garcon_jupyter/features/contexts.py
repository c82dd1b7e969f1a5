"""Pass 3: of one data shard the windows of the examples that are in it: the tokens, and the unit's values at them.

It stands where the data is, so that of activations nothing is sent anywhere; what goes on are windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from garcon_jupyter.exchanges.piles import NUMBER
from garcon_jupyter.features.codes import TILE
from garcon_jupyter.features.rows import Columns, UnitRows
from garcon_jupyter.features.source import CodesHeld, CodesOfShards, DataShard, around

_TILES = 16
"""Tiles whose values are held at a time."""


def windows(
    wanted: UnitRows,
    shard: DataShard,
    codes: CodesOfShards | CodesHeld | None,
    before: int,
    after: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The windows of examples, some at a time.

    A window ends with its document: what stands there is −1 as token and NaN as value.

    Args:
        wanted: examples of this data shard.
        shard: of the data.
        codes: of the units; None for the rows' own values.
        before, after: tokens of a window before and after the example's.

    Yields:
        (which, tokens, values): numbers of examples, int32 and float32 [n, before + 1 + after].
    """
    places, _ = shard.table(shard.tiles)
    row = places.searchsorted(wanted.place) + shard.tiles.start * TILE
    order = row.argsort(kind="stable")
    for first in range(shard.first, shard.stop, _TILES):
        tiles = range(first, min(first + _TILES, shard.stop))
        start, stop = row[order].searchsorted([tiles.start * TILE, tiles.stop * TILE])
        which = order[start:stop]
        if not len(which):
            continue
        wide = range(max(0, tiles.start - 1), tiles.stop + 1)
        place, token = shard.table(wide)
        step = np.arange(-before, after + 1)
        near = row[which, None] - wide.start * TILE + step
        inside = (near >= 0) & (near < len(place))
        near = near.clip(0, len(place) - 1)
        inside &= place[near] == wanted.place[which, None] + step
        found = around(shard, codes, tiles).values(row[which], wanted.unit[which], before, after)
        yield (
            which,
            np.where(inside, token[near], -1).astype(np.int32),
            np.where(inside, found, np.float32(np.nan)),
        )


def window_columns(
    wanted: UnitRows,
    shard: DataShard,
    codes: CodesOfShards | CodesHeld | None,
    before: int,
    after: int,
) -> dict[str, np.ndarray]:
    """The examples with their windows, as an exchange carries them."""
    width = before + 1 + after
    columns = wanted.columns
    held = np.empty((len(wanted), 2 * width), np.float32)
    held[:, :width] = np.nan
    held[:, width:] = np.int32(-1).view(np.float32)
    for which, tokens, values in windows(wanted, shard, codes, before, after):
        held[which, :width] = values
        held[which, width:] = tokens.view(np.float32)
    return {**columns, NUMBER: columns[NUMBER], "activations": held}


def taken_apart(columns: Columns, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and values of windows that an exchange carried."""
    held = columns["activations"]
    tokens = np.ascontiguousarray(held[:, width:]).view(np.int32)
    return tokens, held[:, :width]
