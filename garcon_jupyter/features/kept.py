"""The best of each group, kept while others stream past, as plain arrays: the lots and scores are those of recorders.

What is offered later has a later place, so of equal scores the earlier stays, as with :class:`garcon_jupyter.recorders.Examples`. This is
NumPy alone: a process that merges what others kept need not import torch.
"""

from __future__ import annotations

import numpy as np

WORST = -(1 << 31)
"""The score of what is not there."""

BEST = (1 << 31) - 1

RING = 16
"""Bins below the largest value of a unit, a quarter of an octave each, of which a sample is kept."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)

_HELD = 1 << 18
"""Candidates that wait, at least, before the best are chosen."""


def lots(seed: int, places: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The number drawn for each place and unit: that of :func:`garcon_jupyter.recorders.examples.lot`, int64."""
    return lots_of(place_lots(seed, places), unit_lots(seed, units))


def lots_of(of_tokens: np.ndarray, of_units: np.ndarray) -> np.ndarray:
    """Lots of what is the token's and what is the unit's, int64, of the shape that both make together."""
    with np.errstate(over="ignore"):
        found: np.ndarray = (of_tokens ^ of_units) * _MIX
    return found.view(np.int64)


def place_lots(seed: int, places: np.ndarray) -> np.ndarray:
    """The part of a lot that is the token's."""
    with np.errstate(over="ignore"):
        words = places.astype(np.int64).view(np.uint64) * _GOLDEN + np.uint64(seed)
        return _mixed(_mixed(words))


def unit_lots(seed: int, units: np.ndarray) -> np.ndarray:
    """The part of a lot that is the unit's."""
    with np.errstate(over="ignore"):
        words = units.astype(np.int64).view(np.uint64) * _GOLDEN
        return _mixed(_mixed(words + np.uint64(seed ^ 0x5DEECE66D)))


def _mixed(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * _MIX
    found: np.ndarray = words ^ (words >> np.uint64(27))
    return found


def scores_of(lots_: np.ndarray) -> np.ndarray:
    """Lots as scores, int32: their upper 31 bits."""
    return (lots_ >> 33).astype(np.int32)


def sortable(values: np.ndarray) -> np.ndarray:
    """float32 as int32 that sorts alike; zero has one sign."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)
    found: np.ndarray = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return found


def bins_of(values: np.ndarray) -> np.ndarray:
    """Of values above zero the quarter of an octave that each is in, int32."""
    found: np.ndarray = values.astype(np.float32).view(np.int32) >> 21
    return found


def bin_edge(bins: np.ndarray) -> np.ndarray:
    """Where a bin begins, float64."""
    return (bins.astype(np.int32) << 21).view(np.float32).astype(np.float64)


class Kept:
    """The k of highest score of each group.

    Args:
        groups: how many.
        k: how many of each.
    """

    def __init__(self, groups: int, k: int) -> None:
        self.k = k
        self.worst = np.full(groups, WORST, np.int32)
        self._parts = [
            (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, "f4"))
        ]
        self._waiting = 0
        self._most = max(_HELD, 0)

    def offer(
        self, group: np.ndarray, score: np.ndarray, place: np.ndarray, value: np.ndarray
    ) -> None:
        """Take in what is better than what is kept; later offers have later places."""
        better = (score > self.worst[group]).nonzero()[0]
        if not len(better):
            return
        self._parts.append((group[better], score[better], place[better], value[better]))
        self._waiting += len(better)
        if self._waiting >= self._most:
            self.settle()

    def settle(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Group, score, place and value of what is kept: by group, the best first."""
        if len(self._parts) > 1:
            group, score, place, value = (
                np.concatenate(column) for column in zip(*self._parts, strict=True)
            )
            if (left := self._left(group, value)) is not None:
                group, score, place, value = group[left], score[left], place[left], value[left]
            order = ((group << 32) | (BEST - score.astype(np.int64))).argsort(kind="stable")
            rank = ranks(group[order])
            order, rank = order[rank < self.k], rank[rank < self.k]
            found = group[order], score[order], place[order], value[order]
            last = rank == self.k - 1
            self.worst[found[0][last]] = found[1][last]
            self._parts, self._waiting = [found], 0
            self._most = max(_HELD, len(order))
        return self._parts[0]

    def _left(self, group: np.ndarray, value: np.ndarray) -> np.ndarray | None:
        """Which are still wanted; None for all."""
        return None


def ranks(group: np.ndarray) -> np.ndarray:
    """Of entries in order of their groups, the number of each in its group."""
    new = np.ones(len(group), bool)
    new[1:] = group[1:] != group[:-1]
    starts = new.nonzero()[0]
    return np.arange(len(group)) - np.repeat(starts, np.diff([*starts, len(group)]))


class KeptByWidth(Kept):
    """A uniform sample of each unit in each of the :data:`RING` bins below its largest value.

    Intervals of equal width up to the largest value are unions of parts of such bins, so they are sampled though the largest value is known
    at the end only. Bins are kept in a ring: the largest value only grows, and what falls out is not wanted again.
    """

    def __init__(self, units: int, k: int) -> None:
        super().__init__(units * RING, k)
        self.highest = np.full(units, -1, np.int32)
        """The bin of the largest value of each unit; −1 where there is none."""
        self._bin = np.full(units * RING, -1, np.int16)

    def offer_values(
        self, unit: np.ndarray, score: np.ndarray, place: np.ndarray, value: np.ndarray
    ) -> None:
        """Take in values above zero."""
        bins = bins_of(value)
        np.maximum.at(self.highest, unit, bins)
        near = (bins > self.highest[unit] - RING).nonzero()[0]
        unit, bins = unit[near], bins[near]
        group = unit * RING + (bins & (RING - 1))
        fresh = group[self._bin[group] != bins]
        self.worst[fresh] = WORST
        self._bin[group] = bins
        self.offer(group, score[near], place[near], value[near])

    def _left(self, group: np.ndarray, value: np.ndarray) -> np.ndarray | None:
        left: np.ndarray = bins_of(value) > self.highest[group // RING] - RING
        return left
