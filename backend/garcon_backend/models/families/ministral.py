"""Ministral and Ministral 3 (Mistral AI 2024, 2025): Mistral with windows in some layers only.

Ministral 3 also scales queries by their position, after rotary, so that ``q_rot`` has that scale.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import mistral

FAMILY = replace(mistral.FAMILY, name="ministral", model_types=("ministral", "ministral3"))
