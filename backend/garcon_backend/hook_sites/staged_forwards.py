"""Forwards in steps: the same numbers as the module's own, with the values in between in reach.

Each function has the type :data:`~garcon_backend.hook_sites.sites.StagedForward` and is used only while
one of its parts is probed; otherwise the module runs as transformers wrote it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import (
    all_gather_over_ranks,
    shared_by_ranks,
    span,
    sum_over_ranks,
)
from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.hook_sites.weights import weight_of


def _eps(module: Any) -> float:
    found: float = next(
        getattr(module, n) for n in ("variance_epsilon", "eps") if hasattr(module, n)
    )
    return found


def rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Llama's RMSNorm (Zhang and Sennrich 2019): normalised in float32, gain in the model's dtype."""
    (x,) = args
    wide = x.float()
    scale = visited(visits, "scale", (wide.pow(2).mean(-1, keepdim=True) + _eps(module)).sqrt())
    normalized = visited(visits, "normalized", (wide / scale).to(x.dtype))
    out: Tensor = module.weight * normalized
    return out


def gemma_rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Gemma's RMSNorm: the gain is 1 + weight, and applied in float32."""
    return _wide_rms_norm(module, visits, args[0], 1.0 + module.weight.float())


def olmo_rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """OLMo 2's RMSNorm: Llama's, with the gain applied in float32."""
    return _wide_rms_norm(module, visits, args[0], module.weight)


def _wide_rms_norm(
    module: Any, visits: dict[str, Visitor], x: Tensor, gain: Tensor | float
) -> Tensor:
    wide = x.float()
    scale = visited(visits, "scale", (wide.pow(2).mean(-1, keepdim=True) + _eps(module)).sqrt())
    normalized = visited(visits, "normalized", wide / scale)
    return (normalized * gain).to(x.dtype)


def layer_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """LayerNorm (Ba et al. 2016): ``scale`` is the standard deviation with its epsilon.

    As torch's own does, it computes in float32 at least, and rounds only what it puts out.
    """
    return _layer_norm(module, visits, args[0], module.weight)


