"""MiniCPM 3 (Hu et al. 2024): latent attention and a dense MLP, both of which are multiplied before they are added.

The embedding comes out multiplied, too, and the stream is divided before it is unembedded.
"""

from __future__ import annotations

import math
from typing import Any

from garcon_backend.hook_sites.other_sites import ScaledOutput
from garcon_backend.models.families import decoder, latent
from garcon_backend.models.family import Family, norm_weights, standard_sizes

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"


def _factor(config: Any) -> float:
    return float(config.scale_depth / math.sqrt(config.num_hidden_layers))


FAMILY = Family(
    name="minicpm3",
    model_types=("minicpm3",),
    layers="model.layers",
    sizes=lambda config: {**standard_sizes(config), **latent.of_attention(config)},
    lacks=latent.lacking,
    elsewhere=latent.elsewhere,
    points={
        **decoder.stem_points(),
        **latent.points(),
        **decoder.middle_points(SECOND_NORM),
        **decoder.gated_mlp_points(),
        "layers.{i}.attn.contribution": ScaledOutput(decoder.ATTN, _factor),
        "layers.{i}.mlp.contribution": ScaledOutput(decoder.MLP, _factor),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **latent.REFUSED,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **latent.WEIGHTS,
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **decoder.gated_mlp_weights(),
    },
    not_while_generating=latent.NOT_WHILE_GENERATING,
)
