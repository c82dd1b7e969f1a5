"""The other side of a comparison: plain transformers and plain hooks, nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = [[0, 40, 41, 42, 99, 7], [0, 12, 200, 13, 13, 5]]
"""Two rows of token ids of the small checkpoints."""


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """max|a−b| / max|b| within the tolerance, and the same shape."""
    a, b = a.detach().float(), b.detach().float()
    return a.shape == b.shape and float((a - b).abs().max() / b.abs().max()) <= tolerance


class Plain:
    """A model as transformers loads it."""

    def __init__(self, path: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)

    def module(self, path: str) -> Any:
        return self.model.get_submodule(path)

    @torch.no_grad()
    def logits(self, ids: Any, **kwargs: Any) -> Tensor:
        return self.model(torch.as_tensor(ids), **kwargs).logits

    @contextmanager
    def hooked(self, path: str, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Run a function on the output of a module; what it returns replaces the output."""
        handle = self.module(path).register_forward_hook(lambda module, args, out: hook(out))
        try:
            yield
        finally:
            handle.remove()

    def output(self, path: str, ids: Any) -> Tensor:
        """The output of a module on a forward of `ids`."""
        caught: list[Tensor] = []
        with self.hooked(path, lambda out: caught.append(out.detach().clone())):
            self.logits(ids)
        return caught[0]

    def neurons(self, layer: int, ids: Any) -> Tensor:
        """Input of a Llama's down projection, [b, p, M]."""
        caught: list[Tensor] = []
        module = self.module(f"model.layers.{layer}.mlp.down_proj")
        handle = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].clone()))
        try:
            self.logits(ids)
        finally:
            handle.remove()
        return caught[0]
