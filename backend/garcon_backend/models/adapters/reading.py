"""What an adapter's files hold: for each module that it changes two thin matrices, or a whole parameter in place of its own.

The weights' names are the modules' paths, with an ending that says what it is. So which modules are changed is known from
them; how strongly, the configuration says, for all alike (``r``, ``lora_alpha``) or by patterns of paths.
"""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from garcon_jupyter.errors import NotAnAdapter
from garcon_jupyter.model_files import adapters as files

_PART = re.compile(
    r"(?P<path>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(\.default)?(\.(?P<leaf>weight|bias))?"
)
_WRAPPED = re.compile(r"\.(modules_to_save(\.default)?|base_layer)\.(?=\w+$)")


@dataclass
class LowRank:
    """What an adapter has for one module.

    Attributes:
        a: [r, in].
        b: [out, r].
        bias: added beside B, [out].
        magnitude: of each output feature's weights (DoRA, Liu et al. 2024), [out].
        scale: by which B·A is multiplied.
        embeds: whether the module looks up rows, so that `in` is tokens.
    """

    a: Tensor | None = None
    b: Tensor | None = None
    bias: Tensor | None = None
    magnitude: Tensor | None = None
    scale: float = 1.0
    embeds: bool = False


@dataclass
class Adapter:
    """An adapter as its files have it, whole.

    Attributes:
        name: by which requests name it.
        directory: of its files.
        low_rank: by path of the module.
        whole: parameters that take the place of the model's own, by dotted name (``modules_to_save``, and biases).
    """

    name: str
    directory: Path
    low_rank: dict[str, LowRank] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        ranks = sorted({len(each.a) for each in self.low_rank.values() if each.a is not None})
        kinds = sorted({path.rpartition(".")[2] for path in self.low_rank})
        told = f"rank {', '.join(map(str, ranks))} in {len(self.low_rank)} modules ({', '.join(kinds)})"
        return told + (f", {len(self.whole)} parameters whole" if self.whole else "")


def read(name: str, directory: Path) -> Adapter:
    """The adapter of a directory.

    Raises:
        NotAnAdapter: it is none, or asks for what is not computed here.
    """
    config = files.read_config(directory)
    adapter = Adapter(name, directory)
    for key, tensor in _tensors(files.weights_file(directory)).items():
        _put(adapter, key.removeprefix("base_model.model."), tensor)
    if not adapter.low_rank and not adapter.whole:
        raise NotAnAdapter(f"{directory} holds no weights of an adapter.", "Copy it again.")
    for path, found in adapter.low_rank.items():
        found.scale = _scale(path, found, config, adapter)
    return adapter


def _tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file. A pickle is read by torch's reader that runs no code."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotAnAdapter(
            f"{file} cannot be read: {reason}.", "Copy the adapter again."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise NotAnAdapter(f"{file} is no dictionary of tensors.", "Copy the adapter again.")
    return loaded


def _put(adapter: Adapter, key: str, tensor: Tensor) -> None:
    """Put one tensor of the file where it belongs."""
    match = _PART.fullmatch(key)
    if match is None:
        if "lora_" in key:
            raise NotAnAdapter(
                f"{adapter.directory} holds {key}, which is not computed here.",
                "Merge it into its base model (`merge_and_unload` in peft), save that and give it.",
            )
        adapter.whole[_WRAPPED.sub(".", key)] = tensor
        return
    found = adapter.low_rank.setdefault(match["path"], LowRank())
    match match["part"], match["leaf"]:
        case "lora_magnitude_vector", _:
            found.magnitude = tensor.flatten()
        case "lora_B", "bias":
            found.bias = tensor
        case ("lora_A" | "lora_embedding_A") as part, _:
            found.a, found.embeds = tensor, part == "lora_embedding_A"
        case _:
            found.b = tensor


def _scale(path: str, found: LowRank, config: dict[str, Any], adapter: Adapter) -> float:
    """By how much B·A of a module is multiplied: alpha / r, or alpha / √r (rsLoRA, Kalajdzievski 2023).

    Raises:
        NotAnAdapter: something of the module is missing, or does not belong together.
    """
    a, b = found.a, found.b
    if a is None or b is None:
        raise _odd(adapter, path, f"lacks its {'A' if a is None else 'B'}")
    if a.ndim != 2 or b.ndim != 2:
        raise _odd(adapter, path, "is of a convolution, which is not computed here")
    rank = _of(path, config.get("rank_pattern"), config.get("r", 8))
    if a.shape[0] != rank or b.shape[1] != rank:
        raise _odd(
            adapter,
            path,
            f"has A {list(a.shape)} and B {list(b.shape)}, where {files.CONFIG} says rank {rank}",
        )
    if bool(config.get("use_dora")) != (found.magnitude is not None):
        what = "lacks the magnitudes" if config.get("use_dora") else "has magnitudes"
        raise _odd(adapter, path, f"{what} of DoRA, where use_dora is {config.get('use_dora')}")
    if found.magnitude is not None and (found.embeds or found.bias is not None):
        raise _odd(
            adapter, path, "has DoRA of an embedding or with a bias, which is not computed here"
        )
    alpha = _of(path, config.get("alpha_pattern"), config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of(path: str, patterns: dict[str, Any] | None, otherwise: Any) -> Any:
    """The value of the first pattern that a path ends with; patterns are regular expressions, as PEFT reads them."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return otherwise


def _odd(adapter: Adapter, path: str, what: str) -> NotAnAdapter:
    return NotAnAdapter(
        f"{path} of the adapter {adapter.directory} {what}.", "Copy the adapter again."
    )
