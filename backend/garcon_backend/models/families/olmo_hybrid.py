"""OLMo hybrid (OLMo Team 2026): three layers of four are linear, with norms before what they do; the fourth is OLMo 2's.

So the norm that a checkpoint calls ``post_attention_layernorm`` is that of the MLP in linear layers, and in the others one of
what attention puts out: its output is ``mlp.norm.out`` there, and ``attn.contribution`` here.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import HookSite, Output, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder, mixers, olmo2
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    post_norm_points,
    standard_sizes,
)

LINEAR = f"{decoder.BLOCK}.linear_attn"
FIRST_NORM = f"{decoder.BLOCK}.input_layernorm"
AMID = olmo2.AFTER_ATTENTION  # before the MLP in linear layers
NORM = norms.olmo_rms_norm

NORMS_ELSEWHERE = "its layers that attend normalise what is added instead"


def _sizes(config: Any) -> dict[str, int]:
    return {**standard_sizes(config), **mixers.delta_sizes(config)}


def _projections() -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    named = {"q": "q", "k": "k", "v": "v", "beta": "b", "decay": "a", "gate": "g"}
    for name, stored in named.items():
        weights |= linear(f"{mixers.MIXER}.{name}_proj", f"{LINEAR}.{stored}_proj")
    return weights


def _post_norms() -> dict[str, HookSite]:
    """Of layers that attend."""
    made = post_norm_points(AMID, olmo2.AFTER_MLP, NORM)
    return {template: ByKind(((decoder.ATTN, site),)) for template, site in made.items()}


FAMILY = Family(
    name="olmo_hybrid",
    model_types=("olmo_hybrid",),
    layers="model.layers",
    sizes=_sizes,
    points={
        **olmo2.FAMILY.points,
        **mixers.where(LINEAR, norm_points(f"{mixers.MIXER}.norm", FIRST_NORM, NORM)),
        **mixers.delta_points(LINEAR, "o_norm", "o_proj"),
        "layers.{i}.attn.contribution": ByKind(((decoder.ATTN, Output(AMID)),)),
        "layers.{i}.resid_mid": ByKind(
            ((decoder.ATTN, SharedInput(decoder.MLP)), (LINEAR, SharedInput(AMID)))
        ),
        **mixers.where(LINEAR, norm_points("layers.{i}.mlp.norm", AMID, NORM)),
        **_post_norms(),
        "layers.{i}.mlp.contribution": ByKind(
            ((decoder.ATTN, Output(olmo2.AFTER_MLP)), (LINEAR, Output(decoder.MLP)))
        ),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **{
            f"layers.{{i}}.attn.norm.{part}": NORMS_ELSEWHERE
            for part in ("scale", "normalized", "out")
        },
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **olmo2.FAMILY.parameters,
        **norm_weights(f"{mixers.MIXER}.norm", FIRST_NORM),
        **mixers.beside(decoder.ATTN, norm_weights("layers.{i}.attn.post_norm", AMID)),
        **mixers.beside(LINEAR, norm_weights("layers.{i}.mlp.norm", AMID)),
        **_projections(),
        **mixers.delta_weights(LINEAR, "o_norm", "o_proj"),
    },
)
