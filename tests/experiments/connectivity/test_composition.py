"""Compositions of heads: against dense products in float64, against chance, against a circuit that is known."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity import composition as module
from garcon_jupyter.experiments.connectivity.composition import Readers, Writers
from garcon_jupyter.experiments.connectivity.heads import heads_of
from tests import checkpoints
from tests.experiments.connectivity.conftest import Connect, PlainHeads
from tests.oracle import Plain

KINDS = ("Q", "K", "V")


def score(kind: str, qk: Tensor, ov: Tensor, writer: Tensor) -> float:
    """Of D × D matrices, by the definition."""
    reader = {"Q": qk.T, "K": qk, "V": ov}[kind]
    return float((reader @ writer).norm() / (reader.norm() * writer.norm()))


def some_pairs(layers: int, heads: int) -> list[tuple[int, int, int, int]]:
    draw = random.Random(0)
    both = [sorted(draw.sample(range(layers), 2)) for _ in range(10)]
    return [(i, draw.randrange(heads), j, draw.randrange(heads)) for i, j in both]


@pytest.mark.parametrize("kind", KINDS)
def test_small_products_are_the_dense_ones(
    rmodel: garcon.RemoteModel, by_hand: PlainHeads, kind: str
) -> None:
    found = experiments.composition(rmodel, kind)
    assert list(found.axes) == ["writer layer", "writer head", "reader layer", "reader head"]
    assert found.values.shape == (4, 6, 4, 6)
    without_gain, wrong_group = 0.0, 0.0
    for i, h, j, r in some_pairs(4, 6):
        expected = score(kind, by_hand.qk(j, r), by_hand.ov(j, r), by_hand.ov(i, h))
        assert math.isclose(found.values[i, h, j, r], expected, rel_tol=1e-5)
        g, one = by_hand.gain(j), 1 / by_hand.gain(i)
        bare = (by_hand.qk(j, r) / g / g[:, None], by_hand.ov(j, r) / g, by_hand.ov(i, h) * one)
        without_gain = max(without_gain, abs(score(kind, *bare) / expected - 1))
        # Keys and values dealt out in turn, 0 1 0 1 0 1, instead of in a row, 0 0 0 1 1 1.
        dealt = by_hand.writes(i, h) @ (by_hand.reads(i, "v", 3 * (h % 2)) * by_hand.gain(i))
        other = score(kind, by_hand.qk(j, r), by_hand.ov(j, r), dealt)
        wrong_group = max(wrong_group, abs(other / expected - 1))
    assert without_gain > 1e-2 and wrong_group > 1e-2


def test_there_are_numbers_where_the_reader_comes_later(rmodel: garcon.RemoteModel) -> None:
    found = experiments.composition(rmodel, "V")
    later = torch.arange(4)[:, None] < torch.arange(4)
    assert torch.equal(~found.values.isnan(), later[:, None, :, None].expand(4, 6, 4, 6))
    assert torch.equal(found.values.isnan(), found.more["deviations"].isnan())
    assert len(found.to_frame()) == 6 * 6 * 6


def test_in_smaller_blocks_it_is_the_same(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = experiments.composition(rmodel, "K").values.nan_to_num()
    for layers in (1, 2, 3):
        monkeypatch.setattr(module, "LAYERS_AT_ONCE", layers)
        assert torch.equal(experiments.composition(rmodel, "K").values.nan_to_num(), at_once)


@pytest.mark.processes
def test_over_ranks_it_is_the_same(
    rmodel: garcon.RemoteModel, rmodel_tp2: garcon.RemoteModel
) -> None:
    one, two = (experiments.composition(m, "K").values.nan_to_num() for m in (rmodel, rmodel_tp2))
    assert torch.equal(one, two)


# -- chance --------------------------------------------------------------------------------------


def turned(writers: Writers, n: int, inside: Tensor) -> list[Writers]:
    """Writers after n rotations that are drawn uniformly from those of a subspace with this basis, [D, width]."""
    draw = torch.Generator().manual_seed(1)
    q, r = torch.linalg.qr(torch.randn(n, inside.shape[1], inside.shape[1], generator=draw))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    found = torch.einsum("da,nab,eb,ehv->ndhv", inside, q, inside, writers.directions)
    return [Writers(directions.contiguous(), writers.purity) for directions in found]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_chance_is_that_of_writers_turned_at_random(
    of_family: Connect, family: str, kind: module.Kind
) -> None:
    """Mean and standard deviation over rotations; where readers take the mean away, over those that keep it at zero."""
    rmodel, draws = of_family(family), 1500
    heads = [heads_of(rmodel, layer) for layer in (1, 2)]
    writers, reader = Writers.of(heads[0]), Readers.of(kind, heads[1])
    basis = torch.eye(48)
    if family == "gpt2":
        basis = torch.linalg.qr(torch.cat([torch.ones(48, 1), torch.eye(48)[:, 1:]], 1))[0][:, 1:]
    width = basis.shape[1]
    both = [reader.scores(each, width) for each in turned(writers, draws, basis)]
    squares = torch.stack([score.square() for score, _ in both])
    above = torch.stack([deviations for _, deviations in both])
    assert torch.allclose(above.mean(0), torch.zeros(()), atol=5 / draws**0.5)
    assert torch.allclose(above.std(0), torch.ones(()), atol=0.15)
    assert squares.mean().item() == pytest.approx(1 / width, rel=0.003)
    chance = experiments.composition(rmodel, kind).more["chance"].item()
    assert chance == pytest.approx(1 / math.sqrt(width))


# -- LayerNorm -----------------------------------------------------------------------------------


def test_what_a_reader_does_not_see_counts_nowhere(tmp_path: Path) -> None:
    """GPT-2's heads may write along all ones as they like: every norm takes it away again, so that neither logits nor
    compositions change. Those without centring do."""
    path = checkpoints.make_gpt2(tmp_path / "as it is")
    one, other = Plain(path), Plain(path)
    with torch.no_grad():
        for layer in range(4):
            stored = other.module(f"transformer.h.{layer}.attn.c_proj").weight  # [in, out]
            draw = torch.Generator().manual_seed(layer)
            stored += torch.randn(len(stored), 1, generator=draw)
    ids = [[0, 40, 41, 42, 99, 7]]
    assert torch.allclose(one.logits(ids), other.logits(ids), atol=1e-4)
    found, moved = (
        experiments.composition(garcon.connect(open_here(plain.model)), "K").values
        for plain in (one, other)
    )
    assert torch.allclose(found.nan_to_num(), moved.nan_to_num(), atol=1e-5)

    def dense(plain: Plain, centre: bool) -> float:
        """Of head 1 of layer 0 and head 2 of layer 3."""
        c = torch.eye(48).double() - (1 / 48 if centre else 0)
        i, j = (plain.module(f"transformer.h.{layer}") for layer in (0, 3))
        q, k, _ = j.attn.c_attn.weight.detach().double().T.view(3, 4, 12, 48)[:, 2]
        v = i.attn.c_attn.weight.detach().double().T.view(3, 4, 12, 48)[2, 1]
        o = i.attn.c_proj.weight.detach().double().view(4, 12, 48)[1].T
        g, h = (block.ln_1.weight.detach().double() for block in (j, i))
        qk, ov = (q * g @ c).T @ (k * g @ c), c @ o @ (v * h @ c)
        return score("K", qk, ov, ov)

    assert found[0, 1, 3, 2].item() == pytest.approx(dense(one, True), rel=1e-5)
    assert dense(other, True) == pytest.approx(dense(one, True), rel=1e-5)
    assert abs(dense(other, False) / dense(one, False) - 1) > 1e-2


# -- a circuit that is known ---------------------------------------------------------------------


def test_smollm2s_induction_heads_read_its_previous_token_head(
    smollm2: garcon.RemoteModel,
) -> None:
    """L16H0 attends to the previous token, L17H3 and L18H6 are induction heads: their keys read it most of all heads."""
    found = experiments.composition(smollm2, "K")
    assert found.more["chance"].item() == pytest.approx(0.0417, abs=2e-4)
    for layer, head, at_most in ((17, 3, 1), (18, 6, 2)):
        writers = found.at(**{"reader layer": layer, "reader head": head})[:layer]
        assert (writers > writers[16, 0]).sum() < at_most
    (best, value), *_ = found.strongest(1)
    assert best == {"writer layer": 17, "writer head": 8, "reader layer": 18, "reader head": 7}
    assert value == pytest.approx(0.180, abs=5e-4)
    typical = found.values[~found.values.isnan()].mean().item()
    assert typical == pytest.approx(found.more["chance"].item(), rel=0.1), "the mean says nothing"


# -- what is refused -----------------------------------------------------------------------------


def test_another_kind_is_refused(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(garcon.BadRequest, match=r"no composition 'k'\. 'Q', 'K' and 'V'"):
        experiments.composition(rmodel, "k")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("mamba", "nothing attends here"),
        ("deepseek_v3", "latent attention compresses"),
        ("gemma3n_text", "a mix of several streams"),
        ("zamba2", "added to no stream"),
    ],
)
def test_models_whose_weights_do_not_say_it_are_refused(
    of_family: Connect, family: str, why: str
) -> None:
    with pytest.raises(garcon.PointUnavailable, match=why):
        experiments.composition(of_family(family))


def test_a_model_without_a_family_is_refused() -> None:
    module = torch.nn.Sequential(torch.nn.Embedding(7, 3), torch.nn.Linear(3, 7))
    with pytest.raises(garcon.PointUnavailable, match="No layer has heads"):
        experiments.composition(garcon.connect(open_here(module)))
