"""Mamba (Gu and Dao 2023): one mixer a layer, a state space of which each channel is a head, and no MLP."""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite, Input, LogitsOf, Output
from garcon_backend.models.families import decoder, mixers
from garcon_backend.models.family import (
    Family,
    Weight,
    norm_points,
    norm_weights,
    standard_sizes,
)
from garcon_jupyter.points import POINTS

BLOCK = "backbone.layers.{i}"
MIXER = f"{BLOCK}.mixer"
NORM = f"{BLOCK}.norm"

NO_ATTENTION = "nothing attends here; its layers mix tokens by layers.{i}.mixer"
NO_MLP = "its layers have a mixer alone, and no MLP"
NO_POSITIONS = "a recurrence knows of positions by itself"

AROUND: dict[str, HookSite] = {
    "embed.out": Output("backbone.embeddings"),
    "layers.{i}.resid_pre": Input(BLOCK),
    **norm_points(f"{mixers.MIXER}.norm", NORM),
    "layers.{i}.resid_post": Output(BLOCK),
    **norm_points("final_norm", "backbone.norm_f"),
    "logits": LogitsOf(),
}
"""Points of the stem, and of blocks around the mixer."""

REFUSED = {
    "pos_embed.out": NO_POSITIONS,
    "layers.{i}.resid_mid": NO_MLP,
    **{
        spec.template: NO_ATTENTION if ".attn." in spec.template else NO_MLP
        for spec in POINTS
        if (".attn." in spec.template or ".mlp." in spec.template) and not spec.absent
    },
}

WEIGHTS = {
    "embed.weight": Weight("backbone.embeddings.weight"),
    **norm_weights("final_norm", "backbone.norm_f"),
    **decoder.unembed_weights("backbone.embeddings.weight"),
    **norm_weights(f"{mixers.MIXER}.norm", NORM),
}
"""Parameters of both, and of the norm before each mixer."""


def stem_sizes(config: Any) -> dict[str, int]:
    """Of the residual stream and the vocabulary; there are no heads, and there is no MLP."""
    return {letter: size for letter, size in standard_sizes(config).items() if letter in "DV"}


def _sizes(config: Any) -> dict[str, int]:
    own = mixers.selective_sizes(config.intermediate_size, config.state_size)
    return {**stem_sizes(config), **own}


FAMILY = Family(
    name="mamba",
    model_types=("mamba",),
    layers="backbone.layers",
    sizes=_sizes,
    mixers=mixers.of_mamba,
    points={**AROUND, **mixers.selective_points(MIXER)},
    refused=REFUSED,
    parameters={**WEIGHTS, **mixers.selective_weights(MIXER)},
)
