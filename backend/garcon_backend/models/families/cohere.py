"""Command R (Cohere 2024), R7B and A (2025): attention and MLP side by side, behind one norm.

Dimensions of a head are turned in neighbours; the second generation turns none in layers that see everything. Logits are
multiplied by a number of the configuration.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import Input
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import PointView
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family


def _lacks(config: Any) -> dict[str, str]:
    return {} if getattr(config, "use_qk_norm", False) else decoder.REFUSED_QK_NORM


FAMILY = Family(
    name="cohere",
    model_types=("cohere", "cohere2"),
    layers="model.layers",
    lacks=_lacks,
    points={
        **decoder.stem_points(norms.layer_norm),
        **decoder.attention_points(norms.layer_norm),
        **decoder.normed_points(PointView()),
        **decoder.gated_mlp_points(),
        "layers.{i}.attn.in": Input(decoder.ATTN, aside=True),
        "layers.{i}.mlp.in": Input(decoder.MLP, aside=True),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_MIDDLE,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **decoder.gated_mlp_weights(),
    },
)
