"""Nemotron 4 and Minitron (Parmar et al. 2024): StarCoder2's block with gains stored less one, and ReLU squared."""

from __future__ import annotations

from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, linear, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"
GAIN = 1.0  # what stored gains are less

FAMILY = Family(
    name="nemotron",
    model_types=("nemotron",),
    layers="model.layers",
    points={
        **decoder.stem_points(norms.layer_norm_1p),
        **decoder.attention_points(norms.layer_norm_1p),
        **decoder.middle_points(SECOND_NORM, norms.layer_norm_1p),
        **decoder.plain_mlp_points(decoder.MLP, "up_proj", "down_proj"),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(GAIN),
        **decoder.attention_weights(GAIN),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM, GAIN),
        **linear("layers.{i}.mlp.up_proj", f"{decoder.MLP}.up_proj"),
        **linear("layers.{i}.mlp.down_proj", f"{decoder.MLP}.down_proj"),
    },
)