def layer_norm_of_flat(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """The same over flat tokens [b·p, D]; its parts are [b, p, …]."""
    x = args[0].unflatten(0, the_pass.batch)
    return _layer_norm(module, visits, x, module.weight).flatten(0, 1)


def layer_norm_1p(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Nemotron's LayerNorm: the gain is 1 + weight."""
    return _layer_norm(module, visits, args[0], module.weight + 1.0)


def bare_layer_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """OLMo's LayerNorm, which has neither gain nor bias: ``normalized`` is what it puts out."""
    return _layer_norm(module, visits, args[0], 1.0, eps=1e-5)  # which it does not keep


def bare_rms_norm(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """NanoChat's RMSNorm, which has no gain: ``normalized`` is what it puts out."""
    return _wide_rms_norm(module, visits, args[0], 1.0)


def _layer_norm(
    module: Any,
    visits: dict[str, Visitor],
    x: Tensor,
    gain: Tensor | float,
    eps: float | None = None,
) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(-1, keepdim=True)
    variance = centred.pow(2).mean(-1, keepdim=True)
    eps = _eps(module) if eps is None else eps
    scale = visited(visits, "scale", (variance + eps).sqrt())
    normalized = visited(visits, "normalized", centred / scale)
    out, bias = normalized * gain, getattr(module, "bias", None)
    shifted: Tensor = out if bias is None else out + bias
    return shifted.to(x.dtype)


def output_by_head(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """The output projection head by head: their sum and the bias are the module's output.

    Under tensor parallelism each rank projects its own heads. Where it is given all heads, it is
    also shown all; else the sum goes over the ranks too, unless every rank projects all of them.
    """
    (z,) = args
    weight = projection_weight(module)  # [D, H·d] of the heads that this rank projects
    width = the_pass.sizes.get("d_v", the_pass.sizes["d"])
    whole = z.shape[-1] > weight.shape[1]
    if whole:
        start, stop = span(z.shape[-1], the_pass.ranks.size, the_pass.ranks.rank)
        total, z = (
            z.shape[-1] // width,
            shared_by_ranks(z, the_pass.ranks)[..., start:stop],
        )
    by_head = weight.unflatten(1, (-1, width))
    heads = torch.einsum("bphd,ohd->bpho", z.unflatten(-1, by_head.shape[1:]), by_head)
    if whole:
        heads = all_gather_over_ranks(heads.transpose(2, 3), total, the_pass.ranks).transpose(2, 3)
    out = visited(visits, "head_out", heads).sum(2)
    if not whole and by_head.shape[1] < the_pass.sizes["H"]:
        out = sum_over_ranks(out, the_pass.ranks)
    bias = getattr(module, "bias", None)
    return out if bias is None else out + local(bias)


def output_by_counted_head(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """The same where heads of one layer are wider than those of another: each rank has as many of them."""
    (z,) = args
    by_head = projection_weight(module).unflatten(
        1, (the_pass.sizes["H"] // the_pass.ranks.size, -1)
    )
    heads = torch.einsum("bphd,ohd->bpho", z.unflatten(-1, by_head.shape[1:]), by_head)
    out = sum_over_ranks(visited(visits, "head_out", heads).sum(2), the_pass.ranks)
    bias = getattr(module, "bias", None)
    return out if bias is None else out + local(bias)


def projection_weight(module: Any) -> Tensor:
    """The weight of a projection as [out, in]: GPT-2's Conv1D stores the transpose."""
    weight = local(weight_of(module))
    return weight.T if type(module).__name__ == "Conv1D" else weight


def local(parameter: Any) -> Tensor:
    """The part of a parameter that this rank holds."""
    shard: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return shard


def softmax_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixtral's router: softmax over all experts, the top k of it, renormalised.

    Runs over flat tokens [b·p, D]; answers (logits [b·p, E], weights [b·p, k], indices [b·p, k]).
    """
    logits, best = _routed(module, visits, the_pass, args[0])
    return logits, best.values / best.values.sum(-1, keepdim=True), best.indices


def qwen_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Qwen's router: Mixtral's, renormalised unless the configuration says otherwise, in the model's
    dtype."""
    logits, best = _routed(module, visits, the_pass, args[0])
    normed = getattr(module, "norm_topk_prob", True)  # Qwen3-VL's is not asked
    total = best.values.sum(-1, keepdim=True) if normed else 1.0
    return logits, (best.values / total).to(logits.dtype), best.indices


def _routed(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, hidden: Tensor
) -> tuple[Tensor, torch.return_types.topk]:
    hidden = hidden.reshape(-1, hidden.shape[-1])
    logits = nn.functional.linear(hidden, module.weight)
    logits = visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)
    return logits, torch.topk(torch.softmax(logits.float(), -1), module.top_k, -1)


def fused_experts(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Experts with fused [E, 2M, D] and [E, D, M] weights, one at a time.

    Part ``{e}`` is the neurons of expert e for the tokens routed to it, [n, M] in token order;
    ``run.token_index`` tells which tokens (row b, position p as b·P + p) while it is visited.
    Under tensor parallelism each rank has its own neurons of every expert.
    """
    hidden, indices, weights = args
    hidden, weights = (
        shared_by_ranks(hidden, the_pass.ranks),
        shared_by_ranks(weights, the_pass.ranks),
    )
    out = torch.zeros_like(hidden)
    gate_up, down = local(module.gate_up_proj), local(module.down_proj)
    for expert in range(gate_up.shape[0]):
        token, slot = torch.where(indices == expert)
        if not len(token) and str(expert) not in visits:
            continue
        gate, up = nn.functional.linear(hidden[token], gate_up[expert]).chunk(2, -1)
        neurons = module.act_fn(gate) * up
        the_pass.token_index = token
        neurons = visited(visits, str(expert), neurons)
        the_pass.token_index = None
        written = nn.functional.linear(neurons, down[expert]) * weights[token, slot, None]
        out = out.index_add(0, token, written.to(out.dtype))
    return sum_over_ranks(out, the_pass.ranks)


def biased_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """gpt-oss's router: the top k of logits with a bias, and a softmax over these alone."""
    hidden = args[0].reshape(-1, args[0].shape[-1])
    logits = nn.functional.linear(hidden, module.weight, module.bias)
    logits = visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)
    best = torch.topk(logits, module.top_k, -1)
    return logits, torch.softmax(best.values, 1, dtype=best.values.dtype), best.indices


def biased_experts(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """gpt-oss's experts: [E, D, 2M] and [E, M, D], with biases; rows of gate and up take turns.

    Parts, token order and what each rank has are those of :func:`fused_experts`; biases of what experts write are whole on
    every rank, and added once.
    """
    hidden, indices, chosen = args
    hidden, weights = (
        shared_by_ranks(hidden, the_pass.ranks),
        shared_by_ranks(chosen, the_pass.ranks),
    )
    out = torch.zeros_like(hidden)
    for expert in range(module.num_experts):
        token, slot = torch.where(indices == expert)
        if not len(token) and str(expert) not in visits:
            continue
        fused = hidden[token] @ module.gate_up_proj[expert] + module.gate_up_proj_bias[expert]
        neurons = module._apply_gate(fused)
        the_pass.token_index = token
        neurons = visited(visits, str(expert), neurons)
        the_pass.token_index = None
        written = (neurons @ module.down_proj[expert]) * weights[token, slot, None]
        out = out.index_add(0, token, written.to(out.dtype))
    out = sum_over_ranks(out, the_pass.ranks)
    return out + biases_written(module.down_proj_bias, indices, chosen)


def biases_written(bias: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """What the biases [E, D] of the experts chosen for each token [n, k] add up to, by their weights: [n, D]."""
    of_all = weights.new_zeros(len(weights), len(bias)).scatter(1, indices, weights)
    return of_all.to(bias.dtype) @ bias
