"""Granite 4 hybrid (IBM 2025): layers of Mamba-2, some that attend, and experts beside an MLP of all tokens, or it alone.

As in Granite 3, what is added is multiplied: ``attn.out`` and ``attn.contribution`` are two things. Most of these models
turn no positions into queries and keys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import (
    HookSite,
    Input,
    Inside,
    Output,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.layers import multiplied_layer
from garcon_backend.hook_sites.staged.routers import chosen_router
from garcon_backend.hook_sites.views import FusedPart
from garcon_backend.models.families import bamba, decoder, experts, mixers
from garcon_backend.models.family import (
    Family,
    Weight,
    norm_weights,
    rows_of_part,
    standard_sizes,
)

FIRST_NORM = f"{decoder.BLOCK}.input_layernorm"
SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"
MOE = f"{decoder.BLOCK}.block_sparse_moe"
SHARED = f"{decoder.BLOCK}.shared_mlp"
_AT = "layers.{i}.mlp"


def _sizes(config: Any) -> dict[str, int]:
    sizes = {**standard_sizes(config), **mixers.mamba_sizes(config)}
    if config.num_local_experts:
        return {**sizes, "S": config.shared_intermediate_size}
    dense = {letter: size for letter, size in sizes.items() if letter not in "Ek"}
    return {**dense, "M": config.shared_intermediate_size}


def _lacks(config: Any) -> dict[str, str]:
    missing = {} if config.position_embedding_type == "rope" else decoder.REFUSED_ROTARY
    if config.num_local_experts:
        return {**missing, **experts.REFUSED}
    shared = {f"{_AT}.shared.{part}": DENSE for part in ("post_activation", "out")}
    return {**missing, **decoder.REFUSED_EXPERTS, **shared}


DENSE = "all tokens go to its MLP; see layers.{i}.mlp.post_activation"


def _mlp() -> dict[str, HookSite]:
    """Of experts beside a shared MLP, or of that alone, by whether a layer has experts."""
    dense = {
        f"{_AT}.pre_activation": Output(f"{SHARED}.input_linear", FusedPart(0, 2)),
        f"{_AT}.pre_linear": Output(f"{SHARED}.input_linear", FusedPart(1, 2)),
        f"{_AT}.post_activation": Input(f"{SHARED}.output_linear"),
    }
    beside = {
        f"{_AT}.shared.post_activation": Input(f"{SHARED}.output_linear"),
        f"{_AT}.shared.out": Output(SHARED),
    }
    return {
        **experts.points(chosen_router, f"{MOE}.router", mlp=MOE),
        **dense,
        **mixers.where(MOE, beside),
        f"{_AT}.in": Output(SECOND_NORM),
        f"{_AT}.out": Inside(decoder.BLOCK, multiplied_layer, "mlp.out"),
        f"{_AT}.contribution": Inside(decoder.BLOCK, multiplied_layer, "mlp"),
    }


def _shared_weights() -> dict[str, Weight]:
    """One MLP, by one of two names: of the shared expert, or of all that there is."""
    fused, down = f"{SHARED}.input_linear.weight", Weight(f"{SHARED}.output_linear.weight")
    both = {
        "gate_proj": Weight(fused, rows_of_part(0, 2)),
        "up_proj": Weight(fused, rows_of_part(1, 2)),
        "down_proj": down,
    }
    shared = {f"{_AT}.shared.{name}": weight for name, weight in both.items()}
    alone = {f"{_AT}.{name}": replace(weight, unless=(MOE,)) for name, weight in both.items()}
    return {**mixers.beside(MOE, shared), **alone}


_FIRST = Inside(decoder.BLOCK, multiplied_layer, "first")

FAMILY = Family(
    name="granite_hybrid",
    model_types=("granitemoehybrid",),
    layers="model.layers",
    sizes=_sizes,
    lacks=_lacks,
    mixers=mixers.of_mamba,
    points={
        **decoder.stem_points(),
        **mixers.first_norm_points(FIRST_NORM, decoder.ATTN, bamba.MAMBA, norms.rms_norm),
        **bamba.attention_points(),
        "layers.{i}.attn.contribution": ByKind(((decoder.ATTN, _FIRST),)),
        **mixers.state_space_points(bamba.MAMBA),
        f"{mixers.MIXER}.contribution": ByKind(((bamba.MAMBA, _FIRST),)),
        **decoder.middle_points(SECOND_NORM),
        **_mlp(),
    },
    refused={
        "pos_embed.out": "positions are rotary, or none are told to attention",
        **decoder.REFUSED_QK_NORM,
    },
    parameters={
        **decoder.stem_weights(),
        **mixers.first_norm_weights(FIRST_NORM, decoder.ATTN, bamba.MAMBA),
        **decoder.projection_weights(),
        **mixers.state_space_weights(bamba.MAMBA),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **experts.weights(MOE, f"{MOE}.router"),
        **_shared_weights(),
    },
)
