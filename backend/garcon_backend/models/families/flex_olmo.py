"""FlexOLMo (Shi et al. 2025): OLMo 2's block, with a mixture of experts in place of the MLP."""

from __future__ import annotations

from garcon_backend.hook_sites.sites import Input, Output
from garcon_backend.hook_sites.staged.routers import qwen_router
from garcon_backend.models.families import decoder, experts, olmo2
from garcon_backend.models.family import Family

_DENSE = {
    *experts.REFUSED,
    *(f"layers.{{i}}.mlp.{name}_proj" for name in ("gate", "up", "down")),
    *(f"layers.{{i}}.mlp.{name}_proj.bias" for name in ("gate", "up", "down")),
}

FAMILY = Family(
    name="flex_olmo",
    model_types=("flex_olmo",),
    layers="model.layers",
    points={
        **{name: site for name, site in olmo2.FAMILY.points.items() if name not in _DENSE},
        **experts.points(qwen_router),
        "layers.{i}.mlp.in": Input(decoder.MLP, aside=True),
        "layers.{i}.mlp.contribution": Output(olmo2.AFTER_MLP),
    },
    refused={
        **{
            name: why
            for name, why in olmo2.FAMILY.refused.items()
            if name not in decoder.REFUSED_EXPERTS
        },
        **experts.REFUSED,
    },
    parameters={
        **{name: at for name, at in olmo2.FAMILY.parameters.items() if name not in _DENSE},
        **experts.WEIGHTS,
    },
)
