"""A key for each row, of its number and a seed, by which rows are put in an order that is drawn from all.

The key is SplitMix64's output function (Steele, Lea and Flood 2014), taken of the number, and again with the seed's own. It maps 64 bits
one to one, so no two rows of a shuffle have one key, and who sorts by it needs to know neither how many rows there are nor who else sorts.
Keys of one row under two seeds have nothing to do with each other, so one seed for each epoch does.

Where n keys are cut into ranges of equal size is found by counting, from the numbers alone, before a byte of data is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

_AT_ONCE = 1 << 14
"""Keys computed at a time: a processor's cache holds them."""

_BITS = 20
"""Of a key, by which keys are counted."""

_KEPT = 1 << 21
"""Keys looked at closer at a time."""


def mixed(words: np.ndarray) -> np.ndarray:
    """SplitMix64's output of words, uint64; a one-to-one map."""
    with np.errstate(over="ignore"):
        found = words + _GOLDEN
        found ^= found >> np.uint64(30)
        found *= _FIRST
        found ^= found >> np.uint64(27)
        found *= _SECOND
        found ^= found >> np.uint64(31)
    return found


def keys_of(rows: np.ndarray, seed: int) -> np.ndarray:
    """The keys of rows under a seed.

    Args:
        rows: their numbers, int64 or uint64 [n].
        seed: any whole number; its lowest 64 bits count.

    Returns:
        uint64 [n].
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    own = mixed(mixed(np.array([seed & (1 << 64) - 1], np.uint64)) ^ _SECOND)
    found = np.empty(len(words), np.uint64)
    for first in range(0, len(words), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        found[part] = mixed(mixed(words[part]) ^ own)
    return found


def order_of(rows: int, seed: int) -> np.ndarray:
    """The numbers of rows in their new order, int64; for numbers that memory holds."""
    return keys_of(np.arange(rows), seed).argsort(kind="stable")


def bounds_of(rows: int, seed: int, ranks: np.ndarray) -> np.ndarray:
    """The keys that stand at some ranks of the order of n rows, found with little memory.

    Keys are counted by their upper bits; those that share these bits with a wanted one are then looked at as wholes.

    Args:
        rows: n.
        ranks: ascending, each below n.

    Returns:
        uint64, as many: so many keys are smaller as the rank says.
    """
    return selected(lambda: _all_keys(rows, seed), rows, ranks)


def _all_keys(rows: int, seed: int) -> Iterator[np.ndarray]:
    each = 1 << 18
    for first in range(0, rows, each):
        yield keys_of(np.arange(first, min(rows, first + each)), seed)


def selected(
    stream: Callable[[], Iterator[np.ndarray]], total: int, ranks: np.ndarray
) -> np.ndarray:
    """The keys at some ranks of a stream of them, which is read several times.

    Args:
        stream: begins it.
        total: how many they are.
        ranks: ascending.
    """
    if not len(ranks):
        return np.empty(0, np.uint64)
    shift = np.uint64(64 - _BITS)
    counts = np.zeros(1 << _BITS, np.int64)
    for keys in stream():
        counts += np.bincount((keys >> shift).astype(np.int64), minlength=1 << _BITS)
    ends = counts.cumsum()
    bins = ends.searchsorted(ranks, side="right")
    found = np.empty(len(ranks), np.uint64)
    for chosen in _rounds(np.unique(bins), counts):
        wanted = np.zeros(1 << _BITS, bool)
        wanted[chosen] = True
        kept = np.sort(np.concatenate([k[wanted[(k >> shift).astype(np.int64)]] for k in stream()]))
        starts = np.cumsum([0, *counts[chosen]])
        mine = np.isin(bins, chosen).nonzero()[0]
        which = chosen.searchsorted(bins[mine])
        within = ranks[mine] - (ends[bins[mine]] - counts[bins[mine]])
        found[mine] = kept[starts[which] + within]
    return found


def _rounds(bins: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Bins of keys, so many at a time as fit."""
    done = 0
    sizes = counts[bins].cumsum()
    while done < len(bins):
        before = sizes[done - 1] if done else 0
        stop = max(done + 1, int(sizes.searchsorted(before + _KEPT, side="right")))
        yield bins[done:stop]
        done = stop
