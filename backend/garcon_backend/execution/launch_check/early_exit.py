"""A pass that ends when the first layers of each kind have been passed.

Padding reaches a model by its positions and its masks, which layers of a kind are given alike. So the check at launch reads a padded batch
through the first layers alone, which costs a tenth of a pass where layers are alike, and holds the stream that enters the next layer
against what its own implementation has there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from garcon_backend.models.first_layers import first_of_each_kind
from garcon_backend.models.pipeline_parallel import find_layers

EVERY = 1 << 30
"""Layers that are looked at for their kinds: all of them."""


class _Reached(BaseException):
    """The layer is reached: no error, and nothing that a model's code may catch as one."""


class EarlyExit:
    """The layer that follows the first ones of each kind, and the stream that enters it.

    Args:
        next_layer: that layer.
    """

    def __init__(self, next_layer: nn.Module) -> None:
        self.next_layer = next_layer

    @classmethod
    def of(cls, model: nn.Module) -> EarlyExit | None:
        """That of a model in one piece; None where it has few layers that would be left out, or none by the usual name."""
        try:
            holder, name = find_layers(model)
        except (LookupError, ValueError, AttributeError, RuntimeError):
            return None
        layers = getattr(holder, name)
        count = first_of_each_kind(model, EVERY)
        return cls(layers[count]) if 2 * count <= len(layers) else None

    @contextmanager
    def entering(self, stop: bool) -> Iterator[list[Tensor]]:
        """While this lasts, a pass notes what enters the layer, [b, p, D]; and ends there, where it is to stop.

        Where the layer is given anything else, such as several streams, nothing is noted.
        """
        seen: list[Tensor] = []

        def note(module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            stream = given[0] if given else named.get("hidden_states")
            if isinstance(stream, Tensor) and stream.dim() == 3:
                seen.append(stream.clone())
            if stop:
                raise _Reached

        handle = self.next_layer.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
        try:
            yield seen
        except _Reached:
            pass
        finally:
            handle.remove()
