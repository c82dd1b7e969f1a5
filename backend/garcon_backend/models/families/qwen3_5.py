"""Qwen 3.5 and 3.6 (Qwen Team 2026), the text models: three layers of four are linear, the fourth attends.

What attention mixes is multiplied, head by head, by a gate that the query projection puts out beside each head's
queries: ``attn.z`` is before it, ``attn.head_out`` behind it. Gains are stored less one.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite, InAttention, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Interleaved, PointView
from garcon_backend.models.families import decoder, mixers
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_weights,
    rows_of_each_head,
    standard_sizes,
)
from garcon_backend.models.fused_rows import Rows

LINEAR = f"{decoder.BLOCK}.linear_attn"
FIRST_NORM = f"{decoder.BLOCK}.input_layernorm"
SECOND_NORM = f"{decoder.BLOCK}.post_attention_layernorm"
GAIN = 1.0  # what stored gains are less
NORM = norms.gemma_rms_norm


def sizes(config: Any) -> dict[str, int]:
    """Of attention, of the MLP and of linear layers."""
    return {**standard_sizes(config), **mixers.delta_sizes(config)}


def _attention() -> dict[str, HookSite]:
    query = f"{decoder.ATTN}.q_proj"
    points = decoder.attention_points(NORM)
    unnormed = {t: site for t, site in points.items() if ".attn.norm." not in t}
    return {
        **unnormed,
        "layers.{i}.attn.q": Output(query, Interleaved(0, 2)),
        "layers.{i}.attn.gate": Output(query, Interleaved(1, 2)),
        **decoder.normed_points(PointView()),
        "layers.{i}.attn.z": InAttention(decoder.ATTN, "z"),
    }


def _weights() -> dict[str, Weight]:
    query = f"{decoder.ATTN}.q_proj"
    return {
        **decoder.projection_weights(),
        **linear("layers.{i}.attn.q_proj", query, rows_of_each_head(0, 2)),
        **linear("layers.{i}.attn.gate_proj", query, rows_of_each_head(1, 2)),
        **decoder.normed_weights(GAIN),
    }


POINTS: dict[str, HookSite] = {
    **decoder.stem_points(NORM),
    **mixers.first_norm_points(FIRST_NORM, decoder.ATTN, LINEAR, NORM),
    **_attention(),
    **mixers.delta_points(LINEAR),
    **decoder.middle_points(SECOND_NORM, NORM),
}
"""All but those of the MLP."""

WEIGHTS = {
    **decoder.stem_weights(GAIN),
    **mixers.first_norm_weights(FIRST_NORM, decoder.ATTN, LINEAR, GAIN),
    **_weights(),
    **mixers.delta_weights(LINEAR),
    **norm_weights("layers.{i}.mlp.norm", SECOND_NORM, GAIN),
}
"""All but those of the MLP, and of what linear layers project."""


def _queries_and_keys(index: int) -> Rows:
    return mixers.rows_of_lengths(index, lambda sizes: [sizes["G"] * sizes["N"]] * 2 + [sizes["I"]])


PROJECTED = {
    **{
        f"{mixers.MIXER}.{name}_proj": Weight(f"{LINEAR}.in_proj_qkv.weight", _queries_and_keys(i))
        for i, name in enumerate("qkv")
    },
    f"{mixers.MIXER}.gate_proj": Weight(f"{LINEAR}.in_proj_z.weight"),
    f"{mixers.MIXER}.beta_proj": Weight(f"{LINEAR}.in_proj_b.weight"),
    f"{mixers.MIXER}.decay_proj": Weight(f"{LINEAR}.in_proj_a.weight"),
}
"""What linear layers read by."""

FAMILY = Family(
    name="qwen3_5",
    model_types=("qwen3_5_text",),
    layers="model.layers",
    sizes=sizes,
    points={**POINTS, **decoder.gated_mlp_points()},
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_EXPERTS},
    parameters={**WEIGHTS, **PROJECTED, **decoder.gated_mlp_weights()},
)
