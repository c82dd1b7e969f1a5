"""Gemma 2 (Gemma Team 2024): a norm before and a norm after each half of the block.

So what attention and MLP put out and what is added to the residual stream are two things. Gains are
stored less one; scores are soft-capped; every other layer sees a window only.
"""

from __future__ import annotations

from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, norm_weights, post_norm_points

AFTER_ATTENTION = f"{decoder.BLOCK}.post_attention_layernorm"
BEFORE_MLP = f"{decoder.BLOCK}.pre_feedforward_layernorm"
AFTER_MLP = f"{decoder.BLOCK}.post_feedforward_layernorm"
GAIN = 1.0  # what stored gains are less

FAMILY = Family(
    name="gemma2",
    model_types=("gemma2",),
    layers="model.layers",
    points={
        **decoder.stem_points(norms.gemma_rms_norm),
        **decoder.attention_points(norms.gemma_rms_norm, AFTER_ATTENTION),
        **decoder.middle_points(BEFORE_MLP, norms.gemma_rms_norm),
        **decoder.gated_mlp_points(AFTER_MLP),
        **post_norm_points(AFTER_ATTENTION, AFTER_MLP, norms.gemma_rms_norm),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(GAIN),
        **decoder.attention_weights(GAIN),
        **norm_weights("layers.{i}.attn.post_norm", AFTER_ATTENTION, GAIN),
        **norm_weights("layers.{i}.mlp.norm", BEFORE_MLP, GAIN),
        **norm_weights("layers.{i}.mlp.post_norm", AFTER_MLP, GAIN),
        **decoder.gated_mlp_weights(),
    },
)
