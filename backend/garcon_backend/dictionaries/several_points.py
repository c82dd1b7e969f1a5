"""Crosscoders and cross-layer transcoders: dictionaries of several points of a token at once.

Their values have an axis of points before the last: [..., inputs, D] is read, latents are [..., inputs, F], [..., outputs, O] is
written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_backend.dictionaries import sparse
from garcon_backend.dictionaries.dictionary import Dictionary
from garcon_backend.dictionaries.sparse import SparseLatents


class Crosscoder(Dictionary):
    """One pre-activation of all points, from which each point has latents of its own.

    Tensors: ``encoder`` [inputs, F, D], ``encoder_bias`` [inputs, F], ``decoder`` [inputs, F, O], ``output_bias`` [inputs, O],
    ``threshold`` [F].
    """

    kind = "crosscoder"

    def _pre(self, z: Tensor, part: slice = slice(None)) -> Tensor:
        pre = torch.einsum("...id,ifd->...f", z, self.encoder[:, part])
        return (pre + self.tensors["encoder_bias"][:, part].sum(0))[..., None, :]

    def pre_activation(self, x: Tensor) -> Tensor:
        """What the activation reads, [..., F]: one for all points."""
        return super().pre_activation(x)[..., 0, :]

    def written(self, latents: Tensor) -> Tensor:
        """What latents [..., inputs, F] write."""
        return torch.einsum(
            "...if,ifo->...io", self._in_units_of_the_decoder(latents), self.decoder
        )

    def encode_sparse(self, x: Tensor, tile: int = 1 << 22) -> SparseLatents:
        """The latents that are not 0; `rows` counts token and point as one."""
        return _sparse(self, x, tile)

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """As :meth:`decode`."""
        return self.decode(latents.dense(), x)


class CrossLayer(Dictionary):
    """Latents of each layer, which write into that layer and all later ones.

    Tensors: ``encoder`` [layers, F, D], ``encoder_bias`` [layers, F], ``output_bias`` [layers, O], ``threshold`` [layers, F], ``skip``
    [layers, O, D]; ``decoder`` is of the first layer that is written to, and ``decoder_j`` [j + 1, F, O] of layer j, by the layers that
    it is written from.
    """

    kind = "cross-layer"

    @property
    def decoders(self) -> list[Tensor]:
        """For each layer that is written to, the decoders of the layers up to it, [j + 1, F, O]."""
        return [self.tensors[f"decoder_{j}"] for j in range(self.description.inputs)]

    def _decoder_norms(self) -> Tensor:
        squares = self.decoder.new_zeros(self.description.inputs, len(self.latents))
        for j, decoder in enumerate(self.decoders):
            squares[: j + 1] += decoder.pow(2).sum(-1)
        return squares.sqrt()

    def _pre(self, z: Tensor, part: slice = slice(None)) -> Tensor:
        return (
            torch.einsum("...id,ifd->...if", z, self.encoder[:, part])
            + self.tensors["encoder_bias"][:, part]
        )

    def written(self, latents: Tensor) -> Tensor:
        """What latents [..., layers, F] write into each layer."""
        latents = self._in_units_of_the_decoder(latents)
        sums = [
            torch.einsum("...if,ifo->...o", latents[..., : j + 1, :], decoder)
            for j, decoder in enumerate(self.decoders)
        ]
        return torch.stack(sums, dim=-2)

    def _skipped(self, x: Tensor) -> Tensor:
        return torch.einsum("...id,iod->...io", x, self.tensors["skip"])

    def encode_sparse(self, x: Tensor, tile: int = 1 << 22) -> SparseLatents:
        """The latents that are not 0; `rows` counts token and layer as one."""
        return _sparse(self, x, tile)

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """As :meth:`decode`."""
        return self.decode(latents.dense(), x)


def _sparse(dictionary: Crosscoder | CrossLayer, x: Tensor, tile: int) -> SparseLatents:
    """Of as many tokens at a time as a tile takes with all their latents."""
    points = dictionary.description.inputs
    tokens = x.reshape(-1, *x.shape[-2:])
    step = max(1, tile // (points * dictionary.description.latents))
    parts = []
    for start in range(0, len(tokens), step):
        codes = dictionary.encode(tokens[start : start + step]).flatten(0, 1)
        rows, latents, values = sparse.nonzero(codes, dictionary.latents.start)
        parts.append((rows + start * points, latents, values))
    shape = (*x.shape[:-1], dictionary.description.latents)
    return sparse.of_parts(parts, shape)
