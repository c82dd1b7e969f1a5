"""Crosscoders and cross-layer transcoders: dictionaries of several points of a token at once.

Their values have an axis of points before the last: [..., inputs, D] is read, latents are [..., inputs, F], [..., outputs, O] is
written. In a pass the points come one after the other; what each is then asked is by the number of a point: ``…_at``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from garcon_backend.dictionaries import norms, selection, sparse
from garcon_backend.dictionaries.dictionary import Dictionary
from garcon_backend.dictionaries.sparse import SparseLatents
from garcon_jupyter.dictionaries import Description, InputNorm
from garcon_jupyter.errors import BadRequest


class SeveralPoints(Dictionary):
    """What both kinds do point by point."""

    def _z_at(self, x: Tensor, point: int) -> Tensor:
        z = norms.scaled(x.to(self.dtype), _of_point(self.form.norm_in, point))
        return z - self.tensors["output_bias"][point] if self.form.subtracts_bias else z

    def finished_at(self, written: Tensor, x: Tensor, point: int) -> Tensor:
        """The reconstruction of one point, [..., O], of what all latents write there.

        Args:
            written: the sum, [..., O].
            x: what is read for that point, [..., D].
            point: its number.
        """
        y = written + self.tensors["output_bias"][point] if self.form.output_bias else written
        y = norms.scaling_back(x, _of_point(self.form.norm_out, point))(y)
        return y + functional.linear(x, self.tensors["skip"][point]) if self.form.skip else y

    def finished_change_at(self, change: Tensor, x: Tensor, point: int) -> Tensor:
        """By how much the reconstruction of one point changes where what all latents write there changes by so much."""
        return norms.scaling_change(x, _of_point(self.form.norm_out, point))(change)


def _of_point(norm: InputNorm, point: int) -> InputNorm:
    """The norm of one of several points."""
    return replace(norm, scale=(norm.scale[point],)) if len(norm.scale) > 1 else norm


class Crosscoder(SeveralPoints):
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

    def pre_activation_of(self, xs: Sequence[Tensor]) -> Tensor:
        """What the activation reads, [..., F], of what is at each point, [..., D]."""
        parts = [functional.linear(self._z_at(x, i), self.encoder[i]) for i, x in enumerate(xs)]
        return torch.stack(parts).sum(0) + self.tensors["encoder_bias"].sum(0)

    def activated_of(self, pre: Tensor) -> Tensor:
        """The latents of each point, [..., inputs, F], of the pre-activation [..., F] that they share."""
        latents = self._gated(pre[..., None, :])
        return latents.expand(*latents.shape[:-2], self.description.inputs, latents.shape[-1])

    def written_at(self, latents: Tensor, point: int) -> Tensor:
        """What the latents [..., F] of one point write there."""
        scaled = self.form.decoder_norms == "latents" and self.scale is not None
        units = latents / self.scale[point] if scaled and self.scale is not None else latents
        return units.to(self.dtype) @ self.decoder[point]

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


class CrossLayer(SeveralPoints):
    """Latents of each layer, which write into that layer and all later ones.

    Tensors: ``encoder`` [layers, F, D], ``encoder_bias`` [layers, F], ``output_bias`` [layers, O], ``threshold`` [layers, F], ``skip``
    [layers, O, D]; ``decoder`` is of the first layer that is written to, and ``decoder_j`` [j + 1, F, O] of layer j, by the layers that
    it is written from.

    A stage of a pipeline holds the latents of its own layers: encoders, thresholds and decoders are of these alone.

    Args:
        sources: the layers whose latents are held; all, if nothing is said.
    """

    kind = "cross-layer"

    def __init__(
        self,
        description: Description,
        tensors: dict[str, Tensor],
        latents: range,
        sources: range | None = None,
    ) -> None:
        self.sources = range(description.inputs) if sources is None else sources
        super().__init__(description, tensors, latents)

    @property
    def decoders(self) -> list[Tensor]:
        """For each layer that is written to, the decoders of the layers up to it, [j + 1, F, O]."""
        return [self.tensors[f"decoder_{j}"] for j in range(self.description.inputs)]

    def _decoder_norms(self) -> Tensor:
        squares = self.decoder.new_zeros(len(self.sources), len(self.latents))
        for name, decoder in self.tensors.items():
            if name.startswith("decoder_"):  # of those that are held, the ones up to that layer
                squares[: len(decoder)] += decoder.pow(2).sum(-1)
        return squares.sqrt()

    def _check_alone(self) -> None:
        super()._check_alone()
        if len(self.sources) < self.description.inputs:
            raise BadRequest(
                f"Latents of {len(self.sources)} of {self.description.inputs} layers are here.",
                "Load it whole, or ask for those of a layer.",
            )

    def _own(self, layer: int) -> int:
        """The number of a layer among those whose latents are held."""
        return layer - self.sources.start

    def _pre(self, z: Tensor, part: slice = slice(None)) -> Tensor:
        return (
            torch.einsum("...id,ifd->...if", z, self.encoder[:, part])
            + self.tensors["encoder_bias"][:, part]
        )

    def pre_activation_at(self, x: Tensor, layer: int) -> Tensor:
        """What the activation of one layer reads, [..., F], of what is there, [..., D]."""
        own = self._own(layer)
        bias = self.tensors["encoder_bias"][own]
        return functional.linear(self._z_at(x, layer), self.encoder[own], bias)

    def activated_at(self, pre: Tensor, layer: int) -> Tensor:
        """The latents of one layer, of its pre-activations [..., F]. They do not compete with other layers'."""
        own = self._own(layer)
        scale = None if self.scale is None else self.scale[own]
        threshold = None if self.threshold is None else self.threshold[own]
        scaled = pre if scale is None else pre * scale
        latents = selection.passed(scaled, self.form.activation, threshold)
        by_norm = scale is not None and self.form.decoder_norms == "gate"
        return latents / scale if by_norm and scale is not None else latents

    def written_from(self, latents: Tensor, layer: int, to: int) -> Tensor:
        """What the latents [..., F] of one layer write into another, [..., O]."""
        scaled = self.form.decoder_norms == "latents" and self.scale is not None
        own = self._own(layer)
        units = latents / self.scale[own] if scaled and self.scale is not None else latents
        return units.to(self.dtype) @ self.tensors[f"decoder_{to}"][own]

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
