"""Which pre-activations pass, of all latents at once, or of a tile of them after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_jupyter.dictionaries import Activation


def passed(pre: Tensor, activation: Activation, threshold: Tensor | None = None) -> Tensor:
    """The latents of pre-activations [..., F], 0 where none passes.

    A pre-activation that equals its threshold does not pass. Of equal ones, as many as are asked for pass.
    """
    match activation.kind:
        case "relu":
            return pre.relu()
        case "jumprelu":
            assert threshold is not None
            kept = pre.relu() if activation.rectified else pre
            return kept * (pre > threshold)
        case "groupmax":
            return _largest_of_groups(pre, activation.k)
    if activation.joint:
        return _largest(pre.flatten(-2), activation).view_as(pre)
    return _largest(pre, activation)


def strongest(pre: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """The k largest of pre-activations [..., n], or those of largest magnitude, and their places; all where n is smaller."""
    k = min(activation.k, pre.shape[-1])
    if activation.kind == "abstopk":
        places = pre.abs().topk(k, dim=-1, sorted=False).indices
        return pre.gather(-1, places), places
    values, places = pre.topk(k, dim=-1, sorted=False)
    return values, places


def rectified(values: Tensor, activation: Activation) -> Tensor:
    """What the chosen values are as latents."""
    return values.relu() if activation.rectified and activation.kind == "topk" else values


def _largest(pre: Tensor, activation: Activation) -> Tensor:
    values, places = strongest(pre, activation)
    return torch.zeros_like(pre).scatter(-1, places, rectified(values, activation))


def _largest_of_groups(pre: Tensor, k: int) -> Tensor:
    groups = pre.relu().unflatten(-1, (k, -1))
    values, places = groups.max(dim=-1, keepdim=True)
    return torch.zeros_like(groups).scatter(-1, places, values).flatten(-2)
