"""DeepSeek V3 and R1 (DeepSeek-AI 2024), and what shares their code: Kimi K2, Moonlight.

Latent attention, a few dense layers, then mixtures of experts beside one that all tokens share. Weights of the chosen experts add
up to ``routed_scaling_factor``, 2.5 as published. Rotary positions pair neighbours and lay them out as halves.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.staged.grouped_routers import grouped_sigmoid_router
from garcon_backend.models.families import decoder, experts, latent
from garcon_backend.models.family import Family, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"
SHARED = f"{decoder.MLP}.shared_experts"


def routed(config: Any) -> list[bool]:
    """Of each layer, whether it has experts: all but the first few, or those that are called sparse."""
    if kinds := getattr(config, "mlp_layer_types", None):
        return [kind == "sparse" for kind in kinds]
    return [i >= config.first_k_dense_replace for i in range(config.num_hidden_layers)]


def sizes(config: Any) -> dict[str, int]:
    """Those of latent attention and of experts."""
    shared = config.moe_intermediate_size * (config.n_shared_experts or 0)
    return {**experts.sizes(config, routed(config), shared), **latent.of_attention(config)}


def lacks(config: Any) -> dict[str, str]:
    """What some models lack: dense layers, or compressed queries."""
    return {**experts.lacking(routed(config)), **latent.lacking(config)}


FAMILY = Family(
    name="deepseek_v3",
    model_types=("deepseek_v3",),
    layers="model.layers",
    sizes=sizes,
    lacks=lacks,
    elsewhere=latent.elsewhere,
    points={
        **decoder.stem_points(),
        **latent.points(),
        **decoder.middle_points(SECOND_NORM),
        **decoder.gated_mlp_points(),
        **experts.points(grouped_sigmoid_router),
        **experts.shared_points(SHARED),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **latent.REFUSED},
    parameters={
        **decoder.stem_weights(),
        **latent.WEIGHTS,
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **decoder.gated_mlp_weights(),
        **experts.WEIGHTS,
        **experts.shared_weights(SHARED),
    },
    not_while_generating=latent.NOT_WHILE_GENERATING,
)
