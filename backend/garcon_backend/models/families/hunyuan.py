"""Hunyuan's dense models (Tencent 2025): Llama with a norm of each head's queries and keys *after* rotary positions.

So ``q_rot`` is what the norm reads and ``q_normed`` is what attention is given, in the other order than elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.sites import Input, Output
from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import norm_weights

QUERY_NORM = f"{decoder.ATTN}.query_layernorm"
KEY_NORM = f"{decoder.ATTN}.key_layernorm"

FAMILY = replace(
    llama.FAMILY,
    name="hunyuan",
    model_types=("hunyuan_v1_dense",),
    points={
        **llama.FAMILY.points,
        "layers.{i}.attn.q_rot": Input(QUERY_NORM, HeadsFirst()),
        "layers.{i}.attn.k_rot": Input(KEY_NORM, HeadsFirst()),
        "layers.{i}.attn.q_normed": Output(QUERY_NORM, HeadsFirst()),
        "layers.{i}.attn.k_normed": Output(KEY_NORM, HeadsFirst()),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_EXPERTS},
    parameters={
        **llama.FAMILY.parameters,
        **norm_weights("layers.{i}.attn.q_norm", QUERY_NORM),
        **norm_weights("layers.{i}.attn.k_norm", KEY_NORM),
    },
)
