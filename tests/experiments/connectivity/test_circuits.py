"""Circuits of a head: against dense matrices in float64, and against what the head does on a text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity.factored_matrix import FactoredMatrix, root
from tests.experiments.connectivity.conftest import Connect, PlainHeads


@pytest.fixture
def factors() -> FactoredMatrix:
    draw = torch.Generator().manual_seed(0)
    return FactoredMatrix(torch.randn(7, 3, generator=draw), torch.randn(3, 5, generator=draw))


def test_two_factors_are_their_product(factors: FactoredMatrix) -> None:
    dense = factors.dense()
    assert factors.shape == dense.shape == (7, 5) and factors.rank == 3
    assert repr(factors) == "<7 × 5 of rank 3>"
    assert factors.norm() == pytest.approx(dense.norm().item())
    assert torch.equal(factors.T.dense(), dense.T)
    vectors = torch.randn(5, 2)
    assert torch.allclose(factors @ vectors, dense @ vectors, atol=1e-5)
    both = factors @ factors.T
    assert isinstance(both, FactoredMatrix) and both.rank == 3
    assert torch.allclose(both.dense(), dense @ dense.T, atol=1e-4)


def test_singular_and_eigenvalues(factors: FactoredMatrix) -> None:
    u, s, v = factors.svd()
    assert torch.allclose(u * s @ v.T, factors.dense(), atol=1e-5)
    assert torch.allclose(s, torch.linalg.svdvals(factors.dense())[:3], atol=1e-5)
    assert torch.allclose(u.T @ u, torch.eye(3), atol=1e-5)
    square = factors @ factors.T
    expected = torch.linalg.eigvals(square.dense()).real.sort(descending=True).values[:3]
    assert torch.allclose(square.eigenvalues().real.sort(descending=True).values, expected, 1e-4)
    with pytest.raises(garcon.BadRequest, match=r"shape \(7, 5\) has no eigenvalues"):
        factors.eigenvalues()


def test_a_root_has_the_gram_matrix_whatever_the_rank() -> None:
    wide = torch.randn(4, 3, 9, generator=torch.Generator().manual_seed(0))
    thin = torch.cat([wide[:, :, :2], torch.zeros(4, 3, 1)], -1)  # of rank 2
    for matrix in (wide, thin):
        gram = matrix @ matrix.mT
        assert torch.allclose(root(gram) @ root(gram).mT, gram, atol=1e-5)


@pytest.mark.parametrize("head", [1, 4])
def test_circuits_are_the_dense_ones(
    rmodel: garcon.RemoteModel, by_hand: PlainHeads, head: int
) -> None:
    found = experiments.head_circuits(rmodel, 2, head)
    assert found.key_value_head == head // 3 and found.qk.rank == found.ov.rank == 16
    for ours, dense in ((found.qk, by_hand.qk(2, head)), (found.ov, by_hand.ov(2, head))):
        assert torch.allclose(ours.dense().double(), dense, atol=1e-5)
    other = by_hand.ov(2, (head + 3) % 6)  # of the other key/value head
    assert not torch.allclose(found.ov.dense().double(), other, atol=0.1)


def test_they_are_what_a_head_does(rmodel: garcon.RemoteModel) -> None:
    """What it writes where it attends to one token alone, and its score of a token at itself, which no rotation turns."""
    look = rmodel.look([[0, 40, 41, 42]])
    x = look["layers.1.resid_pre"][0] / look["layers.1.attn.norm.scale"][0]
    for head in range(6):
        found = experiments.head_circuits(rmodel, 1, head)
        written = look["layers.1.attn.head_out"][0, 0, head]
        assert torch.allclose(found.ov @ x[0], written, atol=1e-5)
        scores = look["layers.1.attn.scores"][0, head].diagonal()
        read = (x * (found.qk @ x.T).T).sum(1) / 16**0.5
        assert torch.allclose(read, scores, atol=1e-4)


def test_tokens_that_it_writes_and_looks_for(
    rmodel: garcon.RemoteModel, by_hand: PlainHeads
) -> None:
    model = by_hand.plain.model
    embedding, unembedding = (
        m.weight.detach().double() for m in (model.model.embed_tokens, model.lm_head)
    )
    alone = embedding / embedding.square().mean(1, keepdim=True).sqrt()
    gain = model.model.norm.weight.detach().double()
    found = experiments.head_circuits(rmodel, 2, 4)

    logits = (by_hand.ov(2, 4) @ alone[40] * gain) @ unembedding.T
    best = (logits - logits.mean()).topk(3)
    written = found.written(40, 3)
    assert [value for _, value in written] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert [word for word, _ in written] == rmodel.token_strings([best.indices.tolist()])[0]

    best = (alone[40] @ by_hand.qk(2, 4) @ alone.T).topk(3)
    wanted = found.looked_for(40, 3)
    assert [value for _, value in wanted] == pytest.approx(best.values.tolist(), rel=1e-4)

    centred = (unembedding - unembedding.mean(0)) * gain
    values = torch.linalg.eigvals(centred @ by_hand.ov(2, 4) @ alone.T)
    copying = (values.real.sum() / values.abs().sum()).item()
    assert found.copying() == pytest.approx(copying, abs=1e-4)


def test_a_head_that_copies(rmodel: garcon.RemoteModel) -> None:
    """A head made to raise what it reads, in 8 directions of the stream, and its opposite."""
    found = experiments.head_circuits(rmodel, 2, 4)
    embed, unembed = (rmodel.get_parameter(f"{name}.weight") for name in ("embed", "unembed"))
    alone = embed / embed.square().mean(1, keepdim=True).sqrt()
    reads = (unembed - unembed.mean(0)) * rmodel.get_parameter("final_norm.weight")
    basis = torch.linalg.qr(torch.randn(48, 8, generator=torch.Generator().manual_seed(0)))[0]
    for sign in (1.0, -1.0):
        copies = FactoredMatrix(sign * (reads.T @ (alone @ basis)), basis.T)
        assert replace(found, ov=copies).copying() == pytest.approx(sign, abs=1e-3)


def test_what_there_is_not_is_refused(rmodel: garcon.RemoteModel, of_family: Connect) -> None:
    with pytest.raises(garcon.BadRequest, match=r"Layer 2 has no head 6\. It has heads 0 to 5"):
        experiments.head_circuits(rmodel, 2, 6)
    with pytest.raises(garcon.BadRequest, match=r"Layer 4 has no heads .*0, 1, 2, 3"):
        experiments.head_circuits(rmodel, 4, 0)
    with pytest.raises(garcon.BadRequest, match=r"layers 0, 2: left out, nothing attends there"):
        experiments.head_circuits(of_family("jamba"), 0, 0)
    found = experiments.head_circuits(rmodel, 2, 5)
    with pytest.raises(garcon.BadRequest, match="'Hello' is . tokens: 'H'"):
        found.written("Hello")
    with pytest.raises(garcon.BadRequest, match=r"no token 263\. There are 0 to 262"):
        found.looked_for(263)
