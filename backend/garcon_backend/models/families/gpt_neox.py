"""GPT-NeoX (Black et al. 2022), whose code Pythia shares: q, k and v interleaved by head.

Attention and MLP read the same residual stream side by side, unless the configuration says
``use_parallel_residual: false``.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import Input, LogitsOf, Output, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Interleaved
from garcon_backend.models.families import decoder
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    rows_of_each_head,
)

BLOCK = "gpt_neox.layers.{i}"
ATTN = f"{BLOCK}.attention"
MLP = f"{BLOCK}.mlp"
FUSED = f"{ATTN}.query_key_value"


def _lacks(config: Any) -> dict[str, str]:
    return {"layers.{i}.resid_mid": decoder.PARALLEL} if config.use_parallel_residual else {}


FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    layers="gpt_neox.layers",
    lacks=_lacks,
    points={
        "embed.out": Output("gpt_neox.embed_in"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", norms.layer_norm),
        "layers.{i}.attn.in": Input(ATTN),
        "layers.{i}.attn.q": Output(FUSED, Interleaved(0, 3)),
        "layers.{i}.attn.k": Output(FUSED, Interleaved(1, 3)),
        "layers.{i}.attn.v": Output(FUSED, Interleaved(2, 3)),
        **decoder.rotary_points(ATTN),
        **decoder.mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.dense"),
        "layers.{i}.resid_mid": SharedInput(f"{BLOCK}.post_attention_layernorm"),
        **norm_points("layers.{i}.mlp.norm", f"{BLOCK}.post_attention_layernorm", norms.layer_norm),
        **decoder.plain_mlp_points(MLP, "dense_h_to_4h", "dense_4h_to_h"),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "gpt_neox.final_layer_norm", norms.layer_norm),
        "logits": LogitsOf(),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        "embed.weight": Weight("gpt_neox.embed_in.weight"),
        **norm_weights("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm"),
        **linear("layers.{i}.attn.q_proj", FUSED, rows_of_each_head(0, 3)),
        **linear("layers.{i}.attn.k_proj", FUSED, rows_of_each_head(1, 3)),
        **linear("layers.{i}.attn.v_proj", FUSED, rows_of_each_head(2, 3)),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.dense"),
        **norm_weights("layers.{i}.mlp.norm", f"{BLOCK}.post_attention_layernorm"),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.dense_h_to_4h"),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.dense_4h_to_h"),
        **norm_weights("final_norm", "gpt_neox.final_layer_norm"),
        **decoder.unembed_weights("gpt_neox.embed_in.weight"),
    },
)
