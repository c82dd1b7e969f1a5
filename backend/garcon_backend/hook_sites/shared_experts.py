"""Forwards in steps of blocks that add what shared experts put out to what the chosen ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
