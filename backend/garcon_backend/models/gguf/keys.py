"""What a GGUF file says of its model, every key of it, as a configuration of transformers.

transformers builds a configuration from the keys that its own map knows, and drops all others without a
word; what they say then has the default of some class, and the converted model is another one. Here each
key is accounted for. It says what the configuration says as well, or is written into it; or it changes
nothing in any model; or it is a note of the tool that wrote the file. A key that is none of these refuses
the file, by its name. Tensors are accounted for likewise (:mod:`~garcon_backend.models.gguf.tensors`).

What a key means is what llama.cpp, which defines the format, does with it: also where it is absent.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from garcon_backend.libraries.transformers_internals import (
    GGUF_CONFIG_ARCHS,
    GGUF_CONFIG_MAPPING,
    GGUF_TOKENIZER_MAPPING,
    get_gguf_config,
    read_gguf_metadata,
)
from garcon_backend.models.gguf import rope
from garcon_jupyter.errors import NotAModel

SAYS: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_hidden_size"),
    "use_parallel_residual": ("use_parallel_residual",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.layer_norm_epsilon": (
        "layer_norm_epsilon",
        "layer_norm_eps",
        "norm_epsilon",
        "norm_eps",
    ),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
}
"""Names of a key, without its architecture, in configurations: all that one has are meant."""

NEUTRAL: dict[str, Any] = {
    "attention.causal": True,
    "attention.clamp_kqv": 0,
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "attention.max_alibi_bias": 0,
    "attention.sliding_window": 0,
    "attention.temperature_length": 0,
    "attn_logit_softcapping": 0,
    "embedding_scale": 1,
    "expert_count": 0,
    "expert_gating_func": 1,
    "expert_group_count": 1,
    "expert_group_used_count": 1,
    "expert_shared_count": 0,
    "expert_used_count": 0,
    "expert_weights_scale": 1,
    "feed_forward_length": 0,
    "final_logit_softcapping": 0,
    "leading_dense_block_count": 0,
    "logit_scale": 1,
    "nextn_predict_layers": 0,
    "pooling_type": 0,
    "residual_scale": 1,
    "router_logit_softcapping": 0,
    "ssm.dt_b_c_rms": False,
}
"""Values with which a key says nothing, whatever the architecture."""

NONE_AS_ZERO = ("attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
"""Keys whose zero says that there is none."""

NOTES = ("tensor_data_layout", "rope.scaling.finetuned")
"""Keys of an architecture that change nothing in how it computes."""

READ_ELSEWHERE = ("adapter", "clip", "diffusion", "xielu")
"""Namespaces, beside the architecture's, of which llama.cpp reads more than notes."""

TOKENIZER_NOTES = (
    "chat_templates",
    "ggml.cls_token_id",
    "ggml.eom_token_id",
    "ggml.eot_token_id",
    "ggml.mask_token_id",
    "ggml.middle_token_id",
    "ggml.prefix_token_id",
    "ggml.seperator_token_id",
    "ggml.suffix_token_id",
    "ggml.token_type_count",
    "huggingface.json",
)
"""Keys of a tokenizer that name tokens for uses of their own; how a text is cut is not in them."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, its tensors unread.

    Attributes:
        keys: what it says, by whole name; of an array of texts only the length.
        tensors: names of its tensors.
        read: keys that transformers' own builder has read, for the architectures that it has one for.
    """

    path: Path
    keys: dict[str, Any]
    tensors: tuple[str, ...]
    read: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, path: Path) -> GgufFile:
        """Read the head of a file.

        Raises:
            NotAModel: it has none.
        """
        try:
            keys, tensors = read_gguf_metadata(str(path))
        except Exception as error:
            raise NotAModel(
                f"{path} cannot be read as GGUF: {_first_line(error)}",
                "Copy the file again, whole.",
            ) from error
        return cls(path, keys, tensors)

    @property
    def architecture(self) -> str:
        """What the file calls its architecture, such as "llama"."""
        return str(self.keys["general.architecture"])

    @property
    def own(self) -> dict[str, Any]:
        """What is said of the model: by name without its architecture."""
        prefix = f"{self.architecture}."
        return {
            name.removeprefix(prefix): _single(value)
            for name, value in self.keys.items()
            if name.startswith(prefix)
        }


