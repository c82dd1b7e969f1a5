"""Zamba2 (Zyphra 2024): Mamba-2 in every layer, and in some an attention and MLP before it whose weights they share.

Attention reads the stream and the token's embedding side by side, ``attn.joint``, twice as wide as the stream. It adds nothing to
the stream, nor does the MLP, which reads a norm of what attention puts out: what the MLP puts out, projected once more, is added to
what the mixer's norm reads (``mixer.aside``), and the mixer alone writes. A layer adds narrow projections of its own to the
shared ones of the MLP, and perhaps to those of attention. Heads are as wide as what they read lets them be, and scores scaled by
√(2/d).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import HookSite, Input, Inside, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.zamba2 import shared_attention, shared_mlp
from garcon_backend.models.families import bamba, decoder, mixers
from garcon_backend.models.families.decoder import BLOCK
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    rows_of_part,
    standard_sizes,
)
from garcon_backend.models.family_notes import standard_notes

SHARED = f"{BLOCK}.shared_transformer"
ATTN, MLP = f"{SHARED}.self_attn", f"{SHARED}.feed_forward"
JOINT_NORM, SECOND_NORM = f"{SHARED}.input_layernorm", f"{SHARED}.pre_ff_layernorm"
ALONE = BLOCK
AFTER = f"{BLOCK}.mamba_decoder"
"""Where a layer has its mixer and the norm before: by itself, or after attention and MLP."""

WIDER = "attention reads the stream beside the token's embedding: layers.{i}.attn.joint"
ADDS_NOTHING = "attention and MLP add nothing to the residual stream; what the mixer reads of them is layers.{i}.mixer.aside"
NOT_TO_THE_STREAM = "what a head writes to attn.out, which only the MLP's norm reads"


def _sizes(config: Any) -> dict[str, int]:
    own = (config.n_mamba_heads, config.mamba_headdim, config.mamba_ngroups, config.mamba_d_state)
    sizes = {**standard_sizes(config), **mixers.state_space_sizes(*own)}
    return {**sizes, "W": config.attention_hidden_size, "a": config.adapter_rank}


def _either(points: Mapping[str, HookSite], others: Mapping[str, HookSite]) -> dict[str, HookSite]:
    """Points of the mixer, where a layer has it."""
    alone, after = f"{ALONE}.mamba", f"{AFTER}.mamba"
    return {t: ByKind(((alone, points[t]), (after, others[t]))) for t in points}


def _mixer(holder: str) -> dict[str, HookSite]:
    norm = norm_points(f"{mixers.MIXER}.norm", f"{holder}.input_layernorm")
    return {**norm, **mixers.state_space_points(f"{holder}.mamba")}


def _attention() -> dict[str, HookSite]:
    written = decoder.written_points(ATTN, f"{ATTN}.o_proj")
    return {
        "layers.{i}.attn.norm.scale": Inside(JOINT_NORM, norms.rms_norm, "scale"),
        "layers.{i}.attn.joint": Output(JOINT_NORM),
        **{f"layers.{{i}}.attn.{x}": Inside(ATTN, shared_attention, x) for x in "qkv"},
        **decoder.rotary_points(ATTN),
        **decoder.mixing_points(ATTN),
        **{t: site for t, site in written.items() if not t.endswith("contribution")},
    }


def _mlp() -> dict[str, HookSite]:
    halves = ("pre_activation", "pre_linear")
    return {
        **norm_points("layers.{i}.mlp.norm", SECOND_NORM),
        "layers.{i}.mlp.in": Input(MLP),
        **{f"layers.{{i}}.mlp.{half}": Inside(MLP, shared_mlp, half) for half in halves},
        "layers.{i}.mlp.post_activation": Input(f"{MLP}.down_proj"),
        "layers.{i}.mlp.out": Output(MLP),
    }


def _mixer_weights() -> dict[str, Weight]:
    def at(holder: str) -> dict[str, Weight]:
        norm = norm_weights(f"{mixers.MIXER}.norm", f"{holder}.input_layernorm")
        return {**norm, **mixers.state_space_weights(f"{holder}.mamba")}

    after = at(AFTER)
    return {name: replace(w, otherwise=after[name].path) for name, w in at(ALONE).items()}


def _own(name: str, path: str, **more: Any) -> dict[str, Weight]:
    return {f"layers.{{i}}.{name}": Weight(f"{path}.weight", counted=SHARED, **more)}


def _shared_weights() -> dict[str, Weight]:
    weights = {"layers.{i}.attn.joint_norm.weight": Weight(f"{JOINT_NORM}.weight")}
    for name in "qkv":
        weights |= linear(f"layers.{{i}}.attn.{name}_proj", f"{ATTN}.{name}_proj")
        adds = f"{ATTN}.linear_{name}_adapter_list.{{j}}"
        weights |= _own(f"attn.{name}_own_down_proj", f"{adds}.0")
        weights |= _own(f"attn.{name}_own_up_proj", f"{adds}.1")
    weights |= linear("layers.{i}.attn.o_proj", f"{ATTN}.o_proj")
    adds = f"{MLP}.gate_up_proj_adapter_list.{{j}}"
    weights |= _own("mlp.own_down_proj", f"{adds}.0")
    for index, half in enumerate(("gate", "up")):
        rows = rows_of_part(index, 2)
        weights |= linear(f"layers.{{i}}.mlp.{half}_proj", f"{MLP}.gate_up_proj", rows)
        weights |= _own(f"mlp.{half}_own_up_proj", f"{adds}.1", rows=rows)
    weights |= linear("layers.{i}.mlp.down_proj", f"{MLP}.down_proj")
    return weights


FAMILY = Family(
    name="zamba2",
    model_types=("zamba2",),
    layers="model.layers",
    sizes=_sizes,
    mixers=mixers.of_mamba,
    lacks=lambda config: {} if config.use_mem_rope else decoder.REFUSED_ROTARY,
    notes=lambda config: {
        **standard_notes(config),
        "layers.{i}.attn.head_out": NOT_TO_THE_STREAM,
    },
    points={
        **decoder.stem_points(),
        **norm_points("final_norm", bamba.FINAL_NORM),
        **_attention(),
        **_mlp(),
        f"{mixers.MIXER}.aside": Output(f"{BLOCK}.linear"),
        **_either(_mixer(ALONE), _mixer(AFTER)),
    },
    refused={
        "pos_embed.out": "positions are rotary, or the order in which Mamba reads tells them",
        "layers.{i}.attn.norm.normalized": WIDER,
        "layers.{i}.attn.norm.out": WIDER,
        "layers.{i}.attn.in": WIDER,
        "layers.{i}.attn.contribution": ADDS_NOTHING,
        "layers.{i}.resid_mid": ADDS_NOTHING,
        "layers.{i}.mlp.contribution": ADDS_NOTHING,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **norm_weights("final_norm", bamba.FINAL_NORM),
        **_shared_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        "layers.{i}.mixer.aside_proj": Weight(f"{BLOCK}.linear.weight"),
        **_mixer_weights(),
    },
)
