"""Forwards in steps of routers, and of blocks that add what shared experts put out to what the chosen ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites.sites import Pass, Visitor, visited


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
    hidden, bias, *_ = (*args, None)
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