def configuration(file: GgufFile) -> PretrainedConfig:
    """The configuration of the model in a file.

    Raises:
        NotAModel: transformers does not know its architecture, or a key says what no configuration of it
            can; names the key.
    """
    _refuse_other_kinds(file)
    config = _as_transformers_reads(file)
    own = file.own
    left = [name for name, value in own.items() if not _accounted(file, config, name, value)]
    left += _unknown_of_tokenizer(file)
    if left:
        names = [
            name if "." in name and name in file.keys else f"{file.architecture}.{name}"
            for name in left
        ]
        raise refusal(file, f"says {names[0]} = {file.keys[names[0]]!r}", names)
    _as_llama_cpp_assumes(config, own)
    rope.carry(config, own, rope.factors_in(file.path))
    _allow_biases(config, file.tensors)
    _check_windows(file, config, own)
    return config


def refusal(file: GgufFile, says: str, names: Collection[str]) -> NotAModel:
    """The error for a file of which something would be lost."""
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return NotAModel(
        f"{file.path.name} {says}{more}, which transformers' {file.architecture} has no place for: "
        "converted without it, it would be another model.",
        "Convert from the original checkpoint instead (a directory with config.json and safetensors).",
    )


# -- kinds of files ------------------------------------------------------------------------------


def _refuse_other_kinds(file: GgufFile) -> None:
    kind = file.keys.get("general.type", "model")
    if kind != "model":
        raise NotAModel(f"{file.path.name} is a GGUF of the kind {kind!r}, not a whole model.")
    if file.keys.get("split.count", 0) > 1:
        raise NotAModel(
            f"{file.path.name} is one of {file.keys['split.count']} parts of a model.",
            "Join them with llama.cpp's gguf-split --merge, and convert that.",
        )
    for name in file.keys:
        if name.partition(".")[0] in READ_ELSEWHERE:
            raise refusal(file, f"says {name} = {file.keys[name]!r}", [name])


def _as_transformers_reads(file: GgufFile) -> PretrainedConfig:
    """The configuration by transformers' own map."""
    try:
        if file.architecture in GGUF_CONFIG_ARCHS:
            get_gguf_config(_Noting(file.keys, file.read), file.tensors)
        config: PretrainedConfig = AutoConfig.from_pretrained(
            file.path.parent, gguf_file=file.path.name, local_files_only=True
        )
        return config
    except Exception as error:
        raise NotAModel(
            f"{file.path.name} is a GGUF of {file.architecture!r}, of which transformers makes no "
            f"configuration: {_first_line(error)}",
            "Convert from the original checkpoint instead (a directory with config.json and safetensors).",
        ) from error


class _Noting(dict[str, Any]):
    """A dictionary that notes which of its keys are read."""

    def __init__(self, content: dict[str, Any], read: set[str]) -> None:
        super().__init__(content)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return super().get(name, default)


# -- keys ----------------------------------------------------------------------------------------


def _accounted(file: GgufFile, config: PretrainedConfig, name: str, value: Any) -> bool:
    """Whether the configuration says what a key of the architecture says, if need be from now on."""
    if name in NOTES or name in rope.KEYS or f"{file.architecture}.{name}" in file.read:
        return True
    if name in NEUTRAL and same(value, NEUTRAL[name]):
        for attribute in SAYS[name] if name in NONE_AS_ZERO else ():
            if _has(config, attribute):  # whose class may have another default
                setattr(config, attribute, None)
        return True
    if name == "attention.sliding_window_pattern":
        return _carry_pattern(config, value)
    having = [attribute for attribute in SAYS.get(name, ()) if _has(config, attribute)]
    for attribute in having:
        if not same(getattr(config, attribute), value):
            setattr(config, attribute, value)
    if having:
        return all(same(getattr(config, attribute), value) for attribute in having)
    mapped: Any = GGUF_CONFIG_MAPPING.get(_mapped_as(file.architecture), {})
    if mapped.get(name):
        return True  # transformers has written it, under a name of its own
    if name == "context_length":
        return True  # of an architecture that reads texts of any length
    return same(_implied(config, name), value)


