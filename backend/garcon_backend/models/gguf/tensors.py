"""Every tensor of a GGUF file: read into the model, or known to hold nothing of it, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from garcon_backend.libraries.transformers_internals import (
    GGUF_ARCHS,
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)
from garcon_backend.models.gguf import rope
from garcon_backend.models.gguf.keys import GgufFile, refusal
from garcon_jupyter.errors import NotAModel

_HARMLESS = re.compile(r"(blk\.\d+\.)?attn_rot_embd(\..+)?")
"""Angles that old files kept beside the weights they follow from."""


def check(file: GgufFile, model: nn.Module, found: dict[str, Any]) -> None:
    """Account for all tensors of a file, and for all parameters of the model that was made of it.

    A bias that the file lacks is zero: adding nothing is what the file's model does.

    Args:
        found: what transformers says of the loading.

    Raises:
        NotAModel: a tensor was left out, or a parameter was not in the file.
    """
    left = [name for name in _left_out(file, model, found) if not _accounted(name)]
    if left:
        raise refusal(file, f"has a tensor {left[0]}", left)
    parameters = dict(model.named_parameters())
    other_shape = {key[0] if isinstance(key, tuple) else key for key in found["mismatched_keys"]}
    for name in sorted(other_shape | set(found["missing_keys"])):
        if name in other_shape or not name.endswith(".bias") or name not in parameters:
            raise NotAModel(
                f"{file.path.name} lacks {name}, or holds it in another shape.",
                "Copy the file again, or convert from the original checkpoint.",
            )
        torch.nn.init.zeros_(parameters[name])


def _left_out(file: GgufFile, model: nn.Module, found: dict[str, Any]) -> list[str]:
    """Tensors that found no place, by their names in the file where transformers tells them."""
    if file.architecture in GGUF_ARCHS:
        return sorted(found["unexpected_keys"])
    kind: Callable[[], TensorProcessor] = TENSOR_PROCESSORS.get(file.architecture, TensorProcessor)
    placed = get_gguf_hf_weights_map(model, kind())
    # Those of all experts are one parameter each, without the ending.
    named = {*placed, *(f"{name}.weight" for name in placed if name.endswith("_exps"))}
    return [*(n for n in file.tensors if n not in named), *sorted(found["unexpected_keys"])]


def _accounted(name: str) -> bool:
    return name in rope.TENSORS or bool(_HARMLESS.fullmatch(name))
