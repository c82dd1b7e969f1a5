"""Phi-3.5-MoE (Abdin et al. 2024): Mixtral's block with LayerNorms, and a router that chooses twice (SparseMixer, Liu et al. 2024).

The second expert is chosen among those that the first left, by a softmax of its own: the two weights of a token add up to
more than one.
"""

from __future__ import annotations

from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.routers import sparse_mixer_router
from garcon_backend.models.families import decoder, experts, llama, mixtral
from garcon_backend.models.family import Family, norm_weights

NORM = norms.layer_norm
ROUTER = f"{decoder.MLP}.router"

FAMILY = Family(
    name="phimoe",
    model_types=("phimoe",),
    layers="model.layers",
    points={
        **decoder.stem_points(NORM),
        **decoder.attention_points(NORM),
        **decoder.middle_points(llama.SECOND_NORM, NORM),
        **experts.points(sparse_mixer_router, ROUTER),
    },
    refused=mixtral.FAMILY.refused,
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", llama.SECOND_NORM),
        **experts.weights(gate=ROUTER),
    },
)
