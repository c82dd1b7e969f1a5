"""Nemotron-H (NVIDIA 2025): a layer is one thing alone, Mamba-2, attention, an MLP or a mixture of experts.

All of them are called ``mixer`` in a checkpoint. Attention knows of no positions; neurons are squared ReLUs, without gates.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import (
    HookSite,
    Input,
    LogitsOf,
    Output,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.experts import ungated_experts
from garcon_backend.hook_sites.staged.grouped_routers import grouped_sigmoid_router
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder, experts, mixers
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    standard_sizes,
)

BLOCK = decoder.BLOCK
MIXER = f"{BLOCK}.mixer"
NORM = f"{BLOCK}.norm"
ATTENDS, RECURS = f"{MIXER}.q_proj", f"{MIXER}.conv1d"
DENSE, ROUTED = f"{MIXER}.up_proj", f"{MIXER}.experts"
SHARED = f"{MIXER}.shared_experts"

NO_MIDDLE = "a layer is one thing alone, so there is no residual stream in the middle of it"
NO_GATES = decoder.UNGATED


def _sizes(config: Any) -> dict[str, int]:
    own = (config.mamba_num_heads, config.mamba_head_dim, config.n_groups, config.ssm_state_size)
    sizes = {**standard_sizes(config), **mixers.state_space_sizes(*own)}
    kinds = config.layer_types
    if "moe" not in kinds:
        return {letter: size for letter, size in sizes.items() if letter not in "Ek"}
    sizes["m"] = config.moe_intermediate_size
    sizes["S"] = config.moe_shared_expert_intermediate_size
    return sizes if "mlp" in kinds else {**sizes, "M": config.moe_intermediate_size}


def _lacks(config: Any) -> dict[str, str]:
    lacking: dict[str, str] = {}
    if "moe" not in config.layer_types:
        lacking |= decoder.REFUSED_EXPERTS
    elif "mlp" not in config.layer_types:
        lacking |= experts.REFUSED
    return lacking


def _attention() -> dict[str, HookSite]:
    return {
        "layers.{i}.attn.in": Input(MIXER),
        "layers.{i}.attn.q": Output(f"{MIXER}.q_proj", Heads()),
        "layers.{i}.attn.k": Output(f"{MIXER}.k_proj", Heads()),
        "layers.{i}.attn.v": Output(f"{MIXER}.v_proj", Heads()),
        **decoder.mixing_points(MIXER),
        **decoder.written_points(MIXER, f"{MIXER}.o_proj"),
    }


def _mlp() -> dict[str, HookSite]:
    of_experts = experts.points(
        grouped_sigmoid_router,
        f"{MIXER}.gate",
        ungated_experts,
        mlp=MIXER,
    )
    alone = decoder.plain_mlp_points(MIXER, "up_proj", "down_proj")
    both = {
        template: ByKind(((DENSE, alone[template]), (ROUTED, of_experts[template])))
        for template in alone.keys() & of_experts.keys()
    }
    return {
        **of_experts,
        **alone,
        **both,
        "layers.{i}.mlp.shared.post_activation": Input(f"{SHARED}.down_proj"),
        "layers.{i}.mlp.shared.out": Output(SHARED),
    }


def _norms() -> dict[str, HookSite]:
    sites: dict[str, HookSite] = {
        **mixers.where(ATTENDS, norm_points("layers.{i}.attn.norm", NORM)),
        **mixers.where(RECURS, norm_points(f"{mixers.MIXER}.norm", NORM)),
    }
    for template, site in norm_points("layers.{i}.mlp.norm", NORM).items():
        sites[template] = ByKind(((DENSE, site), (ROUTED, site)))
    return sites


def _weights() -> dict[str, Weight]:
    weights: dict[str, Weight] = {
        **mixers.beside(ATTENDS, norm_weights("layers.{i}.attn.norm", NORM)),
        **mixers.beside(RECURS, norm_weights(f"{mixers.MIXER}.norm", NORM)),
        "layers.{i}.mlp.norm.weight": Weight(f"{NORM}.weight", unless=(ATTENDS, RECURS)),
        **mixers.beside(RECURS, mixers.state_space_weights(MIXER)),
        "layers.{i}.mlp.router": Weight(f"{MIXER}.gate.weight"),
        "layers.{i}.mlp.experts.{e}.up_proj": Weight(f"{ROUTED}.up_proj"),
        "layers.{i}.mlp.experts.{e}.down_proj": Weight(f"{ROUTED}.down_proj"),
    }
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weights |= linear(f"layers.{{i}}.attn.{name}", f"{MIXER}.{name}")
    for name in ("up_proj", "down_proj"):
        weights |= linear(f"layers.{{i}}.mlp.{name}", f"{MIXER}.{name}")
        weights |= linear(f"layers.{{i}}.mlp.shared.{name}", f"{SHARED}.{name}")
    return weights


FAMILY = Family(
    name="nemotron_h",
    model_types=("nemotron_h",),
    layers="model.layers",
    sizes=_sizes,
    lacks=_lacks,
    mixers=mixers.of_mamba,
    points={
        "embed.out": Output("model.embeddings"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **_norms(),
        **mixers.where(ATTENDS, _attention()),
        **mixers.where(RECURS, mixers.state_space_points(MIXER)),
        **_mlp(),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "model.norm_f", norms.rms_norm),
        "logits": LogitsOf(),
    },
    refused={
        "pos_embed.out": "nothing but the order in which Mamba reads tells positions",
        "layers.{i}.resid_mid": NO_MIDDLE,
        "layers.{i}.mlp.pre_linear": NO_GATES,
        **decoder.REFUSED_ROTARY,
        **decoder.REFUSED_QK_NORM,
    },
    parameters={
        "embed.weight": Weight("model.embeddings.weight"),
        **norm_weights("final_norm", "model.norm_f"),
        **decoder.unembed_weights("model.embeddings.weight"),
        **_weights(),
    },
)
