"""LFM2 (Liquid AI 2025): short convolutions between two gates, and some layers that attend.

The configuration's ``intermediate_size`` is not the number of neurons: two thirds of it are, rounded up.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.sites import HookSite, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import bamba, decoder, mixers
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    standard_sizes,
)

CONV = f"{decoder.BLOCK}.conv"
MLP = f"{decoder.BLOCK}.feed_forward"
FIRST_NORM = f"{decoder.BLOCK}.operator_norm"
SECOND_NORM = f"{decoder.BLOCK}.ffn_norm"
FINAL_NORM = "model.embedding_norm"
NAMES = ("w1", "w3", "w2")


def conv_sizes(config: Any) -> dict[str, int]:
    """Of the residual stream and attention, and of convolutions that are as wide."""
    return {**standard_sizes(config), "C": config.hidden_size, "I": config.hidden_size}


def neurons(config: Any) -> int:
    """Of an MLP, as the model counts them."""
    count: int = config.intermediate_size
    if config.block_auto_adjust_ff_dim:
        count = int(2 * count / 3)
        if config.block_ffn_dim_multiplier is not None:
            count = int(config.block_ffn_dim_multiplier * count)
            count = -(-count // config.block_multiple_of) * config.block_multiple_of
    return count


POINTS: dict[str, HookSite] = {
    **decoder.stem_points(),
    **norm_points("final_norm", FINAL_NORM),
    **mixers.first_norm_points(FIRST_NORM, decoder.ATTN, CONV, norms.rms_norm),
    **bamba.attention_points(),
    "layers.{i}.attn.q_normed": Output(f"{decoder.ATTN}.q_layernorm"),
    "layers.{i}.attn.k_normed": Output(f"{decoder.ATTN}.k_layernorm"),
    **decoder.written_points(decoder.ATTN, f"{decoder.ATTN}.out_proj"),
    **mixers.convolution_points(CONV),
    **decoder.middle_points(SECOND_NORM),
    **decoder.gated_points(MLP, *NAMES),
}

WEIGHTS: dict[str, Weight] = {
    **decoder.stem_weights(),
    **norm_weights("final_norm", FINAL_NORM),
    **mixers.first_norm_weights(FIRST_NORM, decoder.ATTN, CONV),
    **decoder.projection_weights(),
    **linear("layers.{i}.attn.o_proj", f"{decoder.ATTN}.out_proj"),
    **norm_weights("layers.{i}.attn.q_norm", f"{decoder.ATTN}.q_layernorm"),
    **norm_weights("layers.{i}.attn.k_norm", f"{decoder.ATTN}.k_layernorm"),
    **mixers.convolution_weights(CONV),
    **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
    **decoder.gated_weights(MLP, *NAMES),
}

FAMILY = Family(
    name="lfm2",
    model_types=("lfm2",),
    layers="model.layers",
    sizes=lambda config: {**conv_sizes(config), "M": neurons(config)},
    points=POINTS,
    refused={"pos_embed.out": decoder.NO_LEARNED_POSITIONS, **decoder.REFUSED_EXPERTS},
    parameters=WEIGHTS,
)
