"""GLM 4.7 Flash (GLM Team 2026): DeepSeek V3's block."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import deepseek_v3

FAMILY = replace(deepseek_v3.FAMILY, name="glm4_moe_lite", model_types=("glm4_moe_lite",))
