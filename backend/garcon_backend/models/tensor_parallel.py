"""How one module is cut over the ranks of a tensor-parallel group.

A *cut* says which part of a parameter a rank holds; a *style* cuts a module's parameters and wraps
its forward so that the rest of the model does not notice (Shoeybi et al. 2019). A projection cut by
columns is given a replicated value and puts out its rank's features; one cut by rows is given its
rank's features and puts out the sum over the ranks, replicated. All values are plain tensors,
before and after the wrapping, so ordinary hooks see what the module's rank computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Conv1D

from garcon_backend.distributed.collectives import (
    Layout,
    Ranks,
    all_gather_over_ranks,
    shared_by_ranks,
    span,
    sum_over_ranks,
)

Forward = Callable[..., Any]

_CUT = "_garcon_cut"  # attribute of a parameter
_STYLE = "_garcon_style"  # attribute of a module


@dataclass(frozen=True)
class Cut:
    """Which part of a parameter each rank holds.

    The dimension is made of `groups` equal stretches, such as the queries, keys and values of a
    fused projection; each of them is cut into `parts` as ``torch.chunk`` cuts, and a rank holds its
    part of every stretch. `dup` neighbouring ranks hold the same part, and their gradients add up.

    Attributes:
        dim: the dimension that is cut.
        total: its whole size.
        parts: number of different parts; 1 where only the gradients differ.
        groups: number of stretches.
        dup: number of ranks that hold the same part.
    """

    dim: int
    total: int
    parts: int
    groups: int = 1
    dup: int = 1

    def take(self, whole: Tensor, rank: int) -> Tensor:
        """The part of a rank."""
        start, stop = span(self.total // self.groups, self.parts, rank // self.dup)
        stretches = whole.chunk(self.groups, self.dim)
        return torch.cat([s.narrow(self.dim, start, stop - start) for s in stretches], self.dim)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The whole parameter from the parts, in order."""
        stretches = [part.chunk(self.groups, self.dim) for part in parts]
        ordered = [part[group] for group in range(self.groups) for part in stretches]
        return torch.cat(ordered, self.dim)


def cut_of(parameter: Tensor) -> Cut | None:
    """How a parameter is cut; None where every rank holds it whole, and the same gradient."""
    return getattr(parameter, _CUT, None)


def mark(parameter: Tensor, cut: Cut) -> None:
    """Note on a parameter how it is cut."""
    setattr(parameter, _CUT, cut)


def style_of(module: nn.Module) -> Style | None:
    """The style a module was cut with; None where it was not."""
    return getattr(module, _STYLE, None)


class Style:
    """A way to cut a module. The base class leaves it whole."""

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut | None:
        """How a parameter of the module is to be cut over so many ranks."""
        return None

    def wrap(self, module: nn.Module, inner: Forward, ranks: Ranks) -> Forward:
        """The forward of a cut module, around its own."""
        return inner

    def install(self, module: nn.Module, ranks: Ranks) -> None:
        """Wrap the forward of a module whose parameters are cut."""
        setattr(module, _STYLE, self)
        module.forward = self.wrap(module, module.forward, ranks)

    def layout(self, side: str, ranks: int) -> Layout | None:
        """How the module's "input" or "output" lies on the ranks; None where no layout can say."""
        return Layout()


