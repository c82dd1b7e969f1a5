"""Checkpoints whose weights are really packed, for the tests: FP8 in blocks, and MXFP4, as published ones are stored.

What each packed number stands for is worked out here by the formats' definitions, so that the same model can be saved beside it in plain
numbers, for a loader that knows nothing of packing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints import make

BLOCK = 16
"""Rows and columns of a weight that share a scale in FP8."""

FP4 = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""The sixteen numbers of E2M1, by their four bits (OCP Microscaling Formats 1.0)."""


def fp8(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A weight in FP8 [out, in], the scale of each block, and what both stand for."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3)) / 448
    packed = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    meant = packed.float() * scale[:, None, :, None]
    return packed.reshape(rows, columns), scale, meant.reshape(rows, columns)


def mxfp4(*shape: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random numbers in MXFP4: blocks of 32 along the last axis, two to a byte, the first in its lower half, each with the
    exponent of a power of two; and what they stand for."""
    generator = torch.Generator().manual_seed(seed)
    nibbles = torch.randint(0, 16, (*shape[:-1], shape[-1] // 32, 32), generator=generator)
    exponents = torch.randint(122, 126, nibbles.shape[:-1], generator=generator)
    packed = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    meant = FP4[nibbles] * 2.0 ** (exponents - 127)[..., None]
    return packed.to(torch.uint8), exponents.to(torch.uint8), meant.reshape(shape)


def make_fp8(directory: Path, **config: Any) -> tuple[Path, Path]:
    """A small Llama with its layers' projections in FP8, and the same in plain numbers."""
    plain = make("llama", directory / "plain", **config)
    stored: dict[str, Tensor] = {}
    unpacked = load_file(plain / "model.safetensors")
    for name, value in list(unpacked.items()):
        stored[name] = value
        if name.endswith("proj.weight"):
            stored[name], scale, unpacked[name] = fp8(value.float())
            stored[name.replace("weight", "weight_scale_inv")] = scale
            unpacked[name] = unpacked[name].to(value.dtype)
    method = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
    }
    return _saved(directory, plain, stored, unpacked, method)


def make_mxfp4(directory: Path, **config: Any) -> tuple[Path, Path]:
    """A small gpt-oss with its experts in MXFP4, and the same in plain numbers."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    kinds = {"layer_types": ["sliding_attention", "full_attention"]}
    plain = make("gpt_oss", directory / "plain", **{**sizes, **kinds, **config})
    unpacked = load_file(plain / "model.safetensors")
    stored = dict(unpacked)
    for seed, (name, value) in enumerate(sorted(unpacked.items())):
        if name.endswith(("gate_up_proj", "down_proj")) and value.ndim == 3:
            experts, inner, outer = value.shape  # stored by output feature, computed with by input
            packed, exponents, meant = mxfp4(experts, outer, inner, seed=seed)
            del stored[name]
            stored |= {f"{name}_blocks": packed, f"{name}_scales": exponents}
            unpacked[name] = meant.transpose(1, 2).contiguous().to(value.dtype)
    skipped = [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ]
    method = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    return _saved(directory, plain, stored, unpacked, method)


def _saved(
    directory: Path,
    plain: Path,
    stored: dict[str, Tensor],
    unpacked: dict[str, Tensor],
    method: dict[str, Any],
) -> tuple[Path, Path]:
    packed = directory / "packed"
    shutil.copytree(plain, packed)
    save_file(stored, packed / "model.safetensors", metadata={"format": "pt"})
    save_file(unpacked, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps({**config, "quantization_config": method}))
    return packed, plain
