"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values.

Qwen2-VL and 2.5-VL (Wang et al. 2024; Bai et al. 2025) turn queries and keys by three positions, of time, height and width.
Those of a token of text are one number, so that text is read as by Qwen 2.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import llama

FAMILY = replace(
    llama.FAMILY, name="qwen2", model_types=("qwen2", "qwen2_vl_text", "qwen2_5_vl_text")
)
