"""The form, computed: latents, reconstruction, error.

A dictionary may hold a part of its latents, those of one rank. Latents that pass by themselves are the same in a part as in the
whole. Where they displace one another (top-k), each part gives its :meth:`~Dictionary.candidates`, and
:meth:`~Dictionary.chosen` takes of all parts' those that pass. What the parts write adds up; bias, skip and the scale of the
output come once, in :meth:`~Dictionary.finished`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from garcon_backend.dictionaries import norms, selection, sparse
from garcon_backend.dictionaries.sparse import SparseLatents
from garcon_jupyter.dictionaries import Activation, Description
from garcon_jupyter.errors import BadRequest, NotADictionary

_TILE = 1 << 23
"""Numbers that a tile of tokens × latents may have: 32 MB of float32."""

_TOKENS = 64
"""Tokens of a tile at least: with fewer at a time the encoder's weights are read too often."""


@dataclass(frozen=True)
class Candidates:
    """The strongest latents of each token among those of a part.

    Attributes:
        values: pre-activations, [rows, k].
        latents: their numbers among all latents, [rows, k].
    """

    values: Tensor
    latents: Tensor


class Dictionary:
    """A dictionary that is a function of each token.

    Args:
        description: of it.
        tensors: by the names of the form (:class:`garcon_backend.dictionaries.plan.ReadingPlan`), of the latents that it holds.
        latents: those that it holds, of all.
    """

    kind = "token"

    def __init__(
        self, description: Description, tensors: dict[str, Tensor], latents: range
    ) -> None:
        self.description = description
        self.form = description.form
        self.tensors = dict(tensors)
        self.latents = latents
        self.encoder = tensors.get("encoder", tensors["decoder"])
        self.decoder = tensors["decoder"]
        self.scale: Tensor | None = None
        """r of the form, [F]: None where it is 1."""
        self.threshold = tensors.get("threshold")
        self._settle()

    def _settle(self) -> None:
        """Make r, and what a gate is as a threshold, of what the files hold."""
        if self.form.decoder_norms:
            self.scale = self._decoder_norms()
        if self.form.gated:
            # relu(e^r·(zW) + b_mag) where zW + b_gate > 0 is a jumprelu of what relu reads (Rajamanoharan et al. 2024).
            magnitude = self.tensors["gate_scale"].exp()
            bias = self.tensors["encoder_bias"]
            self.encoder = self.tensors["encoder"] = self.encoder * magnitude[:, None]
            self.threshold = bias - magnitude * self.tensors["gate_bias"]

    def _decoder_norms(self) -> Tensor:
        norms_: Tensor = self.decoder.norm(dim=-1)
        if bool((norms_ == 0).any()) and self.form.decoder_norms:
            raise NotADictionary(
                f"{self.description.path} has {int((norms_ == 0).sum())} latents that write nothing, by whose norm it divides.",
                "Give a dictionary without them.",
            )
        return norms_

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes, whatever the model's own is."""
        return self.decoder.dtype

    @property
    def whole(self) -> bool:
        """Whether it holds all latents."""
        return len(self.latents) == self.description.latents

    @property
    def nbytes(self) -> int:
        """Of what it holds in memory."""
        made = [part for part in (self.scale, self.threshold) if part is not None]
        held = {id(part): part.nbytes for part in (*self.tensors.values(), self.encoder, *made)}
        return sum(held.values())

    # Reading ------------------------------------------------------------------------------------

    def _read(self, x: Tensor) -> Tensor:
        """What was read, checked and in the dictionary's dtype, [..., D]."""
        x = x.to(self.dtype)
        d_in = self.description.d_in
        if self.description.heads and x.dim() > 2 and x.shape[-1] * x.shape[-2] == d_in:
            x = x.flatten(-2)  # head by head
        wanted = (
            (self.description.inputs, d_in)
            if self.kind in ("crosscoder", "cross-layer")
            else (d_in,)
        )
        if tuple(x.shape[-len(wanted) :]) != wanted:
            shown = ", ".join(map(str, wanted))
            raise BadRequest(
                f"A value {list(x.shape)} was given to a dictionary that reads [..., {shown}].",
                "Give what its points have.",
            )
        return x

    def _z(self, x: Tensor) -> Tensor:
        z = norms.scaled(x, self.form.norm_in)
        return z - self.tensors["output_bias"] if self.form.subtracts_bias else z

    def _pre(self, z: Tensor, part: slice = slice(None)) -> Tensor:
        """Pre-activations of a slice of its latents."""
        bias = self.tensors.get("encoder_bias")
        pre = functional.linear(z, self.encoder[part], None if bias is None else bias[part])
        if self.form.glu:
            gate = functional.linear(z, self.tensors["glu"][part], self.tensors["glu_bias"][part])
            pre = pre * gate.sigmoid()
        return pre

    def pre_activation(self, x: Tensor) -> Tensor:
        """What the activation reads, [..., F], before it is scaled by the decoder's norms."""
        return self._pre(self._z(self._read(x)))

    def encode(self, x: Tensor) -> Tensor:
        """The latents of activations [..., D]: [..., F], zeros as well.

        Raises:
            BadRequest: it holds a part of its latents, and they displace one another: see :meth:`candidates`.
        """
        self._check_alone()
        return self._gated(self._pre(self._z(self._read(x))))

    def activated(self, pre: Tensor) -> Tensor:
        """The latents of pre-activations, as :meth:`pre_activation` gives them, [..., F].

        Raises:
            BadRequest: as :meth:`encode`.
        """
        self._check_alone()
        return self._gated(pre)

    def candidates_among(self, pre: Tensor) -> Candidates:
        """As :meth:`candidates`, of pre-activations [..., F]."""
        rows = pre.reshape(-1, pre.shape[-1])
        scaled = rows if self.scale is None else rows * self.scale
        values, places = selection.strongest(scaled, self.form.activation)
        return Candidates(values, places + self.latents.start)

    def passed(self, pre: Tensor, chosen: Candidates) -> Tensor:
        """The latents of pre-activations [..., F] where it was settled which pass, among all parts.

        As :meth:`own`, but on the autograd graph of the pre-activations.
        """
        on = self.own(chosen, pre.shape[:-1]) != 0
        scaled = pre if self.scale is None else pre * self.scale
        return scaled.where(on, torch.zeros((), dtype=pre.dtype, device=pre.device))

    def _gated(self, pre: Tensor, part: slice = slice(None)) -> Tensor:
        scale = None if self.scale is None else self.scale[..., part]
        threshold = None if self.threshold is None else self.threshold[..., part]
        codes = selection.passed(
            pre if scale is None else pre * scale, self._activation(part), threshold
        )
        return codes / scale if scale is not None and self.form.decoder_norms == "gate" else codes

    def _activation(self, part: slice) -> Activation:
        """The activation, of whole groups where there are groups."""
        activation = self.form.activation
        if activation.kind != "groupmax":
            return activation
        size = self.description.latents // activation.k
        start, stop, _ = part.indices(len(self.latents))
        return Activation("groupmax", (stop - start) // size)

    def _check_alone(self) -> None:
        if self.form.competes and not self.whole:
            raise BadRequest(
                f"Latents {self.latents.start} to {self.latents.stop - 1} of {self.description.latents} are here, and whether "
                f"they pass depends on the others.",
                "Ask each part for its candidates(), and take the chosen() of all.",
            )

    # Sparse -------------------------------------------------------------------------------------

    def encode_sparse(self, x: Tensor, tile: int = _TILE) -> SparseLatents:
        """The latents that are not 0. Of all latents no more than a tile is held at a time.

        Args:
            x: activations.
            tile: how many numbers, tokens × latents, may be held.
        """
        found = self.encode_few(x, 1.0, tile)
        assert found is not None
        width, first = self.description.latents, self.latents.start
        return replace(found, latents=found.latents + first, shape=(*found.shape[:-1], width))

    def encode_few(self, x: Tensor, most: float, tile: int = _TILE) -> SparseLatents | None:
        """As :meth:`encode_sparse`, of the latents that it holds, numbered from the first of them.

        Args:
            most: the share of latents that may be not 0; None is returned as soon as more are.
        """
        if self.kind != "token":
            found = self.encode_sparse(x)
            return found if len(found.values) <= most * math.prod(found.shape) else None
        self._check_alone()
        z = self._z(self._read(x))
        shape = (*z.shape[:-1], len(self.latents))
        z = z.reshape(-1, z.shape[-1])
        if self.form.activation.kind in ("topk", "abstopk"):
            if self.form.activation.k > most * len(self.latents):
                return None
            return self.own_sparse(self._strongest(z, tile), shape[:-1])
        parts, count, step = [], 0, self._tokens(tile)
        for first in range(0, len(z), step):
            rows = z[first : first + step]
            for part in self._tiles(len(rows), tile):
                codes = self._gated(self._pre(rows, part), part)
                token, latent, values = sparse.nonzero(codes, part.start)
                parts.append((token + first, latent, values))
                count += len(values)
            if count > most * (first + len(rows)) * len(self.latents):
                return None
        return sparse.of_parts(parts, shape)

    def candidates(
        self, x: Tensor, tile: int = _TILE, best: Candidates | None = None
    ) -> Candidates:
        """The strongest of the latents that it holds, which compete with those of other parts.

        Args:
            x: activations.
            tile: how many numbers, tokens × latents, may be held.
            best: those of the parts before, where parts are held one after the other.
        """
        z = self._z(self._read(x))
        return self._strongest(z.reshape(-1, z.shape[-1]), tile, best)

    def chosen(self, parts: Sequence[Candidates]) -> Candidates:
        """Of the candidates of all parts those that pass."""
        values = torch.cat([part.values for part in parts], dim=-1)
        latents = torch.cat([part.latents for part in parts], dim=-1)
        kept, places = selection.strongest(values, self.form.activation)
        return Candidates(kept, latents.gather(-1, places))

    def own(self, chosen: Candidates, shape: Sequence[int]) -> Tensor:
        """Of what passes, the latents that it holds, [*shape, F of this part], zeros as well.

        Args:
            chosen: of all parts.
            shape: of the tokens.
        """
        values, latents = self._as_latents(chosen), chosen.latents - self.latents.start
        here = (latents >= 0) & (latents < len(self.latents))
        codes = values.new_zeros(
            len(values), len(self.latents) + 1
        )  # the last column takes what is elsewhere
        codes.scatter_(-1, latents.where(here, len(self.latents)), values * here)
        return codes[:, :-1].reshape(*shape, len(self.latents))

    def own_sparse(self, chosen: Candidates, shape: Sequence[int]) -> SparseLatents:
        """As :meth:`own`, those that are not 0; latents are numbered from the first of this part."""
        values, latents = self._as_latents(chosen), chosen.latents - self.latents.start
        here = (latents >= 0) & (latents < len(self.latents)) & (values != 0)
        rows, columns = here.nonzero(as_tuple=True)
        found = (rows, latents[rows, columns], values[rows, columns])
        return sparse.of_parts([found], (*shape, len(self.latents)))

    def _as_latents(self, chosen: Candidates) -> Tensor:
        values = selection.rectified(chosen.values, self.form.activation)
        if self.scale is None or self.form.decoder_norms != "gate":
            return values
        if not self.whole:
            raise BadRequest(
                "Top-k over decoder norms is divided by the norms of all latents, of which a part is here.",
                "Load it whole.",
            )
        return values / self.scale[chosen.latents]

    def _strongest(self, z: Tensor, tile: int, best: Candidates | None = None) -> Candidates:
        parts, step = [], self._tokens(tile)
        for first in range(0, max(1, len(z)), step):
            rows = slice(first, first + step)
            former = None if best is None else Candidates(best.values[rows], best.latents[rows])
            parts.append(self._strongest_of(z[rows], tile, former))
        return Candidates(
            torch.cat([part.values for part in parts]), torch.cat([part.latents for part in parts])
        )

    def _strongest_of(self, z: Tensor, tile: int, best: Candidates | None) -> Candidates:
        for part in self._tiles(len(z), tile):
            pre = self._pre(z, part)
            values, places = selection.strongest(
                pre if self.scale is None else pre * self.scale[part], self.form.activation
            )
            found = Candidates(values, places + (self.latents.start + part.start))
            best = found if best is None else self.chosen([best, found])
        assert best is not None
        return best

    def sparse_of(self, chosen: Candidates, shape: tuple[int, ...]) -> SparseLatents:
        """What passes, of all parts, as the latents that are not 0, of a shape."""
        values = self._as_latents(chosen)
        rows, columns = values.nonzero(as_tuple=True)
        return sparse.of_parts(
            [(rows, chosen.latents[rows, columns], values[rows, columns])], shape
        )

    def _tokens(self, tile: int) -> int:
        """Of how many tokens a tile is."""
        return max(_TOKENS, tile // len(self.latents))

    def _tiles(self, n_rows: int, tile: int) -> list[slice]:
        """Slices of its latents, of whole groups where there are groups."""
        width = max(1, tile // max(n_rows, 1))
        if self.form.activation.kind == "groupmax":
            size = self.description.latents // self.form.activation.k
            width = max(size, width // size * size)
        n = len(self.latents)
        return [slice(start, min(start + width, n)) for start in range(0, n, width)]

    # Writing ------------------------------------------------------------------------------------

    def written(self, latents: Tensor) -> Tensor:
        """What latents [..., F] write, without bias and scale: of parts, these add up."""
        return self._in_units_of_the_decoder(latents) @ self.decoder

    def _in_units_of_the_decoder(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.dtype)
        return (
            latents / self.scale
            if self.scale is not None and self.form.decoder_norms == "latents"
            else latents
        )

    def finished(self, written: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction of what all latents write.

        Args:
            written: the sum over all parts.
            x: what was read, where the form needs it.

        Raises:
            BadRequest: the form needs it, and it was not given.
        """
        if x is None and self.form.needs_input:
            raise BadRequest(
                f"What this dictionary writes depends on what it read: {self.description.formula}.",
                "Give what it read as well, as decode(latents, x).",
            )
        x = None if x is None else self._read(x)
        y = written + self.tensors["output_bias"] if self.form.output_bias else written
        y = norms.scaling_back(x, self.form.norm_out)(y)
        return y + self._skipped(x) if self.form.skip and x is not None else y

    def finished_change(self, change: Tensor, x: Tensor | None = None) -> Tensor:
        """By how much the reconstruction changes where what all latents write changes by so much: bias and skip stay.

        Args:
            change: the sum over all parts.
            x: as for :meth:`finished`.
        """
        x = None if x is None else self._read(x)
        return norms.scaling_change(x, self.form.norm_out)(change)

    def _skipped(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.tensors["skip"])

    def decode(self, latents: Tensor, x: Tensor | None = None) -> Tensor:
        """The activations that latents stand for, [..., O].

        Args:
            latents: [..., F].
            x: what was read, where the form needs it.
        """
        return self.finished(self.written(latents), x)

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """As :meth:`decode`, of what :meth:`encode_sparse` gives."""
        values = latents.values
        if self.scale is not None and self.form.decoder_norms == "latents":
            values = values / self.scale[latents.latents]
        n_rows = int(torch.tensor(latents.shape[:-1]).prod())
        codes = SparseLatents(latents.rows, latents.latents, values, latents.shape)
        written = sparse.gathered_rows(codes, self.decoder, n_rows)
        return self.finished(written.view(*latents.shape[:-1], -1), x)

    def reconstruction(self, x: Tensor) -> Tensor:
        """What its latents of `x` say the output is."""
        return self.decode(self.encode(x), x)

    def error(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """What the reconstruction lacks.

        Args:
            x: what it reads.
            target: what is at the point that it writes; `x` itself, where it writes what it reads.
        """
        target = self._read(x) if target is None else target.to(self.dtype)
        return target - self.reconstruction(x)

    def edited(self, value: Tensor, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """A value with latents changed: the rest of it stays, to the last bit where nothing is changed.

        The difference of both reconstructions is added. The usual order, the error added to the new reconstruction, rounds.

        Args:
            value: at the point that it writes.
            x: what it reads.
            before: the latents of `x`.
            after: as they shall be.
        """
        return value + (self.decode(after, x) - self.decode(before, x)).to(value.dtype)
