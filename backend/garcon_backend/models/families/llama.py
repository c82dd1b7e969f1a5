"""Llama (Touvron et al. 2023) and what shares its code: SmolLM2, InternLM 3, many others."""

from __future__ import annotations

from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"

FAMILY = Family(
    name="llama",
    model_types=("llama", "internlm3"),
    layers="model.layers",
    points={
        **decoder.stem_points(),
        **decoder.attention_points(),
        **decoder.middle_points(SECOND_NORM),
        **decoder.gated_mlp_points(),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **decoder.gated_mlp_weights(),
    },
)
