"""Arcee's AFM (Arcee 2025): Llama with an MLP without gate, whose activation is the square of ReLU."""

from __future__ import annotations

from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import Family, linear

GATED = ("layers.{i}.mlp.pre_linear",)

FAMILY = Family(
    name="arcee",
    model_types=("arcee",),
    layers="model.layers",
    points={
        **{
            template: site
            for template, site in llama.FAMILY.points.items()
            if template not in GATED
        },
        **decoder.plain_mlp_points(decoder.MLP, "up_proj", "down_proj"),
    },
    refused={**llama.FAMILY.refused, **dict.fromkeys(GATED, decoder.UNGATED)},
    parameters={
        **llama.FAMILY.parameters,
        **linear("layers.{i}.mlp.up_proj", f"{decoder.MLP}.up_proj"),
        **linear("layers.{i}.mlp.down_proj", f"{decoder.MLP}.down_proj"),
    },
)
