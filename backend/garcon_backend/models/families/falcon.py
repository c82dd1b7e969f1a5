"""Falcon (Almazrouei et al. 2023), in three shapes, with queries, keys and values in one projection.

Its 7B model has attention and MLP side by side behind one norm, and one key and value for all heads. Its 40B model, and
those after it, have groups of heads that share a key and a value, and a norm each for attention and MLP, or one for both. RW
models have attention and MLP in turn, a key and a value for each head, and positions by ALiBi (Press et al. 2022).

Its attention is a class of its own, which can be looked into at its softmax only; with ALiBi not even there, as the code that
adds it once is a kernel's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.sites import Input, LogitsOf, Output, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Grouped
from garcon_backend.models.families import bloom, decoder
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    rows_of_group,
    standard_sizes,
)

BLOCK = "transformer.h.{i}"
ATTN = f"{BLOCK}.self_attention"
MLP = f"{BLOCK}.mlp"
FUSED = f"{ATTN}.query_key_value"
NORM = norms.layer_norm

BY_KERNEL = "its attention with ALiBi is a kernel's, which cannot be looked into"


def _sizes(config: Any) -> dict[str, int]:
    sizes = standard_sizes(config)
    alone = 1 if config.multi_query else sizes["H"]
    kv_heads = config.num_kv_heads if config.new_decoder_architecture else alone
    return {**sizes, "K": kv_heads, "M": config.ffn_hidden_size}


def _norms(config: Any) -> tuple[str, str]:
    """The names of the norms before attention and MLP; "" where one serves both."""
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn in (None, 2):
        return "ln_attn", "ln_mlp"
    in_turn = not config.parallel_attn and not config.new_decoder_architecture
    return "input_layernorm", "post_attention_layernorm" if in_turn else ""


def _shaped(config: Any) -> Family:
    """The family as models of a configuration are."""
    before_attention, before_mlp = _norms(config)
    points = dict(ONE_NORM.points) | norm_points(
        "layers.{i}.attn.norm", f"{BLOCK}.{before_attention}", NORM
    )
    parameters = dict(ONE_NORM.parameters) | norm_weights(
        "layers.{i}.attn.norm", f"{BLOCK}.{before_attention}"
    )
    refused = dict(ONE_NORM.refused)
    if before_mlp:
        second = f"{BLOCK}.{before_mlp}"
        points |= norm_points("layers.{i}.mlp.norm", second, NORM)
        parameters |= norm_weights("layers.{i}.mlp.norm", second)
        points |= {"layers.{i}.attn.in": Input(ATTN), "layers.{i}.mlp.in": Input(MLP)}
        refused = {name: why for name, why in refused.items() if name not in points}
    if before_mlp == "post_attention_layernorm":
        points["layers.{i}.resid_mid"] = SharedInput(f"{BLOCK}.{before_mlp}")
        del refused["layers.{i}.resid_mid"]
    if config.alibi:
        names = ("pos_embed.out", "layers.{i}.attn.q_rot", "layers.{i}.attn.k_rot")
        refused |= dict.fromkeys(names, bloom.ALIBI)
        refused |= dict.fromkeys(decoder.own_mixing_points(ATTN), BY_KERNEL)
        points = {name: site for name, site in points.items() if name not in refused}
    return replace(ONE_NORM, points=points, refused=refused, parameters=parameters)


ONE_NORM = Family(
    name="falcon",
    model_types=("falcon",),
    layers="transformer.h",
    sizes=_sizes,
    points={
        "embed.out": Output("transformer.word_embeddings"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", NORM),
        "layers.{i}.attn.in": Input(ATTN, aside=True),
        **{f"layers.{{i}}.attn.{x}": Output(FUSED, Grouped(n)) for n, x in enumerate("qkv")},
        **decoder.own_mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.dense"),
        **decoder.plain_mlp_points(MLP, "dense_h_to_4h", "dense_4h_to_h"),
        "layers.{i}.mlp.in": Input(MLP, aside=True),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "transformer.ln_f", NORM),
        "logits": LogitsOf(),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_INSIDE,
        **decoder.REFUSED_MIDDLE,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        "embed.weight": Weight("transformer.word_embeddings.weight"),
        **norm_weights("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm"),
        **linear("layers.{i}.attn.q_proj", FUSED, rows_of_group(0)),
        **linear("layers.{i}.attn.k_proj", FUSED, rows_of_group(1)),
        **linear("layers.{i}.attn.v_proj", FUSED, rows_of_group(2)),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.dense"),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.dense_h_to_4h"),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.dense_4h_to_h"),
        **norm_weights("final_norm", "transformer.ln_f"),
        **decoder.unembed_weights("transformer.word_embeddings.weight"),
    },
)
"""The shape of the 7B model."""

FAMILY = replace(ONE_NORM, shaped=_shaped)
