"""Hunyuan-A13B and Large (Tencent 2025): the attention of the dense models, and in every layer experts beside a shared MLP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.staged.routers import linear_router
from garcon_backend.models.families import decoder, experts, hunyuan
from garcon_backend.models.family import Weight, standard_sizes

SHARED = f"{decoder.MLP}.shared_mlp"


def _sizes(config: Any) -> dict[str, int]:
    """As many neurons are shared as an expert has; how many experts a token is given may be said layer by layer."""
    usual, chosen = standard_sizes(config), config.moe_topk
    each = {chosen} if isinstance(chosen, int) else set(chosen)
    return {**usual, "S": usual["M"], **({"k": each.pop()} if len(each) == 1 else {})}


FAMILY = replace(
    hunyuan.FAMILY,
    name="hunyuan_moe",
    model_types=("hunyuan_v1_moe",),
    sizes=_sizes,
    points={
        **hunyuan.FAMILY.points,
        **experts.points(linear_router),
        **experts.shared_points(SHARED),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS},
    parameters={
        **hunyuan.FAMILY.parameters,
        **experts.WEIGHTS,
        **experts.shared_weights(SHARED),
        "layers.{i}.mlp.router": Weight(f"{decoder.MLP}.gate.wg.weight"),
    },
)
