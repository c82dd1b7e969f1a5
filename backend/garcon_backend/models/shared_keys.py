"""Layers that read the keys and values of an earlier one: all their positions are computed.

In the first step of a generation transformers computes, in such layers, the last position alone (Gemma 4): the others
change nothing that comes after. A probe there would see one position of a text, and another number of them than in the
layers before.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_LEAVES_OUT = "_maybe_slice_kv_shared_inputs"  # method of transformers' model


def compute_all_positions(model: nn.Module) -> None:
    """Let every layer of a model compute all positions that it is given."""
    for module in model.modules():
        if hasattr(module, _LEAVES_OUT):
            setattr(module, _LEAVES_OUT, _as_given)


def _as_given(
    hidden: Any, per_layer: Any, positions: Any, masks: Any, *args: Any, **kwargs: Any
) -> tuple[Any, Any, Any, Any]:
    """What the layers are given, as it is."""
    return hidden, per_layer, positions, masks
