"""One module with two thin matrices beside it: W·x + s·B·A·x, without ever forming B·A.

Under tensor parallelism they are cut as the module is (:mod:`garcon_backend.models.tensor_parallel`). Cut by columns,
a rank has its rows of B, and the whole A. Cut by rows, it has its columns of A, and the thin A·x is summed over
the ranks. Where the module is given all features, or puts out all, so are the two matrices, and nothing more is sent. Values stay plain tensors
laid out as the module's own, so points on either side of it mean what they do without an adapter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Conv1D

from garcon_backend.distributed.collectives import shared_by_ranks, sum_over_ranks
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.hook_sites.weights import ADAPTED
from garcon_backend.models.adapters.reading import LowRank
from garcon_backend.models.tensor_parallel import (
    ColumnParallel,
    Forward,
    RowParallel,
    cut_of,
    mark,
    style_of,
)

LINEAR = (nn.Linear, Conv1D, nn.Embedding)
"""Modules that can be adapted."""


class AdaptedModule:
    """A module, and what an adapter has for it, cut for this rank.

    Args:
        module: one of :data:`LINEAR`.
        found: what the adapter has for it, whole, in its shape.
        mesh: the ranks; those that hold the module make this in unison.
    """

    def __init__(self, module: nn.Module, found: LowRank, mesh: Mesh) -> None:
        assert found.a is not None and found.b is not None
        self.module, self.scale, self.ranks = module, found.scale, mesh.tp
        stored: Tensor = module.weight  # type: ignore[assignment]
        # Half precision has too few digits to add what is small; PEFT computes in float32, too.
        dtype = (
            torch.promote_types(torch.float32, stored.dtype)
            if stored.is_floating_point()
            else torch.float32
        )

        def ready(tensor: Tensor) -> Tensor:
            return tensor.to(mesh.device, dtype)

        self.a, self.b = ready(found.a), ready(found.b)
        self.bias = None if found.bias is None else ready(found.bias)
        self.cut = cut_of(stored) if mesh.tp.size > 1 else None
        style = style_of(module)
        self.own_columns = isinstance(style, ColumnParallel) and not style.joined
        self.own_rows = isinstance(style, RowParallel) and not style.whole_input
        if self.own_columns and self.cut is not None:
            rows = replace(self.cut, dim=0)
            self.b = rows.take(self.b, mesh.tp_rank)
            self.bias = None if self.bias is None else rows.take(self.bias, mesh.tp_rank)
        if self.own_rows and self.cut is not None:
            self.a = replace(self.cut, dim=1).take(self.a, mesh.tp_rank)
        self.gain = None if found.magnitude is None else self._gain(ready(found.magnitude))

    # -- on and off ------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """From now on the module computes with the adapter."""
        module = self.module
        self._former = module.__dict__.get("forward")
        module.__dict__["forward"] = self._around(module.forward)
        module.__dict__[ADAPTED] = self

    def switch_off(self) -> None:
        """The module is as it was."""
        attributes = self.module.__dict__
        del attributes[ADAPTED]
        if self._former is None:
            del attributes["forward"]
        else:
            attributes["forward"] = self._former

    def _around(self, inner: Forward) -> Forward:
        """The module's forward, around its own."""

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out: Tensor = inner(x, *args, **kwargs)
            embeds = isinstance(self.module, nn.Embedding)
            added = self._looked_up(x) if embeds else self._projected(x)
            if self.gain is not None:
                bias: Tensor | None = self.module.bias  # type: ignore[assignment]
                without = out if bias is None else out - bias
                added = (self.gain - 1) * without + self.gain * added
            return (out + added).to(out.dtype)

        return forward

    def _projected(self, x: Tensor) -> Tensor:
        x = x.to(self.a.dtype)
        thin = (shared_by_ranks(x, self.ranks) if self.own_columns else x) @ self.a.T
        if self.own_rows:
            thin = sum_over_ranks(thin, self.ranks)
        out = thin @ self.b.T
        return (out if self.bias is None else out + self.bias) * self.scale

    def _looked_up(self, ids: Tensor) -> Tensor:
        rows = nn.functional.embedding(ids, self.a.T) @ self.b.T * self.scale
        # Gemma's embedding multiplies.
        scale: Tensor | None = getattr(self.module, "embed_scale", None)
        return rows if scale is None else rows * scale

    # -- as one matrix ---------------------------------------------------------------------------

    def weight(self) -> Tensor:
        """What the module would store if the adapter were merged into it: this rank's part."""
        stored: Tensor = self.module.weight  # type: ignore[assignment]
        merged = self._merged()
        if self.gain is not None:
            gain = (
                self.gain
            )  # of all features that the module puts out, which may be more than it stores
            if self.cut is not None and len(gain) != len(merged):
                gain = replace(self.cut, dim=0).take(gain, self.ranks.rank)
            merged = gain[:, None] * merged
        weight = (merged if self._stored_so else merged.T).to(stored.dtype)
        if self.cut is not None:
            mark(weight, self.cut)
        return weight

    @property
    def _stored_so(self) -> bool:
        """Whether the module stores its weight as [out, in]."""
        return isinstance(self.module, nn.Linear)

    def _merged(self) -> Tensor:
        """W + s·B·A of this rank, [out, in], in the adapter's dtype."""
        stored: Tensor = self.module.weight  # type: ignore[assignment]
        added = self.scale * self.b @ self.a
        if self.cut is not None and not (self.own_columns or self.own_rows):
            dim = self.cut.dim if self._stored_so else 1 - self.cut.dim
            added = replace(self.cut, dim=dim).take(added, self.ranks.rank)
        return (stored if self._stored_so else stored.T).to(added.dtype) + added

    def _gain(self, magnitude: Tensor) -> Tensor:
        """By what DoRA multiplies each output feature: its magnitude over the norm of its merged weights."""
        merged = self._merged().detach()
        squares = merged.pow(2).sum(1)
        if self.cut is None:
            return magnitude / squares.sqrt()
        if self.own_columns:
            return replace(self.cut, dim=0).take(magnitude, self.ranks.rank) / squares.sqrt()
        if isinstance(style_of(self.module), RowParallel):
            return magnitude / self.ranks.sum(squares).sqrt()
        return magnitude / self.ranks.all_gather(squares, self.cut.total).sqrt()
