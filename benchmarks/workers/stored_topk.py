"""Plain torch: every neuron's values to disk, batch by batch; then the ten largest of what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import serve
from transformers import AutoModelForCausalLM

held: dict[str, Any] = {}


def load(path: str, folder: str) -> None:
    held["model"] = AutoModelForCausalLM.from_pretrained(path).eval()
    held["folder"], held["batches"] = Path(folder), 0


def forward(ids: Any) -> None:
    """One forward and nothing else."""
    with torch.no_grad():
        held["model"](torch.as_tensor(ids), use_cache=False, logits_to_keep=1)


def batch(ids: Any) -> None:
    """One forward; its neurons' values go to files."""

    step = held["batches"]

    def hook(layer: int) -> Any:
        def keep(module: Any, args: Any) -> None:
            np.save(held["folder"] / f"{layer}-{step}.npy", args[0].flatten(0, 1).numpy())

        return keep

    layers = held["model"].model.layers
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(hook(n)) for n, layer in enumerate(layers)
    ]
    forward(ids)
    for one in hooks:
        one.remove()
    held["batches"] += 1


def result(k: int) -> Any:
    """The k largest of each layer, [layers, k, units], read back from the files; and the bytes of these."""
    found = []
    size = sum(file.stat().st_size for file in held["folder"].iterdir())
    for layer in range(len(held["model"].model.layers)):
        files = [held["folder"] / f"{layer}-{step}.npy" for step in range(held["batches"])]
        values = torch.cat([torch.from_numpy(np.load(file)) for file in files])
        found.append(values.topk(k, 0).values)
    return torch.stack(found), size


if __name__ == "__main__":
    serve({"load": load, "forward": forward, "batch": batch, "result": result})
