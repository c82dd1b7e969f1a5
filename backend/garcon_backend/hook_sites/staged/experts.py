"""Experts in steps, one at a time, and blocks that add what a shared one puts out to what the chosen ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import shared_by_ranks, sum_over_ranks
from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.hook_sites.weights import local


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
