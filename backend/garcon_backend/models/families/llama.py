"""Llama (Touvron et al. 2023) and what shares its code: SmolLM2, many others."""

from __future__ import annotations

from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family

FAMILY = Family(
    name="llama",
    model_types=("llama",),
    layers="model.layers",
    points={
        **decoder.stem_points(),
        **decoder.attention_points(),
        **decoder.gated_mlp_points(),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_DENSE,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **decoder.gated_mlp_weights(),
    },
)
