"""Latents that are not 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseLatents:
    """The latents of many tokens that are not 0, by token, then by latent.

    Attributes:
        rows: which token each is of, [n]; the leading axes counted as one. Of a cross-layer transcoder or a crosscoder, token and
            layer (or input) as one.
        latents: which latent it is, [n].
        values: what it is, [n].
        shape: of the latents, were all of them held: the leading axes, then F.
    """

    rows: Tensor
    latents: Tensor
    values: Tensor
    shape: tuple[int, ...]

    def dense(self) -> Tensor:
        """All latents, zeros as well, of the shape that they have."""
        n = int(torch.tensor(self.shape[:-1]).prod())
        out = self.values.new_zeros(n, self.shape[-1])
        out[self.rows, self.latents] = self.values
        return out.view(self.shape)

    def tensor(self) -> Tensor:
        """As a sparse tensor of the shape that they have, [b, p, F]."""
        b, p, width = self.shape
        where = torch.stack([self.rows // p, self.rows % p, self.latents])
        return torch.sparse_coo_tensor(
            where, self.values, (b, p, width), is_coalesced=True, check_invariants=False
        )

    @property
    def nbytes(self) -> int:
        """Of what it holds."""
        return sum(part.nbytes for part in (self.rows, self.latents, self.values))


def of_parts(parts: list[tuple[Tensor, Tensor, Tensor]], shape: tuple[int, ...]) -> SparseLatents:
    """Of the nonzero latents of several tiles: rows, latents and values of each."""
    rows, latents, values = (torch.cat(part) for part in zip(*parts, strict=True))
    order = torch.argsort(rows * shape[-1] + latents)
    return SparseLatents(rows[order], latents[order], values[order], shape)


def nonzero(codes: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, latents and values of what is not 0 in a tile [rows, n] whose latents begin with `first`."""
    rows, places = codes.nonzero(as_tuple=True)
    return rows, places + first, codes[rows, places]


def gathered_rows(codes: SparseLatents, decoder: Tensor, n_rows: int) -> Tensor:
    """Sums of the decoder's rows [F, O] by latents, [rows, O]. Holds no product of single latents."""
    bounds = torch.searchsorted(codes.rows, torch.arange(n_rows, device=codes.rows.device))
    return torch.nn.functional.embedding_bag(
        codes.latents,
        decoder,
        bounds,
        per_sample_weights=codes.values.to(decoder.dtype),
        mode="sum",
    )
