"""Granite 3 (IBM 2024): Llama with multipliers, as μP has them (Yang et al. 2022).

What attention and MLP put out is multiplied before it is added: ``attn.out`` and ``attn.contribution`` are two things. The
embedding is multiplied on its way to the first block, so ``layers.0.resid_pre`` is not ``embed.out``; scores are scaled by a
number of their own; and logits are divided.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.other_sites import ScaledOutput
from garcon_backend.models.families import decoder, llama

FAMILY = replace(
    llama.FAMILY,
    name="granite",
    model_types=("granite",),
    points={
        **llama.FAMILY.points,
        "layers.{i}.attn.contribution": ScaledOutput(decoder.ATTN, "residual_multiplier"),
        "layers.{i}.mlp.contribution": ScaledOutput(decoder.MLP, "residual_multiplier"),
    },
)
