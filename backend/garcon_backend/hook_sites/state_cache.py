"""The cache of MiniMax 01, which takes none but its own: states of its linear layers beside keys of the others."""

from __future__ import annotations

import sys
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache


def own_class(model: Any) -> type[DynamicCache] | None:
    """The class of cache that the code of a model has of its own, and refuses all but it; None where it has none."""
    name = type(model).__module__
    for found in vars(sys.modules[name]).values() if name in sys.modules else ():
        if isinstance(found, type) and hasattr(found, "set_linear_cache"):
            return cast("type[DynamicCache]", found)
    return None


class CountsAttendingLayers:
    """Mended: what transformers' own asks of the first layer, which may keep no keys, and what beams take along.

    A text whose first layer is linear has no length there, so that padding before it would be read after the first
    step; and beams would go on with the states of others.
    """

    layers: list[Any]
    linear_cache: list[Any]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many positions were read, whichever layer is asked."""
        return max((int(layer.get_seq_length()) for layer in self.layers), default=0)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many keys a query may read, and where they begin."""
        return self.get_seq_length() + query_length, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row go on with what another has read."""
        for layer in self.layers:
            layer.reorder_cache(beam_idx)
        self.linear_cache[:] = [
            state.index_select(0, beam_idx.to(state.device)) if torch.is_tensor(state) else state
            for state in self.linear_cache
        ]
