"""The output projection of attention in steps: what each head writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from garcon_backend.distributed.collectives import (
    all_gather_over_ranks,
    shared_by_ranks,
    span,
    sum_over_ranks,
)
from garcon_backend.hook_sites.sites import Pass, Visitor, visited
from garcon_backend.hook_sites.weights import local, weight_of


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
