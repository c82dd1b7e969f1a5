"""What a checkpoint says of itself: its configuration, as transformers reads it, and names of dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    PretrainedConfig,
)

from garcon_backend.libraries.transformers_internals import get_class_from_dynamic_module
from garcon_jupyter.errors import BadRequest, NotAModel
from garcon_jupyter.model_files import own_code
from garcon_jupyter.model_files.multimodal import WRAPPERS, wrapper_of

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def read_config(directory: Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a causal language model that can be loaded.

    Args:
        directory: of the checkpoint.
        trust_remote_code: whether code that it brings may run; else transformers' own class of its `model_type`
            is taken, if there is one.

    Raises:
        NotAModel: there is none, and why.
    """
    if not (directory / "config.json").is_file():
        raise NotAModel(
            f"{directory} holds no config.json.", "Give a directory written by save_pretrained."
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        if not trust_remote_code and own_code.brought_by(directory):
            raise own_code.untrusted(directory) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotAModel(
            f"The config.json of {directory} cannot be read: {reason}",
            "An architecture with code of its own is loaded with loader='package.module:function'.",
        ) from error
    if not (trust_remote_code and own_code.model_class(directory)):
        _class_in_transformers(config)
    weights = [*directory.glob("*.safetensors"), *directory.glob("*.bin")]
    if not weights:
        raise NotAModel(f"{directory} holds no weights.", "Save *.safetensors beside config.json.")
    return config


def model_class_of(config: PretrainedConfig, directory: Path, trust_remote_code: bool) -> Any:
    """The class of a checkpoint's model: transformers' own, or, where it is trusted, the one that the checkpoint brings.

    Raises:
        NotAModel: its code cannot be imported, or transformers has none.
    """
    reference = own_code.model_class(directory) if trust_remote_code else None
    if reference is None:
        return _class_in_transformers(config)
    try:
        return get_class_from_dynamic_module(reference, directory, local_files_only=True)
    except Exception as error:  # code of somebody else's may raise anything
        raise NotAModel(
            f"The code that {directory} brings ({reference}) cannot be imported: {error}",
            "Check that all of its files are there, and what packages it needs.",
        ) from error


def brings_its_code(model_class: type) -> bool:
    """Whether a class is code of a checkpoint."""
    return model_class.__module__.startswith("transformers_modules")


def _class_in_transformers(config: PretrainedConfig) -> Any:
    """The class of transformers that predicts the next token: of a multimodal model the one that reads images, too.

    Raises:
        NotAModel: there is none, or nothing is known of where the text part is in it.
    """
    if wrapper_of(config) is not None:
        return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise NotAModel(
            f"{config.model_type!r} is a multimodal model, and nothing is known of where its text part is.",
            f"Those that are served by their text part are {', '.join(WRAPPERS)}.",
        )
    raise NotAModel(
        f"{config.model_type!r} is no causal language model of transformers.",
        "Other modules are loaded with loader='package.module:function'.",
    )


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name.

    Raises:
        BadRequest: there is none of this name.
    """
    try:
        return DTYPES[name.removeprefix("torch.")]
    except KeyError:
        raise BadRequest(
            f"There is no dtype {name!r}.", f"Use one of {', '.join(DTYPES)}."
        ) from None
