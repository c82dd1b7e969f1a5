"""Small random checkpoints on disk, one per architecture family, for the tests.

A checkpoint made by :func:`make` is a directory as ``save_pretrained`` writes it: ``config.json``,
safetensors and a tokenizer with a chat template. Its numbers are random but its dimensions are
chosen so that a mistake shows:

* query heads H and key/value heads K differ, and H·d_head differs from d_model, where the family
  allows it, so that no two axes can be confused;
* the vocabulary is odd, so that sharding it is uneven; heads and neurons divide by two;
* *every* parameter is redrawn. A fresh model has norm gains of one and biases of zero, and code
  which forgets them would pass all tests on it.

The same family, seed and overrides give the same numbers in every process.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
)

from tests.multimodal import MULTIMODAL, TEXT_PARTS

VOCABULARY = 263
"""V: the 256 bytes, three special tokens, and four merges."""

SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
"""Special tokens; they have the ids 0, 1 and 2."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

_SPREAD = 0.2  # of every redrawn parameter: large enough that attention is far from uniform

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}

_GROUPED: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
}

_WINDOWS: dict[str, Any] = {
    "num_attention_heads": 4,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_HALF_TURNED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_NO_GPT_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_NO_DROPOUT = {"attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0}

# A token may go to experts of two of three groups, each of two experts.
_GROUPS: dict[str, Any] = {
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
_LATENT: dict[str, Any] = {
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
_INDEXED: dict[str, Any] = {"index_topk": 3, "index_head_dim": 12, "index_n_heads": 8}

_LINEAR: dict[
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
_MAMBA_2: dict[str, Any] = {
    "num_attention_heads": 4,
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 8,
    "mamba_d_conv": 3,
    "mamba_chunk_size": 4,
}
_CONVOLUTIONS: dict[str, Any] = {
    "num_attention_heads": 4,
    "layer_types": ["conv", "full_attention"] * 2,
    "tie_word_embeddings": True,
}
_ONE_OF_ALL: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 24,
}

FAMILIES: dict[str, dict[str, Any]] = {
    # H·d = D by construction; tied as in the published checkpoints.
    "gpt2": {
        "n_layer": 4,
        "n_embd": 48,
        "n_head": 4,
        "n_inner": 80,
        "n_positions": 128,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
    },
    # H·d = D by construction; rotary turns the first 6 of 12 dimensions; the block is parallel.
    "gpt_neox": {
        "num_hidden_layers": 4,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "max_position_embeddings": 128,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
        "use_parallel_residual": True,
    },
    "llama": {**_GROUPED, "num_attention_heads": 6},
    # The caps are low and the window short, so that a few tokens already meet both.
    "gemma2": {
        **_GROUPED,
        "num_attention_heads": 4,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "tie_word_embeddings": True,
    },
    "mixtral": {
        **_GROUPED,
        "num_attention_heads": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "mistral": {**_GROUPED, "num_attention_heads": 4, "sliding_window": 4},
    "qwen2": {**_GROUPED, "num_attention_heads": 4},
    "qwen3": {**_GROUPED, "num_attention_heads": 4},
    # One layer is dense, with more neurons than an expert has; what is chosen is not renormalised.
    "qwen3_moe": {
        **_GROUPED,
        "num_attention_heads": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "mlp_only_layers": [2],
        "decoder_sparse_step": 1,
        "norm_topk_prob": False,
    },
    # Layers that see a window turn their positions at another speed.
    "gemma3_text": {
        **_GROUPED,
        "num_attention_heads": 4,
        "query_pre_attn_scalar": 20,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "tie_word_embeddings": True,
    },
    "olmo2": {**_GROUPED, "num_attention_heads": 4},
    "phi3": {
        **_GROUPED,
        "num_attention_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    },
    # The last of four layers turns no positions.
    "smollm3": {**_GROUPED, "num_attention_heads": 4},
    "seed_oss": {
        **_GROUPED,
        "num_attention_heads": 4,
        "attention_out_bias": True,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
    },
    "helium": {**_GROUPED, "num_attention_heads": 4, "head_dim": 12},
    "ernie4_5": {**_GROUPED, "num_attention_heads": 4, "use_bias": True},
    "ministral": {**_GROUPED, **_WINDOWS},
    # Queries are scaled from the fourth token on.
    "ministral3": {
        **_GROUPED,
        "num_attention_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "llama_4_scaling_beta": 0.7,
            "original_max_position_embeddings": 4,
        },
    },
    "arcee": {**_GROUPED, "num_attention_heads": 4, "mlp_bias": True},
    "starcoder2": {**_GROUPED, "num_attention_heads": 4, **_NO_DROPOUT},
    "nemotron": {
        **_GROUPED,
        "num_attention_heads": 4,
        "rope_parameters": _HALF_TURNED,
        "attention_bias": True,
    },
    "apertus": {
        **_GROUPED,
        "num_attention_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "olmo3": {**_GROUPED, **_WINDOWS},
    "exaone4": {**_GROUPED, **_WINDOWS},
    "glm": {**_GROUPED, "num_attention_heads": 4, "rope_parameters": _HALF_TURNED},
    "glm4": {**_GROUPED, "num_attention_heads": 4, "rope_parameters": _HALF_TURNED},
    "granite": {
        **_GROUPED,
        "num_attention_heads": 4,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.35,
        "logits_scaling": 8.0,
    },
    "cohere": {**_GROUPED, "num_attention_heads": 4, "logit_scale": 0.25},
    "cohere2": {**_GROUPED, **_WINDOWS, "logit_scale": 0.25},
    "phi": {
        **_GROUPED,
        "num_attention_heads": 4,
        "rope_parameters": _HALF_TURNED,
        "qk_layernorm": True,
        "head_dim": 12,
    },
    "stablelm": {
        **_GROUPED,
        "num_attention_heads": 4,
        "rope_parameters": _HALF_TURNED,
        "use_qkv_bias": True,
        "head_dim": 12,
    },
    "hunyuan_v1_dense": {**_GROUPED, "num_attention_heads": 4},
    "olmoe": {
        **_GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gptj": {
        "n_layer": 4,
        "n_embd": 48,
        "n_head": 4,
        "n_inner": 80,
        "n_positions": 128,
        "rotary_dim": 6,
        **_NO_GPT_DROPOUT,
    },
    "gpt_neo": {
        "num_layers": 4,
        "hidden_size": 48,
        "num_heads": 4,
        "intermediate_size": 80,
        "max_position_embeddings": 128,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 4,
        "attention_dropout": 0.0,
        "embed_dropout": 0.0,
        "resid_dropout": 0.0,
        "tie_word_embeddings": True,
    },
    "opt": {
        "num_hidden_layers": 4,
        "hidden_size": 48,
        "word_embed_proj_dim": 48,
        "num_attention_heads": 4,
        "ffn_dim": 80,
        "max_position_embeddings": 128,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
    },
    "bloom": {
        "n_layer": 4,
        "hidden_size": 48,
        "n_head": 4,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
    },
    "gpt_oss": {
        **_GROUPED,
        **_WINDOWS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    # What is clipped is clipped at a third of what there is.
    "olmo": {**_GROUPED, "num_attention_heads": 4, "head_dim": 12, "clip_qkv": 1.0},
    "flex_olmo": {**_GROUPED, "num_attention_heads": 4, "head_dim": 12, **_EXPERTS},
    "vaultgemma": {
        **_GROUPED,
        **_WINDOWS,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "tie_word_embeddings": True,
    },
    "nanochat": {**_GROUPED, "num_attention_heads": 4, "final_logit_softcapping": 5.0},
    "persimmon": {
        **{name: size for name, size in _GROUPED.items() if "head" not in name},
        "num_attention_heads": 4,
        "intermediate_size": 72,
        "rope_parameters": _HALF_TURNED,
    },
    "jais2": {**_GROUPED, "num_attention_heads": 4},
    "granitemoe": {
        **_GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        **_EXPERTS,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.35,
        "logits_scaling": 8.0,
    },
    # Scores of routers are far apart here: experts count as near up to 0.9 of a score.
    "phimoe": {
        **_GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        **_EXPERTS,
        "router_jitter_noise": 0.45,
        "attention_bias": True,
        "lm_head_bias": True,
    },
    "minimax_m2": {
        **_GROUPED,
        "num_attention_heads": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 3,
        "rope_parameters": _HALF_TURNED,
    },
    "internlm3": {**_GROUPED, "num_attention_heads": 4, "attention_bias": True, "mlp_bias": True},
    "bitnet": {**_GROUPED, "num_attention_heads": 4, "head_dim": 12},
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
        **_NO_GPT_DROPOUT,
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
        **_NO_GPT_DROPOUT,
        "tie_word_embeddings": True,
    },
    # One layer is dense.
    "qwen2_moe": {
        **_GROUPED,
        "num_attention_heads": 4,
        "head_dim": 12,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 24,
        "mlp_only_layers": [0],
        "norm_topk_prob": False,
    },
    "deepseek_v3": {**_LATENT, **_GROUPS},
    "deepseek_v2": {**_LATENT, **_GROUPS, "topk_method": "group_limited_greedy"},
    "glm4_moe_lite": {**_LATENT, **_GROUPS},
    # A query reads three keys at most; the third layer of GLM 5 reads those of the second.
    "deepseek_v32": {**_LATENT, **_GROUPS, **_INDEXED},
    "glm_moe_dsa": {
        **_LATENT,
        **_GROUPS,
        **_INDEXED,
        "indexer_types": ["full", "full", "shared", "full"],
    },
    "minicpm3": {**_LATENT, "dim_model_base": 24},
    "glm4_moe": {
        **_GROUPED,
        **_GROUPS,
        "num_attention_heads": 4,
        "rope_parameters": _HALF_TURNED,
        "use_qk_norm": True,
    },
    "dots1": {**_GROUPED, **_GROUPS, **_WINDOWS, "norm_topk_prob": True, "attention_bias": True},
    # Every other layer is dense.
    "ernie4_5_moe": {
        **_GROUPED,
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
        **_GROUPED,
        "num_attention_heads": 4,
        "num_experts": 4,
        "moe_topk": 2,
        "eod_token_id": 1,
    },
    "qwen3_5_text": {**_GROUPED, **_LINEAR},
    "qwen3_5_moe_text": {**_GROUPED, **_LINEAR, **_ONE_OF_ALL, "linear_num_key_heads": 4},
    # One layer is dense; what is chosen is not renormalised.
    "qwen3_next": {
        **_GROUPED,
        **_LINEAR,
        **_ONE_OF_ALL,
        "mlp_only_layers": [3],
        "norm_topk_prob": False,
    },
    "olmo_hybrid": {**_GROUPED, **_LINEAR},
    "bamba": {
        **_GROUPED,
        **_MAMBA_2,
        "rope_parameters": _HALF_TURNED,
        "attn_layer_indices": [1, 3],
    },
    "granitemoehybrid": {
        **_GROUPED,
        **_MAMBA_2,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.35,
        "logits_scaling": 8.0,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 24,
        "intermediate_size": 32,
        "tie_word_embeddings": True,
    },
    "falcon_h1": {
        **_GROUPED,
        **_MAMBA_2,
        "mamba_d_ssm": 96,
        "embedding_multiplier": 5.0,
        "lm_head_multiplier": 0.3,
        "key_multiplier": 0.4,
        "attention_in_multiplier": 1.5,
        "attention_out_multiplier": 0.9,
        "ssm_in_multiplier": 1.25,
        "ssm_out_multiplier": 0.3,
        "ssm_multipliers": [0.5, 0.7, 0.9, 1.1, 1.3],
        "mlp_multipliers": [0.8, 0.6],
    },
    # What balanced the experts is drawn as well.
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "moe", "mlp"],
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 80,
        "max_position_embeddings": 128,
        "mamba_num_heads": 6,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "ssm_state_size": 8,
        "conv_kernel": 3,
        "chunk_size": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 24,
        "n_group": 2,
        "topk_group": 1,
        "routed_scaling_factor": 1.5,
    },
    # Two layers attend, and one has experts.
    "jamba": {
        **_GROUPED,
        "num_attention_heads": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 4,
        "expert_layer_period": 3,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_d_conv": 3,
        "mamba_dt_rank": 5,
    },
    "lfm2": {**_GROUPED, **_CONVOLUTIONS, "block_multiple_of": 16},
    # What balanced the experts is drawn as well.
    "lfm2_moe": {
        **_GROUPED,
        **_CONVOLUTIONS,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "num_dense_layers": 1,
        "routed_scaling_factor": 1.5,
    },
    "mamba": {
        "num_hidden_layers": 4,
        "hidden_size": 48,
        "state_size": 8,
        "conv_kernel": 3,
        "time_step_rank": 5,
        "tie_word_embeddings": True,
    },
    "mamba2": {
        "num_hidden_layers": 4,
        "hidden_size": 48,
        "num_heads": 6,
        "head_dim": 16,
        "n_groups": 2,
        "state_size": 8,
        "conv_kernel": 3,
        "chunk_size": 4,
        "tie_word_embeddings": True,
    },
    # Linear attention goes by blocks of four tokens; what a layer keeps and what it adds have factors.
    "minimax": {
        **_GROUPED,
        **_EXPERTS,
        "num_attention_heads": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "block_size": 4,
        "full_attn_alpha_factor": 3.5,
        "full_attn_beta_factor": 0.6,
        "linear_attn_alpha_factor": 2.5,
        "linear_attn_beta_factor": 0.5,
        "mlp_alpha_factor": 1.5,
        "mlp_beta_factor": 0.7,
    },
    # Latent attention turns no positions.
    "kimi_linear": {
        **_LATENT,
        **{name: size for name, size in _GROUPS.items() if name != "n_routed_experts"},
        "num_experts": 6,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_head_dim": 16,
        "linear_num_heads": 3,
        "linear_conv_kernel_dim": 3,
    },
    # The second layer and the fourth share an attention and an MLP, to which each adds.
    "zamba2": {
        "num_hidden_layers": 4,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "max_position_embeddings": 128,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 6,
        "mamba_ngroups": 2,
        "mamba_d_state": 8,
        "mamba_d_conv": 3,
        "chunk_size": 4,
        "adapter_rank": 5,
        "use_shared_attention_adapter": True,
        "use_mem_rope": True,
        "tie_word_embeddings": True,
    },
}
"""Configuration of each family, by transformers' ``model_type``."""

FAMILIES |= TEXT_PARTS

_BEGINS_WITH_BOS = {"llama", "gemma2", "mixtral"}  # as the tokenizers of the real models do

_SEEDS = {"qwen3_5_text": 4, "qwen3_next": 5, "zamba2": 6}
"""Where a recurrence of the parameters of seed 0 adds up more rounding of float32 than tests allow."""

_SENTENCES = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "When Mary and John went to the store, John gave a drink to Mary.",
    "A waiter brings what was asked for, and says what it costs.",
)


def make(
    family: str,
    directory: Path | str,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    **overrides: Any,
) -> Path:
    """Save a small random checkpoint of `family` in `directory`, and return the directory.

    Args:
        family: a key of :data:`FAMILIES` or :data:`MULTIMODAL`.
        directory: created where missing.
        seed: of all parameters; same seed, same numbers.
        dtype: of the saved parameters.
        overrides: fields of the family's configuration that replace those of the table.
    """
    made = MULTIMODAL[family] if family in MULTIMODAL else {**_COMMON, **FAMILIES[family]}
    config = AutoConfig.for_model(family, **{**made, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            seed
        )  # some vectors are drawn when they are made, and keep that as their mean
        model = auto_class(family).from_config(config, dtype=torch.float32)
    redraw(model, seed + _SEEDS.get(family, 0))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(directory)
    make_tokenizer(
        VOCABULARY if family in MULTIMODAL else config.vocab_size, family in _BEGINS_WITH_BOS
    ).save_pretrained(directory)
    return directory


def auto_class(family: str) -> Any:
    """The class of transformers that a checkpoint of the family is loaded by."""
    return AutoModelForImageTextToText if family in MULTIMODAL else AutoModelForCausalLM


make_gpt2 = functools.partial(make, "gpt2")
make_gpt_neox = functools.partial(make, "gpt_neox")
make_llama = functools.partial(make, "llama")
make_gemma2 = functools.partial(make, "gemma2")
make_mixtral = functools.partial(make, "mixtral")


@torch.no_grad()
def redraw(model: torch.nn.Module, seed: int = 0) -> None:
    """Redraw every parameter of `model` from a normal distribution, and the biases of its routers, in place.

    Vectors keep their initial value as the mean: gains stay around one (around zero where the
    family stores the gain minus one, as Gemma does) and biases around zero. So are the biases that routers choose
    experts with, which are no parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    biases = [(n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    for _, parameter in sorted([*model.named_parameters(), *biases]):
        noise = _SPREAD * torch.randn(parameter.shape, generator=generator)
        parameter.copy_(parameter + noise if parameter.dim() == 1 else noise)
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith(
            "layer_scalar"
        ):  # Gemma 4 learns it, and keeps it as none of its parameters
            buffer.copy_(buffer + _SPREAD * torch.randn(buffer.shape, generator=generator))


def make_tokenizer(
    vocabulary: int = VOCABULARY, begins_with_bos: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens that can encode any text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(SPECIAL)
    if vocabulary < smallest:
        raise ValueError(f"a byte-level vocabulary has at least {smallest} tokens: {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, VOCABULARY),
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    if begins_with_bos:
        bos = SPECIAL["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
    fast.chat_template = CHAT_TEMPLATE
    return fast
