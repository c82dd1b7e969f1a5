"""Latent attention (DeepSeek-AI 2024): keys and values are made of something compressed, which is all that a cache keeps.

A key has two parts. ``k_nope`` is each head's own, projected from ``kv_latent`` as values are; ``k_rope`` is one for all heads,
projected from the stream, and turned by positions. ``k_rot`` is both, side by side, as attention reads them; what elsewhere is
``k`` is nowhere. Queries (``q``) are projected from a latent of their own, or from the stream, and turned in the same last d_r
dimensions. Values, and what heads mix of them, are of another width, d_v.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from garcon_backend.hook_sites.sites import HookSite, Input, Inside, Output
from garcon_backend.hook_sites.staged.head_outputs import output_by_head
from garcon_backend.hook_sites.views import Expanded, Heads, RotatedPart
from garcon_backend.models.families import decoder
from garcon_backend.models.families.decoder import ATTN
from garcon_backend.models.family import (
    Sizes,
    Weight,
    linear,
    norm_points,
    norm_weights,
)
from garcon_backend.models.fused_rows import Rows

FIRST_NORM = f"{decoder.BLOCK}.input_layernorm"
COMPRESS = f"{ATTN}.kv_a_proj_with_mqa"
EXPAND = f"{ATTN}.kv_b_proj"

TWO_PARTS = "a key is a part of each head's own, attn.k_nope, beside one that all heads share, attn.k_rope; attn.k_rot is the whole"
LATENT_NORMS = "what it normalises is compressed: attn.q_latent and attn.kv_latent"
NO_QUERY_LATENT = "this model projects queries from the stream itself"
MADE_ANEW = "it is made anew of attn.kv_latent and attn.k_rope, which the cache keeps, for all tokens at each step"

REFUSED = {
    "layers.{i}.attn.k": TWO_PARTS,
    "layers.{i}.attn.q_normed": LATENT_NORMS,
    "layers.{i}.attn.k_normed": LATENT_NORMS,
}

NOT_WHILE_GENERATING = dict.fromkeys(
    [f"layers.{{i}}.attn.{x}" for x in ("k_nope", "v", "k_rot")], MADE_ANEW
)


def points() -> dict[str, HookSite]:
    """Attention, and the norm before it."""
    return {
        **norm_points("layers.{i}.attn.norm", FIRST_NORM),
        "layers.{i}.attn.in": Input(ATTN),
        "layers.{i}.attn.q_latent": Output(f"{ATTN}.q_a_layernorm"),
        "layers.{i}.attn.kv_latent": Output(f"{ATTN}.kv_a_layernorm"),
        "layers.{i}.attn.k_nope": Output(EXPAND, Expanded(0)),
        "layers.{i}.attn.k_rope": Output(COMPRESS, RotatedPart()),
        "layers.{i}.attn.q": Output(f"{ATTN}.q_b_proj", Heads()),
        "layers.{i}.attn.v": Output(EXPAND, Expanded(1)),
        **decoder.rotary_points(ATTN),
        **decoder.mixing_points(ATTN),
        "layers.{i}.attn.z": Input(f"{ATTN}.o_proj", Heads("d_v")),
        "layers.{i}.attn.head_out": Inside(f"{ATTN}.o_proj", output_by_head, "head_out"),
        "layers.{i}.attn.out": Output(f"{ATTN}.o_proj"),
        "layers.{i}.attn.contribution": Output(ATTN),
    }


def elsewhere(config: Any) -> dict[str, HookSite]:
    """Where queries are that are not compressed."""
    if config.q_lora_rank is not None:
        return {}
    return {"layers.{i}.attn.q": Output(f"{ATTN}.q_proj", Heads())}


def lacking(config: Any) -> dict[str, str]:
    """What a model lacks whose queries are not compressed."""
    return {} if config.q_lora_rank else {"layers.{i}.attn.q_latent": NO_QUERY_LATENT}


def of_attention(config: Any) -> dict[str, int]:
    """Sizes of the letters of latent attention."""
    found = {
        "K": config.num_attention_heads,
        "d": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "d_v": config.v_head_dim,
        "d_n": config.qk_nope_head_dim,
        "d_r": config.qk_rope_head_dim,
        "r_q": config.q_lora_rank or 0,
        "r_kv": config.kv_lora_rank,
    }
    return {letter: size for letter, size in found.items() if size}


def _latent_rows(stored: Tensor, sizes: Sizes) -> Tensor:
    return stored[: sizes["r_kv"]]


def _rotated_rows(stored: Tensor, sizes: Sizes) -> Tensor:
    return stored[sizes["r_kv"] :]


def _rows_of_heads(index: int) -> Rows:
    """The rows of keys (0) or values (1): each head has both, side by side."""

    def rows(stored: Tensor, sizes: Sizes) -> Tensor:
        widths = [sizes["d_n"], sizes["d_v"]]
        parts: tuple[Tensor, ...] = torch.unflatten(stored, 0, (-1, sum(widths))).split(widths, 1)
        return parts[index].flatten(0, 1)

    return rows


WEIGHTS: dict[str, Weight] = {
    **norm_weights("layers.{i}.attn.norm", FIRST_NORM),
    **linear("layers.{i}.attn.q_proj", f"{ATTN}.q_proj"),
    **linear("layers.{i}.attn.q_a_proj", f"{ATTN}.q_a_proj"),
    **norm_weights("layers.{i}.attn.q_a_norm", f"{ATTN}.q_a_layernorm"),
    **linear("layers.{i}.attn.q_b_proj", f"{ATTN}.q_b_proj"),
    **linear("layers.{i}.attn.kv_a_proj", COMPRESS, _latent_rows),
    **linear("layers.{i}.attn.k_rope_proj", COMPRESS, _rotated_rows),
    **norm_weights("layers.{i}.attn.kv_a_norm", f"{ATTN}.kv_a_layernorm"),
    **linear("layers.{i}.attn.k_b_proj", EXPAND, _rows_of_heads(0)),
    **linear("layers.{i}.attn.v_b_proj", EXPAND, _rows_of_heads(1)),
    **linear("layers.{i}.attn.o_proj", f"{ATTN}.o_proj"),
}
