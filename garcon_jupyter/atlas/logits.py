"""What a neuron says: the tokens that its output makes more, and less, likely, by its direct way to the logits.

A neuron writes its activation times its *direction*, a column of ``mlp.down_proj``, into the residual stream. Were
nothing else to read it there, the final norm would scale it, and the unembedding turn it into logits. So the
direction goes through what the norms do to every direction alike: their gains, and, where a norm is a LayerNorm, the
mean that it takes away. What a norm divides by depends on everything else in the stream and is left out: it is
positive, so signs and order of the tokens stay, and the values are those of a stream whose scale is 1. A soft cap
of the logits is left out as well, and so are all later layers, which may read the direction too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

LOGITS = 10
"""Tokens of each unit, of either kind."""

_AT_ONCE = 256
"""Units at a time."""


def to_the_logits(model: Client, layer: str, unembed: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """(array, rows) of the neurons of a layer.

    Args:
        layer: what the names of its points and parameters begin with, such as "layers.4.".
        unembed: float32 [V, D].
    """
    out = model.get_parameter(f"{layer}mlp.down_proj").float().T
    k = min(LOGITS, len(unembed))
    found: dict[str, list[Tensor]] = {}
    for part in _normed(model, out, layer).split(_AT_ONCE):
        scores = part @ unembed.T
        for what, largest in (("up", True), ("down", False)):
            best = scores.topk(k, 1, largest=largest)
            found.setdefault(f"logits_{what}", []).append(best.indices.int())
            found.setdefault(f"logits_{what}_values", []).append(best.values)
    for what, parts in found.items():
        yield what, torch.cat(parts).numpy()


def _normed(model: Client, directions: Tensor, layer: str) -> Tensor:
    """Directions [units, D] as the norms on the way leave them, but for what the norms divide by."""
    for norm in (f"{layer}mlp.post_norm", "final_norm"):
        if f"{norm}.weight" not in model.parameters:
            continue
        if f"{norm}.bias" in model.parameters:  # a LayerNorm
            directions = directions - directions.mean(1, keepdim=True)
        directions = directions * model.get_parameter(f"{norm}.weight").float()
    return directions
