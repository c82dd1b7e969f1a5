"""Reductions: equal to a float64 computation on all values at once, whatever way the data came."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from garcon_jupyter import recorders
from garcon_jupyter.errors import BadProbe, BadRequest, UnknownName
from garcon_jupyter.recorders import (
    Coactivation,
    Covariance,
    CrossCovariance,
    Firing,
    Histogram,
    Moments,
    Own,
    Quantiles,
    Sketch,
    TokenStatistics,
    TopK,
    alone,
    seen,
)
from garcon_jupyter.recorders.examples import lots
from tests.recorders.splits import gathered, kinds, make, seeds, sizes

few = settings(max_examples=40, deadline=None)


def near(found: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(found.double(), wanted.double(), tolerance, tolerance, equal_nan=True)


@few
@given(seeds, sizes, st.floats(-1e4, 1e4))
def test_moments(seed: int, size: tuple[int, int], shift: float) -> None:
    """Also far from zero, where sums of powers would cancel."""
    data = make(seed, *size, "smooth")
    data.values[:] += shift
    state = gathered(Moments(), data, seed)
    x = data.values.double()
    d = x - x.mean(0)
    assert near(state.mean, x.mean(0)) and near(state.variance, x.var(0, correction=0), 1e-7)
    for power, found in ((3, state.m3), (4, state.m4)):
        assert near(found / size[0], (d**power).mean(0), 1e-6)
    assert near(state.low, x.amin(0)) and near(state.high, x.amax(0))


def test_shape_of_a_distribution() -> None:
    """Skewness and kurtosis of the exponential distribution are 2 and 9."""
    random = torch.Generator().manual_seed(0)
    data = make(0, 200_000, 1, "smooth")
    data.values[:] = -torch.log1p(-torch.rand(200_000, 1, generator=random))
    state = Moments().update(None, data.seen())
    assert abs(float(state.skewness) - 2) < 0.1 and abs(float(state.kurtosis) - 9) < 1


@few
@given(seeds, sizes, kinds, st.integers(0, 4))
def test_histogram(seed: int, size: tuple[int, int], kind: str, bits: int) -> None:
    data = make(seed, *size, kind)
    state = gathered(Histogram(-4, 2, bits), data, seed)
    edges = state.edges.numpy()
    assert len(edges) == state.counts.shape[1] + 1 and (np.diff(edges) > 0).all()
    side = len(edges) // 2
    for unit in range(size[1]):
        x = data.values[:, unit].double().numpy()
        x = x[~np.isnan(x)]
        # A bin holds its edge nearer to zero; the bin of zero holds neither.
        positive = np.searchsorted(edges[side:], x[x >= 0], side="right") + side - 1
        negative = np.searchsorted(edges[:side], x[x < 0], side="left") - 1
        bins = np.concatenate([positive, negative]).clip(0, len(edges) - 2)
        wanted = np.bincount(bins, minlength=len(edges) - 1)
        assert state.counts[unit].tolist() == wanted.tolist()


@few
@given(seeds, sizes, st.floats(0, 1), st.sampled_from([0.1, 0.01]))
def test_quantiles(seed: int, size: tuple[int, int], q: float, error: float) -> None:
    data = make(seed, *size, "smooth")
    state = gathered(Quantiles(error), data, seed)
    exact = data.values.double().sort(0).values[int(np.floor(q * (size[0] - 1)))]
    assert ((state.quantile(q) - exact).abs() <= error * exact.abs() + 2.0**-16).all()
    assert state.relative_error <= error


@few
@given(seeds, sizes, st.sampled_from(["smooth", "equal"]))
def test_firing(seed: int, size: tuple[int, int], kind: str) -> None:
    data = make(seed, *size, kind)
    state = gathered(Firing(0.5), data, seed)
    x = data.values.double()
    assert near(state.rate, (x > 0.5).double().mean(0))
    assert near(state.mean_when_fired, torch.where(x > 0.5, x, 0).sum(0) / (x > 0.5).sum(0))


@few
@given(seeds, sizes, st.floats(-100, 100))
def test_covariance(seed: int, size: tuple[int, int], shift: float) -> None:
    data = make(seed, *size, "smooth")
    data.values[:] += shift
    state = gathered(Covariance(), data, seed)
    x = data.values.double()
    d = x - x.mean(0)
    assert near(state.covariance, d.T @ d / size[0], 1e-7)
    if size[0] > 2 and size[1] > 1:
        assert near(state.correlation, torch.from_numpy(np.corrcoef(x.T.numpy())), 1e-6)


@few
@given(seeds, sizes)
def test_covariance_of_single_precision(seed: int, size: tuple[int, int]) -> None:
    data = make(seed, *size, "smooth")
    data.values[:] += 50
    state = gathered(Covariance(double=False), data, seed)
    d = data.values.double() - data.values.double().mean(0)
    assert near(state.covariance, d.T @ d / size[0], 1e-6)


def test_the_strongest_correlations() -> None:
    data = make(4, 60, 5, "smooth")
    data.values[:, 3] = -data.values[:, 1] + 0.1 * data.values[:, 0]
    data.values[:, 4] = 1.0
    units, values = Covariance().update(None, data.seen()).strongest(3)
    exact = torch.corrcoef(data.values.double().T[:4])
    assert units[1, 0] == 3 and values[1].tolist() == pytest.approx(
        [float(exact[1, int(unit)]) for unit in units[1]], abs=1e-6
    )
    assert units[4].tolist() == [-1] * 3 and values[4].isnan().all()  # it does not vary


@few
@given(seeds, sizes)
def test_a_sketch_is_signed_sums(seed: int, size: tuple[int, int]) -> None:
    data = make(seed, *size, "smooth")
    state = gathered(Sketch(8, seed), data, seed)
    drawn = lots(seed, data.seen().places, torch.arange(8))
    signs = torch.where(drawn < 0, -1, 1)
    sums = data.values.double().T @ signs.double()
    assert near(state.sums, sums, 1e-5) and torch.equal(state.signs, signs.sum(0))
    assert near(state.totals, data.values.double().sum(0))


@pytest.mark.parametrize("rate", [1.0, 0.01, 0.0001])
def test_a_sketch_estimates_correlations_within_its_error(rate: float) -> None:
    """Also of units that are large at two tokens or so, where a sample of tokens would miss all."""
    random = torch.Generator().manual_seed(0)
    data = make(0, 20_000, 300, "smooth")
    data.values.mul_(torch.rand(data.values.shape, generator=random) < rate).add_(3.0)
    data.values[:, 1] = data.values[:, 0] + 0.01 * torch.randn(20_000, generator=random)
    state = Sketch(256).update(None, data.seen())
    estimates = state.directions @ state.directions.T
    exact = torch.corrcoef(data.values.double().T).nan_to_num(0.0).fill_diagonal_(0.0)
    vary = data.values.std(0) > 0
    others = (vary[:, None] & vary[None] & ~torch.eye(300, dtype=torch.bool))[2:, 2:]
    off = (estimates - exact)[2:, 2:][others]
    assert abs(float(off.mean())) < 0.01 and float(off.std()) == pytest.approx(state.error, rel=0.1)
    assert float(off.abs().max()) < 5.5 * state.error
    assert abs(float(estimates[0, 1] - exact[0, 1])) < 5 * 2**0.5 * state.error


@few
@given(seeds, sizes)
def test_cross_covariance(seed: int, size: tuple[int, int]) -> None:
    one, other = make(seed, *size, "smooth"), make(seed + 1, size[0], 3, "smooth")
    recorder = CrossCovariance("a", "b")
    context = SimpleNamespace()
    states = []
    for rows in (slice(0, size[0] // 2), slice(size[0] // 2, None)):
        if not len(one.values[rows]):
            continue
        for point, data in (("a", one), ("b", other)):
            value = data.values[rows][None]
            context.here = alone(data.tokens[rows][None], point=point)
            recorder(context, value)
        states.append(context.cross_covariance)
        del context.cross_covariance
    state = recorder.merge(states)
    x, y = one.values.double(), other.values.double()
    wanted = (x - x.mean(0)).T @ (y - y.mean(0)) / size[0]
    assert near(state.covariance, wanted, 1e-9)
    with pytest.raises(BadProbe, match="has not seen a"):
        recorder(context, value)


@few
@given(seeds, sizes, kinds)
def test_coactivation(seed: int, size: tuple[int, int], kind: str) -> None:
    data = make(seed, *size, kind)
    state = gathered(Coactivation(0.1), data, seed)
    fired = (data.values > 0.1).long()
    assert torch.equal(state.together, fired.T @ fired)


@few
@given(seeds, sizes, st.sampled_from(["smooth", "equal"]), st.booleans())
def test_tokens(seed: int, size: tuple[int, int], kind: str, some: bool) -> None:
    data = make(seed, *size, kind)
    units = [0, size[1] - 1] if some else None
    state = gathered(TokenStatistics(units), data, seed)
    chosen = data.values[:, sorted(set(units)) if units else slice(None)].double()
    assert state.ids.tolist() == sorted(set(data.tokens.tolist()))
    for column, token in enumerate(state.ids.tolist()):
        there = chosen[data.tokens == token]
        assert int(state.counts[column]) == len(there)
        assert near(state.means[:, column], there.mean(0))
        assert near(state.largest[:, column], there.amax(0))
    best = state.best(0, 2)
    assert best[0][1] == pytest.approx(float(state.means[0].max()))


def test_own_recorder_is_two_functions() -> None:
    def update(state, batch):
        return batch.values.abs().sum(0) + (0 if state is None else state)

    data = make(5, 30, 4, "smooth")
    state = gathered(Own(update, sum), data, 3)
    assert near(state, data.values.abs().sum(0), 1e-5)


# -- what a probe sees ----------------------------------------------------------------------------


def test_padding_is_not_seen() -> None:
    tokens = torch.tensor([[5, 6, 7], [8, 9, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    value = torch.arange(12.0).view(2, 3, 2)
    found = seen(value, alone(tokens, mask))
    assert found.tokens.tolist() == [5, 6, 7, 8, 9]
    assert torch.equal(found.values, value.flatten(0, 1)[:5])
    assert found.documents.tolist() == [0, 0, 0, 1, 1] and found.offsets.tolist() == [0, 1, 2, 0, 1]


def test_a_shard_says_where_its_units_are() -> None:
    here = alone(torch.zeros(1, 2, dtype=torch.long))
    here.shard = SimpleNamespace(dim=2, start=3, stop=6)
    assert seen(torch.zeros(1, 2, 3, 16), here).start == 3 * 16


def test_a_point_without_tokens_is_refused() -> None:
    with pytest.raises(BadProbe, match=r"attn.scores is \[1, 4, 3, 3\]"):
        seen(
            torch.zeros(1, 4, 3, 3), alone(torch.zeros(1, 3, dtype=torch.long), point="attn.scores")
        )
    with pytest.raises(BadProbe, match="b, H, p_query, p_key"):
        TopK(3).check(("b", "H", "p_query", "p_key"), "layers.0.attn.scores")


# -- on disk, and by word -------------------------------------------------------------------------


@pytest.mark.parametrize("word", [*recorders.WORDS, "topk=3", "quantiles=0.05", "firing=0.5"])
def test_a_state_comes_back_from_disk(word: str, tmp_path: Path) -> None:
    data = make(1, 20, 3, "smooth")
    state = recorders.from_word(word).update(None, data.seen())
    recorders.save(tmp_path / "state.safetensors", state)
    back = recorders.load(tmp_path / "state.safetensors")
    assert type(back) is type(state) and back.numbers() == state.numbers()
    for name, tensor in state.tensors().items():
        assert torch.equal(back.tensors()[name].nan_to_num(7), tensor.nan_to_num(7))


def test_what_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no")
    for file in ("x", "missing"):
        with pytest.raises(BadRequest, match="holds no state"):
            recorders.load(tmp_path / file)


def test_words() -> None:
    recorder = recorders.from_word("topk=7")
    assert isinstance(recorder, TopK) and recorder.k == 7
    with pytest.raises(UnknownName, match="Did you mean topk"):
        recorders.from_word("topj=7")
    for word in ("topk=many", "moments=3"):
        with pytest.raises(BadProbe):
            recorders.from_word(word)
