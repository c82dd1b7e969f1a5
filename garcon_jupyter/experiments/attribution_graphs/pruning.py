"""What of a graph is kept: nodes, then edges, with so much of the influence; and no node that leads nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.experiments.attribution_graphs.adjacency import shares

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SquareGraph:
    """All nodes, in the order of circuit-tracer: latents, errors, tokens, logits.

    Attributes:
        matrix: edge from a column to a row, float64 [node, node].
        latents, errors, tokens: how many of each.
        weights: of the logits, their probabilities.
    """

    matrix: Tensor
    latents: int
    errors: int
    tokens: int
    weights: Tensor

    @property
    def logits(self) -> int:
        """How many."""
        return len(self.weights)

    def ends(self) -> Tensor:
        """The weights of all nodes: zeros but of the logits."""
        found = self.matrix.new_zeros(len(self.matrix))
        found[-self.logits :] = self.weights
        return found

    def influence(self, matrix: Tensor | None = None) -> Tensor:
        """Of each node on the logits, along all ways."""
        between = shares(self.matrix if matrix is None else matrix)
        step = self.ends() @ between
        found = step.clone()
        while bool(step.any()):
            step = step @ between
            found += step
        return found


@dataclass(frozen=True)
class KeptGraph:
    """What is kept of one.

    Attributes:
        nodes: bool [node].
        edges: bool [node, node].
        cumulative: share of influence that nodes at least as strong have together, [node]: what viewers cut by.
        replacement: share of the tokens' in the influence of tokens and errors.
        completeness: share of latents and tokens in what all nodes are made of, by influence.
    """

    nodes: Tensor
    edges: Tensor
    cumulative: Tensor
    replacement: float
    completeness: float


def pruned(graph: SquareGraph, node_share: float, edge_share: float) -> KeptGraph:
    """Keep the nodes that have so much of the influence together, and of their edges those that have so much."""
    import torch

    own = graph.influence()
    inner = len(own) - graph.tokens - graph.logits
    nodes = own >= _threshold(own, node_share)
    nodes[inner:] = True
    left = graph.matrix * nodes[:, None] * nodes
    scores = shares(left) * (graph.influence(left) + graph.ends())[:, None]
    edges = (scores >= _threshold(scores.flatten(), edge_share)) & (scores > 0)
    while True:
        before = nodes.clone()
        nodes[:inner] &= edges[:, :inner].any(0)
        nodes[: graph.latents] &= edges[: graph.latents].any(1)
        edges = edges & nodes[:, None] & nodes
        if torch.equal(before, nodes):
            break
    order = own.argsort(descending=True, stable=True)
    cumulative = torch.empty_like(own)
    cumulative[order] = own[order].cumsum(0) / own.sum()
    return KeptGraph(nodes, edges, cumulative, *_scores(graph, own))


def _threshold(scores: Tensor, share: float) -> float:
    """The least of the largest scores that have this share of the sum together."""
    import torch

    falling = scores.sort(descending=True).values
    reached = falling.cumsum(0) / falling.sum()
    at = int(torch.searchsorted(reached, torch.tensor(share, dtype=reached.dtype)))
    return float(falling[min(at, len(falling) - 1)])


def _scores(graph: SquareGraph, own: Tensor) -> tuple[float, float]:
    errors = slice(graph.latents, graph.latents + graph.errors)
    tokens = slice(errors.stop, errors.stop + graph.tokens)
    replacement = own[tokens].sum() / (own[tokens].sum() + own[errors].sum())
    known = 1 - shares(graph.matrix)[:, errors].sum(1)
    weight = own + graph.ends()
    return float(replacement), float((known * weight).sum() / weight.sum())
