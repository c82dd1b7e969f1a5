"""StableLM (Bellagente et al. 2024): Llama's block with LayerNorms, turning a quarter of each head.

Its 12B model has attention and MLP side by side behind one norm, and a norm of each head's queries and keys, each head with
gains of its own.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import Input, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, norm_weights

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"


def _lacks(config: Any) -> dict[str, str]:
    normed = {} if config.qk_layernorm else decoder.REFUSED_QK_NORM
    return {**normed, **(decoder.REFUSED_MIDDLE if config.use_parallel_residual else {})}


FAMILY = Family(
    name="stablelm",
    model_types=("stablelm",),
    layers="model.layers",
    lacks=_lacks,
    points={
        **decoder.stem_points(norms.layer_norm),
        **decoder.attention_points(norms.layer_norm),
        "layers.{i}.attn.q_normed": Output(f"{decoder.ATTN}.q_layernorm", HeadsFirst()),
        "layers.{i}.attn.k_normed": Output(f"{decoder.ATTN}.k_layernorm", HeadsFirst()),
        **decoder.middle_points(SECOND_NORM, norms.layer_norm),
        **decoder.gated_mlp_points(),
        "layers.{i}.attn.in": Input(decoder.ATTN, aside=True),
        "layers.{i}.mlp.in": Input(decoder.MLP, aside=True),
    },
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_EXPERTS},
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **decoder.gated_mlp_weights(),
    },
)
