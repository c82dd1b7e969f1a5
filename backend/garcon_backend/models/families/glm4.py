"""GLM-4-0414 (GLM Team 2025): GLM with a norm after each half of the block as well.

The norm called ``post_attention_layernorm`` is the one before the MLP; what attention adds to the stream comes out of
``post_self_attn_layernorm``.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.sites import Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder, glm
from garcon_backend.models.family import norm_weights, post_norm_points

AFTER_ATTENTION = f"{decoder.BLOCK}.post_self_attn_layernorm"
AFTER_MLP = f"{decoder.BLOCK}.post_mlp_layernorm"

FAMILY = replace(
    glm.FAMILY,
    name="glm4",
    model_types=("glm4",),
    points={
        **glm.FAMILY.points,
        "layers.{i}.attn.contribution": Output(AFTER_ATTENTION),
        "layers.{i}.mlp.contribution": Output(AFTER_MLP),
        **post_norm_points(AFTER_ATTENTION, AFTER_MLP, norms.rms_norm),
    },
    refused={name: why for name, why in glm.FAMILY.refused.items() if "post_norm" not in name},
    parameters={
        **glm.FAMILY.parameters,
        **norm_weights("layers.{i}.attn.post_norm", AFTER_ATTENTION),
        **norm_weights("layers.{i}.mlp.post_norm", AFTER_MLP),
    },
)
