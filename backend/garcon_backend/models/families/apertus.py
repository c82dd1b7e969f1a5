"""Apertus (Swiss AI 2025): Llama with a norm of each head's queries and keys, and an MLP without gate.

Its activation, xIELU (Huang 2024), has two learned parameters a layer.
"""

from __future__ import annotations

from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import arcee, decoder
from garcon_backend.models.family import Family, norm_points, norm_weights

FIRST_NORM = f"{decoder.BLOCK}.attention_layernorm"
SECOND_NORM = f"{decoder.BLOCK}.feedforward_layernorm"

FAMILY = Family(
    name="apertus",
    model_types=("apertus",),
    layers="model.layers",
    points={
        **arcee.FAMILY.points,
        **norm_points("layers.{i}.attn.norm", FIRST_NORM),
        **decoder.normed_points(HeadsFirst()),
        **decoder.middle_points(SECOND_NORM),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **dict.fromkeys(arcee.GATED, decoder.UNGATED),
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **arcee.FAMILY.parameters,
        **norm_weights("layers.{i}.attn.norm", FIRST_NORM),
        **decoder.normed_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
    },
)
