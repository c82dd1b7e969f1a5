"""SmolLM3 (Bakouch et al. 2025): Llama, where every fourth layer turns no positions into queries and keys.

In those layers ``q_rot`` is ``q``, and ``k_rot`` is ``k``: what attention is given.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import llama

FAMILY = replace(llama.FAMILY, name="smollm3", model_types=("smollm3",))
