"""Gemma 3 (Gemma Team 2025), its language model: Gemma 2 with a norm of each head's queries and keys
in place of the cap on scores."""

from __future__ import annotations

from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import decoder, gemma2
from garcon_backend.models.family import Family

FAMILY = Family(
    name="gemma3",
    model_types=("gemma3_text",),
    layers="model.layers",
    points={**gemma2.FAMILY.points, **decoder.normed_points(HeadsFirst())},
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_EXPERTS},
    parameters={**gemma2.FAMILY.parameters, **decoder.normed_weights(gemma2.GAIN)},
)
