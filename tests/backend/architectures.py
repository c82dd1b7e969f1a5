"""Small random checkpoints of architectures that no family file maps, whose attention asks for more than most.

Windows are four tokens and sparse attention reads three, so that nine tokens already meet both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests import checkpoints

_COMMON: dict[str, Any] = {
    "vocab_size": checkpoints.VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_USUAL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_WINDOWS: dict[str, Any] = {
    **_USUAL,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
}
_EXPERTS: dict[str, Any] = {
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
_LATENT: dict[str, Any] = {
    **_USUAL,
    **_EXPERTS,
    "num_key_value_heads": 4,
    "head_dim": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "index_topk": 3,
    "index_n_heads": 2,
    "index_head_dim": 8,
}
_FALCON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    # Sinks beside the keys.
    "gpt_oss": {**_WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granite_swa": _WINDOWS,
    "granitemoe_swa": {**_WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mimo_v2_flash": {**_WINDOWS, **_EXPERTS, "v_head_dim": 8},
    "flint": _WINDOWS,
    "deepseek_v4": {**_LATENT, "sliding_window": 4},
    # A few keys for each query, chosen by an index.
    "deepseek_v32": _LATENT,
    "glm_moe_dsa": _LATENT,
    # A mask that may not be left out.
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
    # A class for each name of an implementation.
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
    },
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "falcon": {**_FALCON, "new_decoder_architecture": False, "multi_query": True},
    "falcon_40b": {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon_rw": {
        **_FALCON,
        "new_decoder_architecture": False,
        "multi_query": False,
        "parallel_attn": False,
        "alibi": True,
        "bias": True,
    },
    # Heads of another width in every other layer.
    "gemma4_text": {
        **_WINDOWS,
        "global_head_dim": 16,
        "vocab_size_per_layer_input": checkpoints.VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0,
    },
    # A cache of its own, for layers that keep a state.
    "minimax": {
        **_USUAL,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "block_size": 4,
    },
}
"""Configuration of each, by ``model_type`` or a name of its shape."""

MODEL_TYPES = {"falcon_40b": "falcon", "falcon_rw": "falcon"}


def make(name: str, directory: Path, seed: int = 0) -> Path:
    """Save a checkpoint of an architecture, as ``save_pretrained`` writes it."""
    config = AutoConfig.for_model(MODEL_TYPES.get(name, name), **{**_COMMON, **ARCHITECTURES[name]})
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    checkpoints.redraw(model, seed)
    model.save_pretrained(directory)
    return directory
