"""Pass 1: of one data shard and one feature shard the strongest tokens, the samples, the counts and the sums.

A unit *fires* at a token where its value is above zero. What is kept of it are tokens at which it fires.
"""

from __future__ import annotations

import numpy as np

from garcon_jupyter.features import rows as unit_rows
from garcon_jupyter.features import sums
from garcon_jupyter.features.codes import Codes
from garcon_jupyter.features.kept import (
    RING,
    Kept,
    KeptByWidth,
    bin_edge,
    bins_of,
    lots,
    lots_of,
    place_lots,
    scores_of,
    sortable,
    unit_lots,
)
from garcon_jupyter.features.rows import HISTOGRAM, RANGE, SAMPLE, SUMS, TOP, WIDE, UnitRows

LOW, HIGH, BITS = -16, 8, 2
"""Of the histogram's bins, as :class:`garcon_jupyter.recorders.Histogram` has them by itself."""

SIDES = ((HIGH - LOW) << BITS) + 1
BINS = 2 * SIDES + 1

OF_A_UNIT = 8 * sums.DIGITS + 4 * BINS + 8 + 4 * 2 + 16 * 6
"""Bytes of counts and sums that a unit takes, and of what its kept tokens are known by."""

OF_A_SLOT = 3 * 24
"""Bytes of a kept token while better ones are looked for."""


def histogram_bins(values: np.ndarray) -> np.ndarray:
    """The bin of each value, as :class:`garcon_jupyter.recorders.Histogram` counts it, int64."""
    raw = values.astype(np.float32).view(np.int32)
    bins = (raw & 0x7FFFFFFF) >> (23 - BITS)
    bins -= ((LOW + 127) << BITS) - 1
    np.clip(bins, 0, SIDES, out=bins)
    return np.where(raw < 0, -bins, bins).astype(np.int64) + SIDES


class Reduction:
    """What one job keeps of its units.

    Args:
        first, stop: its units, counted over all.
        k: strongest tokens of each.
        sample: tokens of the sample.
        each: tokens of each bin of the sample by width.
        seed: of the lots.
    """

    def __init__(
        self, first: int, stop: int, k: int, sample: int, each: int, seed: int = 0
    ) -> None:
        units = stop - first
        self._first, self._seed, self._units = first, seed, np.arange(first, stop)
        self.top, self.sample = Kept(units, k), Kept(units, sample)
        self.wide = KeptByWidth(units, each)
        self._counts = np.zeros(units * BINS, np.int32)
        self._sums = np.zeros((units, sums.DIGITS), np.int64)
        self._low = np.full(units, np.inf, np.float32)
        self._high = np.full(units, -np.inf, np.float32)

    def take(self, codes: Codes, places: np.ndarray) -> None:
        """Take in values that are not 0.

        Args:
            codes: in the order of their rows, all of these units.
            places: of each.
        """
        real = ~np.isnan(codes.value)
        np.add.at(self._sums, (codes.unit[~real] - self._first, sums.BEYOND), 1)
        unit, value = codes.unit[real] - self._first, codes.value[real]
        places = places[real]
        np.add.at(self._counts, unit * BINS + histogram_bins(value), 1)
        np.minimum.at(self._low, unit, value)
        np.maximum.at(self._high, unit, value)
        sums.add(self._sums, unit, value)
        fires = value > 0
        unit, value, places = unit[fires], value[fires], places[fires]
        np.add.at(self._sums, (unit, sums.FIRED), 1)
        self.top.offer(unit, sortable(value), places, value)
        score = scores_of(lots(self._seed, places, unit + self._first))
        self.sample.offer(unit, score, places, value)
        self.wide.offer_values(unit, score, places, value)

    def take_dense(self, values: np.ndarray, places: np.ndarray) -> None:
        """Take in a tile of values of all these units.

        Args:
            values: float32 [n, units].
            places: int64 [n].
        """
        if not len(values):
            return
        self._take_statistics(values)
        fires = values > 0
        self._sums[:, sums.FIRED] += fires.sum(0)
        row, unit = (fires & (sortable(values) > self.top.worst)).nonzero()
        found = values[row, unit]
        self.top.offer(unit, sortable(found), places[row], found)
        of_tokens = place_lots(self._seed, places)[:, None]
        score = scores_of(lots_of(of_tokens, unit_lots(self._seed, self._units)))
        row, unit = (fires & (score > self.sample.worst)).nonzero()
        self.sample.offer(unit, score[row, unit], places[row], values[row, unit])
        row, unit = (fires & (values >= self._least_wide(values))).nonzero()
        self.wide.offer_values(unit, score[row, unit], places[row], values[row, unit])

    def _least_wide(self, values: np.ndarray) -> np.ndarray:
        """Below it no value of a unit is in a bin that is kept, once these have been seen; float32 [units]."""
        peak = np.fmax.reduce(values, 0, initial=0)
        highest = np.maximum(self.wide.highest, np.where(peak > 0, bins_of(peak), -1))
        return bin_edge(np.maximum(highest - RING + 1, 0)).astype(np.float32)

    def _take_statistics(self, values: np.ndarray) -> None:
        units = values.shape[1]
        missing = np.isnan(values)
        if missing.any():
            unit = missing.nonzero()[1]
            np.add.at(self._sums, (unit, sums.BEYOND), 1)
            values = np.where(missing, np.float32(0), values)
        bins = histogram_bins(values) + np.arange(units) * BINS
        counts = np.bincount(bins.ravel(), minlength=units * BINS)
        counts[SIDES::BINS] -= (values == 0).sum(0)  # counted with those that are not written down
        self._counts += counts.astype(np.int32)
        self._low = np.minimum(self._low, values.min(0))
        self._high = np.maximum(self._high, values.max(0))
        exact = values.astype(np.float64)
        power = exact.copy()
        for number in sums.POWERS:
            # Of a tile a sum in one order, whichever shard the tile is in.
            sums.add_terms(self._sums, np.arange(units), power.sum(0), number)
            power *= exact

    def rows(self) -> UnitRows:
        """All that is kept, as rows."""
        found = []
        for kind, kept in ((TOP, self.top), (SAMPLE, self.sample), (WIDE, self.wide)):
            group, _, place, value = kept.settle()
            unit = group // (len(kept.worst) // len(self._units)) if kind == WIDE else group
            found.append(unit_rows.made(unit + self._first, kind, 0, place, value))
        counted = self._counts.nonzero()[0]
        found.append(
            unit_rows.made(
                counted // BINS + self._first, HISTOGRAM, counted % BINS, self._counts[counted]
            )
        )
        unit, digit = self._sums.nonzero()
        found.append(unit_rows.made(unit + self._first, SUMS, digit, self._sums[unit, digit]))
        for index, ends in enumerate((self._low, self._high)):
            there = np.isfinite(ends).nonzero()[0]
            found.append(unit_rows.made(there + self._first, RANGE, index, 0, ends[there]))
        return unit_rows.joined(found)


