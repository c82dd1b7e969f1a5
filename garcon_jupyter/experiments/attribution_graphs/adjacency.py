"""Edges by target and source, as far as they are known: who has influence, and what a node does by all ways.

Influence follows circuit-tracer (Ameisen et al. 2025; Hanna, Piotrowski et al. 2025): each target's edges as shares of their sizes, along all ways
to the logits, which have their probabilities as weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 1e-10
"""What a row's sum is at least, where it is divided by."""


@dataclass
class Adjacency:
    """Rows of targets.

    Attributes:
        weights: of the logits, float64 [logit].
        latents: how many sources are latents; they come first.
        logits: edges into each logit, [logit, source].
        rows: of each latent that is a target its edges, by its number, [source].
        values: of these their pre-activations.
    """

    weights: Tensor
    latents: int
    logits: Tensor
    rows: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)

    def influence(self) -> Tensor:
        """Of each source on the logits, as far as targets are known, [source]."""
        return influence(self.logits, self.stacked(), [*self.rows], self.weights)

    def stacked(self) -> Tensor:
        """Edges of the latents that are targets, [target, source]."""
        import torch

        if not self.rows:
            return self.logits.new_zeros(0, self.logits.shape[1])
        return torch.stack([*self.rows.values()])

    def next_targets(self, count: int) -> list[int]:
        """The latents with the most influence that are not targets yet; none where no other has any."""
        import torch

        left = self.influence()[: self.latents].clone()
        left[torch.tensor([*self.rows], dtype=torch.long)] = 0
        best = left.topk(min(count, len(left)))
        return [int(n) for n, size in zip(best.indices, best.values, strict=True) if size > 0]

    def total_effects(self, order: Sequence[int], activations: Tensor) -> Tensor:
        """What each logit would lose without each source, by all ways through known targets, [logit, source].

        Args:
            order: the targets, from the last layer to the first.
            activations: of all latents.
        """
        total = self.logits.clone()
        for latent in order:
            share = total[:, latent, None] / activations[latent]
            total = total + share * self.rows[latent]
        return total


def influence(logits: Tensor, edges: Tensor, targets: Sequence[int], weights: Tensor) -> Tensor:
    """Of each source, along all ways.

    Args:
        logits: edges into logits, [logit, source].
        edges: into latents, [target, source].
        targets: which source each of these targets is.
        weights: of the logits.
    """
    import torch

    at = torch.tensor([*targets], dtype=torch.long)
    step = weights @ shares(logits)
    found, between = step.clone(), shares(edges)
    while bool(step[at].any()):
        step = step[at] @ between
        found += step
    return found


def shares(edges: Tensor) -> Tensor:
    """Sizes of edges as shares of all into the same target."""
    sizes = edges.abs()
    return sizes / sizes.sum(1, keepdim=True).clamp(min=_LEAST)
