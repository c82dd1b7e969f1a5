"""Gemma 4 (Gemma Team 2026): Gemma 3 whose full layers have wider heads, and whose layers may share more.

Values have a norm without gains, and ``v`` is after it; scores are not scaled. In full layers one projection may be keys
and values both. The last layers may read the keys and values of an earlier one, and have none of their own. A token may have
an embedding for each layer, which is added at its end; and the whole stream is multiplied by a number of the layer:
``resid_post == scale * (resid_pre + attn.contribution + mlp.contribution + per_layer.contribution)``.

Where there are experts, they stand beside the MLP, and ``mlp.contribution`` is of both.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite, InAttention, Input, Inside, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.experts import fused_experts
from garcon_backend.hook_sites.staged.head_outputs import output_by_counted_head
from garcon_backend.hook_sites.staged.routers import scaled_router
from garcon_backend.hook_sites.views import FlatTokens
from garcon_backend.models.families import decoder, gemma2
from garcon_backend.models.family import (
    Family,
    Weight,
    norm_points,
    norm_weights,
    post_norm_points,
    rows_of_part,
    standard_sizes,
)

NORM = norms.olmo_rms_norm  # gains in float32, stored as they are
ATTN, BLOCK = decoder.ATTN, decoder.BLOCK
ROUTER, EXPERTS = f"{BLOCK}.router", f"{BLOCK}.experts"

_EXPERT = "layers.{i}.mlp.experts.{e}"


def attention_points() -> dict[str, HookSite]:
    """Attention whose heads are told by modules that see them apart, as their width differs from layer to layer."""
    key_norm = f"{ATTN}.k_norm"
    return {
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", NORM),
        "layers.{i}.attn.in": Input(ATTN),
        "layers.{i}.attn.q": Input(f"{ATTN}.q_norm"),
        "layers.{i}.attn.k": Input(key_norm, aside=True),
        "layers.{i}.attn.v": Output(f"{ATTN}.v_norm"),
        "layers.{i}.attn.q_normed": Output(f"{ATTN}.q_norm"),
        "layers.{i}.attn.k_normed": Output(key_norm),
        "layers.{i}.attn.q_rot": InAttention(ATTN, "q_rot"),
        "layers.{i}.attn.k_rot": InAttention(ATTN, "k_rot", needs=key_norm),
        **decoder.mixing_points(ATTN),
        "layers.{i}.attn.z": InAttention(ATTN, "z"),
        "layers.{i}.attn.head_out": Inside(f"{ATTN}.o_proj", output_by_counted_head, "head_out"),
        "layers.{i}.attn.out": Output(f"{ATTN}.o_proj"),
        "layers.{i}.attn.contribution": Output(gemma2.AFTER_ATTENTION),
    }


EXPERT_POINTS: dict[str, HookSite] = {
    "layers.{i}.mlp.router.logits": Inside(ROUTER, scaled_router, "logits"),
    "layers.{i}.mlp.router.weights": Output(ROUTER, FlatTokens(), item=1),
    "layers.{i}.mlp.router.indices": Output(ROUTER, FlatTokens(), item=2),
    f"{_EXPERT}.post_activation": Inside(EXPERTS, fused_experts, "{e}"),
}

PER_LAYER_POINTS: dict[str, HookSite] = {
    "layers.{i}.per_layer.gate": Output(f"{BLOCK}.per_layer_input_gate"),
    "layers.{i}.per_layer.gated": Input(f"{BLOCK}.per_layer_projection"),
    "layers.{i}.per_layer.contribution": Output(f"{BLOCK}.post_per_layer_input_norm"),
}

PER_LAYER_WEIGHTS = {
    "layers.{i}.per_layer.gate_proj": Weight(f"{BLOCK}.per_layer_input_gate.weight"),
    "layers.{i}.per_layer.out_proj": Weight(f"{BLOCK}.per_layer_projection.weight"),
    **norm_weights("layers.{i}.per_layer.post_norm", f"{BLOCK}.post_per_layer_input_norm"),
}

NO_PER_LAYER = "tokens of this model have one embedding, and none for each layer"


def _lacks(config: Any) -> dict[str, str]:
    found = {} if config.enable_moe_block else dict(decoder.REFUSED_EXPERTS)
    if not config.hidden_size_per_layer_input:
        found |= dict.fromkeys(PER_LAYER_POINTS, NO_PER_LAYER)
    return found


def _sizes(config: Any) -> dict[str, int]:
    sizes = standard_sizes(config)
    if config.use_double_wide_mlp and config.num_kv_shared_layers:
        del sizes["M"]
    more = {
        "e": config.hidden_size_per_layer_input,
        "k": config.top_k_experts,
        "m": config.moe_intermediate_size,
    }
    return sizes | {letter: size for letter, size in more.items() if size}


FAMILY = Family(
    name="gemma4",
    model_types=("gemma4_text",),
    layers="model.layers",
    sizes=_sizes,
    lacks=_lacks,
    points={
        **decoder.stem_points(NORM),
        **attention_points(),
        **decoder.middle_points(gemma2.BEFORE_MLP, NORM),
        **decoder.gated_mlp_points(gemma2.AFTER_MLP),
        **post_norm_points(gemma2.AFTER_ATTENTION, gemma2.AFTER_MLP, NORM),
        **EXPERT_POINTS,
        **PER_LAYER_POINTS,
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS},
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **decoder.normed_weights(),
        **norm_weights("layers.{i}.attn.post_norm", gemma2.AFTER_ATTENTION),
        **norm_weights("layers.{i}.mlp.norm", gemma2.BEFORE_MLP),
        **norm_weights("layers.{i}.mlp.post_norm", gemma2.AFTER_MLP),
        **decoder.gated_mlp_weights(),
        "layers.{i}.mlp.router": Weight(f"{ROUTER}.proj.weight"),
        f"{_EXPERT}.gate_proj": Weight(f"{EXPERTS}.gate_up_proj", rows_of_part(0, 2)),
        f"{_EXPERT}.up_proj": Weight(f"{EXPERTS}.gate_up_proj", rows_of_part(1, 2)),
        f"{_EXPERT}.down_proj": Weight(f"{EXPERTS}.down_proj"),
        **PER_LAYER_WEIGHTS,
    },
)