@dataclass(frozen=True)
class ColumnParallel(Style):
    """Cut by output features.

    Attributes:
        groups: of features laid side by side in a fused projection.
        joined: put out all features on every rank, not its own.
        dup: how many neighbouring ranks hold the same features: key heads fewer than ranks.
    """

    groups: int = 1
    joined: bool = False
    dup: int = 1

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut:
        dim = parameter.ndim - (1 if parameter.ndim == 1 or isinstance(module, Conv1D) else 2)
        return Cut(dim, parameter.shape[dim], ranks // self.dup, self.groups, self.dup)

    def wrap(self, module: nn.Module, inner: Forward, ranks: Ranks) -> Forward:
        weight_cut = self.cut(module, module.weight, ranks.size)  # type: ignore[arg-type]
        if isinstance(module, Conv1D):
            module.nf //= ranks.size  # its forward shapes the output by it

        def forward(x: Tensor) -> Tensor:
            out = inner(shared_by_ranks(x, ranks))
            return all_gather_over_ranks(out, weight_cut.total, ranks) if self.joined else out

        return forward

    def layout(self, side: str, ranks: int) -> Layout | None:
        if side == "input" or self.joined:
            return Layout()
        if self.groups > 1:
            return None
        return Layout(-1, ranks // self.dup, self.dup, self.dup > 1)


@dataclass(frozen=True)
class RowParallel(Style):
    """Cut by input features; the bias is whole and added once, after the sum.

    Attributes:
        whole_input: the module is given all features and takes its own.
    """

    whole_input: bool = False

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut | None:
        if parameter.ndim == 1:
            return None
        dim = parameter.ndim - (2 if isinstance(module, Conv1D) else 1)
        return Cut(dim, parameter.shape[dim], ranks)

    def wrap(self, module: nn.Module, inner: Forward, ranks: Ranks) -> Forward:
        cut = self.cut(module, module.weight, ranks.size)  # type: ignore[arg-type]
        assert cut is not None
        start, stop = span(cut.total, ranks.size, ranks.rank)

        def forward(x: Tensor) -> Tensor:
            if self.whole_input:
                x = shared_by_ranks(x, ranks)[..., start:stop]
            weight: Tensor = module.weight  # type: ignore[assignment]
            conv = isinstance(module, Conv1D)
            out = sum_over_ranks(x @ weight if conv else nn.functional.linear(x, weight), ranks)
            bias: Tensor | None = module.bias  # type: ignore[assignment]
            return out if bias is None else out + bias

        return forward

    def layout(self, side: str, ranks: int) -> Layout | None:
        return Layout() if side == "output" or self.whole_input else Layout(-1, ranks)


class Vocabulary(Style):
    """An embedding cut by tokens: each rank looks up its own, the others' rows are zero."""

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut:
        return Cut(0, parameter.shape[0], ranks)

    def wrap(self, module: nn.Module, inner: Forward, ranks: Ranks) -> Forward:
        assert isinstance(module, nn.Embedding)
        start, stop = span(module.num_embeddings, ranks.size, ranks.rank)
        if module.padding_idx is not None:  # its row gets no gradient, on the rank that holds it
            held = start <= module.padding_idx < stop
            module.padding_idx = module.padding_idx - start if held else None

        def forward(ids: Tensor) -> Tensor:
            here = (ids >= start) & (ids < stop)
            rows = inner((ids - start).clamp(0, stop - start - 1))
            return sum_over_ranks(rows * here.unsqueeze(-1), ranks)

        return forward


class Experts(Style):
    """Fused experts, every one of them cut by its neurons; see the rules of their parameters."""

    def wrap(self, module: nn.Module, inner: Forward, ranks: Ranks) -> Forward:
        def forward(hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
            hidden, weights = shared_by_ranks(hidden, ranks), shared_by_ranks(weights, ranks)
            return sum_over_ranks(inner(hidden, indices, weights), ranks)

        return forward


class OnOwnHeads(Style):
    """A whole norm that each rank applies to its own heads: its parameters' gradients add up."""

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut:
        return Cut(0, parameter.shape[0], 1, dup=ranks)

    def layout(self, side: str, ranks: int) -> Layout | None:
        return None


STYLES: dict[str, Style] = {
    "colwise": ColumnParallel(),
    "colwise_gather_output": ColumnParallel(joined=True),
    "colwise_rep": ColumnParallel(joined=True),
    "packed_colwise": ColumnParallel(groups=2),
    "fused_qkv": ColumnParallel(groups=3),
    "rowwise": RowParallel(),
    "rowwise_split_input": RowParallel(whole_input=True),
    "rowwise_rep": RowParallel(whole_input=True),
    "embedding_rowwise": Vocabulary(),
    "moe_tp_experts": Experts(),
    "replicated_with_grad_allreduce": OnOwnHeads(),
    "replicate": Style(),
}
"""Styles by the names that transformers' plans give them; ``fused_qkv`` is ours, for GPT-2."""

OWN_PLANS: dict[str, dict[str, str]] = {
    "gpt2": {
        "transformer.h.*.attn.c_attn": "fused_qkv",
        "transformer.h.*.attn.c_proj": "rowwise",
        "transformer.h.*.mlp.c_fc": "colwise",
        "transformer.h.*.mlp.c_proj": "rowwise",
        "lm_head": "colwise_gather_output",
    },
}
"""Plans of architectures that transformers has none for, by ``model_type``."""

LEFT_OUT: dict[str, dict[str, str]] = {
    "phi": {
        "model.layers.*.self_attn.q_layernorm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.k_layernorm": "replicated_with_grad_allreduce",
    },
}
"""What transformers' plans of an architecture leave out, by ``model_type``: without it a gradient would be that of one
rank's heads."""
