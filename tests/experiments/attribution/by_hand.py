"""Attribution and patching of a Llama with plain transformers, plain hooks and autograd: nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

Values = list[Tensor]
"""What enters the output projection of each layer, [row, p, heads · d]: the z of all heads."""


class LlamaByHand:
    """A Llama whose z can be read, changed and differentiated.

    Args:
        model: as transformers loads it.
        answers: ids of the two tokens whose logits' difference is the metric.
    """

    def __init__(self, model: Any, answers: tuple[int, int]) -> None:
        self.model, self.answers = model, answers
        self.layers = model.model.layers
        self.heads = model.config.num_attention_heads

    def metric(self, logits: Tensor) -> Tensor:
        first, second = self.answers
        return logits[:, -1, first] - logits[:, -1, second]

    def by_head(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.heads, -1))

    @contextmanager
    def at_z(self, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
        """`change(layer, z)` is what the output projections read."""
        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                handle = layer.self_attn.o_proj.register_forward_pre_hook(
                    lambda _, args, number=number: (change(number, args[0]),)
                )
                stack.callback(handle.remove)
            yield

    def run(self, ids: Any, embeddings: Tensor | None = None) -> tuple[Tensor, Values, Values]:
        """The metric, z of each layer, and the gradients there."""
        kept: Values = []

        def keep(number: int, z: Tensor) -> Tensor:
            kept.append(z.detach().requires_grad_() if not z.requires_grad else z)
            kept[-1].retain_grad()
            return kept[-1]

        inputs = {"inputs_embeds": embeddings}
        if embeddings is None:
            inputs = {"input_ids": torch.as_tensor(ids)}
        with self.at_z(keep), torch.enable_grad():
            metric = self.metric(self.model(**inputs).logits)
            metric.sum().backward()
        gradients = [z.grad for z in kept if z.grad is not None]
        return metric.detach(), [z.detach() for z in kept], gradients

    @torch.no_grad()
    def patched(self, ids: Any, given: dict[int, Tensor]) -> float:
        """The metric where z of some layers is given."""
        with self.at_z(lambda number, z: given.get(number, z)):
            return float(self.metric(self.model(input_ids=torch.as_tensor(ids)).logits))

    def attribution(self, clean: Any, corrupted: Any, at: str) -> Tensor:
        """Shares by gradients, [layer, p, head, d]."""
        high, z_clean, g_clean = self.run(clean)
        low, z_corrupted, g_corrupted = self.run(corrupted)
        gradients = {
            "clean": g_clean,
            "corrupted": g_corrupted,
            "mean": [(a + b) / 2 for a, b in zip(g_clean, g_corrupted, strict=True)],
        }[at]
        each = zip(z_clean, z_corrupted, gradients, strict=True)
        products = torch.stack([(a - b)[0] * g[0] for a, b, g in each])
        return self.by_head(products) / (high - low)
