"""Helium (Kyutai 2025) and ERNIE 4.5's dense models (Baidu 2025): Llama with neighbours of a head turned in pairs.

Rotary positions pair dimensions 0 and 1, 2 and 3, where Llama pairs halves; the values at ``q_rot`` and ``k_rot`` lie
accordingly.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import llama

FAMILY = replace(llama.FAMILY, name="helium", model_types=("helium", "ernie4_5"))
