"""Jamba (Lieber et al. 2024): layers of Mamba, some that attend, and a mixture of experts in place of some MLPs.

Steps, B and C have norms of their own. Attention knows of no positions.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.staged.routers import plain_router
from garcon_backend.models.families import bamba, decoder, experts, mixers
from garcon_backend.models.family import Family, Weight, standard_sizes

ROUTER = f"{bamba.MLP}.router"


def _sizes(config: Any) -> dict[str, int]:
    sizes = standard_sizes(config)
    if config.num_experts == 1:
        sizes = {letter: size for letter, size in sizes.items() if letter not in "Ek"}
    channels = config.mamba_expand * config.hidden_size
    return {**sizes, **mixers.selective_sizes(channels, config.mamba_d_state)}


def _lacks(config: Any) -> dict[str, str]:
    return decoder.REFUSED_EXPERTS if max(config.layers_num_experts) == 1 else {}


FAMILY = Family(
    name="jamba",
    model_types=("jamba",),
    layers="model.layers",
    sizes=_sizes,
    lacks=_lacks,
    mixers=mixers.of_mamba,
    points={
        **{t: s for t, s in bamba.POINTS.items() if t not in decoder.REFUSED_ROTARY},
        **mixers.selective_points(bamba.MAMBA),
        **experts.points(plain_router, ROUTER, mlp=bamba.MLP),
    },
    refused={
        "pos_embed.out": "nothing but the order in which Mamba reads tells positions",
        **decoder.REFUSED_ROTARY,
        **decoder.REFUSED_QK_NORM,
    },
    parameters={
        **bamba.WEIGHTS,
        **mixers.selective_weights(bamba.MAMBA),
        **{
            f"{mixers.MIXER}.{name}_norm.weight": Weight(
                f"{bamba.MAMBA}.{name.lower()}_layernorm.weight"
            )
            for name in ("B", "C", "dt")
        },
        **experts.weights(bamba.MLP, ROUTER),
    },
)
