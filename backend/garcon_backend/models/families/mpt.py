"""MPT (MosaicML 2023): GPT-2's block without biases, and positions by ALiBi (Press et al. 2022).

The module of its MLP adds the residual stream itself: what the MLP *adds* is what its last projection puts out. Some models clip
queries, keys and values, and ``attn.q``, ``attn.k`` and ``attn.v`` are what is left of them.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.other_sites import ClippedOutput
from garcon_backend.hook_sites.sites import (
    Input,
    LogitsOf,
    Output,
    SharedInput,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import FusedPart
from garcon_backend.models.families import bloom, decoder
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    rows_of_part,
    standard_sizes,
)

BLOCK = "transformer.blocks.{i}"
ATTN = f"{BLOCK}.attn"
MLP = f"{BLOCK}.ffn"
FUSED = f"{ATTN}.Wqkv"
FIRST_NORM, SECOND_NORM = f"{BLOCK}.norm_1", f"{BLOCK}.norm_2"
NORM = norms.layer_norm


def _sizes(config: Any) -> dict[str, int]:
    sizes = standard_sizes(config)
    return {**sizes, "M": 4 * sizes["D"], "P": config.max_seq_len}


FAMILY = Family(
    name="mpt",
    model_types=("mpt",),
    layers="transformer.blocks",
    sizes=_sizes,
    points={
        "embed.out": Output("transformer.wte"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", FIRST_NORM, NORM),
        "layers.{i}.attn.in": Input(ATTN),
        **{
            f"layers.{{i}}.attn.{x}": ClippedOutput(
                ATTN, "Wqkv", "clip_qkv", FusedPart(n, 3, heads=True)
            )
            for n, x in enumerate("qkv")
        },
        **decoder.own_mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.out_proj"),
        "layers.{i}.resid_mid": SharedInput(SECOND_NORM),
        **norm_points("layers.{i}.mlp.norm", SECOND_NORM, NORM),
        **decoder.plain_mlp_points(MLP, "up_proj", "down_proj"),
        "layers.{i}.mlp.contribution": Output(f"{MLP}.down_proj"),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "transformer.norm_f", NORM),
        "logits": LogitsOf(),
    },
    refused=bloom.FAMILY.refused,
    parameters={
        "embed.weight": Weight("transformer.wte.weight"),
        **norm_weights("layers.{i}.attn.norm", FIRST_NORM),
        **linear("layers.{i}.attn.q_proj", FUSED, rows_of_part(0, 3)),
        **linear("layers.{i}.attn.k_proj", FUSED, rows_of_part(1, 3)),
        **linear("layers.{i}.attn.v_proj", FUSED, rows_of_part(2, 3)),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.out_proj"),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.up_proj"),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.down_proj"),
        **norm_weights("final_norm", "transformer.norm_f"),
        **decoder.unembed_weights("transformer.wte.weight"),
    },
)
