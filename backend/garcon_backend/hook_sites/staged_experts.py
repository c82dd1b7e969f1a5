"""Forwards in steps of routers, and of blocks that add what shared experts put out to what the chosen ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import shared_by_ranks, sum_over_ranks
from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.hook_sites.staged_forwards import local


def gated_shared_expert(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Qwen's block: one shared expert, multiplied by a gate of its own. Part ``shared.out`` is [b, p, D]."""
    (x,) = args
    flat = x.view(-1, x.shape[-1])
    shared = module.shared_expert(flat)
    _, weights, indices = module.gate(flat)
    chosen = module.experts(flat, indices, weights).view_as(x)
    shared = (torch.sigmoid(module.shared_expert_gate(flat)) * shared).view_as(x)
    out: Tensor = chosen + visited(visits, "shared.out", shared)
    return out


def plain_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Jamba's router: softmax over all experts, and the top k of it as they are."""
    hidden = args[0]
    logits = _logits(module, visits, the_pass, hidden)
    best = torch.topk(torch.softmax(logits.float(), -1), module.top_k, -1)
    return logits, best.values.to(hidden.dtype), best.indices


def chosen_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Granite's router: the top k of the logits, and a softmax over these alone."""
    hidden = args[0]
    logits = _logits(module, visits, the_pass, hidden).float()
    best = torch.topk(logits, module.top_k, -1)
    return logits, torch.softmax(best.values, -1).type_as(hidden), best.indices


def scored_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """LFM2's router: each expert is scored by itself; a bias helps to choose, and is not in the weights."""
    hidden, bias = args[0], args[1] if len(args) > 1 else None
    logits = _logits(module, visits, the_pass, hidden)
    scores = logits.sigmoid()
    towards = scores if bias is None else scores + bias
    indices = torch.topk(towards, module.top_k, -1).indices
    weights = torch.gather(scores, 1, indices).type_as(logits)
    if module.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    return logits, weights * module.routed_scaling_factor, indices


def _logits(module: Any, visits: dict[str, Visitor], the_pass: Pass, hidden: Tensor) -> Tensor:
    logits = nn.functional.linear(hidden, module.weight)
    return visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)


def grouped_scored_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Nemotron-H's router, which is DeepSeek V3's: scored one by one, chosen with a bias in the best groups of experts.

    The best groups are those whose two best experts add up to most.
    """
    hidden = args[0].reshape(-1, args[0].shape[-1])
    logits = nn.functional.linear(hidden.float(), module.weight.float())
    logits = visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)
    scores = logits.sigmoid()
    by_group = (scores + module.e_score_correction_bias).unflatten(-1, (module.num_group, -1))
    best = by_group.topk(2, -1)[0].sum(-1).topk(module.topk_group, -1, sorted=False)[1]
    left_out = torch.ones_like(by_group, dtype=torch.bool).scatter(
        1, best[..., None].expand(-1, -1, by_group.shape[-1]), False
    )
    towards = by_group.masked_fill(left_out, float("-inf")).flatten(1)
    indices = torch.topk(towards, module.top_k, -1, sorted=False)[1]
    weights = scores.gather(1, indices)
    if module.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return logits, weights * module.routed_scaling_factor, indices


def ungated_experts(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Nemotron-H's experts: [E, M, D] and [E, D, M], without gates. Parts and token order are those of Mixtral's."""
    hidden, indices, weights = args
    hidden = shared_by_ranks(hidden, the_pass.ranks)
    weights = shared_by_ranks(weights, the_pass.ranks)
    out = torch.zeros_like(hidden, dtype=weights.dtype)
    up, down = local(module.up_proj), local(module.down_proj)
    for expert in range(up.shape[0]):
        token, slot = torch.where(indices == expert)
        if not len(token) and str(expert) not in visits:
            continue
        neurons = module.act_fn(nn.functional.linear(hidden[token], up[expert]))
        the_pass.token_index = token
        neurons = visited(visits, str(expert), neurons)
        the_pass.token_index = None
        written = nn.functional.linear(neurons, down[expert]) * weights[token, slot, None]
        out = out.index_add(0, token, written.to(out.dtype))
    return sum_over_ranks(out.to(hidden.dtype), the_pass.ranks)
