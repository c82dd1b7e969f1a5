"""LoRA adapters for the tests, written as PEFT writes them, with the weights that they come to when merged by hand."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

PREFIX = "base_model.model."

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "nobody/asks",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_dropout": 0.1,
    "loftq_config": {},
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "qalora_group_size": 16,
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_modules": [],
    "use_dora": False,
    "use_rslora": False,
    "r": 3,
    "lora_alpha": 7,
}
"""What PEFT writes of an adapter that asks for nothing special."""


def make(
    directory: Path,
    model: nn.Module,
    targets: list[str],
    seed: int = 0,
    whole: tuple[str, ...] = (),
    pickled: bool = False,
    **config: Any,
) -> dict[str, Tensor]:
    """Write a random adapter of a model.

    Args:
        directory: to write it in.
        model: that it is of, as plain transformers loads it.
        targets: endings of the paths of the modules that it changes.
        seed: of its numbers.
        whole: endings of parameters that it has whole.
        pickled: whether to write ``adapter_model.bin``.
        config: beside :data:`CONFIG`.

    Returns:
        What the parameters that it changes are when it is merged: by their names, in float64.
    """
    said = {**CONFIG, "target_modules": targets, **config}
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    stored: dict[str, Tensor] = {}
    merged: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if not any(path.endswith(ending) for ending in targets):
            continue
        weight = module.weight.detach().double()
        embeds = isinstance(module, nn.Embedding)
        transposed = embeds or isinstance(module, Conv1D)
        oriented = weight.T if transposed else weight
        rank = next((n for end, n in said["rank_pattern"].items() if path.endswith(end)), said["r"])
        alpha = next(
            (n for end, n in said["alpha_pattern"].items() if path.endswith(end)),
            said["lora_alpha"],
        )
        scale = alpha / (math.sqrt(rank) if said["use_rslora"] else rank)
        a, b = drawn(rank, oriented.shape[1]), drawn(oriented.shape[0], rank)
        parts = (
            ("lora_embedding_A", "lora_embedding_B")
            if embeds
            else ("lora_A.weight", "lora_B.weight")
        )
        stored |= {f"{PREFIX}{path}.{parts[0]}": a, f"{PREFIX}{path}.{parts[1]}": b}
        new = oriented + scale * b.double() @ a.double()
        if said["use_dora"]:
            magnitude = 1 + drawn(oriented.shape[0]).abs()
            stored[f"{PREFIX}{path}.lora_magnitude_vector"] = magnitude
            new = magnitude.double()[:, None] * new / new.norm(dim=1, keepdim=True)
        merged[f"{path}.weight"] = new.T if transposed else new
    for name, parameter in model.named_parameters():
        if any(name.endswith(ending) for ending in whole):
            value = parameter.detach() + drawn(*parameter.shape)
            stored[PREFIX + name], merged[name] = value, value.double()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(said))
    if pickled:
        torch.save(stored, directory / "adapter_model.bin")
    else:
        save_file(
            {k: v.contiguous() for k, v in stored.items()}, directory / "adapter_model.safetensors"
        )
    return merged


@torch.no_grad()
def with_merged(model: nn.Module, merged: dict[str, Tensor]) -> Any:
    """A copy of a model in which these parameters are what an adapter makes of them."""
    other = copy.deepcopy(model)
    for name, value in merged.items():
        path, _, leaf = name.rpartition(".")
        holder = other.get_submodule(path)
        like = getattr(holder, leaf)
        setattr(holder, leaf, nn.Parameter(value.to(like.dtype), requires_grad=False))
    return other
