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
    held["folder"] = Path(folder)


def batch(ids: Any, step: int) -> None:
    """One forward; its neurons' values go to files."""

    def hook(layer: int) -> Any:
        def keep(module: Any, args: Any) -> None:
            np.save(held["folder"] / f"{layer}-{step}.npy", args[0].flatten(0, 1).numpy())

        return keep

    layers = held["model"].model.layers
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(hook(n)) for n, layer in enumerate(layers)
    ]
    with torch.no_grad():
        held["model"](torch.as_tensor(ids), use_cache=False, logits_to_keep=1)
    for one in hooks:
        one.remove()


def result(batches: int, k: int = 10) -> Any:
    """The k largest of each layer, [layers, k, units], read back from the files."""
    found = []
    for layer in range(len(held["model"].model.layers)):
        files = [held["folder"] / f"{layer}-{step}.npy" for step in range(batches)]
        values = torch.cat([torch.from_numpy(np.load(file)) for file in files])
        found.append(values.topk(k, 0).values)
    return torch.stack(found)


if __name__ == "__main__":
    serve({"load": load, "batch": batch, "result": result})
