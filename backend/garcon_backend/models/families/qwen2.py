"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import llama

FAMILY = replace(llama.FAMILY, name="qwen2", model_types=("qwen2",))
