"""Effects with plain transformers and plain hooks, in float64: the numbers of every unit, by loops and autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests.dictionaries.several_by_hand import CltByHand, CrosscoderByHand


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

    def layers(self) -> nn.ModuleList:
        found: nn.ModuleList = self.model.model.layers
        return found

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

    def cross_layer(self, files: Path, direction: Tensor) -> list[Numbers]:
        """Of a cross-layer transcoder, at each layer that it reads."""
        clt, added = CltByHand(files), [torch.zeros(1, dtype=torch.float64)] * len(self.layers())

        def more(latents: Tensor, layer: int) -> Tensor:
            added[layer] = torch.zeros_like(latents).requires_grad_()
            return latents + added[layer]

        metric = self._through(clt.hooked(self, change=more))
        gradients = torch.autograd.grad(metric, added)
        found = []
        for layer, gradient in enumerate(gradients):
            latents = clt.latents[layer].detach()[0]
            writes = [clt.direction(layer, to) for to in range(layer, len(added))]
            direct = torch.zeros_like(latents)
            direct[-1] = latents[-1] * torch.stack([w @ direction for w in writes]).sum(0)
            length = torch.stack([w.pow(2).sum(-1) for w in writes]).sum(0).sqrt()
            by_gradient = latents * gradient[0]
            found.append(
                Numbers(latents, latents.abs() * length, by_gradient, direct, metric.detach())
            )
        return found

    def without_crossing(self, files: Path, layer: int, position: int, latent: int) -> Tensor:
        """The metric with a latent of a cross-layer transcoder set to zero."""

        def less(latents: Tensor, at: int) -> Tensor:
            new = latents.clone()
            if at == layer:
                new[0, position, latent] = 0
            return new

        return self._through(CltByHand(files).hooked(self, change=less)).detach()

    def crosscoder(self, files: Path, direction: Tensor) -> Numbers:
        """Of a crosscoder, by way of the last of its points."""
        coder, added = CrosscoderByHand(files), []

        def more(latents: Tensor) -> Tensor:
            added.append(torch.zeros_like(latents).requires_grad_())
            return latents + added[0]

        metric = self._through(coder.hooked(self, change=more))
        (gradient,) = torch.autograd.grad(metric, added)
        latents = coder.latents[-1].detach()[0]
        writes = coder.t["W_D"][-1] / coder.scales[-1]
        direct = torch.zeros_like(latents)
        direct[-1] = latents[-1] * (writes @ direction)
        length = latents.abs() * writes.norm(dim=-1)
        return Numbers(latents, length, latents * gradient[0], direct, metric.detach())

    def _through(self, hooks: list[Any]) -> Tensor:
        """The metric with hooks that are taken off again."""
        try:
            return self.metric()
        finally:
            for hook in hooks:
                hook.remove()

    def outputs_by_gradient(self, path: str) -> Tensor:
        """Σ output × gradient of the modules of a name in all layers."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            kept.append(out if out.requires_grad else out.detach().requires_grad_())
            return kept[-1]

        modules = [layer.get_submodule(path) for layer in self.layers()]
        metric = self._through([module.register_forward_hook(keep) for module in modules])
        each = zip(kept, torch.autograd.grad(metric, kept), strict=True)
        return torch.stack([(out * gradient).sum() for out, gradient in each]).sum().detach()

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
