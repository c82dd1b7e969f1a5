"""dots.llm1 (Huo et al. 2025): GLM 4.5's block, with all dimensions of a head turned, and windows where the configuration says so."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import glm4_moe

FAMILY = replace(glm4_moe.FAMILY, name="dots1", model_types=("dots1",))
