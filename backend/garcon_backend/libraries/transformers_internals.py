"""What Garçon takes of transformers beyond what it exports and documents: the one file to look at for a new release.

Importing this file looks for all of it (:data:`INTERNALS`) and raises a
:class:`~garcon_jupyter.errors.LibraryChanged` where something is missing, so that a release that moved it is refused
when a server starts and not in the middle of a pass. What has another name in some of the releases that are tested has
one name here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import GenerationMixin

from garcon_jupyter.libraries.internals import Internal, check

_MODEL = "transformers.modeling_utils"
_GGUF = "transformers.integrations.gguf"

INTERNALS = (
    # Attention.
    Internal(
        "transformers.masking_utils",
        "sdpa_mask",
        "makes the mask that its attention function is given",
        ("batch_size", "q_length", "kv_length", "mask_function", "attention_mask"),
    ),
    Internal(_MODEL, "ALL_ATTENTION_FUNCTIONS", "finds torch's kernel for attention"),
    Internal(
        _MODEL,
        "PreTrainedModel._can_set_attn_implementation",
        "tells whether attention of a class can be handed over",
        history="since 5.24 GPT-J's can",
    ),
    Internal(
        "transformers.configuration_utils",
        "PreTrainedConfig._attn_implementation",
        "tells by whose function a model attends",
    ),
    # Cutting a model while it is loaded. These are replaced: a new name would leave the model whole.
    Internal(
        _MODEL,
        "PreTrainedModel.prepare_distribute_model",
        "hands its own mesh to the loader",
        ("distributed_config", "device_map"),
    ),
    Internal(
        _MODEL,
        "PreTrainedModel.maybe_distribute_model",
        "cuts a model between building it and reading its weights",
        ("model",),
    ),
    Internal(_MODEL, "PreTrainedModel.tp_plan", "reads how modules are to be cut"),
    Internal(
        _MODEL,
        "PreTrainedModel._keys_to_ignore_on_load_unexpected",
        "reads a part of a checkpoint without complaint",
    ),
    Internal("transformers.distributed", "DistributedConfig", "asks for a model that is cut"),
    # Loading.
    *(
        Internal(
            _MODEL, f"PreTrainedModel.{name}", "tells which weights an architecture keeps wide"
        )
        for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    ),
    Internal(
        "transformers.dynamic_module_utils",
        "get_class_from_dynamic_module",
        "builds a model by the code that its checkpoint brings",
        ("class_reference", "pretrained_model_name_or_path", "local_files_only"),
    ),
    # Generating.
    Internal(
        "transformers",
        "GenerationMixin._prepare_generation_config",
        "finds what options and settings come to",
        ("generation_config",),
    ),
    Internal(
        "transformers.cache_utils",
        "DynamicCache.update",
        "lets keys be seen before they are kept",
        ("key_states", "value_states", "layer_idx"),
    ),
    Internal(_MODEL, "PreTrainedModel._is_stateful", "tells whether a model keeps a state"),
    # GGUF files.
    Internal("transformers.integrations", "GGUF_CONFIG_MAPPING", "accounts for keys of a file"),
    Internal(_GGUF, "GGUF_ARCHS", "tells whose reader a file has"),
    Internal(_GGUF, "GGUF_CONFIG_ARCHS", "tells whose reader a file has"),
    Internal(
        _GGUF,
        "GGUF_TOKENIZER_MAPPING",
        "accounts for keys of a file's tokenizer",
        history="since 5.23 it has the flags of tokens that begin and end texts",
    ),
    Internal(_GGUF, "get_gguf_config", "notes which keys of a file are read"),
    Internal(_GGUF, "read_gguf_metadata", "reads the head of a file"),
    Internal(
        f"{_GGUF}.gguf_tokenizer_mapping",
        "GGUF_PRE_TOKENIZER_SPLITS",
        "tells how a file's tokenizer cuts texts",
    ),
    *(
        Internal("transformers.modeling_gguf_pytorch_utils", name, "accounts for tensors of a file")
        for name in ("TENSOR_PROCESSORS", "TensorProcessor", "get_gguf_hf_weights_map")
    ),
)

check("transformers", INTERNALS)

from transformers.distributed import DistributedConfig  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402
from transformers.integrations import GGUF_CONFIG_MAPPING  # noqa: E402
from transformers.integrations.gguf import (  # noqa: E402
    GGUF_ARCHS,
    GGUF_CONFIG_ARCHS,
    GGUF_TOKENIZER_MAPPING,
    get_gguf_config,
    read_gguf_metadata,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import (  # noqa: E402
    GGUF_PRE_TOKENIZER_SPLITS,
)
from transformers.masking_utils import sdpa_mask  # noqa: E402
from transformers.modeling_gguf_pytorch_utils import (  # noqa: E402
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)
from transformers.modeling_outputs import MoeCausalLMOutputWithPast  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402

_PREPARES = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters

CACHE = "cache" if "cache" in _PREPARES else "past_key_values"
"""What a model, and ``generate``, call the argument that is the cache of keys and values: `cache` since 5.24, which still
takes the name of before, with a warning, but drops what has it where something has the new name, too."""

CACHES = ("cache", "past_key_values", "past_key_value", "layer_past")
"""All that it has been called by models and layers."""


def cache_argument(module: Any) -> str | None:
    """What a module calls the cache that it is called with; None of one that takes none.

    Its class says so: while the module is visited, a forward in steps stands in place of its own.
    """
    named = inspect.signature(type(module).forward).parameters
    return next((name for name in (*CACHES, "cache_params") if name in named), None)


def positions_kept(cache: Any) -> int | None:
    """How many positions a cache holds; None of a model that attends nowhere, whose state does not count them.

    Since 5.24 such a state is a cache like others, which raises where it is asked.
    """
    try:
        return int(cache.get_seq_length())
    except ValueError:
        return None


def hands_attention_over(model_class: Any) -> bool:
    """Whether attention of a class is a function that is looked up by name."""
    return bool(model_class._can_set_attn_implementation())


def attention_of(config: Any) -> str | None:
    """The name of the implementation that a configuration was loaded with; None where it has none."""
    return getattr(config, "_attn_implementation", None)


def keeps_state(model: Any) -> bool:
    """Whether a model carries a state from token to token, in place of keys and values or beside them."""
    return bool(getattr(model, "_is_stateful", False))


def kept_in_float32(model: Any) -> set[str]:
    """Parts of the names of parameters that an architecture keeps in float32, whatever it is loaded in."""
    return {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}


def generation_settings(model: Any, own: Any, options: Mapping[str, Any]) -> Any:
    """What options of ``generate``, a configuration of the caller's and the checkpoint's file come to."""
    found, _ = model._prepare_generation_config(own, **options)
    return found


def gguf_flags(keys: Mapping[str, Any]) -> dict[str, bool]:
    """What a tokenizer must be told of the tokens that begin and end texts, beside the name of its GGUF file.

    Nothing since 5.23, which reads it in the file; 5.22 reads nothing, and leaves the first token out.

    Args:
        keys: of the file, by whole name.
    """
    if "ggml.add_bos_token" in GGUF_TOKENIZER_MAPPING["tokenizer_config"]:
        return {}
    kind = keys.get("tokenizer.ggml.model")
    flags = {"add_bos_token": True} if kind == "llama" else {}  # as llama.cpp takes it
    said = {flag: keys.get(f"tokenizer.ggml.{flag}") for flag in ("add_bos_token", "add_eos_token")}
    flags |= {flag: bool(value) for flag, value in said.items() if value is not None}
    return flags | ({"add_bos_token": False} if kind == "gemma4" else {})  # its template writes it


def without_mesh(model: Any) -> None:
    """Let a model forget that it was cut by a mesh of transformers, which would keep the groups alive."""
    model._mesh_manager = model._device_mesh = None
    if hasattr(model.config, "distributed_config"):
        del model.config.distributed_config


__all__ = [
    "ALL_ATTENTION_FUNCTIONS",
    "CACHE",
    "CACHES",
    "GGUF_ARCHS",
    "GGUF_CONFIG_ARCHS",
    "GGUF_CONFIG_MAPPING",
    "GGUF_PRE_TOKENIZER_SPLITS",
    "GGUF_TOKENIZER_MAPPING",
    "INTERNALS",
    "TENSOR_PROCESSORS",
    "DistributedConfig",
    "TensorProcessor",
    "attention_of",
    "generation_settings",
    "get_class_from_dynamic_module",
    "get_gguf_config",
    "get_gguf_hf_weights_map",
    "gguf_flags",
    "hands_attention_over",
    "keeps_state",
    "kept_in_float32",
    "read_gguf_metadata",
    "sdpa_mask",
    "without_mesh",
]


if not hasattr(MoeCausalLMOutputWithPast, "image_outputs"):
    # 5.24.0's Llama 4 with images hands on what its text part has not, so that no call of it comes to an end
    # (findings/llama4_with_images.sh). Nothing reads it.
    MoeCausalLMOutputWithPast.image_outputs = None  # type: ignore[attr-defined]
