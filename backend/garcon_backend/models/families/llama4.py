"""Llama 4 (Meta 2025): Llama with experts in some layers, chunks of text in three of four, and no positions in the fourth.

Queries and keys are normalised, without gains, after they are rotated, and ``q_rot`` and ``k_rot`` have both. A layer that
turns no positions scales its queries by their column in the batch instead, beyond ``floor_scale`` tokens, padding counted.

The router's score multiplies what an expert reads, not what it writes: an expert's neurons are those of the scaled token,
and ``mlp.out`` is the plain sum of what the chosen experts and the shared one write.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite, Input, Inside, Output
from garcon_backend.hook_sites.staged.llama4 import experts_of_scaled_tokens, sigmoid_router
from garcon_backend.hook_sites.views import FlatTokens, PerhapsFlatTokens
from garcon_backend.models.families import decoder, experts
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_weights,
    rows_of_part,
    standard_sizes,
)
from garcon_jupyter.points.table import NO_SHARED

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"
MLP = f"{decoder.BLOCK}.feed_forward"
ROUTER = f"{MLP}.router"
SHARED = f"{MLP}.shared_expert"

NORM_AFTER = "queries and keys are normalised after rotary, without gains; q_rot and k_rot are both"

_EXPERT = "layers.{i}.mlp.experts.{e}"


def _points() -> dict[str, HookSite]:
    return {
        "layers.{i}.mlp.in": Input(MLP),
        "layers.{i}.mlp.pre_activation": Output(f"{MLP}.gate_proj"),
        "layers.{i}.mlp.pre_linear": Output(f"{MLP}.up_proj"),
        "layers.{i}.mlp.post_activation": Input(f"{MLP}.down_proj"),
        "layers.{i}.mlp.router.logits": Inside(ROUTER, sigmoid_router, "logits"),
        "layers.{i}.mlp.router.weights": Inside(ROUTER, sigmoid_router, "weights"),
        "layers.{i}.mlp.router.indices": Inside(ROUTER, sigmoid_router, "indices"),
        f"{_EXPERT}.post_activation": Inside(f"{MLP}.experts", experts_of_scaled_tokens, "{e}"),
        "layers.{i}.mlp.shared.post_activation": Input(f"{SHARED}.down_proj", FlatTokens()),
        "layers.{i}.mlp.shared.out": Output(SHARED, FlatTokens()),
        "layers.{i}.mlp.out": Output(MLP, PerhapsFlatTokens()),
        "layers.{i}.mlp.contribution": Output(MLP, PerhapsFlatTokens()),
    }


def _weights() -> dict[str, Weight]:
    found = {"layers.{i}.mlp.router": Weight(f"{ROUTER}.weight")}
    for index, name in enumerate(("gate_proj", "up_proj")):
        found[f"{_EXPERT}.{name}"] = Weight(
            f"{MLP}.experts.gate_up_proj", rows_of_part(index, 2), transposed=True
        )
    found[f"{_EXPERT}.down_proj"] = Weight(f"{MLP}.experts.down_proj", transposed=True)
    for name in ("gate_proj", "up_proj", "down_proj"):
        found |= linear(f"layers.{{i}}.mlp.{name}", f"{MLP}.{name}")
        found |= {f"layers.{{i}}.mlp.shared.{name}": Weight(f"{SHARED}.{name}.weight")}
    return found


def _lacks(config: Any) -> dict[str, str]:
    layers = set(range(config.num_hidden_layers))
    routed = layers & set(config.moe_layers)
    if routed == layers:
        return experts.REFUSED
    if routed:
        return {}
    shared = dict.fromkeys(("post_activation", "out"), NO_SHARED)
    none = {f"layers.{{i}}.mlp.shared.{name}": why for name, why in shared.items()}
    return {**decoder.REFUSED_EXPERTS, **none}


def _sizes(config: Any) -> dict[str, int]:
    lacks, sizes = _lacks(config), standard_sizes(config)
    dense = config.intermediate_size_mlp
    sizes["M"] = config.intermediate_size if lacks == experts.REFUSED else dense
    return sizes | {"S": config.intermediate_size, "m": config.intermediate_size}


FAMILY = Family(
    name="llama4",
    model_types=("llama4_text",),
    layers="model.layers",
    sizes=_sizes,
    lacks=_lacks,
    points={
        **decoder.stem_points(),
        **decoder.attention_points(),
        **decoder.middle_points(SECOND_NORM),
        **_points(),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.attn.q_normed": NORM_AFTER,
        "layers.{i}.attn.k_normed": NORM_AFTER,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **_weights(),
    },
)
