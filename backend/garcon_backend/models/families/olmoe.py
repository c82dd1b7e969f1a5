"""OLMoE (Muennighoff et al. 2024): Mixtral's block, with a norm of the queries and of the keys of all heads together."""

from __future__ import annotations

from garcon_backend.hook_sites.staged.routers import qwen_router
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder, experts
from garcon_backend.models.family import Family, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"

FAMILY = Family(
    name="olmoe",
    model_types=("olmoe",),
    layers="model.layers",
    points={
        **decoder.stem_points(),
        **decoder.attention_points(),
        **decoder.normed_points(Heads()),
        **decoder.middle_points(SECOND_NORM),
        **experts.points(qwen_router),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **experts.REFUSED},
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **decoder.normed_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **experts.WEIGHTS,
    },
)
