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
from garcon_backend.hook_sites.staged.experts import biases_written

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
        groups: of features laid side by side, where it is a parameter that is cut, stored as [.., in, out].
    """

    whole_input: bool = False
    groups: int = 1

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut | None:
        if parameter.ndim == 1:
            return None
        dim = parameter.ndim - (2 if isinstance(module, Conv1D) else 1)
        return Cut(dim, parameter.shape[dim], ranks, self.groups)

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
        def forward(hidden: Tensor, *routing: Tensor) -> Tensor:
            given = [
                shared_by_ranks(value, ranks) if value.is_floating_point() else value
                for value in (hidden, *routing)
            ]
            return sum_over_ranks(inner(*given), ranks)

        return forward


class BiasedExperts(Experts):
    """The same where what an expert writes has a bias: whole on every rank, and added once, after the sum."""

    def wrap(self, module: nn.Module, inner: Forward, ranks: Ranks) -> Forward:
        summed, name = super().wrap(module, inner, ranks), "down_proj_bias"

        def forward(hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
            bias = module._parameters[name]
            assert bias is not None
            module._parameters[name] = torch.zeros_like(bias)  # type: ignore[assignment]
            try:
                out: Tensor = summed(hidden, indices, weights)
            finally:
                module._parameters[name] = bias
            return out + biases_written(bias, indices, weights)

        return forward


@dataclass(frozen=True)
class CutAlong(Style):
    """Parameters cut along one of their dimensions, for which nothing else is done: a number for each head, or neuron.

    Attributes:
        dim: which; negative ones count from the last.
        dup: how many neighbouring ranks hold the same part.
    """

    dim: int
    dup: int = 1

    def cut(self, module: nn.Module, parameter: Tensor, ranks: int) -> Cut:
        dim = self.dim % parameter.ndim
        return Cut(dim, parameter.shape[dim], ranks // self.dup, dup=self.dup)

    def layout(self, side: str, ranks: int) -> Layout | None:
        return None


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
    "packed_rowwise": RowParallel(groups=2),
    "rowwise": RowParallel(),
    "rowwise_split_input": RowParallel(whole_input=True),
    "rowwise_rep": RowParallel(whole_input=True),
    "embedding_rowwise": Vocabulary(),
    "moe_tp_experts": Experts(),
    "experts_with_biases": BiasedExperts(),
    "first": CutAlong(0),
    "second": CutAlong(1),
    "last": CutAlong(-1),
    "replicated_with_grad_allreduce": OnOwnHeads(),
    "mla_kv_a_proj": Style(),
    "replicate": Style(),
}
"""Styles by the names that transformers' plans give them; those that only plans of ours name are ours. What latent attention
compresses is whole on every rank, and where keys are put together :func:`share_rotary_key` adds up what the ranks' heads say
of it."""


def share_rotary_key(attention: nn.Module, ranks: Ranks) -> None:
    """Let the gradient of the part of the keys that all heads share be that of the heads of all ranks."""
    inner: Forward = attention.expand_kv  # type: ignore[assignment]

    def expand_kv(latent: Tensor, rotated: Tensor) -> Any:
        return inner(latent, shared_by_ranks(rotated, ranks))

    attention.expand_kv = expand_kv  # type: ignore[assignment]


OWN_PLANS: dict[str, dict[str, str]] = {
    "gpt2": {
        "transformer.h.*.attn.c_attn": "fused_qkv",
        "transformer.h.*.attn.c_proj": "rowwise",
        "transformer.h.*.mlp.c_fc": "colwise",
        "transformer.h.*.mlp.c_proj": "rowwise",
        "lm_head": "colwise_gather_output",
    },
    "gpt_oss": {
        **{f"model.layers.*.self_attn.{x}_proj": "colwise" for x in "qkv"},
        "model.layers.*.self_attn.o_proj": "rowwise",
        "model.layers.*.self_attn.sinks": "last",
        "model.layers.*.mlp.experts": "experts_with_biases",
        "model.layers.*.mlp.experts.gate_up_proj": "last",  # where gate and up take turns
        "model.layers.*.mlp.experts.gate_up_proj_bias": "last",
        "model.layers.*.mlp.experts.down_proj": "second",
        "lm_head": "colwise_gather_output",
    },
    "qwen3_vl_text": {
        "model.layers.*.self_attn.q_proj": "colwise",
        "model.layers.*.self_attn.k_proj": "colwise",
        "model.layers.*.self_attn.v_proj": "colwise",
        "model.layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.o_proj": "rowwise",
        "model.layers.*.mlp.gate_proj": "colwise",
        "model.layers.*.mlp.up_proj": "colwise",
        "model.layers.*.mlp.down_proj": "rowwise",
        "lm_head": "colwise_gather_output",
    },
}
"""Plans of architectures that transformers has none for, or an unembedding's alone, by ``model_type``."""

LEFT_OUT: dict[str, dict[str, str]] = {
    "cohere": {  # the norms of Command R+, whose gains are of each head
        "model.layers.*.self_attn.q_norm": "first",
        "model.layers.*.self_attn.k_norm": "first",
    },
    "glm4_moe": {
        "model.layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
    },
    # MLPs beside layers of experts that are cut: neurons are either cut everywhere, or nowhere.
    "jamba": {
        "model.layers.*.feed_forward.gate_proj": "colwise",
        "model.layers.*.feed_forward.up_proj": "colwise",
        "model.layers.*.feed_forward.down_proj": "rowwise",
    },
    "nemotron_h": {
        "model.layers.*.mixer.up_proj": "colwise",
        "model.layers.*.mixer.down_proj": "rowwise",
    },
    "lfm2_moe": {
        "model.layers.*.feed_forward.w1": "colwise",
        "model.layers.*.feed_forward.w3": "colwise",
        "model.layers.*.feed_forward.w2": "rowwise",
    },
    "phi": {
        "model.layers.*.self_attn.q_layernorm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.k_layernorm": "replicated_with_grad_allreduce",
    },
}
"""What transformers' plans of an architecture leave out, by ``model_type``: without it a gradient would be that of one
rank's heads, or a value lie in one layer otherwise than in the next."""
