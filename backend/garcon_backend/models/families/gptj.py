"""GPT-J (Wang and Komatsuzaki 2021): attention and MLP side by side, behind one LayerNorm.

Its attention is a class of its own, which can be looked into at its softmax only: queries and keys are there before rotary.
"""

from __future__ import annotations

from garcon_backend.hook_sites.sites import Input, LogitsOf, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder
from garcon_backend.models.family import Family, Weight, linear, norm_points, norm_weights

BLOCK = "transformer.h.{i}"
ATTN = f"{BLOCK}.attn"
MLP = f"{BLOCK}.mlp"

FAMILY = Family(
    name="gptj",
    model_types=("gptj",),
    layers="transformer.h",
    points={
        "embed.out": Output("transformer.wte"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.ln_1", norms.layer_norm),
        "layers.{i}.attn.in": Input(ATTN, aside=True),
        **{f"layers.{{i}}.attn.{x}": Output(f"{ATTN}.{x}_proj", Heads()) for x in "qkv"},
        **decoder.own_mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.out_proj"),
        **decoder.plain_mlp_points(MLP, "fc_in", "fc_out"),
        "layers.{i}.mlp.in": Input(MLP, aside=True),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "transformer.ln_f", norms.layer_norm),
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
        "embed.weight": Weight("transformer.wte.weight"),
        **norm_weights("layers.{i}.attn.norm", f"{BLOCK}.ln_1"),
        **linear("layers.{i}.attn.q_proj", f"{ATTN}.q_proj"),
        **linear("layers.{i}.attn.k_proj", f"{ATTN}.k_proj"),
        **linear("layers.{i}.attn.v_proj", f"{ATTN}.v_proj"),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.out_proj"),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.fc_in"),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.fc_out"),
        **norm_weights("final_norm", "transformer.ln_f"),
        **decoder.unembed_weights("transformer.wte.weight"),
    },
)
