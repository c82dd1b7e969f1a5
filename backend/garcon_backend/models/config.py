"""What a checkpoint says of itself: its configuration, as transformers reads it, and names of dtypes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig

from garcon_jupyter.errors import BadRequest, NotAModel

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def read_config(directory: Path) -> PretrainedConfig:
    """The configuration of a causal language model that can be loaded.

    Raises:
        NotAModel: there is none, and why.
    """
    if not (directory / "config.json").is_file():
        raise NotAModel(
            f"{directory} holds no config.json.", "Give a directory written by save_pretrained."
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotAModel(
            f"The config.json of {directory} cannot be read: {reason}",
            "An architecture with code of its own is loaded with loader='package.module:function'.",
        ) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise NotAModel(
            f"{config.model_type!r} is no causal language model of transformers.",
            "Other modules are loaded with loader='package.module:function'.",
        )
    weights = [*directory.glob("*.safetensors"), *directory.glob("*.bin")]
    if not weights:
        raise NotAModel(f"{directory} holds no weights.", "Save *.safetensors beside config.json.")
    return config


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
