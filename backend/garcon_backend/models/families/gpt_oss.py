"""gpt-oss (OpenAI 2025): Mixtral's block with biases, windows in every other layer, and a sink in each head.

A head's sink is a score beside those of the keys, without a value: rows of ``attn.pattern`` add up to less than one.
"""

from __future__ import annotations

from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.experts import biased_experts
from garcon_backend.hook_sites.staged.routers import biased_router
from garcon_backend.models.families import decoder, experts
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_weights,
    rows_in_turn,
)
from garcon_backend.models.family_notes import standard_notes

SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"
ROUTER = f"{decoder.MLP}.router"
EXPERTS = f"{decoder.MLP}.experts"
NORM = norms.olmo_rms_norm  # its gains stay in float32, whatever the model's dtype

SINKS = "a sink beside the keys, without a value, takes its part: rows add up to less than one"

_EXPERT = "layers.{i}.mlp.experts.{e}"


def _expert_weights() -> dict[str, Weight]:
    found = {
        f"{_EXPERT}.down_proj": Weight(f"{EXPERTS}.down_proj", transposed=True),
        f"{_EXPERT}.down_proj.bias": Weight(f"{EXPERTS}.down_proj_bias"),
    }
    for index, name in enumerate(("gate_proj", "up_proj")):
        rows = rows_in_turn(index, 2)
        found[f"{_EXPERT}.{name}"] = Weight(f"{EXPERTS}.gate_up_proj", rows, transposed=True)
        found[f"{_EXPERT}.{name}.bias"] = Weight(f"{EXPERTS}.gate_up_proj_bias", rows)
    return found


FAMILY = Family(
    name="gpt_oss",
    model_types=("gpt_oss",),
    layers="model.layers",
    notes=lambda config: {**standard_notes(config), "layers.{i}.attn.pattern": SINKS},
    points={
        **decoder.stem_points(NORM),
        **decoder.attention_points(NORM),
        **decoder.middle_points(SECOND_NORM, NORM),
        **experts.points(biased_router, ROUTER, biased_experts),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **experts.REFUSED,
    },
    parameters={
        **decoder.stem_weights(),
        **decoder.attention_weights(),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **linear("layers.{i}.mlp.router", ROUTER),
        **_expert_weights(),
    },
)
