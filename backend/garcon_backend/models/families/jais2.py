"""Jais 2 (Inception 2025): Arcee's block, a squared ReLU without gate, with LayerNorms."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import arcee, decoder, llama

NORM = norms.layer_norm

FAMILY = replace(
    arcee.FAMILY,
    name="jais2",
    model_types=("jais2",),
    points={
        **arcee.FAMILY.points,
        **decoder.stem_points(NORM),
        **decoder.attention_points(NORM),
        **decoder.middle_points(llama.SECOND_NORM, NORM),
    },
)
