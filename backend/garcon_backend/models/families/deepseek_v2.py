"""DeepSeek V2 and V2.5 (DeepSeek-AI 2024): V3's block, whose router takes a softmax; rotary positions leave neighbours where they lie."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.staged.grouped_routers import grouped_softmax_router
from garcon_backend.models.families import deepseek_v3, experts

FAMILY = replace(
    deepseek_v3.FAMILY,
    name="deepseek_v2",
    model_types=("deepseek_v2",),
    points={**deepseek_v3.FAMILY.points, **experts.points(grouped_softmax_router)},
)
