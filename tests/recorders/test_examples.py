"""Examples that are kept: the same as sorting everything, whatever way the data came."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders import (
    BottomK,
    EqualCountReservoir,
    EqualWidthReservoir,
    Examples,
    Reservoir,
    TopK,
    alone,
    equal_count,
    reservoir,
    seen,
)
from garcon_jupyter.recorders.examples import lots, sortable
from tests.recorders.splits import Data, gathered, kinds, make, seeds, sizes

few = settings(max_examples=60, deadline=None)
longer = st.tuples(st.integers(1, 200), st.integers(1, 6))
"""Long enough for stretches of several tokens, and a shorter one at the end."""


def expected(data: Data, unit: int, k: int, sign: int) -> list[tuple[float, int, int]]:
    """(value, document, offset) of the best k, by sorting all of them."""
    column = data.values[:, unit].double().tolist()
    rows = [
        (value, int(document), int(offset))
        for value, document, offset in zip(column, data.documents, data.offsets, strict=True)
        if not np.isnan(value)
    ]
    return sorted(rows, key=lambda row: (-sign * row[0], row[1], row[2]))[:k]


def kept(state: Examples, unit: int) -> list[tuple[float, int, int]]:
    columns = (state.values[unit], state.documents[unit], state.offsets[unit])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [row for row, filled in zip(rows, state.filled[unit].tolist(), strict=True) if filled]


@few
@given(seeds, longer, kinds, st.integers(1, 8), st.sampled_from([1, -1]))
def test_topk_is_sorting_everything(
    seed: int, size: tuple[int, int], kind: str, k: int, sign: int
) -> None:
    data = make(seed, *size, kind)
    state = gathered((TopK if sign > 0 else BottomK)(k), data, seed)
    assert state.tokens_seen == size[0] and state.values.shape == (size[1], k)
    for unit in range(size[1]):
        assert kept(state, unit) == expected(data, unit, k, sign)


def test_more_slots_than_values() -> None:
    data = make(0, 3, 2, "smooth")
    state = TopK(5).update(None, data.seen())
    assert state.filled.sum(1).tolist() == [3, 3]
    assert state.documents[0].tolist()[3:] == [-1, -1] and state.values[0, 3:].isnan().all()


def test_of_equal_values_the_earliest_are_kept() -> None:
    """And not whichever came first to this rank."""
    data = make(0, 10, 1, "smooth")
    data.values[:] = 1.0
    late, early = data.seen(slice(5, 10)), data.seen(slice(0, 5))
    state = TopK(2).update(TopK(2).update(None, late), early)
    assert state.places[0].tolist() == early.places[:2].tolist()


@few
@given(seeds, sizes, kinds)
def test_windows_stay_in_their_document(seed: int, size: tuple[int, int], kind: str) -> None:
    data = make(seed, *size, kind)
    # Whole documents to each shard, as batches have them.
    state = TopK(3, before=2, after=1).update(None, data.seen())
    assert state.tokens is not None and state.around is not None
    index = {
        (int(d), int(o)): n
        for n, (d, o) in enumerate(zip(data.documents, data.offsets, strict=True))
    }
    for unit in range(size[1]):
        for slot, (_, document, offset) in enumerate(kept(state, unit)):
            for column, step in enumerate((-2, -1, 0, 1)):
                there = index.get((document, offset + step))
                token = -1 if there is None else int(data.tokens[there])
                value = torch.tensor(torch.nan) if there is None else data.values[there, unit]
                assert state.tokens[unit, slot, column] == token
                assert torch.equal(
                    state.around[unit, slot, column].nan_to_num(7), value.nan_to_num(7)
                )


@few
@given(seeds, sizes, kinds, st.integers(1, 8))
def test_a_reservoir_keeps_the_highest_lots(
    seed: int, size: tuple[int, int], kind: str, k: int
) -> None:
    data = make(seed, *size, kind)
    state = gathered(Reservoir(k, seed=seed), data, seed)
    everything = data.seen()
    drawn = lots(seed, everything.places, torch.arange(size[1]))
    for unit in range(size[1]):
        real = ~data.values[:, unit].isnan()
        order = drawn[:, unit][real].sort(descending=True, stable=True).indices[:k]
        assert (
            state.places[unit][state.filled[unit]].tolist()
            == everything.places[real][order].tolist()
        )


def test_a_reservoir_is_uniform() -> None:
    """Over many units each token is drawn equally often: chi-square against the uniform."""
    n, units, k = 50, 4000, 5
    data = make(1, n, units, "smooth")
    state = Reservoir(k).update(None, data.seen())
    places = data.seen().places
    drawn = torch.searchsorted(places, state.places.flatten())
    counts = torch.bincount(drawn, minlength=n).double()
    chi_square = float(((counts - units * k / n) ** 2 / (units * k / n)).sum())
    assert chi_square < 85.4  # 0.999 of 49 degrees of freedom
    # Tokens of one unit are drawn without regard to those of the next.
    first, second = (set(state.places[unit].tolist()) for unit in (0, 1))
    assert first != second


@few
@given(seeds, sizes, kinds)
def test_equal_width_intervals(seed: int, size: tuple[int, int], kind: str) -> None:
    data = make(seed, *size, kind)
    recorder = EqualWidthReservoir(-1.0, 1.0, intervals=4, k=3, seed=seed)
    state = gathered(recorder, data, seed)
    everything = data.seen()
    drawn = lots(seed, everything.places, torch.arange(size[1]))
    for unit in range(size[1]):
        for part in range(4):
            low, high = -1 + part / 2, -1 + (part + 1) / 2
            column = data.values[:, unit]
            inside = (column >= low) & ((column <= high) if part == 3 else (column < high))
            order = drawn[:, unit][inside].sort(descending=True, stable=True).indices[:3]
            mine = state.places[unit * 4 + part][state.filled[unit * 4 + part]]
            assert mine.tolist() == everything.places[inside][order].tolist()


def test_equal_count_intervals_hold_equally_many() -> None:
    data = make(3, 2000, 4, "smooth")
    recorder = EqualCountReservoir(intervals=5, k=20)
    state = recorder.update(None, data.seen())
    slots = equal_count(state, 5)
    assert slots.shape == (4, 5, 20) and (slots >= 0).all()
    values = state.values.gather(1, slots.flatten(1)).view(slots.shape)
    assert (values[:, 1:].amin(2) >= values[:, :-1].amax(2)).all()
    # The quantiles of the sample are those of the data, within what 100 values can tell.
    for unit in range(4):
        middle = data.values[:, unit].quantile(0.4), data.values[:, unit].quantile(0.6)
        assert middle[0] - 0.35 < values[unit, 2].min() and values[unit, 2].max() < middle[1] + 0.35


def test_sortable_sorts() -> None:
    values = torch.tensor([-torch.inf, -1e30, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, torch.inf])
    keys = sortable(values).tolist()
    assert keys == sorted(keys) and keys[4] == keys[5] and len(set(keys)) == 8


@pytest.mark.parametrize(
    "make_one",
    [
        lambda: TopK(0),
        lambda: Reservoir(3, before=-1),
        lambda: EqualWidthReservoir(1, 1),
        lambda: EqualCountReservoir(0),
    ],
)
def test_senseless_settings(make_one) -> None:
    with pytest.raises(BadProbe):
        make_one()


def test_lots_are_drawn_alike_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that a cache holds has some of the units and some of the tokens: the highest lots are those of all."""
    values = torch.randn(1, 300, 70, generator=torch.Generator().manual_seed(2))
    given, recorder = seen(values, alone(torch.arange(300)[None])), Reservoir(3, before=1)
    whole = recorder.update(None, given)
    monkeypatch.setattr(reservoir, "_LOTS", 64)
    monkeypatch.setattr(reservoir, "_WAITING", 50)
    monkeypatch.setattr(reservoir, "_STRETCH", 4)  # 16 units at a time, the last 6
    pieces = recorder.update(None, given)
    for name, value in whole.tensors().items():
        assert torch.equal(value.nan_to_num(9.0), pieces.tensors()[name].nan_to_num(9.0)), name
    lowest = torch.full((70,), -(1 << 63))
    monkeypatch.setattr(reservoir._HighestLots, "of", lambda self, tokens: lowest)
    assert not torch.equal(recorder.update(None, given).places, whole.places)
