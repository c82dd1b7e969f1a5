"""Sums over the latents that pass, and no others.

Of tokens × latents a few in a thousand pass. What a step needs of them are three sums over rows of weights or activations; each is an
embedding bag, whose backward by its weights is the fourth. None of these makes anything of size tokens × latents, or a copy of a row for
each latent that passes: on a processor they take a tenth of the dense products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class ChosenLatents:
    """The latents of a batch that pass, by token.

    Attributes:
        rows: which token each is of, ascending, [n].
        latents: its number among those of this rank, [n].
        values: what it is, [n].
        n_rows: tokens.
        n_latents: of this rank.
    """

    rows: Tensor
    latents: Tensor
    values: Tensor
    n_rows: int
    n_latents: int

    @cached_property
    def _of_rows(self) -> Tensor:
        """Where each token's begin, [tokens]."""
        return torch.searchsorted(self.rows, torch.arange(self.n_rows, device=self.rows.device))

    @cached_property
    def _by_latent(self) -> tuple[Tensor, Tensor]:
        """The order by latent, [n], and where each latent's begin, [F]."""
        by, order = torch.sort(self.latents, stable=True)
        every = torch.arange(self.n_latents, device=by.device)
        return order, torch.searchsorted(by, every)

    def decoded(self, decoder: Tensor) -> Tensor:
        """What they write: the sums of their rows of the decoder [F, O] for each token, [tokens, O]."""
        return embedding_bag(
            self.latents, decoder, self._of_rows, mode="sum", per_sample_weights=self.values
        )

    def products(self, by_row: Tensor, decoder: Tensor) -> Tensor:
        """The product of the token's row [tokens, O] with the latent's [F, O], for each, [n]: the gradient by their values.

        This is the backward of :meth:`decoded`, which torch computes without a copy of any row.
        """
        with torch.enable_grad():
            values = self.values.detach().requires_grad_()
            written = embedding_bag(
                self.latents, decoder, self._of_rows, mode="sum", per_sample_weights=values
            )
        return torch.autograd.grad(written, values, by_row)[0]

    def summed(self, weights: Tensor, by_row: Tensor, rows: Tensor | None = None) -> Tensor:
        """For each latent the sum of its tokens' rows, each times a weight, [F, …].

        Args:
            weights: [n].
            by_row: [tokens, …].
            rows: which row of that each takes; their token's, if nothing is said.
        """
        order, begin = self._by_latent
        taken = (self.rows if rows is None else rows)[order]
        return embedding_bag(
            taken, by_row, begin, mode="sum", per_sample_weights=weights[order].contiguous()
        )

    def counted(self, weights: Tensor) -> Tensor:
        """For each latent the sum of these numbers [n], [F]."""
        return torch.zeros(self.n_latents, dtype=weights.dtype, device=weights.device).index_add_(
            0, self.latents, weights
        )
