"""Samples of intervals of equal width, from samples of narrower bins and the sample of all.

In a bin of which all tokens with a lot beyond some number are kept, the tokens of a part of it with a lot beyond that number are known as well. So of an
interval that several bins overlap, all tokens are known whose lot is beyond the largest of these bins' numbers; and those of highest lot among them
are a uniform sample of it.
"""

from __future__ import annotations

import numpy as np

from garcon_jupyter.features.kept import RING, WORST, Kept, KeptByWidth, bin_edge, ranks

INTERVALS = 10
"""Into which the range from 0 to the largest value of a unit is cut."""

EACH = 4
"""Tokens of each."""

SLOTS = INTERVALS * EACH

KEPT = 8
"""Tokens of each bin, from which those of intervals are taken."""

_NONE = np.int64(1) << 40

_MORE = 1 + 1e-12
"""By which edges are taken wider: a value at the edge of an interval may be rounded into either."""


def interval_of(value: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """The interval of values above zero, the lowest 0."""
    cut = np.floor(value.astype(np.float64) * INTERVALS / highest.astype(np.float64))
    return cut.clip(0, INTERVALS - 1).astype(np.int64)


def by_width(
    wide: KeptByWidth, sample: Kept, highest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each unit up to :data:`EACH` tokens of each interval.

    Args:
        wide: samples of the bins below the largest value.
        sample: of all tokens at which units fire.
        highest: the largest value of each unit, float64 [units].

    Returns:
        (unit, slot, place, value), with ``slot // EACH`` as interval.
    """
    parts = []
    for kept, divide in ((wide, RING), (sample, 1)):
        group, score, place, value = kept.settle()
        parts.append((group // divide, score, place, value))
    unit, score, place, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    once = _first_of_each(unit, place)
    unit, score, place, value = unit[once], score[once], place[once], value[once]
    part = interval_of(value, highest[unit])
    least = np.minimum(_of_bins(wide, highest), _worst(sample)[:, None])
    known = score > least[unit, part]
    unit, score, place, value, part = (
        column[known] for column in (unit, score, place, value, part)
    )
    group = unit * INTERVALS + part
    order = np.lexsort((place, -score.astype(np.int64), group))
    rank = ranks(group[order])
    order, rank = order[rank < EACH], rank[rank < EACH]
    return unit[order], part[order] * EACH + rank, place[order], value[order]


def _first_of_each(unit: np.ndarray, place: np.ndarray) -> np.ndarray:
    order = np.lexsort((place, unit))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(unit[order]) != 0) | (np.diff(place[order]) != 0)
    found: np.ndarray = order[new]
    return found


def _worst(kept: Kept) -> np.ndarray:
    kept.settle()
    return kept.worst.astype(np.int64)


def _of_bins(wide: KeptByWidth, highest: np.ndarray) -> np.ndarray:
    """The score beyond which all tokens of each interval are kept in bins, int64 [units, intervals]."""
    worst = _full(wide)
    units = len(highest)
    found = np.full((units, INTERVALS), WORST, np.int64)
    found[:, 0] = _NONE  # it begins below the lowest bin
    edges = highest[:, None] * np.arange(INTERVALS + 1) / INTERVALS
    numbers = np.arange(units) * RING
    for below in range(RING):
        bins = np.maximum(wide.highest - below, 0)
        low, high = bin_edge(bins), bin_edge(bins + 1)
        mine = worst[numbers + (bins & (RING - 1))]
        overlap = (low[:, None] < edges[:, 1:] * _MORE) & (high[:, None] * _MORE > edges[:, :-1])
        found = np.where(overlap, np.maximum(found, mine[:, None]), found)
    return found


def _full(wide: KeptByWidth) -> np.ndarray:
    """Of each bin the worst score that is kept, where so many are kept as may be."""
    group, score, _, _ = wide.settle()
    found = np.full(len(wide.worst), WORST, np.int64)
    rank = ranks(group)
    last = rank == wide.k - 1
    found[group[last]] = score[last]
    return found
