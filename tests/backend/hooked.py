"""What plain hooks on the modules of an untouched model see of the points of the table, by family."""

from __future__ import annotations

_LLAMA = [
    ("embed.out", "model.embed_tokens", "output"),
    ("layers.{i}.resid_post", "model.layers.{i}", "output"),
    ("layers.{i}.attn.norm.out", "model.layers.{i}.input_layernorm", "output"),
    ("layers.{i}.attn.q", "model.layers.{i}.self_attn.q_proj", "output"),
    ("layers.{i}.attn.k", "model.layers.{i}.self_attn.k_proj", "output"),
    ("layers.{i}.attn.v", "model.layers.{i}.self_attn.v_proj", "output"),
    ("layers.{i}.attn.z", "model.layers.{i}.self_attn.o_proj", "input"),
    ("layers.{i}.attn.out", "model.layers.{i}.self_attn.o_proj", "output"),
    ("layers.{i}.mlp.out", "model.layers.{i}.mlp", "output"),
    ("final_norm.out", "model.norm", "output"),
]
_SECOND_NORM = [
    ("layers.{i}.resid_mid", "model.layers.{i}.post_attention_layernorm", "input"),
    ("layers.{i}.mlp.norm.out", "model.layers.{i}.post_attention_layernorm", "output"),
]
_NEURONS = [("layers.{i}.mlp.post_activation", "model.layers.{i}.mlp.down_proj", "input")]

_SANDWICH = [
    *_LLAMA,
    *_NEURONS,
    ("layers.{i}.attn.contribution", "model.layers.{i}.post_attention_layernorm", "output"),
    ("layers.{i}.resid_mid", "model.layers.{i}.pre_feedforward_layernorm", "input"),
    ("layers.{i}.mlp.contribution", "model.layers.{i}.post_feedforward_layernorm", "output"),
]

_OLMO = [
    *(row for row in _LLAMA if "norm.out" not in row[0]),
    *_NEURONS,
    ("layers.{i}.resid_mid", "model.layers.{i}.mlp", "input"),
    ("layers.{i}.attn.contribution", "model.layers.{i}.post_attention_layernorm", "output"),
    ("layers.{i}.mlp.contribution", "model.layers.{i}.post_feedforward_layernorm", "output"),
]
_OLMO_NORMED = [
    ("layers.{i}.attn.q_normed", "model.layers.{i}.self_attn.q_norm", "output"),
    ("layers.{i}.attn.k_normed", "model.layers.{i}.self_attn.k_norm", "output"),
]
_AS_LLAMA = (
    *("smollm3", "seed_oss", "helium", "ernie4_5", "ministral", "ministral3"),
    *("glm", "granite", "stablelm", "hunyuan_v1_dense"),
)

_SHARED = [
    (
        "layers.{i}.mlp.shared.post_activation",
        "model.layers.{i}.mlp.shared_experts.down_proj",
        "input",
    ),
    ("layers.{i}.mlp.shared.out", "model.layers.{i}.mlp.shared_experts", "output"),
]
_LATENT = [
    *(row for row in _LLAMA if row[0][-6:] not in ("attn.q", "attn.k", "attn.v")),
    ("layers.{i}.attn.q_latent", "model.layers.{i}.self_attn.q_a_layernorm", "output"),
    ("layers.{i}.attn.kv_latent", "model.layers.{i}.self_attn.kv_a_layernorm", "output"),
    ("layers.{i}.attn.q", "model.layers.{i}.self_attn.q_b_proj", "output"),
]


def _gpt(embedding: str, attn: str, out: str, down: str, norm: str) -> list[tuple[str, str, str]]:
    """What GPT-J, GPT-Neo and BLOOM have, by what they call it."""
    block = "transformer.h.{i}"
    return [
        ("embed.out", f"transformer.{embedding}", "output"),
        ("layers.{i}.resid_post", block, "output"),
        ("layers.{i}.attn.norm.out", f"{block}.{norm}", "output"),
        ("layers.{i}.attn.z", f"{block}.{attn}.{out}", "input"),
        ("layers.{i}.attn.out", f"{block}.{attn}.{out}", "output"),
        ("layers.{i}.mlp.post_activation", f"{block}.mlp.{down}", "input"),
        ("layers.{i}.mlp.out", f"{block}.mlp.{down}", "output"),
        ("final_norm.out", "transformer.ln_f", "output"),
    ]


