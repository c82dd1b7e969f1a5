"""OLMo (Groeneveld et al. 2024): Llama with LayerNorms that have no parameters.

Some of its models clip queries, keys and values: ``attn.q``, ``attn.k`` and ``attn.v`` are what is left, which positions turn
and heads mix.
"""

from __future__ import annotations

from garcon_backend.hook_sites.other_sites import ClippedOutput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import Family

NORM = norms.bare_layer_norm

FAMILY = Family(
    name="olmo",
    model_types=("olmo",),
    layers="model.layers",
    points={
        **decoder.stem_points(NORM),
        **decoder.attention_points(NORM),
        **{
            f"layers.{{i}}.attn.{x}": ClippedOutput(
                decoder.ATTN,
                f"{x}_proj",
                "config.clip_qkv",
                Heads(),
                tuple(f"{other}_proj" for other in "qkv" if other != x),
            )
            for x in "qkv"
        },
        **decoder.middle_points(llama.SECOND_NORM, NORM),
        **decoder.gated_mlp_points(),
    },
    refused=llama.FAMILY.refused,
    parameters={
        "embed.weight": decoder.stem_weights()["embed.weight"],
        **decoder.unembed_weights("model.embed_tokens.weight"),
        **decoder.projection_weights(),
        **decoder.gated_mlp_weights(),
    },
)
