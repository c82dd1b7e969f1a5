"""A checkpoint of Llama's shape as a GGUF file: written from the format's description, for the tests.

GGUF differs from a Hugging Face snapshot in names and, for Llama, in the order of the rows of the query
and key projections. The functions here know both, and nothing of the code that they test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file
from transformers import AutoTokenizer

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
    "lm_head": "output",
}


def gguf_name(name: str) -> str:
    """The name in a GGUF file of a Llama parameter."""
    for theirs, its in _NAMES.items():
        name = name.replace(theirs, its)
    return name


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as GGUF orders them: rotary pairs are neighbours, not half a head apart."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def heads_of(name: str, config: dict[str, int]) -> int:
    """How many heads the rows of parameter `name` are of, if it is a q or k; else 0."""
    if ".q_proj." in name:
        return config["num_attention_heads"]
    return config["num_key_value_heads"] if ".k_proj." in name else 0


def write_gguf(
    checkpoint: Path,
    file: Path,
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    architecture: str = "llama",
    without: str = "",
) -> None:
    """Write the model in `checkpoint`, unquantised, as one GGUF file.

    Args:
        checkpoint: of Llama's shape: Llama, Mistral, Qwen 2 or 3, Phi-3.
        more: adds keys and tensors of its own.
        architecture: as GGUF names it.
        without: parameters whose names contain this are left out.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    merges = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["merges"]
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_ids)
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if i in special else 1 for _, i in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    more(writer)
    for name, value in load_file(checkpoint / "model.safetensors").items():
        if without and without in name:
            continue
        heads = heads_of(name, config) if architecture == "llama" else 0
        writer.add_tensor(gguf_name(name), interleaved(value, heads) if heads else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
