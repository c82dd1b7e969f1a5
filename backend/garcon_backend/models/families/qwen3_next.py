"""Qwen3-Next (Qwen Team 2025): the layers of Qwen 3.5, linear or attending, with experts in place of the MLP.

One of the experts is of all tokens. Linear layers project queries, keys, values and gates of each group side by side.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.staged.routers import qwen_router
from garcon_backend.models.families import decoder, experts, mixers, qwen3_5, qwen3_moe
from garcon_backend.models.family import Family, Sizes, Weight


def _sizes(config: Any) -> dict[str, int]:
    sizes = {
        **qwen3_5.sizes(config),
        "m": config.moe_intermediate_size,
        "S": config.shared_expert_intermediate_size,
    }
    if qwen3_moe.lacks(config) == experts.REFUSED:
        sizes["M"] = config.moe_intermediate_size
    return sizes


def _of_group(sizes: Sizes) -> list[int]:
    values = sizes["I"] // sizes["G"]
    return [sizes["N"], sizes["N"], values, values]


def _each(name: str, index: int) -> dict[str, Weight]:
    rows = mixers.rows_of_each_group(index, _of_group)
    return {f"{mixers.MIXER}.{name}": Weight(f"{qwen3_5.LINEAR}.in_proj_qkvz.weight", rows)}


def _half(name: str, index: int) -> dict[str, Weight]:
    rows = mixers.rows_of_each_group(index, lambda sizes: [sizes["R"] // sizes["G"]] * 2)
    return {f"{mixers.MIXER}.{name}": Weight(f"{qwen3_5.LINEAR}.in_proj_ba.weight", rows)}


FAMILY = Family(
    name="qwen3_next",
    model_types=("qwen3_next",),
    layers="model.layers",
    sizes=_sizes,
    lacks=qwen3_moe.lacks,
    points={
        **qwen3_5.POINTS,
        **decoder.gated_mlp_points(),
        **experts.points(qwen_router),
        **experts.gated_shared_points(),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS},
    parameters={
        **qwen3_5.WEIGHTS,
        **_each("q_proj", 0),
        **_each("k_proj", 1),
        **_each("v_proj", 2),
        **_each("gate_proj", 3),
        **_half("beta_proj", 0),
        **_half("decay_proj", 1),
        **decoder.gated_mlp_weights(),
        **experts.WEIGHTS,
        **experts.GATED_SHARED_WEIGHTS,
    },
)
