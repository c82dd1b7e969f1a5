"""Values of which only those that are not 0 are held: recorders keep what they keep of all values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from garcon_jupyter import recorders
from garcon_jupyter.recorders import Recorder, Seen, alone, seen
from garcon_jupyter.recorders.sparse_values import SparseValues

EVERY: list[Recorder[Any]] = [
    recorders.TopK(3),
    recorders.TopK(2, before=2, after=1),
    recorders.BottomK(3, before=1),
    recorders.Reservoir(3, before=1),
    recorders.EqualWidthReservoir(-1, 1, 5, 2),
    recorders.EqualCountReservoir(5, 2, after=2),
    recorders.Moments(),
    recorders.Histogram(),
    recorders.Quantiles(0.05),
    recorders.Firing(),
    recorders.Firing(-0.3),
    recorders.Firing(0.3),
    recorders.Sketch(16),
]
ROUNDED = {"moments": 1e-12, "sketch": 1e-5}
"""Of sums that are added up in another order, how far they may be off; all else is the same to the byte."""


def drawn(seed: int, shape: tuple[int, int, int], kind: str) -> Tensor:
    """[b, p, units], most of it 0."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape).astype(np.float32)
    if kind == "equal":
        values = random.integers(-1, 3, size=shape).astype(np.float32) / 2
    if kind == "odd":
        odd = np.array([0, np.nan, np.inf, -np.inf, 1e-30, -1e30, 1], dtype=np.float32)
        values = random.choice(odd, size=shape)
    values[random.random(shape) >= random.choice([0.0, 0.1, 0.4, 1.0], size=shape[2])] = 0
    return torch.from_numpy(values + 0.0)


def here_of(shape: tuple[int, int, int], number: int, order: int) -> SimpleNamespace:
    """A batch of a run: its documents are in order, or go backward."""
    b, p, _ = shape
    random = torch.Generator().manual_seed(number)
    mask = torch.rand(b, p, generator=random) < 0.8
    told = alone(torch.randint(0, 9, (b, p), generator=random), mask)
    told.document = (10 * order * number + torch.arange(b)[:, None]).expand(b, p) + 1000
    told.offset = torch.arange(p).expand(b, p)
    return told


def states(recorder: Recorder[Any], batches: list[tuple[Tensor, SimpleNamespace]]) -> Any:
    context = SimpleNamespace()
    for tensor, here in batches:
        context.here = here
        recorder(context, tensor)
    return getattr(context, recorder.name)


def same(found: Any, wanted: Any, tolerance: float = 0.0) -> bool:
    assert found.numbers() == wanted.numbers() and found.tensors().keys() == wanted.tensors().keys()
    pairs = [(value, wanted.tensors()[name]) for name, value in found.tensors().items()]
    return all(
        one.dtype == other.dtype
        and torch.allclose(one.double(), other.double(), tolerance, tolerance, equal_nan=True)
        for one, other in pairs
    )


@pytest.mark.parametrize("recorder", EVERY, ids=repr)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 6)),
    st.sampled_from(["smooth", "equal", "odd"]),
    st.sampled_from([1, -1]),
    st.booleans(),
)
def test_as_of_all_values(
    recorder: Recorder[Any],
    seed: int,
    shape: tuple[int, int, int],
    kind: str,
    order: int,
    leaves_out: bool,
) -> None:
    if kind == "odd" and recorder.name in ROUNDED:
        kind = "smooth"  # what becomes of infinities in sums of powers has no meaning
    if leaves_out:
        recorder = recorder.without("first", 3)
    dense = [(drawn(seed + n, shape, kind), here_of(shape, n, order)) for n in range(3)]
    few = [(values.to_sparse(), here) for values, here in dense]
    assert recorder.reads_sparse
    kept = [getattr(states(recorder, [one]), "tokens_seen", 0) for one in dense if _any(one)]
    if not kept:
        return
    tolerance = ROUNDED.get(recorder.name, 0.0)
    assert same(states(recorder, few), states(recorder, dense), tolerance)


def _any(batch: tuple[Tensor, SimpleNamespace]) -> bool:
    observed = seen(*batch).without("first", 3)
    return len(observed.tokens) > 0


def test_zeros_that_are_forgotten_are_noticed() -> None:
    """A unit that is on twice has zeros among its three largest, and most of its moments."""
    values = torch.zeros(1, 6, 1)
    values[0, 2], values[0, 4] = 2.0, 1.0
    here = alone(torch.zeros(1, 6, dtype=torch.long))
    top, moments = (
        states(recorder, [(values.to_sparse(), here)])
        for recorder in (recorders.TopK(3), recorders.Moments())
    )
    assert top.values.tolist() == [[2.0, 1.0, 0.0]] and top.offsets.tolist() == [[2, 4, 0]]
    assert moments.mean.item() == 0.5 and moments.low.item() == 0.0
    forgotten = SparseValues.of(values.to_sparse().coalesce())
    assert (forgotten.value.double().mean() - moments.mean).abs() > 0.9


def test_all_shards_are_the_whole() -> None:
    values = drawn(0, (2, 8, 6), "smooth")
    here = here_of((2, 8, 6), 0, 1)
    for recorder in EVERY:
        parts = []
        for start, stop in ((0, 4), (4, 6)):
            here.shard = SimpleNamespace(dim=2, start=start)
            parts.append(states(recorder, [(values[..., start:stop].to_sparse(), here)]))
        here.shard = None
        whole = states(recorder, [(values, here)])
        assert same(recorder.merge(parts), whole, ROUNDED.get(recorder.name, 0.0)), recorder


def test_who_makes_a_recorder_of_another_is_shown_all_values() -> None:
    class Mine(recorders.TopK):
        def update(self, state: Any, seen: Seen) -> Any:
            return super().update(state, seen)

    assert recorders.TopK(3).reads_sparse and not Mine(3).reads_sparse
    assert not recorders.Together([recorders.TopK(3), recorders.TokenStatistics()]).reads_sparse
    assert recorders.Together([recorders.TopK(3), recorders.Moments()]).reads_sparse
    assert not recorders.TopK(3).of(lambda tensor: tensor, units=4).reads_sparse
    assert not recorders.Covariance().reads_sparse


class _Largest(TorchDispatchMode):
    """The size of the largest tensor that anything makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, Tensor) and made.layout is torch.strided:
                self.numbers = max(self.numbers, made.untyped_storage().nbytes() // 4)
        return out


def test_nothing_of_all_values_is_held() -> None:
    """2,048 tokens of 4,096 units: of the recorders of an atlas, in the first batch and in a later one."""
    shape, k = (8, 256, 4096), 16
    random = torch.Generator().manual_seed(0)
    chosen = torch.rand(2048, k, generator=random).mul_(4096).long()
    where = torch.stack([torch.arange(2048).repeat_interleave(k), chosen.flatten()])
    row = torch.stack([where[0] // 256, where[0] % 256, where[1]])
    value = torch.rand(2048 * k, generator=random)
    few = torch.sparse_coo_tensor(row, value, shape, check_invariants=False).coalesce()
    for recorder in (
        recorders.TopK(5),
        recorders.EqualCountReservoir(2, 2),
        recorders.Firing(),
        recorders.Moments(),
    ):
        with _Largest() as largest:
            states(recorder, [(few, here_of(shape, n, 1)) for n in range(2)])
        assert largest.numbers <= 2048 * 4096 // 4, recorder
    with _Largest() as largest:
        states(recorders.Moments(), [(few.to_dense(), here_of(shape, 0, 1))])
    assert largest.numbers >= 2048 * 4096 // 2
