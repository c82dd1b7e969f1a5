"""OPT (Zhang et al. 2022): GPT-2's block with separate projections, whose MLP works on flat tokens.

Its 350M model normalises the stream after each half of the block in place of what enters it, and its embedding is narrower
than the stream.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from garcon_backend.hook_sites.sites import Input, LogitsOf, Output, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import FlatTokens, Heads
from garcon_backend.models.families import decoder
from garcon_backend.models.family import (
    Family,
    Sizes,
    Weight,
    linear,
    norm_points,
    norm_weights,
    standard_sizes,
)

STEM = "model.decoder"
BLOCK = f"{STEM}.layers.{{i}}"
ATTN = f"{BLOCK}.self_attn"
FIRST_NORM = f"{BLOCK}.self_attn_layer_norm"
SECOND_NORM = f"{BLOCK}.final_layer_norm"

OFFSET = 2
"""Rows of the position embedding before that of position 0."""

NORM_AFTER = (
    "this model normalises the residual stream after each addition, not what attention and MLP read"
)
NARROW = "the embedding is narrower than the residual stream, and projected into it"

_OF_NORMS = [
    f"layers.{{i}}.{half}.norm.{part}"
    for half in ("attn", "mlp")
    for part in ("scale", "normalized", "out")
]
_MIDDLE = [
    "layers.{i}.resid_mid",
    *(f"final_norm.{part}" for part in ("scale", "normalized", "out")),
]


def _lacks(config: Any) -> dict[str, str]:
    after = {} if config.do_layer_norm_before else dict.fromkeys(_OF_NORMS + _MIDDLE, NORM_AFTER)
    narrow = config.word_embed_proj_dim != config.hidden_size
    return {**after, **({"embed.out": NARROW} if narrow else {})}


def _sizes(config: Any) -> dict[str, int]:
    return {**standard_sizes(config), "M": config.ffn_dim}


def _positions(stored: Tensor, sizes: Sizes) -> Tensor:
    return stored[OFFSET:]


FAMILY = Family(
    name="opt",
    model_types=("opt",),
    layers=f"{STEM}.layers",
    sizes=_sizes,
    lacks=_lacks,
    points={
        "embed.out": Output(f"{STEM}.embed_tokens"),
        "pos_embed.out": Output(f"{STEM}.embed_positions"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", FIRST_NORM, norms.layer_norm),
        "layers.{i}.attn.in": Input(ATTN, aside=True),
        **{f"layers.{{i}}.attn.{x}": Output(f"{ATTN}.{x}_proj", Heads()) for x in "qkv"},
        **decoder.mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.out_proj"),
        "layers.{i}.resid_mid": SharedInput(SECOND_NORM, FlatTokens()),
        **norm_points("layers.{i}.mlp.norm", SECOND_NORM, norms.layer_norm_of_flat),
        "layers.{i}.mlp.norm.out": Output(SECOND_NORM, FlatTokens()),
        "layers.{i}.mlp.in": Input(f"{BLOCK}.fc1", FlatTokens(), aside=True),
        "layers.{i}.mlp.pre_activation": Output(f"{BLOCK}.fc1", FlatTokens()),
        "layers.{i}.mlp.post_activation": Input(f"{BLOCK}.fc2", FlatTokens()),
        "layers.{i}.mlp.out": Output(f"{BLOCK}.fc2", FlatTokens()),
        "layers.{i}.mlp.contribution": Output(f"{BLOCK}.fc2", FlatTokens()),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", f"{STEM}.final_layer_norm", norms.layer_norm),
        "logits": LogitsOf(),
    },
    refused={
        "layers.{i}.attn.q_rot": decoder.ADDED_POSITIONS,
        "layers.{i}.attn.k_rot": decoder.ADDED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        "embed.weight": Weight(f"{STEM}.embed_tokens.weight"),
        "pos_embed.weight": Weight(f"{STEM}.embed_positions.weight", _positions),
        **norm_weights("layers.{i}.attn.norm", FIRST_NORM),
        **linear("layers.{i}.attn.q_proj", f"{ATTN}.q_proj"),
        **linear("layers.{i}.attn.k_proj", f"{ATTN}.k_proj"),
        **linear("layers.{i}.attn.v_proj", f"{ATTN}.v_proj"),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.out_proj"),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **linear("layers.{i}.mlp.up_proj", f"{BLOCK}.fc1"),
        **linear("layers.{i}.mlp.down_proj", f"{BLOCK}.fc2"),
        **norm_weights("final_norm", f"{STEM}.final_layer_norm"),
        **decoder.unembed_weights(f"{STEM}.embed_tokens.weight"),
    },
)
