"""Matching pursuit: latents chosen one after the other, each for what those before it have left."""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_backend.dictionaries import sparse
from garcon_backend.dictionaries.dictionary import Dictionary
from garcon_backend.dictionaries.sparse import SparseLatents


class Pursuit(Dictionary):
    """SAELens's matching pursuit (Costa et al. 2025): the encoder is the decoder, transposed.

    At each step the latent whose direction has the largest product with what is left is increased by that product. A token is
    done when what is left is shorter than a threshold, or when a step chose no new latent.
    """

    kind = "pursuit"

    def _pre(self, z: Tensor, part: slice = slice(None)) -> Tensor:
        return z @ self.decoder[part].T

    def encode(self, x: Tensor) -> Tensor:
        """The latents of activations [..., D]."""
        self._check_alone()
        z = self._z(self._read(x))
        left = z.reshape(-1, z.shape[-1])
        options = self.form.options
        latents = left.new_zeros(len(left), len(self.decoder))
        done = torch.zeros(len(left), dtype=torch.bool, device=left.device)
        before = latents != 0
        for _ in range(int(options["steps"])):
            chosen = (left @ self.decoder.T).relu().argmax(dim=-1)
            directions = self.decoder[chosen]
            values = (left * directions).sum(-1).relu() * ~done
            latents = latents.scatter_add(-1, chosen[:, None], values[:, None])
            left = left - values[:, None] * directions
            support = latents != 0
            if options["stops_on_old"]:
                done = done | (support == before).all(-1)
            if options["residual"] > 0:
                done = done | (left.norm(dim=-1) < options["residual"])
            before = support
            if bool(done.all()):
                break
        return latents.reshape(*z.shape[:-1], -1)

    def encode_sparse(self, x: Tensor, tile: int = 1 << 22) -> SparseLatents:
        """The latents that are not 0, of as many tokens at a time as a tile takes."""
        x = self._read(x)
        tokens = x.reshape(-1, x.shape[-1])
        step = max(1, tile // len(self.decoder))
        parts = []
        for start in range(0, len(tokens), step):
            rows, latents, values = sparse.nonzero(self.encode(tokens[start : start + step]), 0)
            parts.append((rows + start, latents, values))
        return sparse.of_parts(parts, (*x.shape[:-1], len(self.decoder)))
