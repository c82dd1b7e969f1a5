"""Mistral (Jiang et al. 2023): Llama whose layers may see a window only."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import llama

FAMILY = replace(llama.FAMILY, name="mistral", model_types=("mistral",))
