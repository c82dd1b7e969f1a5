"""LFM2 with a mixture of experts in place of all but the first MLPs.

Experts are scored one by one; a bias that training balanced them with chooses, and does not weigh.
"""

from __future__ import annotations

from garcon_backend.hook_sites.staged.routers import scored_router
from garcon_backend.models.families import decoder, experts, lfm2
from garcon_backend.models.family import Family

GATE = f"{lfm2.MLP}.gate"

FAMILY = Family(
    name="lfm2_moe",
    model_types=("lfm2_moe",),
    layers="model.layers",
    sizes=lambda config: {**lfm2.conv_sizes(config), "m": config.moe_intermediate_size},
    points={**lfm2.POINTS, **experts.points(scored_router, GATE, mlp=lfm2.MLP)},
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS},
    parameters={**lfm2.WEIGHTS, **experts.weights(lfm2.MLP, GATE)},
)
