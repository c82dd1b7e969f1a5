"""How a GGUF file scales rotary frequencies, as rotary parameters of a configuration.

A pair of dimensions i turns by base^(−2i/n) per position, divided by what a file says in two places: one
factor for all pairs (its keys ``rope.scaling.…``) and one for each (a tensor, as Llama 3.1 and Phi-3 have).
transformers reads neither. Both are carried over: as the scaling of a name that they are recognised as,
else as "longrope" with the same factors for short and long texts, which can say any.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from torch import nn
from transformers import PretrainedConfig

from garcon_jupyter.errors import NotAModel

KEYS = (
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
)
"""Keys that are carried over here, or refused."""

TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""One factor for each pair of dimensions: for all texts; for those within and beyond the original context."""

_BASE = 10000.0
"""llama.cpp's, where a file does not say."""

Factors = dict[str, list[float]]


def factors_in(file: Path) -> Factors:
    """The factors of a file, by the tensor that holds them."""
    found = (tensor for tensor in GGUFReader(file).tensors if tensor.name in TENSORS)
    return {t.name: dequantize(t.data, t.tensor_type).flatten().tolist() for t in found}


def carry(config: PretrainedConfig, own: dict[str, Any], factors: Factors) -> None:
    """Write what a file says into a configuration.

    Args:
        own: keys of the architecture, without its name.

    Raises:
        NotAModel: it cannot be said there.
    """
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        if factors or any(name.startswith("rope.scaling.") for name in own):
            raise _refused(
                config, "scales rotary frequencies, which its architecture does not have"
            )
        return
    if "full_attention" in parameters:  # a set for each kind of layer; windows are never scaled
        local = parameters.get("sliding_attention")
        if local is not None and "rope.freq_base_swa" in own:
            local["rope_theta"] = own["rope.freq_base_swa"]
        parameters = parameters["full_attention"]
    elif own.get("rope.freq_base_swa", own.get("rope.freq_base")) != own.get("rope.freq_base"):
        raise _refused(config, "has another rope.freq_base_swa than rope.freq_base")
    base = float(own.get("rope.freq_base", _BASE))
    if config.model_type not in (
        "qwen3_5_text",
        "qwen3_5_moe_text",
    ):  # transformers reads all of it
        parameters |= _width(config, own)
    parameters |= {"rope_theta": base, **_scaling(config, own, factors)}


def _width(config: PretrainedConfig, own: dict[str, Any]) -> dict[str, float]:
    """How much of a head is turned, where that is not all of it."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = own.get("rope.dimension_count", head)
    return {} if turned == head else {"partial_rotary_factor": turned / head}


def _scaling(config: PretrainedConfig, own: dict[str, Any], factors: Factors) -> dict[str, Any]:
    kind = own.get("rope.scaling.type", "linear")
    factor = float(own.get("rope.scaling.factor") or own.get("rope.scale_linear") or 1.0)
    strength = float(own.get("rope.scaling.attn_factor", 1.0))
    if kind == "yarn":
        return _yarn(config, own, factor, strength, factors)
    if kind not in ("none", "linear", "longrope"):
        raise _refused(config, f"says rope.scaling.type = {kind!r}, which nobody knows here")
    for name in ("rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"):
        if own.get(name, 0.0) not in (0.0, 1.0, -1.0):
            raise _refused(config, f"says {name} without rope.scaling.type = 'yarn'")
    factor = 1.0 if kind == "none" else factor
    of_all = factors.get(TENSORS[0])
    short = [factor * each for each in of_all or factors.get(TENSORS[1], [])]
    long = [factor * each for each in of_all or factors.get(TENSORS[2], [])]
    if bool(short) != bool(long):
        raise _refused(config, "has rotary factors for short or for long texts only")
    if not short or (short == long and set(short) == {factor}):
        if strength != 1.0:
            raise _refused(config, f"says rope.scaling.attn_factor = {strength} without factors")
        return {} if factor == 1.0 else {"rope_type": "linear", "factor": factor}
    original = int(own.get("rope.scaling.original_context_length", config.max_position_embeddings))
    if short == long and strength == 1.0 and (found := _as_llama3(config, own, short)):
        return found
    # Phi's configurations say it beside, and what they say there comes first.
    if hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = original
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": strength,
        "factor": max(1.0, config.max_position_embeddings / original),
        "original_max_position_embeddings": original,
    }


def _yarn(
    config: PretrainedConfig,
    own: dict[str, Any],
    factor: float,
    strength: float,
    factors: Factors,
) -> dict[str, Any]:
    strength *= float(own.get("rope.scaling.yarn_attn_factor", 1.0))
    if factors:
        raise _refused(config, f"has {next(iter(factors))} beside yarn")
    if own.get("rope.scaling.yarn_ext_factor", 1.0) not in (1.0, -1.0):
        raise _refused(config, "says rope.scaling.yarn_ext_factor, which transformers cannot")
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": int(
            own.get("rope.scaling.original_context_length", config.max_position_embeddings)
        ),
        "beta_fast": float(own.get("rope.scaling.yarn_beta_fast", 32.0)),
        "beta_slow": float(own.get("rope.scaling.yarn_beta_slow", 1.0)),
        "attention_factor": strength * (0.1 * math.log(factor) + 1.0),
    }


def _as_llama3(
    config: PretrainedConfig, own: dict[str, Any], factors: list[float]
) -> dict[str, Any] | None:
    """The parameters of Llama 3.1's scaling, if they are what makes these factors."""
    original, low, high, factor = 8192, 1.0, 4.0, max(factors)
    base = float(own.get("rope.freq_base", _BASE))
    size = len(factors)
    lengths = 2 * np.pi * base ** (np.arange(size) / size)
    smooth = np.clip((original / lengths - low) / (high - low), 0.0, 1.0)
    made = 1.0 / ((1.0 - smooth) / factor + smooth)
    if not np.allclose(made, factors, rtol=1e-5):
        return None
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def check(model: nn.Module, own: dict[str, Any], factors: Factors) -> None:
    """Compare the frequencies of a made model with those that the file asks for, computed here.

    Those of yarn are transformers' own; for them only the number is compared.

    Raises:
        NotAModel: the model turns otherwise than the file says.
    """
    config: Any = model.config
    for name, frequencies in model.named_buffers():
        if not name.endswith("inv_freq") or "original" in name or "sliding" in name:
            continue
        turned = own.get("rope.dimension_count", 2 * len(frequencies))
        if turned != 2 * len(frequencies):
            raise _refused(
                config, f"turns {turned} dimensions of a head, and the model {2 * len(frequencies)}"
            )
        if own.get("rope.scaling.type") == "yarn":
            continue
        factor = own.get("rope.scaling.factor") or own.get("rope.scale_linear") or 1.0
        factor = 1.0 if own.get("rope.scaling.type") == "none" else float(factor)
        each = torch.tensor(factors.get(TENSORS[0]) or factors.get(TENSORS[1]) or 1.0).double()
        powers = torch.arange(0, turned, 2).double() / turned
        asked = float(own.get("rope.freq_base", _BASE)) ** -powers / (factor * each)
        if not torch.allclose(frequencies.double().cpu(), asked, rtol=1e-4):
            raise _refused(config, "turns its heads otherwise than the model that was made of it")


def _refused(config: Any, says: str) -> NotAModel:
    return NotAModel(
        f"The GGUF file {says}; transformers' {config.model_type} cannot be told so.",
        "Convert from the original checkpoint instead (a directory with config.json and safetensors).",
    )
