"""GLM 4 (GLM Team 2024): Llama with gate and up projection fused; half of a head's dimensions are turned, in neighbours."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.sites import Output
from garcon_backend.hook_sites.views import FusedPart
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import linear, rows_of_part

GATE_UP = f"{decoder.MLP}.gate_up_proj"

FUSED_POINTS = {
    "layers.{i}.mlp.pre_activation": Output(GATE_UP, FusedPart(0, 2)),
    "layers.{i}.mlp.pre_linear": Output(GATE_UP, FusedPart(1, 2)),
}
FUSED_WEIGHTS = {
    **linear("layers.{i}.mlp.gate_proj", GATE_UP, rows_of_part(0, 2)),
    **linear("layers.{i}.mlp.up_proj", GATE_UP, rows_of_part(1, 2)),
}

FAMILY = replace(
    llama.FAMILY,
    name="glm",
    model_types=("glm",),
    points={**llama.FAMILY.points, **FUSED_POINTS},
    parameters={**llama.FAMILY.parameters, **FUSED_WEIGHTS},
)
