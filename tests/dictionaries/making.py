"""Small random dictionaries of any width, for models of the tests: in SAELens's layout, and those of several points in their libraries'."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def saelens(
    folder: Path,
    d_in: int,
    d_sae: int,
    hook: str,
    architecture: str = "standard",
    d_out: int | None = None,
    seed: int = 0,
    **more: Any,
) -> Path:
    """A dictionary with random weights; biases are not 0, so that what is left out shows."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    out = d_out or d_in
    tensors = {
        "W_enc": random(d_in, d_sae) / d_in**0.5,
        "b_enc": random(d_sae) * 0.1,
        "W_dec": random(d_sae, out) / d_sae**0.5,
        "b_dec": random(out) * 0.1,
    }
    if "jumprelu" in architecture:
        tensors["threshold"] = random(d_sae).abs() * 0.3
    if "skip" in architecture:
        tensors["W_skip"] = random(out, d_in) / d_in**0.5
    config = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": "transcoder" not in architecture,
        "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": hook},
        **more,
    }
    if "transcoder" in architecture:
        config["d_out"] = out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def cross_layer(
    folder: Path, width: int, latents: int, layers: int, jumprelu: bool = True, seed: int = 0
) -> Path:
    """A cross-layer transcoder in circuit-tracer's layout, which reads ``mlp.in`` and writes ``mlp.contribution``."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(layers):
        encoder = {
            f"W_enc_{i}": random(latents, width) / width**0.5,
            f"b_enc_{i}": random(latents) * 0.1,
            f"b_dec_{i}": random(width) * 0.1,
        }
        if jumprelu:
            encoder[f"threshold_{i}"] = random(latents) * 0.2
        save_file(encoder, folder / f"W_enc_{i}.safetensors")
        decoder = {f"W_dec_{i}": random(latents, layers - i, width) / latents**0.5}
        save_file(decoder, folder / f"W_dec_{i}.safetensors")
    (folder / "config.yaml").write_text(
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    return folder


def crosscoder(
    folder: Path,
    width: int,
    latents: int,
    hooks: Sequence[str],
    act_fn: str = "jumprelu",
    seed: int = 0,
) -> Path:
    """A crosscoder in Llama Scope's layout, with a norm of each point's activations."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    n = len(hooks)
    tensors = {
        "W_E": random(n, width, latents) / width**0.5,
        "b_E": random(n, latents) * 0.1,
        "W_D": random(n, latents, width) / latents**0.5,
        "b_D": random(n, width) * 0.1,
    }
    for number, hook in enumerate(hooks):
        tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(3.0 + number)
    config: dict[str, Any] = {
        "sae_type": "crosscoder",
        "d_model": width,
        "expansion_factor": latents / width,
        "act_fn": act_fn,
        "hook_points": list(hooks),
        "norm_activation": "dataset-wise",
    }
    if act_fn == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = random(latents) * 0.3 - 1
    elif act_fn == "topk":
        config["top_k"] = 5
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder
