"""VaultGemma (Sinha et al. 2025): Gemma 2 without norms after attention and MLP, trained with differential privacy."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder, gemma2

FAMILY = replace(
    gemma2.FAMILY,
    name="vaultgemma",
    model_types=("vaultgemma",),
    points={
        **{name: site for name, site in gemma2.FAMILY.points.items() if "post_norm" not in name},
        **decoder.attention_points(norms.gemma_rms_norm),
        **decoder.gated_mlp_points(),
    },
)
