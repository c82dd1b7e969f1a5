"""Phi-3 (Abdin et al. 2024): Llama with q, k and v in one projection, and gate and up in another."""

from __future__ import annotations

from garcon_backend.hook_sites.sites import Output
from garcon_backend.hook_sites.views import FusedPart, Stretch
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import Family, linear, rows_of_part, rows_of_stretch

QKV = f"{decoder.ATTN}.qkv_proj"
GATE_UP = f"{decoder.MLP}.gate_up_proj"

FAMILY = Family(
    name="phi3",
    model_types=("phi3",),
    layers="model.layers",
    points={
        **llama.FAMILY.points,
        "layers.{i}.attn.q": Output(QKV, Stretch(0)),
        "layers.{i}.attn.k": Output(QKV, Stretch(1)),
        "layers.{i}.attn.v": Output(QKV, Stretch(2)),
        "layers.{i}.mlp.pre_activation": Output(GATE_UP, FusedPart(0, 2)),
        "layers.{i}.mlp.pre_linear": Output(GATE_UP, FusedPart(1, 2)),
    },
    refused=llama.FAMILY.refused,
    parameters={
        **llama.FAMILY.parameters,
        **linear("layers.{i}.attn.q_proj", QKV, rows_of_stretch(0)),
        **linear("layers.{i}.attn.k_proj", QKV, rows_of_stretch(1)),
        **linear("layers.{i}.attn.v_proj", QKV, rows_of_stretch(2)),
        **linear("layers.{i}.mlp.gate_proj", GATE_UP, rows_of_part(0, 2)),
        **linear("layers.{i}.mlp.up_proj", GATE_UP, rows_of_part(1, 2)),
    },
)
