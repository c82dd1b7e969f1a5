"""GLM 4.5 and 4.6 (GLM Team 2025): Llama's attention, half of whose dimensions are turned, and DeepSeek V3's experts.

The larger models normalise the queries and keys of each head, the smaller do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.staged.grouped_routers import grouped_sigmoid_router
from garcon_backend.models.families import decoder, experts, qwen3
from garcon_backend.models.families.deepseek_v3 import SHARED, routed


def sizes(config: Any) -> dict[str, int]:
    """Those of attention and of experts."""
    shared = (config.moe_intermediate_size or 0) * (config.n_shared_experts or 0)
    return experts.sizes(config, routed(config), shared)


def lacks(config: Any) -> dict[str, str]:
    """What some models lack: dense layers, or norms of queries and keys."""
    normed = getattr(config, "use_qk_norm", True)
    return {**experts.lacking(routed(config)), **({} if normed else decoder.REFUSED_QK_NORM)}


FAMILY = replace(
    qwen3.FAMILY,
    name="glm4_moe",
    model_types=("glm4_moe",),
    sizes=sizes,
    lacks=lacks,
    points={
        **qwen3.FAMILY.points,
        **experts.points(grouped_sigmoid_router),
        **experts.shared_points(SHARED),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS},
    parameters={
        **qwen3.FAMILY.parameters,
        **experts.WEIGHTS,
        **experts.shared_weights(SHARED),
    },
)
