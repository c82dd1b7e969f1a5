"""BLOOM (BigScience 2022): positions by ALiBi (Press et al. 2022), and a LayerNorm behind the embedding.

Its modules add the residual stream themselves: what attention and MLP *add* is what their last projections put out, and the
outputs of the modules are streams.
"""

from __future__ import annotations

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

BLOCK = "transformer.h.{i}"
ATTN = f"{BLOCK}.self_attention"
MLP = f"{BLOCK}.mlp"
FUSED = f"{ATTN}.query_key_value"
SECOND_NORM = f"{BLOCK}.post_attention_layernorm"

ALIBI = "positions are a bias of scores (ALiBi), not rotated into queries and keys"

FAMILY = Family(
    name="bloom",
    model_types=("bloom",),
    layers="transformer.h",
    points={
        "embed.out": Output("transformer.word_embeddings"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", norms.layer_norm),
        "layers.{i}.attn.in": Input(ATTN),
        **{f"layers.{{i}}.attn.{x}": Output(FUSED, Interleaved(n, 3)) for n, x in enumerate("qkv")},
        **decoder.own_mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.dense", f"{ATTN}.dense"),
        "layers.{i}.resid_mid": SharedInput(SECOND_NORM),
        **norm_points("layers.{i}.mlp.norm", SECOND_NORM, norms.layer_norm),
        **decoder.plain_mlp_points(MLP, "dense_h_to_4h", "dense_4h_to_h"),
        "layers.{i}.mlp.contribution": Output(f"{MLP}.dense_4h_to_h"),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "transformer.ln_f", norms.layer_norm),
        "logits": LogitsOf(),
    },
    refused={
        "pos_embed.out": ALIBI,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        "layers.{i}.attn.q_rot": ALIBI,
        "layers.{i}.attn.k_rot": ALIBI,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        "embed.weight": Weight("transformer.word_embeddings.weight"),
        **norm_weights("embed.norm", "transformer.word_embeddings_layernorm"),
        **norm_weights("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm"),
        **linear("layers.{i}.attn.q_proj", FUSED, rows_of_each_head(0, 3)),
        **linear("layers.{i}.attn.k_proj", FUSED, rows_of_each_head(1, 3)),
        **linear("layers.{i}.attn.v_proj", FUSED, rows_of_each_head(2, 3)),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.dense"),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.dense_h_to_4h"),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.dense_4h_to_h"),
        **norm_weights("final_norm", "transformer.ln_f"),
        **decoder.unembed_weights("transformer.word_embeddings.weight"),
    },
)
