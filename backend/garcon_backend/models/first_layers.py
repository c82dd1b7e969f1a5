"""The first layers of a checkpoint whole, in one process, to hold a model against that is cut by tensor parallelism.

All layers of a kind are cut by one plan, so one of each kind shows whether the cut is right. They are loaded as
transformers loads them, as a model of so few layers, by its eager implementation.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from garcon_backend.models.fit import MARGIN, tensor_bytes
from garcon_backend.models.pipeline_parallel import find_layers
from garcon_backend.models.stages import StandIn
from garcon_backend.process.memory import available_bytes

MOST = 6
"""Layers that are read at most, though there were more kinds."""


KINDS = ("layer_type", "attention_type", "sliding_window", "is_sliding", "use_rope")
"""What modules of layers are told apart by in transformers, where their classes are the same."""


def first_of_each_kind(model: nn.Module, most: int = MOST) -> int:
    """How many of the first layers that a stage holds have one of each kind among them; so many at most."""
    holder, name = find_layers(model)
    seen: set[tuple[str, ...]] = set()
    count = 1
    for index, layer in enumerate(getattr(holder, name)):
        if isinstance(layer, StandIn) or index == most:
            break
        kind = tuple(f"{path} {_kind(module)}" for path, module in layer.named_modules())
        count = count if kind in seen else index + 1
        seen.add(kind)
    return count


def _kind(module: nn.Module) -> str:
    told = [f"{word}={vars(module)[word]}" for word in KINDS if word in vars(module)]
    return " ".join([type(module).__name__, *told])


def needed_bytes(directory: Path, dtype: torch.dtype, count: int, layers: str) -> int:
    """Memory that so many layers take, with all that is outside of layers."""
    sizes = tensor_bytes(directory, str(dtype).removeprefix("torch."))
    own = {f".{layers}.{index}." for index in range(count)}
    inside = sum(size for name, size in sizes.items() if any(part in f".{name}" for part in own))
    outside = sum(size for name, size in sizes.items() if f".{layers}." not in f".{name}")
    return int(MARGIN * (inside + outside))


def load_first_layers(model: Any, directory: Path, count: int, device: torch.device) -> nn.Module:
    """A model like this one, of so many layers, whole.

    Args:
        model: a part of it, as it is served.

    Raises:
        MemoryError: there is no room for it beside what is served.
        Exception: whatever transformers raises where such a configuration makes no sense.
    """
    _, name = find_layers(model)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    if needed_bytes(directory, dtype, count, name) > available_bytes(device):
        raise MemoryError(f"there is no memory for {count} layers beside the model")
    whole: nn.Module = _without_words(type(model)).from_pretrained(
        directory,
        config=_shortened(model.config, count),
        dtype=dtype,
        attn_implementation="eager",
        local_files_only=True,
    )
    return whole.to(device).eval().requires_grad_(False)


def _without_words(model_class: Any) -> Any:
    """The class, which says nothing of the weights of other layers."""
    body = {
        "config_class": model_class.config_class,
        "__module__": model_class.__module__,
        "__qualname__": model_class.__qualname__,
        "_keys_to_ignore_on_load_unexpected": [".*"],
    }
    return type(model_class.__name__, (model_class,), body)


def _shortened(config: Any, count: int) -> Any:
    """A configuration of so many layers."""
    short = copy.deepcopy(config)
    layers = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == layers:
            setattr(short, name, value[:count])
    short.num_hidden_layers = count
    return short
