"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, q, k and v fused in ``c_attn``.

Its projections are stored transposed, [in, out].
"""

from __future__ import annotations

from garcon_backend.hook_sites.sites import Input, LogitsOf, Output, SharedInput
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import FusedPart
from garcon_backend.models.families import decoder
from garcon_backend.models.family import (
    Family,
    Weight,
    linear,
    norm_points,
    norm_weights,
    rows_of_part,
)

BLOCK = "transformer.h.{i}"
ATTN = f"{BLOCK}.attn"
MLP = f"{BLOCK}.mlp"


FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    layers="transformer.h",
    points={
        "embed.out": Output("transformer.wte"),
        "pos_embed.out": Output("transformer.wpe"),
        "layers.{i}.resid_pre": Input(BLOCK),
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.ln_1", norms.layer_norm),
        "layers.{i}.attn.in": Input(ATTN),
        "layers.{i}.attn.q": Output(f"{ATTN}.c_attn", FusedPart(0, 3, heads=True)),
        "layers.{i}.attn.k": Output(f"{ATTN}.c_attn", FusedPart(1, 3, heads=True)),
        "layers.{i}.attn.v": Output(f"{ATTN}.c_attn", FusedPart(2, 3, heads=True)),
        **decoder.mixing_points(ATTN),
        **decoder.written_points(ATTN, f"{ATTN}.c_proj"),
        "layers.{i}.resid_mid": SharedInput(f"{BLOCK}.ln_2"),
        **norm_points("layers.{i}.mlp.norm", f"{BLOCK}.ln_2", norms.layer_norm),
        **decoder.plain_mlp_points(MLP, "c_fc", "c_proj"),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "transformer.ln_f", norms.layer_norm),
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
        "embed.weight": Weight("transformer.wte.weight"),
        "pos_embed.weight": Weight("transformer.wpe.weight"),
        **norm_weights("layers.{i}.attn.norm", f"{BLOCK}.ln_1"),
        **linear("layers.{i}.attn.q_proj", f"{ATTN}.c_attn", rows_of_part(0, 3), transposed=True),
        **linear("layers.{i}.attn.k_proj", f"{ATTN}.c_attn", rows_of_part(1, 3), transposed=True),
        **linear("layers.{i}.attn.v_proj", f"{ATTN}.c_attn", rows_of_part(2, 3), transposed=True),
        **linear("layers.{i}.attn.o_proj", f"{ATTN}.c_proj", transposed=True),
        **norm_weights("layers.{i}.mlp.norm", f"{BLOCK}.ln_2"),
        **linear("layers.{i}.mlp.up_proj", f"{MLP}.c_fc", transposed=True),
        **linear("layers.{i}.mlp.down_proj", f"{MLP}.c_proj", transposed=True),
        **norm_weights("final_norm", "transformer.ln_f"),
        "unembed.weight": Weight("lm_head.weight", tied="transformer.wte.weight"),
    },
)
