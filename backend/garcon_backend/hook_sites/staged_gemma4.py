"""Forwards in steps of Gemma 4's router, which reads the stream through a norm and scales of its own.

Each function is as those of :mod:`garcon_backend.hook_sites.staged_forwards` are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from garcon_backend.hook_sites.sites import Pass, Visitor, visited


def scaled_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax over all experts, the top k of it, renormalised, and each times a scale of its expert.

    Runs over flat tokens [b·p, D]; answers (probabilities [b·p, E], weights [b·p, k], indices [b·p, k]).
    """
    read = module.norm(args[0]) * module.scale * module.scalar_root_size
    logits = module.proj(read)
    logits = visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)
    everything = torch.softmax(logits, -1, dtype=torch.float32)
    best = torch.topk(everything, module.config.top_k_experts, -1)
    weights = best.values / best.values.sum(-1, keepdim=True)
    return everything, weights * module.per_expert_scale[best.indices], best.indices
