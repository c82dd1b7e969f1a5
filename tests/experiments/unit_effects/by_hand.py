"""Effects with plain transformers and plain hooks, in float64: the numbers of every unit, by loops and autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM


@dataclass
class Coder:
    """A dictionary by its file: relu((x - b_dec) W_enc + b_enc) W_dec + b_dec."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    @classmethod
    def of(cls, folder: Path) -> Coder:
        return cls(
            **{k: v.double() for k, v in load_file(folder / "sae_weights.safetensors").items()}
        )

    def encode(self, x: Tensor, biased: bool = True) -> Tensor:
        pre = (x - self.b_dec) @ self.W_enc
        return (pre + self.b_enc if biased else pre).relu()


@dataclass
class Numbers:
    """Of every unit at every position, [p, unit]."""

    activation: Tensor
    written: Tensor
    by_gradient: Tensor
    direct: Tensor
    metric: Tensor


class PlainEffects:
    """A Llama as transformers loads it, and two answers."""

    def __init__(self, path: Path, ids: Tensor, answers: tuple[int, int]) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        self.model.requires_grad_(False)
        self.ids, self.answers = ids, answers

    def metric(self) -> Tensor:
        last = self.model(self.ids).logits[0, -1]
        return last[self.answers[0]] - last[self.answers[1]]

    @contextmanager
    def hooked(self, path: str, edit: Callable[[Tensor], Tensor], output: bool) -> Iterator[None]:
        module = self.model.get_submodule(path)
        handle = (
            module.register_forward_hook(lambda _, args, out: edit(out))
            if output
            else module.register_forward_pre_hook(lambda _, args: (edit(args[0]),))
        )
        try:
            yield
        finally:
            handle.remove()

    def direction(self, held: bool = True) -> Tensor:
        """What turns a change of the last stream into one of the answer, at the last position, [D]."""
        kept: list[Tensor] = []

        def leaf(x: Tensor) -> Tensor:
            kept.append(x.detach().requires_grad_())
            return kept[0]

        norm = self.model.model.norm
        rows = self.model.lm_head.weight[list(self.answers)]
        with self.hooked("model.norm", leaf, output=False):
            metric = self.metric()
        if not held:
            (gradient,) = torch.autograd.grad(metric, kept[0])
            return gradient[0, -1]
        stream = kept[0][0, -1].detach()
        scale = (stream.pow(2).mean() + norm.variance_epsilon).sqrt()
        return norm.weight * (rows[0] - rows[1]) / scale

    def latents(self, coder: Coder, layer: int, direction: Tensor) -> Numbers:
        """Of a dictionary at the output of a layer."""
        kept: list[Tensor] = []

        def through(x: Tensor) -> Tensor:
            codes = coder.encode(x)
            kept.append(codes.detach().requires_grad_())
            return x + (kept[0] - codes.detach()) @ coder.W_dec

        with self.hooked(f"model.layers.{layer}", through, output=True):
            metric = self.metric()
        (gradient,) = torch.autograd.grad(metric, kept[0])
        codes = kept[0].detach()[0]
        direct = torch.zeros_like(codes)
        direct[-1] = codes[-1] * (coder.W_dec @ direction)
        written = codes * coder.W_dec.norm(dim=1)
        return Numbers(codes, written, codes * gradient[0], direct, metric.detach())

    def without_latent(self, coder: Coder, layer: int, position: int, latent: int) -> Tensor:
        def less(x: Tensor) -> Tensor:
            x = x.clone()
            code = coder.encode(x)[0, position, latent]
            x[0, position] -= code * coder.W_dec[latent]
            return x

        with self.hooked(f"model.layers.{layer}", less, output=True):
            return self.metric().detach()

    def inner(self, path: str, units: int, direction: Tensor) -> Numbers:
        """Of heads or neurons: equal pieces of what a projection reads."""
        kept: list[Tensor] = []

        def leaf(x: Tensor) -> Tensor:
            kept.append(x.detach().requires_grad_())
            return kept[0]

        with self.hooked(path, leaf, output=False):
            metric = self.metric()
        (gradient,) = torch.autograd.grad(metric, kept[0])
        value = kept[0].detach()[0].unflatten(-1, (units, -1))  # [p, unit, d]
        matrix = self.model.get_submodule(path).weight.unflatten(1, (units, -1))  # [D, unit, d]
        vectors = torch.einsum("pud,Dud->puD", value, matrix)
        direct = torch.zeros(vectors.shape[:2], dtype=vectors.dtype)
        direct[-1] = vectors[-1] @ direction
        active = value[..., 0] if value.shape[-1] == 1 else value.norm(dim=-1)
        by_gradient = (value * gradient[0].unflatten(-1, (units, -1))).sum(-1)
        return Numbers(active, vectors.norm(dim=-1), by_gradient, direct, metric.detach())

    def without_inner(self, path: str, units: int, position: int, unit: int) -> Tensor:
        def less(x: Tensor) -> Tensor:
            x = x.clone().unflatten(-1, (units, -1))
            x[0, position, unit] = 0
            return x.flatten(-2)

        with self.hooked(path, less, output=False):
            return self.metric().detach()
