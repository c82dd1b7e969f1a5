"""Attention of a whole model, a layer or a glance at a time.

A layer travels whole: its own forward, with that layer's pattern probed and all others on the fast kernel. For a glance
at many the server pools each head to a thumbnail where it is, so that little travels.

    layer_pattern(rmodel, rmodel.encode("The cat sat"), 3)            # [1, head, query token, key token]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.look import read
from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

PATTERN = "layers.{i}.attn.pattern"


def layer_pattern(rmodel: Client, tokens: Tokens, layer: int) -> Tensor:
    """The attention pattern of a layer, [b, head, query token, key token]."""
    name = fill(PATTERN, layer)
    return read(rmodel, tokens, [name])[name]


def pooled_patterns(
    rmodel: Client, tokens: Any, layers: Sequence[int], side: int, hide_first: bool
) -> list[Any]:
    """The patterns of several layers in one forward, [head, ≤ side, ≤ side] each."""
    names = [fill(PATTERN, layer) for layer in layers]
    function = _pooler(side, hide_first)
    with contexts(rmodel, "overview") as name:
        points = rmodel.probe_points
        probes = [points[point].probe(function, name=name, read_only=True) for point in names]
        rmodel.forward(tokens, probes=probes, logits="none")
        recordings = rmodel.recordings(fetch=False)
        handles = [recordings[point, name].heads for point in names]
        fetched = rmodel.fetch(*handles)
    return [fetched] if len(handles) == 1 else fetched


def _pooler(side: int, hide_first: bool) -> Callable[[Any, Any], None]:
    """A probe that saves the first text's heads, of each run of cells the largest weight."""

    def keep_small(save_ctx: Any, tensor: Any) -> None:
        import torch

        heads = tensor[0].float()
        if hide_first and heads.shape[-1] > 1:
            heads[:, :, 0] = heads[:, 0, :] = 0.0
        size = -(-max(heads.shape[-2:]) // side)
        save_ctx.heads = torch.nn.functional.max_pool2d(heads, size, ceil_mode=True)

    return keep_small
