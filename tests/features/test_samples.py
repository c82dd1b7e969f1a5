"""Samples are uniform over seeds, and what is not must fail: singles, pairs, cuts at quantiles, intervals of equal width."""

from __future__ import annotations

import math

import numpy as np
import torch

from garcon_jupyter.features import sums
from garcon_jupyter.features.codes import Codes
from garcon_jupyter.features.kept import lots, scores_of, sortable
from garcon_jupyter.features.reducing import Merging, Reduction
from garcon_jupyter.features.widths import EACH, INTERVALS, KEPT, by_width, interval_of
from garcon_jupyter.recorders import examples


def chi_squared(counts: np.ndarray, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def four_sigma(found: float, freedom: int) -> bool:
    return abs(found - freedom) < 4 * math.sqrt(2 * freedom)


def codes(unit: np.ndarray, row: np.ndarray, value: np.ndarray) -> Codes:
    return Codes(row.astype(np.int64), unit.astype(np.int64), value.astype(np.float32))


def test_lots_and_scores_are_those_of_recorders() -> None:
    rng = np.random.default_rng(0)
    places, units = rng.integers(0, 1 << 60, 500), rng.integers(0, 1 << 20, 500)
    mine = lots(11, places, units)
    theirs = examples.lot(11, torch.from_numpy(places), torch.from_numpy(units))
    assert np.array_equal(mine, theirs.numpy())
    assert np.array_equal(scores_of(mine), examples.score_of(theirs).numpy())
    values = rng.normal(size=500).astype(np.float32)
    assert np.array_equal(sortable(values), examples.sortable(torch.from_numpy(values)).numpy())


def sampled(seeds: int, n: int, k: int, shards: tuple[int, ...]) -> np.ndarray:
    """Which of n tokens a sample of k has, over seeds (each a unit of its own); merged over shards, bool [seeds, n]."""
    merging = Merging(0, seeds, 1, k, KEPT, 0)
    first = 0
    for count in shards:
        keeps = Reduction(0, seeds, 1, k, KEPT)
        row = np.repeat(np.arange(first, first + count), seeds)
        unit = np.tile(np.arange(seeds), count)
        keeps.take(codes(unit, row, np.ones(len(row))), row)
        merging.take(keeps.rows())
        first += count
    group, _, place, _ = merging.sample.settle()
    found = np.zeros((seeds, n), bool)
    found[group, place] = True
    return found


def test_the_sample_is_uniform_in_singles_and_pairs_however_sharded() -> None:
    seeds, n, k = 20_000, 12, 4
    found = sampled(seeds, n, k, (2, 1, 9))
    assert (found.sum(1) == k).all()
    assert np.array_equal(found, sampled(seeds, n, k, (12,)))
    singles = found.sum(0)
    # A sample is without replacement, so the counts vary less: by (1 − k/n) of n/(n − 1).
    freedom = n - 1
    assert four_sigma(chi_squared(singles, seeds * k / n) / (1 - k / n) * (n - 1) / n, freedom)
    pairs = (found.astype(np.int64).T @ found)[np.triu_indices(n, 1)]
    expected = seeds * k * (k - 1) / (n * (n - 1))
    assert four_sigma(chi_squared(pairs, expected), len(pairs) - 1)


def test_reservoirs_merged_without_weights_are_not_uniform() -> None:
    """The wrong answer: each shard keeps k at random, and k of what came are drawn."""
    seeds, n, k = 20_000, 12, 4
    rng = np.random.default_rng(0)
    counts = np.zeros(n)
    for _ in range(seeds):
        came: list[int] = []
        first = 0
        for count in (2, 1, 9):
            mine = np.arange(first, first + count)
            came += rng.permutation(mine)[:k].tolist()
            first += count
        counts[rng.permutation(came)[:k]] += 1
    assert chi_squared(counts, seeds * k / n) > 1000


def test_cuts_of_the_sample_vary_as_a_uniform_sample_does() -> None:
    """The standard deviation of a cut's rank is sqrt(q (1 − q) / S)."""
    units, n = 400, 4000
    rng = np.random.default_rng(3)
    values = rng.lognormal(size=n).astype(np.float32)
    ranks = np.empty(n)
    ranks[values.argsort()] = (np.arange(n) + 0.5) / n
    for size in (200, 1000):
        keeps = Reduction(0, units, 1, size, 1)
        for first in range(0, n, 500):
            row = np.repeat(np.arange(first, first + 500), units)
            unit = np.tile(np.arange(units), 500)
            keeps.take(codes(unit, row, values[row]), row)
        group, _, place, _ = keeps.sample.settle()
        kept = ranks[place].reshape(units, size)
        assert np.array_equal(group, np.repeat(np.arange(units), size))
        cut = np.median(kept, 1)
        expected = math.sqrt(0.25 / size * (1 - size / n))  # without replacement
        assert abs(cut.std() / expected - 1) < 0.15


def test_intervals_of_equal_width_are_sampled_where_a_uniform_sample_has_nothing() -> None:
    """Lognormal values: nearly all are in the lowest interval; each of the others is uniform in itself."""
    units, n = 300, 6000
    rng = np.random.default_rng(4)
    values = rng.lognormal(sigma=1.0, size=n).astype(np.float32)
    values[17] = values.max() * 1.01
    highest = np.full(units, values.max(), np.float64)
    merging = Merging(0, units, 1, 200, KEPT, 0)
    for first in range(0, n, 1500):
        keeps = Reduction(0, units, 1, 200, KEPT)
        row = np.repeat(np.arange(first, first + 1500), units)
        unit = np.tile(np.arange(units), 1500)
        keeps.take(codes(unit, row, values[row]), row)
        merging.take(keeps.rows())
    unit, slot, place, value = by_width(merging.wide, merging.sample, highest)
    part = slot // EACH
    assert np.array_equal(part, interval_of(value, highest[unit])) and (value > 0).all()
    truth = interval_of(values, np.full(n, highest[0]))
    _, _, sampled_places, _ = merging.sample.settle()
    tested = 0
    for interval in range(INTERVALS):
        members = (truth == interval).nonzero()[0]
        mine = place[part == interval]
        assert np.isin(mine, members).all()
        each = np.bincount(unit[part == interval], minlength=units)
        assert each.max() <= EACH
        if len(members) <= EACH:
            assert (each == len(members)).all() or len(members) > KEPT
        elif len(members) < 120:
            counts = np.array([(mine == member).sum() for member in members])
            share = len(mine) / units / len(members)
            found = chi_squared(counts, len(mine) / len(members)) / (1 - share)
            assert four_sigma(found * (len(members) - 1) / len(members), len(members) - 1)
            tested += 1
    assert tested >= 2
    upper = (truth >= INTERVALS // 2).sum() / n
    assert upper * 200 < 1 < (part >= INTERVALS // 2).sum() / units
    assert len(sampled_places) == units * 200


def test_sums_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(2)
    value = np.concatenate([rng.normal(size=4000) * 1e3, rng.normal(size=4000) * 1e-4]).astype("f4")
    unit = rng.integers(0, 3, len(value))
    one, other = np.zeros((3, sums.DIGITS), np.int64), np.zeros((3, sums.DIGITS), np.int64)
    sums.add(one, unit, value)
    order = rng.permutation(len(value))
    for piece in np.array_split(order, 7):
        sums.add(other, unit[piece], value[piece])
    assert np.array_equal(one, other)
    # The wrong answer: sums of floating-point numbers depend on their order.
    plain = (value.astype(np.float64) ** 3).tolist()
    assert sum(plain) != sum(sorted(plain))
    mean = sums.moments(one, len(value))[:, 0] * len(value)
    exact = [math.fsum(value[unit == u].astype(np.float64)) for u in range(3)]
    assert np.allclose(mean, exact, rtol=1e-14)
    sums.add(one, np.array([1]), np.array([np.inf]))
    assert (
        np.isnan(sums.moments(one, 100)[1]).all() and np.isfinite(sums.moments(one, 100)[0]).all()
    )
