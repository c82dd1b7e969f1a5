"""Every order is as likely as any other, under any seed; and what only looks so fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from garcon_jupyter.exchanges import keys

SEEDS = 12_000


def chi_squared(observed: np.ndarray, expected: float) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def of_four(order: Callable[[int], tuple[int, ...]]) -> np.ndarray:
    """How often each of the 24 orders of four rows comes, over seeds."""
    numbers = {each: n for n, each in enumerate(itertools.permutations(range(4)))}
    found = np.zeros(24)
    for seed in range(SEEDS):
        found[numbers[order(seed)]] += 1
    return found


def ours(seed: int) -> tuple[int, ...]:
    return tuple(keys.order_of(4, seed).tolist())


def equal_split(seed: int) -> tuple[int, ...]:
    """The article's way, with two jobs and two files each: every job gives each file as many rows."""
    random = np.random.default_rng(seed)
    jobs = [random.permutation([0, 1]), random.permutation([2, 3])]
    files = [[job[file] for job in jobs] for file in range(2)]
    return tuple(int(row) for file in files for row in random.permutation(file))


def half_buffer(seed: int) -> tuple[int, ...]:
    """A buffer of two, of which half goes out at a time."""
    random, out = np.random.default_rng(seed), []
    buffer = [0, 1]
    for row in (2, 3):
        out.append(buffer.pop(random.integers(2)))
        buffer.append(row)
    return (*out, *random.permutation(buffer).tolist())


def weak(seed: int) -> tuple[int, ...]:
    """A key that is a multiple of number and seed."""
    with np.errstate(over="ignore"):
        key = (np.arange(4, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    return tuple(key.argsort().tolist())


def test_all_orders_of_four_are_equally_likely() -> None:
    counts = of_four(ours)
    assert counts.min() > 0
    assert 5 < chi_squared(counts, SEEDS / 24) < 60  # 23 degrees of freedom


@pytest.mark.parametrize(("way", "missing"), [(equal_split, 8), (half_buffer, 8), (weak, 18)])
def test_what_only_looks_uniform_fails(way: Callable[[int], tuple[int, ...]], missing: int) -> None:
    counts = of_four(way)
    assert (counts == 0).sum() >= missing
    assert chi_squared(counts, SEEDS / 24) > 1000


def table(places: np.ndarray, cells: int = 32) -> float:
    """Chi squared of the table of where rows were and where they are, (cells − 1)² degrees of freedom."""
    rows = len(places)
    counts = np.zeros((cells, cells))
    np.add.at(counts, (np.arange(rows) * cells // rows, places * cells // rows), 1)
    return chi_squared(counts, rows / cells**2)


@pytest.mark.parametrize("seed", [0, 7, (1 << 64) - 1])
def test_where_a_row_was_says_nothing_of_where_it_is(seed: int) -> None:
    order = keys.order_of(1 << 18, seed)
    assert np.array_equal(np.sort(order), np.arange(1 << 18))
    assert 785 < table(order) < 1137  # 961 ± 4 standard deviations


def test_an_equal_split_is_too_even_to_be_a_shuffle() -> None:
    rows, jobs = 1 << 18, 32
    random = np.random.default_rng(0)
    pieces = [random.permutation(p).reshape(jobs, -1) for p in np.arange(rows).reshape(jobs, -1)]
    order = np.concatenate(
        [random.permutation(np.concatenate([p[j] for p in pieces])) for j in range(jobs)]
    )
    assert table(order) < 785


def test_orders_of_neighbouring_seeds_have_nothing_in_common() -> None:
    def common(places: Callable[[int], np.ndarray], by: int) -> float:
        """Of where rows go under one seed, and those `by` further under the next."""
        one, other = np.roll(places(7), -by), places(8)
        return table(one[other.argsort()])

    rows = 1 << 18

    def counted_on(
        seed: int,
    ) -> np.ndarray:  # the wrong way, as where a seed is added to the number
        with np.errstate(over="ignore"):
            words = np.arange(rows, dtype=np.uint64) + np.uint64(seed)
        return keys.mixed(words).argsort().argsort()

    for by in (0, 1, -1):
        assert 785 < common(lambda seed: keys.order_of(rows, seed).argsort(), by) < 1137
    assert common(counted_on, 1) > 1e6


def test_no_two_rows_have_one_key() -> None:
    found = keys.keys_of(np.arange(1 << 18), 3)
    assert len(np.unique(found)) == 1 << 18
    assert np.array_equal(found[5:9], keys.keys_of(np.arange(5, 9), 3))  # of a row alone


@pytest.mark.parametrize(("rows", "kept"), [(5, 1 << 21), (100_000, 1 << 21), (100_000, 50)])
def test_bounds_are_the_keys_at_their_ranks(
    rows: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_KEPT", kept)
    ranks = np.unique(np.linspace(1, rows - 1, 12).astype(np.int64))
    ordered = np.sort(keys.keys_of(np.arange(rows), 11))
    assert np.array_equal(keys.bounds_of(rows, 11, ranks), ordered[ranks])
    assert len(keys.bounds_of(rows, 11, ranks[:0])) == 0
