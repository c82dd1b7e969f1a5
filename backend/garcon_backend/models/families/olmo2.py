"""OLMo 2 (OLMo Team 2024): norms after attention and MLP, none before them.

Both read the residual stream as it is; the queries and keys of all heads are normalised together.
"""

from __future__ import annotations

from garcon_backend.hook_sites.sites import Input, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, norm_weights, post_norm_points

AFTER_ATTENTION = f"{decoder.BLOCK}.post_attention_layernorm"
AFTER_MLP = f"{decoder.BLOCK}.post_feedforward_layernorm"

NO_NORM_BEFORE = "this architecture has no norm there; it normalises what is added instead"

_BEFORE = {
    f"layers.{{i}}.{half}.norm.{part}"
    for half in ("attn", "mlp")
    for part in ("scale", "normalized", "out")
}
_ATTENTION = decoder.attention_points(contribution=AFTER_ATTENTION)

FAMILY = Family(
    name="olmo2",
    model_types=("olmo2",),
    layers="model.layers",
    points={
        **decoder.stem_points(norms.olmo_rms_norm),
        **{template: site for template, site in _ATTENTION.items() if template not in _BEFORE},
        "layers.{i}.attn.in": Input(decoder.ATTN, aside=True),
        **decoder.normed_points(Heads()),
        "layers.{i}.resid_mid": SharedInput(decoder.MLP),
        **decoder.gated_mlp_points(AFTER_MLP),
        **post_norm_points(AFTER_ATTENTION, AFTER_MLP, norms.olmo_rms_norm),
        "layers.{i}.mlp.in": Input(decoder.MLP, aside=True),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **dict.fromkeys(sorted(_BEFORE), NO_NORM_BEFORE),
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.projection_weights(),
        **decoder.normed_weights(),
        **norm_weights("layers.{i}.attn.post_norm", AFTER_ATTENTION),
        **norm_weights("layers.{i}.mlp.post_norm", AFTER_MLP),
        **decoder.gated_mlp_weights(),
    },
)
