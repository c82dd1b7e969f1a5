"""Bamba (IBM and others 2024): layers of Mamba-2, and some that attend; after either a gated MLP."""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder, mixers
from garcon_backend.models.family import (
    Family,
    Weight,
    norm_points,
    norm_weights,
    standard_sizes,
)

MAMBA = f"{decoder.BLOCK}.mamba"
MLP = f"{decoder.BLOCK}.feed_forward"
FIRST_NORM = f"{decoder.BLOCK}.input_layernorm"
SECOND_NORM = f"{decoder.BLOCK}.pre_ff_layernorm"
FINAL_NORM = "model.final_layernorm"
_NAMES = ("gate_proj", "up_proj", "down_proj")


def attention_points() -> dict[str, HookSite]:
    """Of layers that attend, without the norm before."""
    points = decoder.attention_points()
    return {t: site for t, site in points.items() if ".attn.norm." not in t}


POINTS: dict[str, HookSite] = {
    **decoder.stem_points(),
    **norm_points("final_norm", FINAL_NORM),
    **mixers.first_norm_points(FIRST_NORM, decoder.ATTN, MAMBA, norms.rms_norm),
    **attention_points(),
    **decoder.middle_points(SECOND_NORM),
    **decoder.gated_points(MLP, *_NAMES),
}
"""All but those of the mixer."""

WEIGHTS: dict[str, Weight] = {
    **decoder.stem_weights(),
    **norm_weights("final_norm", FINAL_NORM),
    **mixers.first_norm_weights(FIRST_NORM, decoder.ATTN, MAMBA),
    **decoder.projection_weights(),
    **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
    **decoder.gated_weights(MLP, *_NAMES),
}
"""All but those of the mixer."""


def _sizes(config: Any) -> dict[str, int]:
    return {**standard_sizes(config), **mixers.mamba_sizes(config)}


FAMILY = Family(
    name="bamba",
    model_types=("bamba",),
    layers="model.layers",
    sizes=_sizes,
    mixers=mixers.of_mamba,
    points={**POINTS, **mixers.state_space_points(MAMBA)},
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={**WEIGHTS, **mixers.state_space_weights(MAMBA)},
)
