"""Which rows of a fused projection are those of one of its parts; once it is oriented [out, in]."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Sizes = Mapping[str, int]
"""Size of each letter of the table, for the whole model."""

Rows = Callable[[Tensor, Sizes], Tensor]
"""Picks the rows of one projection out of those of a fused one."""


def every_row(stored: Tensor, sizes: Sizes) -> Tensor:
    """Nothing is fused."""
    return stored


def rows_of_part(index: int, count: int) -> Rows:
    """One of several equal blocks of rows, one after the other."""
    return lambda stored, sizes: stored.chunk(count, 0)[index]


def rows_in_turn(index: int, count: int) -> Rows:
    """One of several parts whose rows take turns."""
    return lambda stored, sizes: stored[index::count]


def rows_of_each_head(index: int, count: int) -> Rows:
    """One of several blocks of d rows that every head has side by side."""
    return lambda stored, sizes: (
        stored.unflatten(0, (-1, count, sizes["d"])).select(1, index).flatten(0, 1)
    )


def rows_of_stretch(index: int) -> Rows:
    """Rows of queries (0), keys (1) or values (2): H heads of d rows, then K, then K."""

    def rows(stored: Tensor, sizes: Sizes) -> Tensor:
        queries, keys = sizes["H"] * sizes["d"], sizes["K"] * sizes["d"]
        parts: tuple[Tensor, ...] = stored.split([queries, keys, keys], 0)
        return parts[index]

    return rows


def rows_of_group(index: int) -> Rows:
    """Rows of queries (0), keys (1) or values (2) of K groups: H/K heads of d rows, then a key, then a value."""

    def rows(stored: Tensor, sizes: Sizes) -> Tensor:
        shared = sizes["H"] // sizes["K"]
        groups = stored.unflatten(0, (sizes["K"], shared + 2, sizes["d"]))
        parts: tuple[Tensor, ...] = groups.split([shared, 1, 1], 1)
        return parts[index].flatten(0, 2)

    return rows


def rows_in_blocks(index: int, count: int, blocks: int) -> Rows:
    """One of several parts of each of so many blocks of rows."""
    return lambda stored, sizes: (
        stored.unflatten(0, (blocks, count, -1)).select(1, index).flatten(0, 1)
    )
