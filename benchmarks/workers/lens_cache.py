"""TransformerLens: every hook point of the model in one forward."""

from __future__ import annotations

from typing import Any

import torch
from loop import Took, serve
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}


def load(path: str) -> None:
    held["model"] = TransformerBridge.boot_transformers(
        path,
        hf_model=AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval(),
        tokenizer=AutoTokenizer.from_pretrained(path),
    )


def cache(ids: Any) -> Any:
    """(logits of the last position, number of distinct tensors kept, their bytes)."""
    import time

    start = time.perf_counter()
    with torch.no_grad():
        logits, kept = held["model"].run_with_cache(torch.as_tensor(ids))
    took = time.perf_counter() - start
    tensors = {id(value): value for value in kept.values() if isinstance(value, torch.Tensor)}
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    return Took((took, (logits[:, -1].clone(), len(tensors), size)))


if __name__ == "__main__":
    serve({"load": load, "cache": cache})
