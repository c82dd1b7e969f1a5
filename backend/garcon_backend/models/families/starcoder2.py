"""StarCoder2 (Lozhkov et al. 2024): Llama's block with LayerNorms, biases, and GPT-2's MLP."""

from __future__ import annotations

from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, linear, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"

FAMILY = Family(
    name="starcoder2",
    model_types=("starcoder2",),
    layers="model.layers",
    points={
        **decoder.stem_points(norms.layer_norm),
        **decoder.attention_points(norms.layer_norm),
        **decoder.middle_points(SECOND_NORM, norms.layer_norm),
        **decoder.plain_mlp_points(decoder.MLP, "c_fc", "c_proj"),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **linear("layers.{i}.mlp.up_proj", f"{decoder.MLP}.c_fc"),
        **linear("layers.{i}.mlp.down_proj", f"{decoder.MLP}.c_proj"),
    },
)
