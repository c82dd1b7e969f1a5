"""Qwen 3.5 and 3.6 with a mixture of experts in every layer, one of them of all tokens."""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.staged.routers import qwen_router
from garcon_backend.models.families import decoder, experts, qwen3_5
from garcon_backend.models.family import Family


def _sizes(config: Any) -> dict[str, int]:
    return {
        **qwen3_5.sizes(config),
        "M": config.moe_intermediate_size,
        "S": config.shared_expert_intermediate_size,
    }


FAMILY = Family(
    name="qwen3_5_moe",
    model_types=("qwen3_5_moe_text",),
    layers="model.layers",
    sizes=_sizes,
    points={
        **qwen3_5.POINTS,
        **experts.points(qwen_router),
        **experts.gated_shared_points(),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **experts.REFUSED},
    parameters={
        **qwen3_5.WEIGHTS,
        **qwen3_5.PROJECTED,
        **experts.WEIGHTS,
        **experts.GATED_SHARED_WEIGHTS,
    },
)
