"""GPT-Neo (Black et al. 2021): GPT-2 with separate projections, and a window in every other layer.

Scores are not scaled.
"""

from __future__ import annotations

from garcon_backend.hook_sites.sites import Input, LogitsOf, Output, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, Weight, linear, norm_points, norm_weights

BLOCK = "transformer.h.{i}"
INNER = f"{BLOCK}.attn.attention"
MLP = f"{BLOCK}.mlp"

FAMILY = Family(
    name="gpt_neo",
    model_types=("gpt_neo",),
    layers="transformer.h",
    mixers=lambda config: tuple(
        "sliding" if kind == "local" else "attention" for kind in config.attention_layers
    ),
    points={
        "embed.out": Output("transformer.wte"),
        "pos_embed.out": Output("transformer.wpe"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.ln_1", norms.layer_norm),
        "layers.{i}.attn.in": Input(f"{BLOCK}.attn"),
        **{f"layers.{{i}}.attn.{x}": Output(f"{INNER}.{x}_proj", Heads()) for x in "qkv"},
        **decoder.own_mixing_points(INNER),
        **decoder.written_points(f"{BLOCK}.attn", f"{INNER}.out_proj"),
        "layers.{i}.resid_mid": SharedInput(f"{BLOCK}.ln_2"),
        **norm_points("layers.{i}.mlp.norm", f"{BLOCK}.ln_2", norms.layer_norm),
        **decoder.plain_mlp_points(MLP, "c_fc", "c_proj"),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "transformer.ln_f", norms.layer_norm),
        "logits": LogitsOf(),
    },
    refused={
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        "layers.{i}.attn.q_rot": decoder.ADDED_POSITIONS,
        "layers.{i}.attn.k_rot": decoder.ADDED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        "embed.weight": Weight("transformer.wte.weight"),
        "pos_embed.weight": Weight("transformer.wpe.weight"),
        **norm_weights("layers.{i}.attn.norm", f"{BLOCK}.ln_1"),
        **linear("layers.{i}.attn.q_proj", f"{INNER}.q_proj"),
        **linear("layers.{i}.attn.k_proj", f"{INNER}.k_proj"),
        **linear("layers.{i}.attn.v_proj", f"{INNER}.v_proj"),
        **linear("layers.{i}.attn.o_proj", f"{INNER}.out_proj"),
        **norm_weights("layers.{i}.mlp.norm", f"{BLOCK}.ln_2"),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.c_fc"),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.c_proj"),
        **norm_weights("final_norm", "transformer.ln_f"),
        **decoder.unembed_weights("transformer.wte.weight"),
    },
)
