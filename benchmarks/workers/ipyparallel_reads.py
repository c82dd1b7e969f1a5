"""ipyparallel: the model in an engine of its own, asked by functions that are sent there."""

from __future__ import annotations

import os
from typing import Any

import ipyparallel
from loop import serve

held: dict[str, Any] = {}


def load(path: str) -> None:
    held["cluster"] = ipyparallel.Cluster(n=1, engine_timeout=300)
    engines = held["cluster"].start_and_connect_sync()
    held["engine"] = engines[0]
    held["engine"].apply_sync(_load, path, int(os.environ["BENCH_THREADS"]))


def reads(ids: Any) -> Any:
    """Logits, and the neurons of four layers."""
    return held["engine"].apply_sync(_reads, ids)


# What follows runs in the engine, whose names are its globals.


def _load(path: str, threads: int) -> None:
    global model
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(path).eval()  # type: ignore[name-defined]


def _reads(ids: Any) -> Any:
    import torch

    kept = []
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda module, args: kept.append(args[0].numpy().copy())
        )
        for layer in model.model.layers  # type: ignore[name-defined]
    ]
    try:
        with torch.no_grad():
            logits = model(torch.as_tensor(ids), use_cache=False).logits  # type: ignore[name-defined]
    finally:
        for one in hooks:
            one.remove()
    return [logits.numpy(), *kept]


if __name__ == "__main__":
    serve({"load": load, "reads": reads})
