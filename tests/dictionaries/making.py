"""Small random dictionaries in SAELens's layout, of any width, for models of the tests."""

from __future__ import annotations

import json
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
