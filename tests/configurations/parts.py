"""What the configurations of several architectures have in common: sizes of which no two are equal that could be confused."""

from __future__ import annotations

from typing import Any

VOCABULARY = 263
"""V: the 256 bytes, three special tokens, and four merges."""

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}

GROUPED: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
}

WINDOWS: dict[str, Any] = {
    "num_attention_heads": 4,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
HALF_TURNED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
NO_GPT_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
NO_DROPOUT = {"attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0}

# A token may go to experts of two of three groups, each of two experts.
GROUPS: dict[str, Any] = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
}
# Values are narrower than queries and keys, whose last dimensions turn.
LATENT: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
    "q_lora_rank": 28,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
INDEXED: dict[str, Any] = {"index_topk": 3, "index_head_dim": 12, "index_n_heads": 8}

LINEAR: dict[
    str, Any
] = {  # layers that attend are second and fourth; a value head is wider than a key
    "num_attention_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 3,
}
MAMBA_2: dict[str, Any] = {
    "num_attention_heads": 4,
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 8,
    "mamba_d_conv": 3,
    "mamba_chunk_size": 4,
}
CONVOLUTIONS: dict[str, Any] = {
    "num_attention_heads": 4,
    "layer_types": ["conv", "full_attention"] * 2,
    "tie_word_embeddings": True,
}
ONE_OF_ALL: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 24,
}