def _hybrid(mixer: str, out: str = "out_proj", norm: str = "norm") -> list[tuple[str, str, str]]:
    """What hybrids have: a row of a module that a layer lacks says nothing of that layer."""
    at = "model.layers.{i}"
    return [
        ("embed.out", "model.embed_tokens", "output"),
        ("layers.{i}.resid_post", at, "output"),
        ("layers.{i}.attn.q_normed", f"{at}.self_attn.q_norm", "output"),
        ("layers.{i}.attn.k", f"{at}.self_attn.k_proj", "output"),
        ("layers.{i}.attn.out", f"{at}.self_attn.o_proj", "output"),
        ("layers.{i}.mixer.gated", f"{at}.{mixer}.{out}", "input"),
        ("layers.{i}.mixer.state_out", f"{at}.{mixer}.{norm}", "input"),
        ("layers.{i}.mixer.contribution", f"{at}.{mixer}", "output"),
        ("layers.{i}.mlp.out", f"{at}.mlp", "output"),
        ("final_norm.out", "model.norm", "output"),
    ]


def _of_other_names(
    rows: list[tuple[str, str, str]], mlp: str, norm: str
) -> list[tuple[str, str, str]]:
    """The same of a model that calls its MLP and its final norm otherwise, and has no norm inside mixers."""
    named = [
        (n, p.replace(".mlp", f".{mlp}").replace("model.norm", f"model.{norm}"), s)
        for n, p, s in rows
    ]
    left = ("attn.q_normed", "attn.out", "state_out")
    return [row for row in named if not row[0].endswith(left)]


_STATE_SPACES = [
    *_of_other_names(_hybrid("mamba"), "feed_forward", "final_layernorm"),
    ("layers.{i}.mixer.state_out", "model.layers.{i}.mamba.norm", "input"),
    ("layers.{i}.attn.z", "model.layers.{i}.self_attn.o_proj", "input"),
    ("layers.{i}.resid_mid", "model.layers.{i}.pre_ff_layernorm", "input"),
]


