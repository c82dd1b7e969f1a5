"""Qwen 3 with a mixture of experts in the layers that its configuration says, all by default."""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.staged.routers import qwen_router
from garcon_backend.models.families import decoder, experts, qwen3
from garcon_backend.models.family import Family, standard_sizes


def _has_experts(config: Any, layer: int) -> bool:
    dense = layer in config.mlp_only_layers or not config.num_experts
    return not dense and (layer + 1) % config.decoder_sparse_step == 0


def lacks(config: Any) -> dict[str, str]:
    """What is lacked where all layers have experts, or none."""
    kinds = {_has_experts(config, layer) for layer in range(config.num_hidden_layers)}
    if kinds == {True}:
        return experts.REFUSED
    return {} if len(kinds) == 2 else decoder.REFUSED_EXPERTS


def _sizes(config: Any) -> dict[str, int]:
    sizes = {**standard_sizes(config), "m": config.moe_intermediate_size}
    if lacks(config) == experts.REFUSED:  # M is of neurons, and only experts have some
        sizes["M"] = config.moe_intermediate_size
    return sizes


FAMILY = Family(
    name="qwen3_moe",
    model_types=("qwen3_moe", "qwen3_vl_moe_text"),
    layers="model.layers",
    sizes=_sizes,
    lacks=lacks,
    points={**qwen3.FAMILY.points, **experts.points(qwen_router)},
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS},
    parameters={**qwen3.FAMILY.parameters, **experts.WEIGHTS},
)
