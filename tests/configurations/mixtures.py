"""Mixtures beside an expert that all tokens share, and attention by latents."""

from __future__ import annotations

from typing import Any

from tests.configurations.parts import GROUPED, GROUPS, HALF_TURNED, INDEXED, LATENT, WINDOWS

MIXTURES: dict[str, dict[str, Any]] = {
    # One layer is dense.
    "qwen2_moe": {
        **GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 24,
        "mlp_only_layers": [0],
        "norm_topk_prob": False,
    },
    "deepseek_v3": {**LATENT, **GROUPS},
    "deepseek_v2": {**LATENT, **GROUPS, "topk_method": "group_limited_greedy"},
    "glm4_moe_lite": {**LATENT, **GROUPS},
    # A query reads three keys at most; the third layer of GLM 5 reads those of the second.
    "deepseek_v32": {**LATENT, **GROUPS, **INDEXED},
    "glm_moe_dsa": {
        **LATENT,
        **GROUPS,
        **INDEXED,
        "indexer_types": ["full", "full", "shared", "full"],
    },
    "minicpm3": {**LATENT, "dim_model_base": 24},
    "glm4_moe": {
        **GROUPED,
        **GROUPS,
        "num_attention_heads": 4,
        "rope_parameters": HALF_TURNED,
        "use_qk_norm": True,
    },
    "dots1": {**GROUPED, **GROUPS, **WINDOWS, "norm_topk_prob": True, "attention_bias": True},
    # Every other layer is dense.
    "ernie4_5_moe": {
        **GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        "use_bias": True,
        "moe_intermediate_size": 32,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 2,
        "moe_layer_interval": 2,
    },
    "hunyuan_v1_moe": {
        **GROUPED,
        "num_attention_heads": 4,
        "num_experts": 4,
        "moe_topk": 2,
        "eod_token_id": 1,
    },
}
