"""Qwen 3 (Yang et al. 2025): Llama with a norm of each head's queries and keys."""

from __future__ import annotations

from garcon_backend.hook_sites.views import PointView
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import Family

FAMILY = Family(
    name="qwen3",
    model_types=("qwen3", "qwen3_vl_text"),
    layers="model.layers",
    points={**llama.FAMILY.points, **decoder.normed_points(PointView())},
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_EXPERTS},
    parameters={**llama.FAMILY.parameters, **decoder.normed_weights()},
)
