"""Kimi Linear (Kimi Team 2025): three layers of four are Kimi Delta Attention, the fourth attends by latents; then experts.

Attention knows of no positions: the part of a key that all heads share, elsewhere the one that turns, is as it was projected.
Each channel of a key decays in the state by a number of its own. The mixture is DeepSeek V3's.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite, InAttention
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import decoder, deepseek_v3, latent, mixers
from garcon_backend.models.families.decoder import ATTN
from garcon_backend.models.family import Family, Weight
from garcon_backend.models.family_notes import standard_notes

TURNED = ("attn.q_rot", "attn.k_rot")
ATTENDS, RECURS = f"{ATTN}.kv_b_proj", f"{ATTN}.forget_gate"

OF_CHANNELS = "each channel of a key decays by itself: layers.{i}.mixer.channel_decay"
NOT_TURNED = (
    "not rotated, as attention knows of no positions here: a part of each head's keys as it is"
)


def _sizes(config: Any) -> dict[str, int]:
    heads, width = config.linear_num_heads, config.linear_head_dim
    inner = heads * width
    own = {"G": heads, "N": width, "R": heads, "r": width, "C": 3 * inner, "I": inner}
    return {**deepseek_v3.sizes(config), **own}


def _elsewhere(config: Any) -> dict[str, HookSite]:
    return mixers.where(ATTENDS, latent.elsewhere(config))  # which linear layers have, too


def _attention() -> dict[str, HookSite]:
    points = {
        template: site
        for template, site in latent.points().items()
        if ".attn.norm." not in template and not template.endswith(TURNED)
    }
    return {**points, "layers.{i}.attn.k": InAttention(ATTN, "k_rot")}


def _besides() -> dict[str, Weight]:
    return {n: w for n, w in latent.WEIGHTS.items() if ".attn.norm." not in n}


FAMILY = Family(
    name="kimi_linear",
    model_types=("kimi_linear",),
    layers="model.layers",
    sizes=_sizes,
    lacks=deepseek_v3.lacks,
    elsewhere=_elsewhere,
    notes=lambda config: {**standard_notes(config), "layers.{i}.attn.k_rope": NOT_TURNED},
    points={
        **{
            template: site
            for template, site in deepseek_v3.FAMILY.points.items()
            if not template.endswith(TURNED)
        },
        **mixers.first_norm_points(latent.FIRST_NORM, ATTENDS, RECURS, norms.rms_norm),
        **mixers.where(ATTENDS, _attention()),
        **mixers.where(RECURS, mixers.channel_delta_points(ATTN)),
    },
    refused={
        "pos_embed.out": "the order in which linear layers read tells positions",
        f"{mixers.MIXER}.decay": OF_CHANNELS,
        "layers.{i}.attn.q_normed": latent.LATENT_NORMS,
        "layers.{i}.attn.k_normed": latent.LATENT_NORMS,
        **decoder.REFUSED_ROTARY,
    },
    parameters={
        **deepseek_v3.FAMILY.parameters,
        **mixers.first_norm_weights(latent.FIRST_NORM, ATTENDS, RECURS),
        **mixers.beside(ATTENDS, _besides()),
        **mixers.beside(RECURS, mixers.channel_delta_weights(ATTN)),
    },
    not_while_generating=dict.fromkeys(
        [f"layers.{{i}}.attn.{x}" for x in ("k_nope", "v", "k")], latent.MADE_ANEW
    ),
)
