"""Routers of experts in steps.

Each runs over flat tokens [b·p, D], and answers (logits [b·p, E], weights [b·p, k], indices [b·p, k]); part ``logits`` is
[b, p, E]. They differ in how the k experts of a token are chosen, and in what these weigh.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites.sites import Pass, Visitor, visited

Routed = tuple[Tensor, Tensor, Tensor]
"""Logits [b·p, E], weights [b·p, k] and indices [b·p, k]."""


def softmax_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Mixtral's router: softmax over all experts, the top k of it, renormalised."""
    logits, best = _best(module, visits, the_pass, args[0])
    return logits, best.values / best.values.sum(-1, keepdim=True), best.indices


def qwen_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Qwen's router: Mixtral's, renormalised unless the configuration says otherwise, in the model's
    dtype."""
    logits, best = _best(module, visits, the_pass, args[0])
    normed = getattr(module, "norm_topk_prob", True)  # Qwen3-VL's is not asked
    total = best.values.sum(-1, keepdim=True) if normed else 1.0
    return logits, (best.values / total).to(logits.dtype), best.indices


def _best(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, hidden: Tensor
) -> tuple[Tensor, torch.return_types.topk]:
    """The logits, and the best k of a softmax over them."""
    logits = _logits(module, visits, the_pass, hidden)
    return logits, torch.topk(torch.softmax(logits.float(), -1), module.top_k, -1)


def plain_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Jamba's router: softmax over all experts, and the top k of it as they are."""
    logits, best = _best(module, visits, the_pass, args[0])
    return logits, best.values.to(args[0].dtype), best.indices


def chosen_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Granite's: the top k of the logits, and a softmax of these alone."""
    logits = _logits(module, visits, the_pass, args[0]).float()
    best = logits.topk(module.top_k, -1)
    return logits, torch.softmax(best.values, -1).type_as(args[0]), best.indices


def sparse_mixer_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Phi-MoE's (Liu et al. 2024), as it is when it does not learn: the best expert, then the best of the others.

    The weight of each is its part of a softmax over those experts that come close to it.
    """
    logits = _logits(module, visits, the_pass, args[0])
    left, weights, indices = logits, [], []
    for _ in range(2):
        best = left.max(-1, keepdim=True)
        size = logits.abs().clamp(min=best.values)
        near = left.masked_fill(
            (best.values - logits) / size > 2 * module.router_jitter_noise, -torch.inf
        )
        weights.append(near.softmax(-1).gather(-1, best.indices))
        indices.append(best.indices)
        left = logits.scatter(-1, best.indices, -torch.inf)
    return logits, torch.cat(weights, -1), torch.cat(indices, -1)


def biased_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """gpt-oss's router: the top k of logits with a bias, and a softmax over these alone."""
    hidden = args[0].reshape(-1, args[0].shape[-1])
    logits = nn.functional.linear(hidden, module.weight, module.bias)
    logits = visited_logits(visits, the_pass, logits)
    best = torch.topk(logits, module.top_k, -1)
    return logits, torch.softmax(best.values, 1, dtype=best.values.dtype), best.indices


def linear_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Hunyuan's router, Mixtral's with a projection of its own that may be wider than the model."""
    hidden = args[0].reshape(-1, args[0].shape[-1])
    wide = module.wg.weight.dtype == torch.float32
    logits = visited_logits(visits, the_pass, module.wg(hidden.float() if wide else hidden))
    best = torch.topk(logits.softmax(1, torch.float32), module.top_k, -1)
    weights = best.values / best.values.sum(-1, keepdim=True)
    return logits, weights.to(logits.dtype), best.indices


def scaled_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Gemma 4's router: Mixtral's, of the stream through a norm and scales of its own; each weight times a scale of its expert.

    It answers with probabilities in place of logits.
    """
    read = module.norm(args[0]) * module.scale * module.scalar_root_size
    logits = visited_logits(visits, the_pass, module.proj(read))
    everything = torch.softmax(logits, -1, dtype=torch.float32)
    best = torch.topk(everything, module.config.top_k_experts, -1)
    weights = best.values / best.values.sum(-1, keepdim=True)
    return everything, weights * module.per_expert_scale[best.indices], best.indices


def scored_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
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


def biased_sigmoid_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """MiniMax-M2's: a sigmoid of each logit; its second argument, a bias [E], takes part in the choice alone."""
    hidden, bias = args
    logits = _logits(module, visits, the_pass, hidden)
    scores = logits.float().sigmoid()
    indices = torch.topk(scores + bias, module.top_k, -1, sorted=False).indices
    weights = scores.gather(1, indices)
    return logits, weights / weights.sum(-1, keepdim=True), indices


def _logits(module: Any, visits: dict[str, Visitor], the_pass: Pass, hidden: Tensor) -> Tensor:
    hidden = hidden.reshape(-1, hidden.shape[-1])
    return visited_logits(visits, the_pass, nn.functional.linear(hidden, module.weight))


def visited_logits(visits: dict[str, Visitor], the_pass: Pass, logits: Tensor) -> Tensor:
    """Logits over flat tokens, once who looks at them has seen them as [b, p, E]."""
    return visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)
