"""ERNIE 4.5 with a mixture of experts (Baidu 2025): Helium's attention, and experts beside shared ones.

A bias decides about the choice of experts alone; their weights are of the softmax without it, and add up to one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.staged.grouped_routers import balanced_router
from garcon_backend.models.families import decoder, experts, helium

SHARED = f"{decoder.MLP}.shared_experts"


def routed(config: Any) -> list[bool]:
    """Of each layer, whether it has experts."""
    first, last, every = (
        getattr(config, f"moe_layer_{name}") for name in ("start_index", "end_index", "interval")
    )
    return [first <= i <= last and (i + 1) % every == 0 for i in range(config.num_hidden_layers)]


def _sizes(config: Any) -> dict[str, int]:
    shared = config.moe_intermediate_size * config.moe_num_shared_experts
    return experts.sizes(config, routed(config), shared)


def _lacks(config: Any) -> dict[str, str]:
    without = {} if config.moe_num_shared_experts else experts.REFUSED_SHARED
    return {**without, **experts.lacking(routed(config))}


FAMILY = replace(
    helium.FAMILY,
    name="ernie4_5_moe",
    model_types=("ernie4_5_moe",),
    sizes=_sizes,
    lacks=_lacks,
    points={
        **helium.FAMILY.points,
        **experts.points(balanced_router),
        **experts.shared_points(SHARED, flat=True),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_QK_NORM},
    parameters={
        **helium.FAMILY.parameters,
        **experts.WEIGHTS,
        **experts.shared_weights(SHARED),
    },
)
