"""Granite's mixtures of experts (IBM 2024; PowerMoE): Granite, with a router that takes a softmax of the chosen experts alone."""

from __future__ import annotations

from garcon_backend.hook_sites.other_sites import ScaledOutput
from garcon_backend.hook_sites.staged.routers import chosen_router
from garcon_backend.models.families import decoder, experts, llama, mixtral
from garcon_backend.models.family import Family, norm_weights

MIXTURE = "block_sparse_moe"
MLP = f"{decoder.BLOCK}.{MIXTURE}"
FACTOR = "residual_multiplier"

FAMILY = Family(
    name="granitemoe",
    model_types=("granitemoe",),
    layers="model.layers",
    points={
        **decoder.stem_points(),
        **decoder.attention_points(),
        "layers.{i}.attn.contribution": ScaledOutput(decoder.ATTN, FACTOR),
        **decoder.middle_points(llama.SECOND_NORM),
        **experts.points(chosen_router, f"{MLP}.router", mlp=MLP),
        "layers.{i}.mlp.contribution": ScaledOutput(decoder.BLOCK, FACTOR, MIXTURE),
    },
    refused=mixtral.FAMILY.refused,
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", llama.SECOND_NORM),
        **experts.weights(MLP, f"{MLP}.router"),
    },
)