def _inside(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The same of a model that is the text part of a multimodal one."""
    return [(point, f"model.language_{path}", side) for point, path, side in rows]


_GEMMA4 = [row for row in _SANDWICH if row[0] not in ("layers.{i}.attn.k", "layers.{i}.attn.v")]
_LLAMA4 = [
    *(row for row in _LLAMA if row[0] != "layers.{i}.mlp.out"),
    *_SECOND_NORM,
    ("layers.{i}.mlp.in", "model.layers.{i}.feed_forward", "input"),
]

HOOKED: dict[str, list[tuple[str, str, str]]] = {
    "gpt2": [
        ("embed.out", "transformer.wte", "output"),
        ("pos_embed.out", "transformer.wpe", "output"),
        ("layers.{i}.resid_post", "transformer.h.{i}", "output"),
        ("layers.{i}.resid_mid", "transformer.h.{i}.ln_2", "input"),
        ("layers.{i}.attn.z", "transformer.h.{i}.attn.c_proj", "input"),
        ("layers.{i}.attn.out", "transformer.h.{i}.attn.c_proj", "output"),
        ("layers.{i}.mlp.post_activation", "transformer.h.{i}.mlp.c_proj", "input"),
        ("layers.{i}.mlp.out", "transformer.h.{i}.mlp", "output"),
        ("final_norm.out", "transformer.ln_f", "output"),
    ],
    "gpt_neox": [
        ("embed.out", "gpt_neox.embed_in", "output"),
        ("layers.{i}.resid_post", "gpt_neox.layers.{i}", "output"),
        ("layers.{i}.attn.z", "gpt_neox.layers.{i}.attention.dense", "input"),
        ("layers.{i}.attn.out", "gpt_neox.layers.{i}.attention.dense", "output"),
        ("layers.{i}.mlp.post_activation", "gpt_neox.layers.{i}.mlp.dense_4h_to_h", "input"),
        ("layers.{i}.mlp.out", "gpt_neox.layers.{i}.mlp", "output"),
        ("final_norm.out", "gpt_neox.final_layer_norm", "output"),
    ],
    **{key: [*_LLAMA, *_SECOND_NORM, *_NEURONS] for key in ("llama", "mistral", "qwen2", "qwen3")},
    "qwen3_moe": [*_LLAMA, *_SECOND_NORM],
    "phi3": [
        *(row for row in _LLAMA if row[0][-6:] not in ("attn.q", "attn.k", "attn.v")),
        *_SECOND_NORM,
        *_NEURONS,
    ],
    "mixtral": [*_LLAMA, *_SECOND_NORM],
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gemma3": _inside(_SANDWICH),
    "qwen3_vl_moe": _inside([*_LLAMA, *_SECOND_NORM]),
    "gemma4_text": _GEMMA4,
    "gemma3n_text": [row for row in _GEMMA4 if row[0] != "layers.{i}.resid_post"],
    "gemma4": _inside(_GEMMA4),
    "llama4_text": _LLAMA4,
    "llama4": [(point, f"language_model.{path}", side) for point, path, side in _LLAMA4],
    **{
        key: _inside([*_LLAMA, *_SECOND_NORM, *_NEURONS])
        for key in ("mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    },
    **{key: [*_LLAMA, *_SECOND_NORM, *_NEURONS] for key in _AS_LLAMA},
    **{key: [*_LLAMA, *_SECOND_NORM] for key in ("arcee", "nemotron", "starcoder2", "olmoe")},
    "gpt_oss": [*_LLAMA, *_SECOND_NORM],
    "olmo": [
        *(row for row in _LLAMA if row[0][-6:] not in ("attn.q", "attn.k", "attn.v")),
        *_SECOND_NORM,
        *_NEURONS,
    ],
    "flex_olmo": [*(row for row in _OLMO if row not in _NEURONS), *_OLMO_NORMED],
    "vaultgemma": [
        *_LLAMA,
        *_NEURONS,
        ("layers.{i}.resid_mid", "model.layers.{i}.pre_feedforward_layernorm", "input"),
        ("layers.{i}.mlp.norm.out", "model.layers.{i}.pre_feedforward_layernorm", "output"),
    ],
    "nanochat": [*_LLAMA, *_SECOND_NORM],
    "persimmon": [
        *(row for row in _LLAMA if "_proj" not in row[1] and row[1] != "model.norm"),
        *_SECOND_NORM,
        ("layers.{i}.attn.z", "model.layers.{i}.self_attn.dense", "input"),
        ("layers.{i}.attn.q_normed", "model.layers.{i}.self_attn.q_layernorm", "output"),
        ("final_norm.out", "model.final_layernorm", "output"),
    ],
    "jais2": [*_LLAMA, *_SECOND_NORM],
    "internlm3": [*_LLAMA, *_SECOND_NORM, *_NEURONS],
    "bitnet": [
        *(row for row in _LLAMA if row[0] != "layers.{i}.attn.z"),
        *_SECOND_NORM,
        ("layers.{i}.attn.z", "model.layers.{i}.self_attn.attn_sub_norm", "input"),
        ("layers.{i}.attn.z_normed", "model.layers.{i}.self_attn.o_proj", "input"),
        ("layers.{i}.mlp.post_activation_normed", "model.layers.{i}.mlp.down_proj", "input"),
    ],
    "falcon": [
        row
        for row in _gpt("word_embeddings", "self_attention", "dense", "dense_4h_to_h", "")
        if row[0] != "layers.{i}.attn.norm.out"  # which has another name in each shape
    ],
    "codegen": _gpt("wte", "attn", "out_proj", "fc_out", "ln_1"),
    "mpt": [
        (
            name,
            path.replace(".h.", ".blocks.").replace(".mlp.", ".ffn.").replace("ln_f", "norm_f"),
            s,
        )
        for name, path, s in _gpt("wte", "attn", "out_proj", "down_proj", "norm_1")
    ],
    "gpt_bigcode": [
        *_gpt("wte", "attn", "c_proj", "c_proj", "ln_1"),
        ("pos_embed.out", "transformer.wpe", "output"),
        ("layers.{i}.resid_mid", "transformer.h.{i}.ln_2", "input"),
    ],
    "granitemoe": [
        *(row for row in _LLAMA if row[0] != "layers.{i}.mlp.out"),
        *_SECOND_NORM,
        ("layers.{i}.mlp.out", "model.layers.{i}.block_sparse_moe", "output"),
    ],
    **{key: [*_LLAMA, *_SECOND_NORM] for key in ("phimoe", "minimax_m2")},
    "qwen2_moe": [
        *_LLAMA,
        *_SECOND_NORM,
        (
            "layers.{i}.mlp.shared.post_activation",
            "model.layers.{i}.mlp.shared_expert.down_proj",
            "input",
        ),
    ],
    **{
        key: [*_LATENT, *_SECOND_NORM, *_SHARED]
        for key in ("deepseek_v3", "deepseek_v2", "glm4_moe_lite", "deepseek_v32", "glm_moe_dsa")
    },
    "minicpm3": [*_LATENT, *_SECOND_NORM, *_NEURONS],
    **{key: [*_LLAMA, *_SECOND_NORM, *_SHARED] for key in ("glm4_moe", "dots1", "ernie4_5_moe")},
    "hunyuan_v1_moe": [
        *_LLAMA,
        *_SECOND_NORM,
        ("layers.{i}.mlp.shared.out", "model.layers.{i}.mlp.shared_mlp", "output"),
    ],
    **{
        key: [
            *_hybrid("linear_attn"),
            *_SECOND_NORM,
            ("layers.{i}.mlp.shared.gate", "model.layers.{i}.mlp.shared_expert_gate", "output"),
        ]
        for key in ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
    },
    "olmo_hybrid": _hybrid("linear_attn", "o_proj", "o_norm"),
    "bamba": _STATE_SPACES,
    "granitemoehybrid": [
        *(
            row
            for row in _STATE_SPACES
            if not row[0].endswith(("mid", "mlp.out", "final_norm.out", "bution"))
        ),
        ("layers.{i}.mixer.out", "model.layers.{i}.mamba", "output"),
        ("layers.{i}.resid_mid", "model.layers.{i}.post_attention_layernorm", "input"),
        ("layers.{i}.mlp.shared.out", "model.layers.{i}.shared_mlp", "output"),
        ("final_norm.out", "model.norm", "output"),
    ],
    "falcon_h1": [
        *(row for row in _STATE_SPACES if not row[0].endswith(("state_out", "bution", "mlp.out"))),
        ("layers.{i}.mixer.out", "model.layers.{i}.mamba", "output"),
        ("layers.{i}.mlp.contribution", "model.layers.{i}.feed_forward", "output"),
    ],
    "nemotron_h": [
        ("embed.out", "model.embeddings", "output"),
        ("layers.{i}.resid_post", "model.layers.{i}", "output"),
        *(
            (f"layers.{{i}}.{half}.contribution", "model.layers.{i}.mixer", "output")
            for half in ("attn", "mixer", "mlp")
        ),
        *(
            (f"layers.{{i}}.{half}.norm.out", "model.layers.{i}.norm", "output")
            for half in ("attn", "mixer", "mlp")
        ),
        ("layers.{i}.mixer.state_out", "model.layers.{i}.mixer.norm", "input"),
        ("layers.{i}.mixer.gated", "model.layers.{i}.mixer.out_proj", "input"),
        ("layers.{i}.attn.z", "model.layers.{i}.mixer.o_proj", "input"),
        ("layers.{i}.attn.q", "model.layers.{i}.mixer.q_proj", "output"),
        ("layers.{i}.mlp.shared.out", "model.layers.{i}.mixer.shared_experts", "output"),
        ("final_norm.out", "model.norm_f", "output"),
    ],
    "jamba": [row for row in _STATE_SPACES if "state_out" not in row[0]],
    **{
        key: [
            *_of_other_names(_hybrid("conv"), "feed_forward", "embedding_norm"),
            ("layers.{i}.attn.q_normed", "model.layers.{i}.self_attn.q_layernorm", "output"),
            ("layers.{i}.attn.z", "model.layers.{i}.self_attn.out_proj", "input"),
            ("layers.{i}.resid_mid", "model.layers.{i}.ffn_norm", "input"),
        ]
        for key in ("lfm2", "lfm2_moe")
    },
    **{
        key: [
            ("embed.out", "backbone.embeddings", "output"),
            ("layers.{i}.resid_post", "backbone.layers.{i}", "output"),
            ("layers.{i}.mixer.norm.out", "backbone.layers.{i}.norm", "output"),
            ("layers.{i}.mixer.gated", "backbone.layers.{i}.mixer.out_proj", "input"),
            ("layers.{i}.mixer.contribution", "backbone.layers.{i}.mixer", "output"),
            ("final_norm.out", "backbone.norm_f", "output"),
        ]
        for key in ("mamba", "mamba2")
    },
    "kimi_linear": [
        *(row for row in _LATENT if row[0].split(".")[-1] not in ("z", "out")),
        *_SECOND_NORM,
        *_SHARED,
        ("layers.{i}.mixer.norm.out", "model.layers.{i}.input_layernorm", "output"),
        ("layers.{i}.attn.norm.out", "model.layers.{i}.input_layernorm", "output"),
        ("layers.{i}.attn.contribution", "model.layers.{i}.self_attn", "output"),
        ("layers.{i}.mixer.contribution", "model.layers.{i}.self_attn", "output"),
        ("layers.{i}.attn.z", "model.layers.{i}.self_attn.o_proj", "input"),
        ("layers.{i}.mixer.gated", "model.layers.{i}.self_attn.o_proj", "input"),
        ("layers.{i}.mixer.state_out", "model.layers.{i}.self_attn.o_norm", "input"),
        ("layers.{i}.mixer.channel_decay", "model.layers.{i}.self_attn.forget_gate", "output"),
    ],
    "zamba2": [
        ("embed.out", "model.embed_tokens", "output"),
        ("layers.{i}.resid_post", "model.layers.{i}", "output"),
        ("layers.{i}.attn.joint", "model.layers.{i}.shared_transformer.input_layernorm", "output"),
        ("layers.{i}.attn.z", "model.layers.{i}.shared_transformer.self_attn.o_proj", "input"),
        ("layers.{i}.attn.out", "model.layers.{i}.shared_transformer.pre_ff_layernorm", "input"),
        ("layers.{i}.mlp.in", "model.layers.{i}.shared_transformer.pre_ff_layernorm", "output"),
        ("layers.{i}.mlp.out", "model.layers.{i}.shared_transformer", "output"),
        (
            "layers.{i}.mlp.post_activation",
            "model.layers.{i}.shared_transformer.feed_forward.down_proj",
            "input",
        ),
        ("layers.{i}.mixer.aside", "model.layers.{i}.linear", "output"),
        ("final_norm.out", "model.final_layernorm", "output"),
        ("layers.1.mixer.norm.out", "model.layers.1.mamba_decoder.input_layernorm", "output"),
        ("layers.1.mixer.state_out", "model.layers.1.mamba_decoder.mamba.norm", "input"),
        ("layers.1.mixer.contribution", "model.layers.1.mamba_decoder.mamba", "output"),
        ("layers.0.mixer.norm.out", "model.layers.0.input_layernorm", "output"),
        ("layers.0.mixer.gated", "model.layers.0.mamba.out_proj", "input"),
        ("layers.2.mixer.contribution", "model.layers.2.mamba", "output"),
    ],
    "minimax": [
        *(row for row in _LLAMA if row[0] != "layers.{i}.attn.norm.out"),
        *_SECOND_NORM,
        ("layers.{i}.attn.norm.out", "model.layers.{i}.input_layernorm", "output"),
        ("layers.{i}.mixer.norm.out", "model.layers.{i}.input_layernorm", "output"),
        ("layers.{i}.mixer.state_out", "model.layers.{i}.self_attn.norm", "input"),
        ("layers.{i}.mixer.gate", "model.layers.{i}.self_attn.output_gate", "output"),
        ("layers.{i}.mixer.gated", "model.layers.{i}.self_attn.out_proj", "input"),
        ("layers.{i}.mixer.out", "model.layers.{i}.self_attn", "output"),
    ],
    **{key: [*_LLAMA, *_NEURONS] for key in ("cohere", "cohere2")},
    **{key: [*_OLMO, *_OLMO_NORMED] for key in ("olmo2", "olmo3")},
    "exaone4": _OLMO,
    "glm4": [
        *_LLAMA,
        *_SECOND_NORM,
        *_NEURONS,
        ("layers.{i}.attn.contribution", "model.layers.{i}.post_self_attn_layernorm", "output"),
        ("layers.{i}.mlp.contribution", "model.layers.{i}.post_mlp_layernorm", "output"),
    ],
    "apertus": [
        *(row for row in _LLAMA if row[0] != "layers.{i}.attn.norm.out"),
        ("layers.{i}.attn.norm.out", "model.layers.{i}.attention_layernorm", "output"),
        ("layers.{i}.resid_mid", "model.layers.{i}.feedforward_layernorm", "input"),
        ("layers.{i}.mlp.norm.out", "model.layers.{i}.feedforward_layernorm", "output"),
    ],
    "phi": [
        *(row for row in _LLAMA if "o_proj" not in row[1] and row[1] != "model.norm"),
        ("final_norm.out", "model.final_layernorm", "output"),
        ("layers.{i}.attn.z", "model.layers.{i}.self_attn.dense", "input"),
        ("layers.{i}.mlp.post_activation", "model.layers.{i}.mlp.fc2", "input"),
    ],
    "gptj": [*_gpt("wte", "attn", "out_proj", "fc_out", "ln_1")],
    "gpt_neo": [
        *_gpt("wte", "attn.attention", "out_proj", "c_proj", "ln_1"),
        ("pos_embed.out", "transformer.wpe", "output"),
        ("layers.{i}.resid_mid", "transformer.h.{i}.ln_2", "input"),
    ],
    "bloom": [
        *_gpt("word_embeddings", "self_attention", "dense", "dense_4h_to_h", "input_layernorm"),
        ("layers.{i}.resid_mid", "transformer.h.{i}.self_attention", "output"),
    ],
    "opt": [
        ("embed.out", "model.decoder.embed_tokens", "output"),
        ("pos_embed.out", "model.decoder.embed_positions", "output"),
        ("layers.{i}.resid_post", "model.decoder.layers.{i}", "output"),
        ("layers.{i}.attn.norm.out", "model.decoder.layers.{i}.self_attn_layer_norm", "output"),
        ("layers.{i}.attn.z", "model.decoder.layers.{i}.self_attn.out_proj", "input"),
        ("layers.{i}.resid_mid", "model.decoder.layers.{i}.final_layer_norm", "input"),
        ("layers.{i}.mlp.post_activation", "model.decoder.layers.{i}.fc2", "input"),
        ("layers.{i}.mlp.out", "model.decoder.layers.{i}.fc2", "output"),
        ("final_norm.out", "model.decoder.final_layer_norm", "output"),
    ],
}
"""Points that are a module's whole input or output: (point, module, side); of layers that have it."""
