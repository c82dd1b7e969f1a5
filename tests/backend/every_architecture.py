"""A tiny random checkpoint of any causal architecture of transformers, made from its configuration class alone.

Sizes are set by the usual names, in the configuration and in those inside it; lists with an entry for each layer are cut to one
of each kind. Windows are four tokens, chunks four, sparse attention reads three, so that nine tokens meet them all. What
the usual names do not say is in :data:`SPECIAL`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tests import checkpoints


def _names(size: int, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, size)


SIZES: dict[str, int] = {
    **_names(checkpoints.VOCABULARY, "vocab_size", "n_vocab", "src_vocab_size"),
    **_names(checkpoints.VOCABULARY, "decoder_vocab_size", "vocab_size_per_layer_input"),
    **_names(32, "hidden_size", "n_embd", "d_model", "n_embed", "emb_dim", "dim_model"),
    **_names(32, "embedding_size", "word_embed_proj_dim", "shape_embed_dim"),
    **_names(32, "pronunciation_embed_dim", "shape_vocab_size", "pronunciation_vocab_size"),
    **_names(2, "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"),
    **_names(2, "decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"),
    **_names(4, "num_attention_heads", "n_head", "n_heads", "num_heads"),
    **_names(4, "decoder_attention_heads", "encoder_attention_heads"),
    **_names(4, "num_decoder_attention_heads", "num_encoder_attention_heads"),
    **_names(2, "num_key_value_heads", "num_kv_heads"),
    **_names(8, "head_dim", "kv_channels", "attention_head_dim", "dim_head", "d_kv"),
    **_names(48, "intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner"),
    **_names(48, "d_ff", "dim_ff", "ffn_hidden_size", "d_inner", "dff", "feed_forward_size"),
    **_names(64, "max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"),
    **_names(4, "sliding_window", "window_size", "attention_window_size", "attention_window"),
    **_names(4, "attention_chunk_size", "chunk_size", "mamba_chunk_size", "block_size"),
    **_names(4, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    **_names(2, "num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token"),
    **_names(24, "moe_intermediate_size", "shared_expert_intermediate_size"),
    **_names(24, "shared_intermediate_size", "moe_shared_expert_intermediate_size"),
    **_names(1, "n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups"),
    **_names(16, "q_lora_rank", "kv_lora_rank", "global_head_dim"),
    **_names(8, "qk_nope_head_dim", "v_head_dim", "index_head_dim", "hidden_size_per_layer_input"),
    **_names(4, "qk_rope_head_dim", "rotary_dim"),
    **_names(2, "index_n_heads", "linear_num_key_heads", "linear_num_value_heads"),
    **_names(2, "n_mamba_heads", "linear_num_heads"),
    **_names(8, "linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "state_size"),
    **_names(8, "mamba_n_heads", "mamba_d_head", "mamba_d_state"),
    **_names(8, "mamba_num_heads", "mamba_head_dim"),
    "mamba_d_ssm": 64,
    "index_topk": 3,
    "num_kv_shared_layers": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
"""Numbers of a configuration, by the usual names."""

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_DOTS3 = {
    "num_hidden_layers": 2,
    "layer_types": ["indexed_attention", "sliding_attention"],
    "mlp_layer_types": ["dense", "sparse"],
    "head_dim": 12,
    "swa_num_attention_heads": 2,
    "swa_num_key_value_heads": 2,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 12,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
}
_QWEN4 = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
    "hc_lowrank": 8,
    "ple_embed_dim": 32,
    "ngram_vocab_size_base": 50,
    "split_ngram_parts": 2,
}

SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "encoder_config": {"hidden_size_global": 32},
        "decoder_config": {"hidden_size_global": 32},
        "encoder_hash_byte_group_vocab": 50,
        "patch_in_forward": False,
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 10000.0},
        "ffn_config": {"moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1},
    "dots3_note": {
        "text_config": _DOTS3,
        "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "dots3_note_text": _DOTS3,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"zero_expert_num": 2, "expert_ffn_hidden_size": 24},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "attention_head_size": 8,
        "num_buckets": 2,
    },
    "xlstm": {"chunk_size": 64, "hidden_size": 64, "num_heads": 2, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
"""What the usual names do not say, by ``model_type``."""

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def sizes(kind: Any) -> dict[str, Any]:
    """Arguments for a tiny configuration of a class."""
    usual = kind()
    taken = inspect.signature(kind.__init__).parameters
    layers = next((n for name in _LAYERS if isinstance(n := getattr(usual, name, None), int)), 0)
    found: dict[str, Any] = {}
    for name in taken:
        value = vars(usual).get(name)
        if name in kind.sub_configs:
            if value is not None:
                named = {"model_type": value.model_type} if value.model_type else {}
                found[name] = {**sizes(type(value)), **named}
        elif name in SIZES and (value is None or type(value) is int or name.endswith("_token_id")):
            found[name] = SIZES[name]
        elif isinstance(value, (list, tuple)) and len(value) == layers > 2:
            found[name] = [one for place, one in enumerate(value) if one not in value[:place]]
    if "kv_lora_rank" in taken:  # latent attention has as many keys as queries
        found |= {"num_key_value_heads": 4} | ({"head_dim": 4} if "head_dim" in found else {})
    if found.get("sliding_window") and found.get("layer_types") == ["full_attention"]:
        found["layer_types"] = ["sliding_attention", "full_attention"]
        found |= {"use_sliding_window": True} if "use_sliding_window" in taken else {}
    lists = [name for name, value in found.items() if isinstance(value, list)]
    count = max([2, *(len(found[name]) for name in lists)])
    found |= {name: [found[name][i % len(found[name])] for i in range(count)] for name in lists}
    return found | {name: count for name in _LAYERS if name in found}


def configuration(model_type: str) -> Any:
    """A tiny configuration of an architecture."""
    kind = CONFIG_MAPPING[model_type]
    found = sizes(kind)
    for name, value in SPECIAL.get(model_type, {}).items():
        inner = found.get(name)
        both = isinstance(value, dict) and isinstance(inner, dict)
        found[name] = {**inner, **value} if both else value
    return kind(**found)


def make(model_type: str, directory: Path) -> Path:
    """Save a checkpoint of an architecture, as ``save_pretrained`` writes it."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configuration(model_type), dtype=torch.float32)
        checkpoints.redraw(model)
    model.save_pretrained(directory)
    return directory
