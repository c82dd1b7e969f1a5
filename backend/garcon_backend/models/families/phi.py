"""Phi 1, 1.5 and 2 (Gunasekar et al. 2023): attention and MLP side by side, behind one LayerNorm; a part of a head is turned."""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import Input, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, linear, norm_points, norm_weights

FINAL_NORM = "model.final_layernorm"
DENSE = f"{decoder.ATTN}.dense"


def _lacks(config: Any) -> dict[str, str]:
    return {} if config.qk_layernorm else decoder.REFUSED_QK_NORM


FAMILY = Family(
    name="phi",
    model_types=("phi",),
    layers="model.layers",
    lacks=_lacks,
    points={
        **decoder.stem_points(),
        **norm_points("final_norm", FINAL_NORM, norms.layer_norm),
        **decoder.attention_points(norms.layer_norm),
        **decoder.written_points(decoder.ATTN, DENSE),
        "layers.{i}.attn.q_normed": Output(f"{decoder.ATTN}.q_layernorm", HeadsFirst()),
        "layers.{i}.attn.k_normed": Output(f"{decoder.ATTN}.k_layernorm", HeadsFirst()),
        **decoder.plain_mlp_points(decoder.MLP, "fc1", "fc2"),
        "layers.{i}.attn.in": Input(decoder.ATTN, aside=True),
        "layers.{i}.mlp.in": Input(decoder.MLP, aside=True),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_MIDDLE,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **decoder.stem_weights(),
        **norm_weights("final_norm", FINAL_NORM),
        **decoder.attention_weights(),
        **linear("layers.{i}.attn.o_proj", DENSE),
        **norm_weights("layers.{i}.attn.q_norm", f"{decoder.ATTN}.q_layernorm"),
        **norm_weights("layers.{i}.attn.k_norm", f"{decoder.ATTN}.k_layernorm"),
        **linear("layers.{i}.mlp.up_proj", f"{decoder.MLP}.fc1"),
        **linear("layers.{i}.mlp.down_proj", f"{decoder.MLP}.fc2"),
    },
)
