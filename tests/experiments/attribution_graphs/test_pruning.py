"""Influence and pruning against the series summed by an inverse, and by looking at each node and edge."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from garcon_jupyter.experiments.attribution_graphs.adjacency import Adjacency
from garcon_jupyter.experiments.attribution_graphs.pruning import SquareGraph, pruned

LATENTS, ERRORS, TOKENS = 20, 6, 3
WEIGHTS = torch.tensor([0.6, 0.3], dtype=torch.float64)


@pytest.fixture
def matrix() -> Tensor:
    """Edges from earlier latents, errors and tokens to latents and logits, some strong and most weak."""
    inner = LATENTS + ERRORS + TOKENS
    size = inner + len(WEIGHTS)
    draw = torch.randn(size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = draw**3
    found[:, inner:] = 0
    found[LATENTS:inner] = 0
    found[:LATENTS, :LATENTS] = found[:LATENTS, :LATENTS].tril(-1)
    return found


def by_inverse(matrix: Tensor) -> Tensor:
    """(I − N)⁻¹ − I, from all nodes to the logits with their weights."""
    sizes = matrix.abs()
    normed = sizes / sizes.sum(1, keepdim=True).clamp(min=1e-10)
    whole = torch.linalg.inv(torch.eye(len(matrix), dtype=matrix.dtype) - normed)
    ends = torch.zeros(len(matrix), dtype=matrix.dtype)
    ends[-len(WEIGHTS) :] = WEIGHTS
    return ends @ whole - ends


def test_influence_is_the_sum_over_all_ways(matrix: Tensor) -> None:
    graph = SquareGraph(matrix, LATENTS, ERRORS, TOKENS, WEIGHTS)
    right = by_inverse(matrix)
    assert torch.allclose(graph.influence(), right, atol=1e-12)
    inner = LATENTS + ERRORS + TOKENS
    rows = {row: matrix[row, :inner] for row in range(LATENTS)}
    known = Adjacency(WEIGHTS, LATENTS, matrix[-2:, :inner], rows)
    assert torch.allclose(known.influence(), right[:inner], atol=1e-12)
    direct = Adjacency(WEIGHTS, LATENTS, matrix[-2:, :inner])
    assert not torch.allclose(direct.influence(), right[:inner], rtol=1e-2)
    first = direct.next_targets(4)
    assert first == direct.influence()[:LATENTS].topk(4).indices.tolist()
    assert set(known.next_targets(4)) == set()  # all are known


def test_what_is_kept_has_so_much_of_the_influence(matrix: Tensor) -> None:
    graph = SquareGraph(matrix, LATENTS, ERRORS, TOKENS, WEIGHTS)
    kept = pruned(graph, 0.7, 0.9)
    own = by_inverse(matrix)
    inner = LATENTS + ERRORS
    assert bool(kept.nodes[inner:].all())
    strong = own.sort(descending=True).values
    needed = int((strong.cumsum(0) / strong.sum() < 0.7).sum())
    assert bool((own[:inner][kept.nodes[:inner]] >= strong[needed]).all())
    for node in range(inner):
        if kept.nodes[node]:
            assert bool(kept.edges[:, node].any())
            assert node >= LATENTS or bool(kept.edges[node].any())
    assert not kept.edges[~kept.nodes].any() and not kept.edges[:, ~kept.nodes].any()
    whole = pruned(graph, 1.0, 1.0)
    there = whole.nodes[:, None] & whole.nodes
    assert torch.equal(whole.edges, (matrix != 0) & there) and bool(whole.nodes.all())
    assert float(whole.cumulative.max()) == pytest.approx(1.0)
    assert 0 < kept.replacement < 1 and 0 < kept.completeness < 1
    errors = slice(LATENTS, inner)
    told = own[inner : inner + TOKENS].sum() / own[LATENTS : inner + TOKENS].sum()
    assert kept.replacement == pytest.approx(float(told))
    without = matrix.clone()
    without[:, errors] = 0
    assert pruned(
        SquareGraph(without, LATENTS, ERRORS, TOKENS, WEIGHTS), 1, 1
    ).completeness == pytest.approx(1)


def test_total_effects_go_along_all_ways(matrix: Tensor) -> None:
    """As shares of a target's activation, which is what removing a source takes of it."""
    inner = LATENTS + ERRORS + TOKENS
    active = (
        torch.rand(LATENTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5
    )
    rows = {row: matrix[row, :inner] for row in range(LATENTS)}
    known = Adjacency(WEIGHTS, LATENTS, matrix[-2:, :inner], rows)
    step = torch.zeros(inner, inner, dtype=torch.float64)
    step[:LATENTS] = matrix[:LATENTS, :inner] / active[:, None]
    right = matrix[-2:, :inner] @ torch.linalg.inv(torch.eye(inner, dtype=torch.float64) - step)
    found = known.total_effects([*reversed(range(LATENTS))], active)
    assert torch.allclose(found, right, rtol=1e-9)
