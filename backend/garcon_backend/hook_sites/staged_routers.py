"""Routers of experts in steps, of the type of :mod:`garcon_backend.hook_sites.staged_forwards`.

Each runs over flat tokens [b·p, D], and answers (logits [b·p, E], weights [b·p, k], indices [b·p, k]); part ``logits`` is
[b, p, E]. They differ in how the k experts of a token are chosen, and what these weigh.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites.sites import Pass, Visitor, visited

Routed = tuple[Tensor, Tensor, Tensor]


def _logits(module: Any, visits: dict[str, Visitor], the_pass: Pass, hidden: Tensor) -> Tensor:
    hidden = hidden.reshape(-1, hidden.shape[-1])
    logits = nn.functional.linear(hidden, module.weight)
    return visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)


def among_chosen(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """Granite's: the top k of the logits, and a softmax of these alone."""
    logits = _logits(module, visits, the_pass, args[0]).float()
    best = logits.topk(module.top_k, -1)
    return logits, torch.softmax(best.values, -1).type_as(args[0]), best.indices


def sigmoid_with_bias(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Routed:
    """MiniMax-M2's: a sigmoid of each logit; its second argument, a bias [E], takes part in the choice alone."""
    hidden, bias = args
    logits = _logits(module, visits, the_pass, hidden)
    scores = logits.float().sigmoid()
    indices = torch.topk(scores + bias, module.top_k, -1, sorted=False).indices
    weights = scores.gather(1, indices)
    return logits, weights / weights.sum(-1, keepdim=True), indices


def sparse_mixer(
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