def _has(config: PretrainedConfig, attribute: str) -> bool:
    try:
        return hasattr(config, attribute)
    except Exception:  # noqa: BLE001 - Gemma 4's have one for each kind of layer, and refuse to say which
        return False


def _mapped_as(architecture: str) -> str:
    """The name of an architecture in transformers' map."""
    return {
        "qwen2moe": "qwen2_moe",
        "qwen3moe": "qwen3_moe",
        "gpt-oss": "gpt_oss",
        "minimax-m2": "minimax_m2",
    }.get(architecture, architecture)


def _implied(config: PretrainedConfig, name: str) -> Any:
    """What a configuration without an attribute of its own implies."""
    heads, width = (getattr(config, n, None) for n in ("num_attention_heads", "hidden_size"))
    if name == "attention.head_count_kv":
        return heads
    if name == "feed_forward_length" and width:
        return 4 * width
    if name in ("attention.key_length", "attention.value_length") and heads and width:
        return width // heads
    return None


def _carry_pattern(config: PretrainedConfig, value: Any) -> bool:
    """Which layers have a sliding window: one flag for each, or the number of the first without."""
    if not hasattr(config, "layer_types"):
        return False
    count = config.num_hidden_layers
    slides = value if isinstance(value, list) else [(i + 1) % value != 0 for i in range(count)]
    config.layer_types = ["sliding_attention" if s else "full_attention" for s in slides]
    return bool(len(slides) == count)


def _check_windows(file: GgufFile, config: PretrainedConfig, own: dict[str, Any]) -> None:
    """A window that no layer of the configuration uses is lost, too."""
    types = getattr(config, "layer_types", None)
    window = own.get("attention.sliding_window", 0)
    if window and types is not None and "sliding_attention" not in types:
        name = f"{file.architecture}.attention.sliding_window"
        raise refusal(file, f"says {name} = {window}", [name])


def _as_llama_cpp_assumes(config: PretrainedConfig, own: dict[str, Any]) -> None:
    """What llama.cpp takes for granted where a file says nothing, and transformers' class otherwise."""
    kind = config.model_type
    if kind == "mistral" and "attention.sliding_window" not in own:
        config.sliding_window = None
    width = _implied(config, "attention.key_length")
    if "attention.key_length" not in own and kind in ("llama", "mistral", "qwen3", "qwen3_moe"):
        config.head_dim = width
    if kind in ("gemma2", "gemma3_text"):
        of_27b = config.num_hidden_layers == {"gemma2": 46, "gemma3_text": 62}[kind]
        config.query_pre_attn_scalar = width if of_27b else config.head_dim


def _allow_biases(config: PretrainedConfig, tensors: Collection[str]) -> None:
    """Biases that are in the file, where a configuration says whether there are any."""
    parts = {
        name.split(".")[2] for name in tensors if name.startswith("blk.") and name.endswith(".bias")
    }
    for flag, prefix in (("attention_bias", "attn_"), ("mlp_bias", "ffn_")):
        if hasattr(config, flag) and any(p.startswith(prefix) and "norm" not in p for p in parts):
            setattr(config, flag, True)


def _unknown_of_tokenizer(file: GgufFile) -> list[str]:
    """Keys of the tokenizer that nobody knows, or that would cut texts otherwise."""
    known = {key for renames in GGUF_TOKENIZER_MAPPING.values() for key in renames}
    known |= {"ggml.add_bos_token", "ggml.add_eos_token"}  # told in another way where they are not
    left = []
    for whole, value in file.keys.items():
        space, _, name = whole.partition(".")
        if space != "tokenizer" or name in known or name in TOKENIZER_NOTES:
            continue
        if name.startswith(("chat_template.", "ggml.fim_")):
            continue
        if value is not False:  # such as add_sep_token and remove_extra_whitespaces
            left.append(whole)
    return left


# -- values --------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    """Whether two values are one, as exactly as a file keeps numbers."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _single(value: Any) -> Any:
    """A value that is said of each layer, and the same for all, as one."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
