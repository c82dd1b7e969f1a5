"""Forwards in steps of Llama 4's mixture of experts, where the router's score multiplies what an expert reads.

Each function is as those of :mod:`garcon_backend.hook_sites.staged.experts` are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import shared_by_ranks, sum_over_ranks
from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.hook_sites.weights import local


def sigmoid_router(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor]:
    """The top k of the logits, and a sigmoid of each: no softmax, so that scores do not add up to one.

    Answers (scores [b·p, E], zero but for the chosen experts; logits [b·p, E]).
    """
    (hidden,) = args
    logits = nn.functional.linear(hidden, module.weight)
    logits = visited(visits, "logits", logits.unflatten(0, the_pass.batch)).flatten(0, 1)
    best = torch.topk(logits, module.top_k, -1)
    weights = torch.sigmoid(best.values.float()).to(logits.dtype)
    weights = visited(visits, "weights", weights.unflatten(0, the_pass.batch)).flatten(0, 1)
    indices = visited(visits, "indices", best.indices.unflatten(0, the_pass.batch)).flatten(0, 1)
    return torch.zeros_like(logits).scatter(1, indices, weights), logits


def experts_of_scaled_tokens(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Tensor:
    """Experts with [E, D, 2M] and [E, M, D] weights, one at a time; each is given all tokens, times its score.

    What an expert was not chosen for is zero and stays zero. Part ``{e}`` is its neurons for the other tokens, [n, M]
    in token order; ``run.token_index`` tells which, as in
    :func:`~garcon_backend.hook_sites.staged.experts.fused_experts`.
    """
    gate_up, down = local(module.gate_up_proj), local(module.down_proj)
    hidden = shared_by_ranks(args[0], the_pass.ranks).unflatten(0, (gate_up.shape[0], -1))
    written = []
    for expert, tokens in enumerate(hidden):
        token = (tokens != 0).any(-1).nonzero()[:, 0]
        gate, up = (tokens[token] @ gate_up[expert]).chunk(2, -1)
        the_pass.token_index = token
        neurons = visited(visits, str(expert), up * module.act_fn(gate))
        the_pass.token_index = None
        written.append(torch.zeros_like(tokens).index_add(0, token, neurons @ down[expert]))
    return sum_over_ranks(torch.cat(written), the_pass.ranks)
