"""The weight that a module computes with: its own, or, while an adapter is on, that and what the adapter adds.

What runs a module's forward in steps, and what answers with a parameter, ask here and not the module.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from garcon_jupyter.errors import PointUnavailable

ADAPTED = "_garcon_adapted"
"""Attribute of a module, there while an adapter is on: its :class:`Adapted`."""


class Adapted(Protocol):
    """A module of which an adapter that is on changes what it puts out."""

    def weight(self) -> Tensor:
        """What the module would store if the adapter were merged into it: this rank's part."""
        ...


def weight_of(module: nn.Module) -> Any:
    """The weight that a module computes with now, as it stores it.

    Raises:
        PointUnavailable: it is packed: what it stores is not what it computes with.
    """
    adapted: Adapted | None = module.__dict__.get(ADAPTED)
    weight: Any = getattr(module, "weight", None)
    if weight is None or not weight.is_floating_point() or weight.element_size() < 2:
        raise PointUnavailable(
            f"The weight of this {type(module).__name__} is packed, and nothing can be computed from it by itself.",
            "Inputs and outputs of the module can be probed; or give the model in bfloat16.",
        )
    return weight if adapted is None else adapted.weight()


def local(parameter: Any) -> Tensor:
    """The part of a parameter that this rank holds."""
    shard: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return shard
