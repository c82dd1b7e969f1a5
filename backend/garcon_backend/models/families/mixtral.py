"""Mixtral (Jiang et al. 2024): Llama's attention, and a router that gives each token two experts."""

from __future__ import annotations

from garcon_backend.models.families import decoder, experts
from garcon_backend.models.family import Family, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"

FAMILY = Family(
    name="mixtral",
    model_types=("mixtral",),
    layers="model.layers",
    points={
        **decoder.stem_points(),
        **decoder.attention_points(),
        **decoder.middle_points(SECOND_NORM),
        **experts.points(),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **experts.REFUSED,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **experts.WEIGHTS,
    },
)
