"""Routers in steps, of mixtures whose experts are chosen by groups, or with a bias.

Each is as those of :mod:`garcon_backend.hook_sites.staged.routers` are, with logits in float32 whatever the model's dtype.
Which experts are chosen and by what they are weighted are two things here: a bias (Wang et al. 2024) and a limit to a few
groups of experts (DeepSeek-AI 2024) decide about the choice alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites.sites import Pass, Visitor
from garcon_backend.hook_sites.staged.routers import Routed, visited_logits


def grouped_sigmoid_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """DeepSeek V3's router, and Nemotron-H's: each expert's sigmoid; the best groups are those whose two best experts add up to most."""
    logits = _wide_logits(module, visits, the_pass, args[0])
    scores = logits.sigmoid()
    biased = scores + module.e_score_correction_bias
    groups = biased.unflatten(-1, (module.num_group, -1)).topk(2, -1)[0].sum(-1)
    biased = _within_best(biased, groups, module.topk_group, float("-inf"))
    indices = torch.topk(biased, module.top_k, -1, sorted=False)[1]
    weights = scores.gather(1, indices)
    if module.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return logits, weights * module.routed_scaling_factor, indices


def grouped_softmax_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """DeepSeek V2's router: a softmax over all experts, whose best groups are those with the best expert."""
    logits = _wide_logits(module, visits, the_pass, args[0])
    scores = logits.softmax(-1)
    if module.topk_method == "group_limited_greedy":
        groups = scores.unflatten(-1, (module.num_group, -1)).max(-1).values
        scores = _within_best(scores, groups, module.topk_group, 0.0)
    weights, indices = torch.topk(scores, module.top_k, -1, sorted=False)
    return logits, weights * module.routed_scaling_factor, indices


def balanced_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """ERNIE's router: the best k of a softmax with a bias, weighted by the softmax without it, which adds up to one."""
    logits = _wide_logits(module, visits, the_pass, args[0])
    scores = logits.softmax(1)
    indices = torch.topk(module.moe_statics(scores), module.top_k, -1)[1]
    weights = scores.gather(-1, indices)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=module.norm_min)
    return logits, weights.to(args[0].dtype), indices


def _wide_logits(module: Any, visits: dict[str, Visitor], the_pass: Pass, hidden: Tensor) -> Tensor:
    """Logits over flat tokens, in float32 whatever the model's dtype."""
    hidden = hidden.reshape(-1, hidden.shape[-1])
    logits = nn.functional.linear(hidden.float(), module.weight.float())
    return visited_logits(visits, the_pass, logits)


def _within_best(scores: Tensor, groups: Tensor, count: int, outside: float) -> Tensor:
    """Scores [n, E] with another number in place of those outside the best `count` of groups [n, g]."""
    best = torch.topk(groups, count, -1, sorted=False)[1]
    inside = torch.zeros_like(groups, dtype=torch.bool).scatter(1, best, True)
    every = inside.repeat_interleave(scores.shape[-1] // groups.shape[-1], -1)
    return scores.masked_fill(~every, outside)
