"""Cross-layer transcoders and crosscoders by their formats' own formulas, with plain hooks on plain transformers in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

Change = Callable[[Tensor, int], Tensor]
"""What becomes of the latents of a layer."""


class HasLayers(Protocol):
    """A model whose layers have an ``mlp``."""

    def layers(self) -> nn.ModuleList: ...


def a_logit(logits: Tensor) -> Tensor:
    return logits[:, -1, 3].sum()


class PlainModel:
    """The checkpoint by transformers alone, in float64, with hooks that a test puts there."""

    def __init__(self, path: Path, ids: Tensor) -> None:
        self.ids = ids
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float64, attn_implementation="eager"
        )

    def layers(self) -> nn.ModuleList:
        found: nn.ModuleList = self.model.model.layers
        return found

    def changed(self, block: int, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """With a function of what leaves a block in its place."""

        def hook(module: nn.Module, args: tuple, out: Any) -> Any:
            return change(out) if isinstance(out, Tensor) else (change(out[0]), *out[1:])

        return self([self.layers()[block].register_forward_hook(hook)])

    def __call__(self, hooks: Sequence[Any] = ()) -> tuple[Tensor, Tensor]:
        """Logits, and the gradient of `a_logit` at the embeddings."""
        embedded = self.model.model.embed_tokens(self.ids).detach().requires_grad_()
        logits = self.model(inputs_embeds=embedded).logits
        for hook in hooks:
            hook.remove()
        (gradient,) = torch.autograd.grad(a_logit(logits), embedded)
        return logits.detach(), gradient


class CltByHand:
    """Circuit-tracer's formula: y_j = b_dec_j + Σ_{i ≤ j} f_i W_dec_i[:, j − i], f = pre·(pre > θ)."""

    def __init__(self, files: Path) -> None:
        self.tensors = {
            key: value.double()
            for file in files.glob("*.safetensors")
            for key, value in load_file(file).items()
        }
        self.pre: dict[int, Tensor] = {}
        self.latents: dict[int, Tensor] = {}
        self.rebuilt: dict[int, Tensor] = {}
        self.lacking: dict[int, Tensor] = {}

    def encode(self, x: Tensor, i: int) -> Tensor:
        self.pre[i] = x @ self.tensors[f"W_enc_{i}"].T + self.tensors[f"b_enc_{i}"]
        return self.pre[i] * (self.pre[i] > self.tensors[f"threshold_{i}"])

    def direction(self, i: int, j: int) -> Tensor:
        """What latents of layer i write into layer j, [F, D]."""
        return self.tensors[f"W_dec_{i}"][:, j - i]

    def decode(self, latents: dict[int, Tensor], j: int) -> Tensor:
        each = [latents[i] @ self.direction(i, j) for i in range(j + 1)]
        return torch.stack(each).sum(0) + self.tensors[f"b_dec_{j}"]

    def hooked(self, plain: HasLayers, error: str = "live", change: Change | None = None) -> list:
        """Hooks by which the model goes on through it."""
        before: dict[int, Tensor] = {}

        def hook(i: int, mlp: nn.Module, args: tuple, out: Tensor) -> Tensor:
            before[i] = self.latents[i] = self.encode(args[0], i)
            if change is not None:
                self.latents[i] = change(before[i], i)
            self.rebuilt[i] = self.decode(before, i)
            self.lacking[i] = out - self.rebuilt[i]
            new = self.decode(self.latents, i)
            if error == "none":
                return new
            lacks = self.lacking[i]
            return new + (lacks.detach() if error == "frozen" else lacks)

        return [
            layer.mlp.register_forward_hook(lambda mlp, args, out, i=i: hook(i, mlp, args, out))
            for i, layer in enumerate(plain.layers())
        ]


class CrosscoderByHand:
    """Llama Scope's: pre = Σ_h (x_h s_h W_E[h] + b_E[h]); f_h = act(pre·‖W_D[h]‖)/‖W_D[h]‖; y_h = (f_h W_D[h] + b_D[h])/s_h."""

    def __init__(self, files: Path) -> None:
        loaded = load_file(files / "sae_weights.safetensors")
        self.t = {key: value.double() for key, value in loaded.items()}
        hooks = json.loads((files / "config.json").read_text())["hook_points"]
        lengths = [self.t[f"dataset_average_activation_norm.{hook}"] for hook in hooks]
        self.scales = [self.t["W_E"].shape[1] ** 0.5 / length for length in lengths]
        self.threshold = self.t["activation_function.log_jumprelu_threshold"].exp()

    def encode(self, xs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        each = [
            x * s @ w + b
            for x, s, w, b in zip(xs, self.scales, self.t["W_E"], self.t["b_E"], strict=True)
        ]
        pre = torch.stack(each).sum(0)
        norms = self.t["W_D"].norm(dim=-1)
        return pre, [pre * n * (pre * n > self.threshold) / n for n in norms]

    def decode(self, latents: Tensor, h: int) -> Tensor:
        return (latents @ self.t["W_D"][h] + self.t["b_D"][h]) / self.scales[h]

    def hooked(
        self,
        plain: HasLayers,
        error: str = "live",
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> list:
        """Hooks by which the model goes on through it, at the last point."""
        xs: list[Tensor] = []

        def hook(h: int, out: Tensor) -> Tensor | None:
            xs.append(out)
            if h < len(self.scales) - 1:
                return None
            self.xs = xs
            self.pre, self.latents = self.encode(xs)
            rebuilt = self.decode(self.latents[h], h)
            new = rebuilt if change is None else self.decode(change(self.latents[h]), h)
            if error == "none":
                return new
            lacks = out - rebuilt
            return new + (lacks.detach() if error == "frozen" else lacks)

        return [
            plain.layers()[h].register_forward_hook(lambda m, a, out, h=h: hook(h, out))
            for h in range(len(self.scales))
        ]
