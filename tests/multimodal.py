"""Configurations of small models that read images beside text: of the text part, and of eyes as small as can be.

The eyes never see anything in the tests. They are there as they are in a checkpoint, with weights of their own.
"""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {
    "vocab_size": 263,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
}
_WIDE = {**_TEXT, "head_dim": 16}  # H·d is not D

_EYES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_EYES = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 48,
}
_QWEN_PIECES = {"image_token_id": 261, "video_token_id": 262}


def _turned(*sections: int) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections)}


_LLAMA4 = {
    **_WIDE,
    "intermediate_size": 32,
    "intermediate_size_mlp": 80,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 5,
    "tie_word_embeddings": False,
}

_GEMMA4 = {
    **_WIDE,
    "global_head_dim": 24,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "attention_k_eq_v": True,
    "final_logit_softcapping": 20.0,
    "hidden_size_per_layer_input": 0,
    "tie_word_embeddings": True,
}

TEXT_PARTS: dict[str, dict[str, Any]] = {
    # Experts in every other layer; three layers see chunks of five tokens, so that no padding is alone in one,
    # and the last one turns no positions.
    "llama4_text": _LLAMA4,
    # The second layer cuts off half of what its gate puts out.
    "gemma3n_text": {
        **_WIDE,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 263,
        "altup_num_inputs": 3,
        "laurel_rank": 6,
        "activation_sparsity_pattern": [0.0, 0.5, 0.0, 0.0],
        "final_logit_softcapping": 20.0,
        "tie_word_embeddings": True,
    },
    # All at once that Gemma 4 has: the last two layers read the keys of the first two, of which one has no values.
    "gemma4_text": {
        **_GEMMA4,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 263,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 24,
    },
}
"""Text parts that exist as checkpoints of their own, by ``model_type``; those of other families are in their places."""

MULTIMODAL: dict[str, dict[str, Any]] = {
    # As many layers see images as read text, so that the ones are not taken for the others.
    "gemma3": {
        "text_config": {
            **_WIDE,
            "query_pre_attn_scalar": 20,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        "vision_config": {**_EYES, "num_hidden_layers": 4},
        "mm_tokens_per_image": 1,
        "image_token_id": 262,
        "tie_word_embeddings": True,
    },
    # As the 31B: nothing is shared, and tokens have one embedding.
    "gemma4": {
        "text_config": _GEMMA4,
        "vision_config": {**_EYES, "num_key_value_heads": 2, "head_dim": 16},
        "audio_config": None,
        "image_token_id": 262,
        "video_token_id": 261,
        "audio_token_id": 260,
        "tie_word_embeddings": True,
    },
    # Queries are scaled from the fourth token on.
    "mistral3": {
        "text_config": {
            **_WIDE,
            "model_type": "ministral3",
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "llama_4_scaling_beta": 0.7,
                "original_max_position_embeddings": 4,
            },
        },
        "vision_config": {**_EYES, "head_dim": 16},
        "image_token_id": 262,
        "tie_word_embeddings": False,
    },
    "llama4": {
        "text_config": _LLAMA4,
        "vision_config": {
            **_EYES,
            "intermediate_size": 128,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
            "vision_output_dim": 32,
        },
        "boi_token_index": 258,
        "eoi_token_index": 259,
        "image_token_index": 262,
    },
    "qwen2_vl": {
        "text_config": {**_TEXT, "rope_parameters": _turned(2, 2, 2)},
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 48, "num_heads": 2},
        **_QWEN_PIECES,
        "tie_word_embeddings": False,
    },
    "qwen2_5_vl": {
        "text_config": {**_TEXT, "rope_parameters": _turned(2, 2, 2)},
        "vision_config": _QWEN_EYES,
        **_QWEN_PIECES,
        "tie_word_embeddings": False,
    },
    "qwen3_vl": {
        "text_config": {**_WIDE, "rope_parameters": _turned(4, 2, 2)},
        "vision_config": {**_QWEN_EYES, "deepstack_visual_indexes": [0]},
        **_QWEN_PIECES,
        "tie_word_embeddings": True,
    },
    # One layer is dense.
    "qwen3_vl_moe": {
        "text_config": {
            **_WIDE,
            "rope_parameters": _turned(4, 2, 2),
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "mlp_only_layers": [2],
        },
        "vision_config": {**_QWEN_EYES, "deepstack_visual_indexes": [0]},
        **_QWEN_PIECES,
        "tie_word_embeddings": False,
    },
}
"""By the ``model_type`` of the checkpoint."""
