"""OLMo 3 (OLMo Team 2025): OLMo 2 with windows in three layers of four."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import olmo2

FAMILY = replace(olmo2.FAMILY, name="olmo3", model_types=("olmo3",))