class Merging:
    """What is kept of units over all data shards, of what was kept in each.

    Args:
        units: how many, from `first` on.
        first: number of the first.
        k, sample, each, seed: as of the reductions.
    """

    def __init__(self, first: int, units: int, k: int, sample: int, each: int, seed: int) -> None:
        self.first, self.units, self._seed = first, units, seed
        self.top, self.sample = Kept(units, k), Kept(units, sample)
        self.wide = KeptByWidth(units, each)
        self.counts = np.zeros((units, BINS), np.int64)
        self.sums = np.zeros((units, sums.DIGITS), np.int64)
        self.low = np.full(units, np.inf)
        self.high = np.full(units, -np.inf)

    def take(self, found: UnitRows) -> None:
        """Take in the rows of a data shard, after those of shards before it."""
        for kind, kept in ((TOP, self.top), (SAMPLE, self.sample), (WIDE, self.wide)):
            mine = found.of(kind)
            unit = mine.unit - self.first
            if kind == TOP:
                kept.offer(unit, sortable(mine.value), mine.place, mine.value)
                continue
            score = scores_of(lots(self._seed, mine.place, mine.unit))
            if isinstance(kept, KeptByWidth):
                order = mine.place.argsort(kind="stable")
                unit, score = unit[order], score[order]
                kept.offer_values(unit, score, mine.place[order], mine.value[order])
            else:
                kept.offer(unit, score, mine.place, mine.value)
        for kind, table in ((HISTOGRAM, self.counts), (SUMS, self.sums)):
            mine = found.of(kind)
            np.add.at(table, (mine.unit - self.first, mine.index), mine.place)
        ends = found.of(RANGE)
        low = ends.take((ends.index == 0).nonzero()[0])
        high = ends.take((ends.index == 1).nonzero()[0])
        np.minimum.at(self.low, low.unit - self.first, low.value)
        np.maximum.at(self.high, high.unit - self.first, high.value)
