"""Decoders that differ from those by a norm, a limit or a way to lay queries, keys and values side by side."""

from __future__ import annotations

from typing import Any

from tests.configurations.parts import EXPERTS, GROUPED, HALF_TURNED, NO_GPT_DROPOUT, WINDOWS

KIN: dict[str, dict[str, Any]] = {
    # What is clipped is clipped at a third of what there is.
    "olmo": {**GROUPED, "num_attention_heads": 4, "head_dim": 12, "clip_qkv": 1.0},
    "flex_olmo": {**GROUPED, "num_attention_heads": 4, "head_dim": 12, **EXPERTS},
    "vaultgemma": {
        **GROUPED,
        **WINDOWS,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "tie_word_embeddings": True,
    },
    "nanochat": {**GROUPED, "num_attention_heads": 4, "final_logit_softcapping": 5.0},
    "persimmon": {
        **{name: size for name, size in GROUPED.items() if "head" not in name},
        "num_attention_heads": 4,
        "intermediate_size": 72,
        "rope_parameters": HALF_TURNED,
    },
    "jais2": {**GROUPED, "num_attention_heads": 4},
    "granitemoe": {
        **GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        **EXPERTS,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.35,
        "logits_scaling": 8.0,
    },
    # Scores of routers are far apart here: experts count as near up to 0.9 of a score.
    "phimoe": {
        **GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        **EXPERTS,
        "router_jitter_noise": 0.45,
        "attention_bias": True,
        "lm_head_bias": True,
    },
    "minimax_m2": {
        **GROUPED,
        "num_attention_heads": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 3,
        "rope_parameters": HALF_TURNED,
    },
    "internlm3": {**GROUPED, "num_attention_heads": 4, "attention_bias": True, "mlp_bias": True},
    "bitnet": {**GROUPED, "num_attention_heads": 4, "head_dim": 12},
    # As the 7B model: one key and value for all heads, attention and MLP side by side.
    "falcon": {
        "num_hidden_layers": 4,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "ffn_hidden_size": 80,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
    # Eight heads: two in each of the four blocks of the fused projection.
    "codegen": {
        "n_layer": 4,
        "n_embd": 64,
        "n_head": 8,
        "n_inner": 80,
        "n_positions": 128,
        "rotary_dim": 6,
        **NO_GPT_DROPOUT,
    },
    "mpt": {
        "n_layers": 4,
        "d_model": 48,
        "n_heads": 4,
        "max_seq_len": 128,
        "attn_config": {"clip_qkv": 1.0},
        "tie_word_embeddings": True,
    },
    "gpt_bigcode": {
        "n_layer": 4,
        "n_embd": 48,
        "n_head": 4,
        "n_inner": 80,
        "n_positions": 128,
        **NO_GPT_DROPOUT,
        "tie_word_embeddings": True,
    },
}
