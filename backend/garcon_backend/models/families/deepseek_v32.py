"""DeepSeek V3.2 (DeepSeek-AI 2025) and GLM 5 (GLM Team 2026): V3's block, whose queries read a few keys that an index chooses.

The index is a small attention of its own beside each layer's, without gradient: ``attn.indices``. GLM 5 may let a layer read by
the index of the layer before, and such a layer has no point of that name.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.sites import Output
from garcon_backend.models.families import decoder, deepseek_v3

FAMILY = replace(
    deepseek_v3.FAMILY,
    name="deepseek_v32",
    model_types=("deepseek_v32", "glm_moe_dsa"),
    points={
        **deepseek_v3.FAMILY.points,
        "layers.{i}.attn.indices": Output(f"{decoder.ATTN}.indexer"),
    },
    refused={
        template: why
        for template, why in deepseek_v3.FAMILY.refused.items()
        if template != "layers.{i}.attn.indices"
    },
)
