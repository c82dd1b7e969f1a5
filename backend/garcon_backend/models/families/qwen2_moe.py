"""Qwen 1.5 and 2 with a mixture of experts (Yang et al. 2024): Qwen 2's attention, and beside the experts one that all
tokens share, times a gate of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.staged.routers import qwen_router
from garcon_backend.models.families import decoder, experts, qwen2


def routed(config: Any) -> list[bool]:
    """Of each layer, whether it has experts."""
    every = config.decoder_sparse_step
    return [
        bool(config.num_experts) and i not in config.mlp_only_layers and (i + 1) % every == 0
        for i in range(config.num_hidden_layers)
    ]


def _sizes(config: Any) -> dict[str, int]:
    return experts.sizes(config, routed(config), config.shared_expert_intermediate_size)


FAMILY = replace(
    qwen2.FAMILY,
    name="qwen2_moe",
    model_types=("qwen2_moe",),
    sizes=_sizes,
    lacks=lambda config: experts.lacking(routed(config)),
    points={
        **qwen2.FAMILY.points,
        **experts.points(qwen_router),
        **experts.gated_shared_points(),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_QK_NORM},
    parameters={
        **qwen2.FAMILY.parameters,
        **experts.WEIGHTS,
        **experts.GATED_SHARED_WEIGHTS,
    },
)
