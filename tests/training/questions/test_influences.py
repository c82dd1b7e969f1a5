"""Influence: dot products against gradients by hand, and ranks against trainings without each datum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from garcon_jupyter import training
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.questions.checkpoints import token_losses
from garcon_jupyter.training.questions.influences import InfluenceTable
from tests.training.by_backwards import tiny, tokens

WORDS, PLACES, DATA, STEPS, RATE = 24, 10, 40, 40, 2.0


def test_it_is_the_sum_of_dot_products_over_checkpoints() -> None:
    model = tiny("gpt2", torch.float64)
    states = []
    for seed in range(2):
        other = tiny("gpt2", torch.float64)
        torch.manual_seed(seed)
        with torch.no_grad():
            for each in other.parameters():
                each.add_(torch.randn_like(each) * 0.1)
        states.append(other.state_dict())
    ids, asked = tokens(5), tokens(2, seed=7)
    batches = [([10, 11, 12], ids[:3]), ([13, 14], ids[3:])]
    checkpoints, rates = {"a": states[0], "b": states[1]}, {"a": 0.5, "b": 0.25}
    found = training.influence(model, checkpoints, batches, ([1, 2], asked), rates=rates)
    cosine = training.influence(
        model,
        {"a": states[0]},
        batches,
        ([1, 2], asked),
        normed=True,
        parameters=["transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight"],
    )

    def gradient(rows: Tensor, row: int, names: list[str] | None = None) -> Tensor:
        model.zero_grad()
        token_losses(model, rows[row : row + 1]).sum().backward()
        return torch.cat(
            [p.grad.flatten() for n, p in model.named_parameters() if names is None or n in names]
        )

    model.eval()
    expected, names = (
        np.zeros((2, 5)),
        ["transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight"],
    )
    for label, state in checkpoints.items():
        model.load_state_dict(state)
        for q in range(2):
            for d in range(5):
                dot = gradient(asked, q) @ gradient(ids, d)
                expected[q, d] += rates[label] * float(dot)
                if label == "a":
                    one, two = gradient(asked, q, names), gradient(ids, d, names)
                    assert cosine.values[q, d] == pytest.approx(
                        float(one @ two / one.norm() / two.norm()), rel=1e-8
                    )
    assert np.allclose(found.values, expected, rtol=1e-8)
    assert found.data == [10, 11, 12, 13, 14] and found.queries == [1, 2]
    best = found.of(2, most=1)[0]
    assert best[0] == found.data[int(np.abs(expected[1]).argmax())] and len(found.to_frame()) == 2


def corpus() -> tuple[Tensor, Tensor]:
    """Texts that follow one of four successions of words, and queries of each."""
    made = torch.Generator().manual_seed(0)
    follows = torch.stack([torch.randperm(WORDS, generator=made) for _ in range(4)])

    def texts(count: int) -> Tensor:
        kinds = torch.randint(4, (count,), generator=made)
        rows = [torch.randint(WORDS, (count,), generator=made)]
        for _ in range(PLACES - 1):
            drawn = torch.randint(WORDS, (count,), generator=made)
            chance = torch.rand(count, generator=made) < 0.3
            rows.append(torch.where(chance, drawn, follows[kinds, rows[-1]]))
        return torch.stack(rows, 1)

    return texts(DATA), texts(12)


def trained(left: frozenset[int], kept: list[dict[str, Tensor]] | None = None) -> nn.Module:
    """Every datum in every step; without those that are left out, each of the others weighs as before."""
    ids, _ = corpus()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(WORDS, 12), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, WORDS)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    weights = torch.tensor([float(each not in left) for each in range(DATA)]) / DATA
    for step in range(STEPS):
        if kept is not None and step % 5 == 0:
            kept.append({name: each.clone() for name, each in model.state_dict().items()})
        (token_losses(model, ids) * weights).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_scores_are_held_against_trainings_without_each_datum() -> None:
    ids, asked = corpus()
    states: list[dict[str, Tensor]] = []
    model = trained(frozenset(), states)
    queries = (list(range(12)), asked)
    truth = training.leave_out(trained, list(range(DATA)), queries)
    scores = training.influence(
        model, dict(enumerate(states)), [(list(range(DATA)), ids)], queries, rates=5 * RATE / DATA
    )
    found = training.rank_correlation(scores, truth)
    assert found.mean() > 0.5 and found.min() > 0.3
    for row, (one, two) in enumerate(zip(scores.values, truth.values, strict=True)):
        assert found[row] == pytest.approx(stats.spearmanr(one, two).statistic)
    # Of the right sign, and too large: without a datum the others do what it would have done.
    slope = float((scores.values * truth.values).sum() / (scores.values**2).sum())
    assert 0.05 < slope < 0.7
    shuffled = []
    for seed in range(20):
        data = np.random.default_rng(seed).permutation(scores.data).tolist()
        other = InfluenceTable(scores.queries, data, scores.values)
        shuffled.append(training.rank_correlation(other, truth).mean())
    print(found.mean(), found.min(), found.max(), slope, np.mean(shuffled), max(map(abs, shuffled)))
    assert abs(np.mean(shuffled)) < 0.1 and max(map(abs, shuffled)) < found.mean() / 2
    # A wrong answer that must fail: gradients at the beginning alone say less.
    early = training.influence(model, {0: states[0]}, [(list(range(DATA)), ids)], queries)
    assert training.rank_correlation(early, truth).mean() < found.mean()


def test_what_makes_no_sense_is_refused() -> None:
    model, batch = (
        nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 9)),
        ([0], torch.ones(1, 4).long()),
    )
    state = model.state_dict()
    with pytest.raises(BadRequest, match="no checkpoints"):
        training.influence(model, {}, [batch], batch)
    with pytest.raises(BadRequest, match="b has no rate"):
        training.influence(model, {"a": state, "b": state}, [batch], batch, rates={"a": 1.0})
    table = training.influence(model, {"a": state}, [batch], batch)
    with pytest.raises(BadRequest, match="no query 7"):
        table.of(7)
    with pytest.raises(BadRequest, match="1 data in common"):
        training.rank_correlation(table, table)
