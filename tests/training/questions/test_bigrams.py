"""Shifts of bigrams, against the whole tables in float64, and what updates alone would say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from garcon_jupyter import training
from garcon_jupyter.errors import BadRequest, UnknownParameter
from garcon_jupyter.training.questions import bigrams
from tests.training.by_backwards import tiny


def series(tied: bool, count: int = 3) -> tuple[torch.nn.Module, dict[str, dict[str, Any]]]:
    """A model, and weights that move a little from one to the next."""
    model = tiny("llama", torch.float32, tie_word_embeddings=tied)
    told = {}
    torch.manual_seed(0)
    for number in range(count):
        with torch.no_grad():
            for each in model.parameters():
                each.add_(torch.randn_like(each) * 0.1)
        told[f"step {number}"] = copy.deepcopy(model.state_dict())
    return model, told


def table(weights: dict[str, Any]) -> torch.Tensor:
    """All bigrams, in float64."""
    e, u = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
    return e.double() @ u.double().T


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tile", [1, 1000, 1 << 22])
def test_the_largest_are_those_of_the_whole_table(
    tied: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigrams, "TILE", tile)
    model, checkpoints = series(tied)
    own = copy.deepcopy(model.state_dict())
    found = training.bigram_shifts(model, checkpoints, k=7)
    assert all(each.equal(own[name]) for name, each in model.state_dict().items())
    assert found.labels == ["step 1", "step 2"] and len(found.to_frame()) == 14
    for former, label, size in zip(checkpoints, found.labels, found.sizes, strict=False):
        now = table(checkpoints[label])
        shift = now - table(checkpoints[former])
        order = shift.abs().flatten().argsort(descending=True)[:7]
        places = [divmod(int(at), len(now)) for at in order]
        rows = found.of(label)
        assert [row.shift for row in rows] == pytest.approx([float(shift[p]) for p in places])
        assert [row.logit for row in rows] == pytest.approx([float(now[p]) for p in places])
        if not tied:  # a tied table's shifts come in pairs of nearly one size
            assert [(row.first, row.second) for row in rows] == places
        assert size == pytest.approx(float(shift.square().mean().sqrt()))


def test_updates_alone_do_not_tell_it() -> None:
    _, checkpoints = series(tied=False, count=2)
    before, after = checkpoints.values()
    names = ("model.embed_tokens.weight", "lm_head.weight")
    of, updates = ([w[name].double() for name in names] for w in (before, after))
    alone = (updates[0] - of[0]) @ (updates[1] - of[1]).T
    shift = table(after) - table(before)
    assert float((alone - shift).abs().max()) > 0.1 * float(shift.abs().max())


def test_a_planted_bigram_comes_first() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(30, 8), torch.nn.Linear(8, 30, bias=False))
    first, second = 11, 23
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(10):
        logits = model(torch.tensor([first]))
        torch.nn.functional.cross_entropy(logits, torch.tensor([second])).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = copy.deepcopy(model.state_dict())
    (row,) = training.bigram_shifts(model, {0: before, 10: after}, k=1).of(10)
    assert (row.first, row.second) == (first, second) and row.shift > 0
    words = training.bigram_shifts(model, {0: before, 10: after}, k=1).to_frame({first: "the"})
    assert words.loc[0, "first"] == "the" and words.loc[0, "second"] == second


def test_what_has_no_bigrams_is_refused() -> None:
    model, checkpoints = series(tied=False, count=2)
    with pytest.raises(BadRequest, match="have no shifts"):
        training.bigram_shifts(model, dict(list(checkpoints.items())[:1]))
    with pytest.raises(UnknownParameter, match="no parameter 'wte'"):
        training.bigram_shifts(model, checkpoints, embedding="wte")
    with pytest.raises(BadRequest, match="no table of bigrams"):
        training.bigram_shifts(
            model, checkpoints, unembedding="model.layers.0.mlp.down_proj.weight"
        )
    with pytest.raises(BadRequest, match="no shift to 'step 9'"):
        training.bigram_shifts(model, checkpoints).of("step 9")
    plain = torch.nn.Linear(3, 3)
    with pytest.raises(UnknownParameter, match="0 modules of Embedding"):
        training.bigram_shifts(plain, {0: plain.state_dict(), 1: plain.state_dict()})
