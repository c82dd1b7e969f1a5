"""Persimmon (Adept 2023): GPT-NeoX's attention, in turn with the MLP, and a norm of each head's queries and keys."""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Interleaved, PointView
from garcon_backend.models.families import decoder, llama, phi
from garcon_backend.models.family import (
    Family,
    linear,
    norm_points,
    norm_weights,
    rows_of_each_head,
)

FUSED = f"{decoder.ATTN}.query_key_value"
DENSE = f"{decoder.ATTN}.dense"
UP, DOWN = f"{decoder.MLP}.dense_h_to_4h", f"{decoder.MLP}.dense_4h_to_h"


def _lacks(config: Any) -> dict[str, str]:
    return {} if config.qk_layernorm else decoder.REFUSED_QK_NORM


FAMILY = Family(
    name="persimmon",
    model_types=("persimmon",),
    layers="model.layers",
    lacks=_lacks,
    points={
        **decoder.stem_points(),
        **norm_points("final_norm", phi.FINAL_NORM, norms.layer_norm),
        **decoder.attention_points(norms.layer_norm),
        **{f"layers.{{i}}.attn.{x}": Output(FUSED, Interleaved(n, 3)) for n, x in enumerate("qkv")},
        "layers.{i}.attn.q_normed": Output(f"{decoder.ATTN}.q_layernorm", PointView()),
        "layers.{i}.attn.k_normed": Output(f"{decoder.ATTN}.k_layernorm", PointView()),
        **decoder.written_points(decoder.ATTN, DENSE),
        **decoder.middle_points(llama.SECOND_NORM, norms.layer_norm),
        **decoder.plain_mlp_points(decoder.MLP, "dense_h_to_4h", "dense_4h_to_h"),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **norm_weights("final_norm", phi.FINAL_NORM),
        **norm_weights("layers.{i}.attn.norm", f"{decoder.BLOCK}.input_layernorm"),
        **norm_weights("layers.{i}.attn.q_norm", f"{decoder.ATTN}.q_layernorm"),
        **norm_weights("layers.{i}.attn.k_norm", f"{decoder.ATTN}.k_layernorm"),
        **linear("layers.{i}.attn.q_proj", FUSED, rows_of_each_head(0, 3)),
        **linear("layers.{i}.attn.k_proj", FUSED, rows_of_each_head(1, 3)),
        **linear("layers.{i}.attn.v_proj", FUSED, rows_of_each_head(2, 3)),
        **linear("layers.{i}.attn.o_proj", DENSE),
        **norm_weights("layers.{i}.mlp.norm", llama.SECOND_NORM),
        **linear("layers.{i}.mlp.up_proj", UP),
        **linear("layers.{i}.mlp.down_proj", DOWN),
    },
)
