"""Models that are held, written out in float64: affine functions of embeddings, latents and errors, whose slopes are edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

BEFORE = {
    "llama": ("input_layernorm", "post_attention_layernorm"),
    "gemma2": ("input_layernorm", "pre_feedforward_layernorm"),
    "gemma3_text": ("input_layernorm", "pre_feedforward_layernorm"),
    "olmo2": ("", ""),
}
"""The norms before attention and MLP; OLMo 2 has none."""

AFTER = {
    "llama": ("", ""),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
"""Those after them, on what is added to the stream."""


@dataclass
class HeldModel:
    """The run of a prompt, and the function that is left when patterns and denominators are those of that run.

    Transcoders stand for what the MLP puts out, before the norm after it.

    Attributes:
        coders: of each layer: ``W_enc``, ``b_enc``, ``b_dec``, and ``W_dec`` [to, F, D], by the layer that is written, from its own on.
        stream: embeddings, [p, D].
        latents: of each layer's transcoder, [p, F].
        errors: what these lack, [p, D].
    """

    model: Any
    coders: list[dict[str, Tensor]]
    ids: Tensor
    scales: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.model.model
        kind = self.model.config.model_type
        self.before, self.after = BEFORE[kind], AFTER[kind]
        kept: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_hook(
                lambda _, args, out, name=name: kept.__setitem__(name, args[0][0].detach())
            )
            for name, module in model.named_modules()
            if name.endswith("layernorm") or name == "norm"
        ]
        for i, layer in enumerate(model.layers):
            for side, what in (("in", "args"), ("out", "out")):
                hooks.append(layer.mlp.register_forward_hook(_keeping(kept, f"{what} {i}", side)))
        first: list[Tensor] = []
        hooks.append(
            model.layers[0].register_forward_pre_hook(
                lambda _, args, kwargs: first.append((args or [kwargs["hidden_states"]])[0][0]),
                with_kwargs=True,
            )
        )
        with torch.no_grad():
            answer = self.model(self.ids, output_attentions=True)
        for hook in hooks:
            hook.remove()
        self.logits = self._uncapped(answer.logits[0, -1].double())
        self.patterns = [pattern[0].double() for pattern in answer.attentions]
        self.scales = {
            name: (x.pow(2).mean(-1, keepdim=True) + self._eps()).sqrt()
            for name, x in kept.items()
            if name.endswith("norm")
        }
        self.stream = first[0].detach()
        self.latents, self.errors = [], []
        for layer, coder in enumerate(self.coders):
            read = kept[f"args {layer}"]
            self.latents.append((read @ coder["W_enc"] + coder["b_enc"]).relu().detach())
            rebuilt = self._written(self.latents, layer)
            self.errors.append((kept[f"out {layer}"] - rebuilt).detach())

    def _eps(self) -> float:
        return float(self.model.config.rms_norm_eps)

    def _uncapped(self, logits: Tensor) -> Tensor:
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.atanh(logits / cap)

    def _written(self, latents: list[Tensor], to: int) -> Tensor:
        """What the transcoders say that the MLP of a layer puts out."""
        total = self.coders[to]["b_dec"]
        for i, coder in enumerate(self.coders[: to + 1]):
            if to - i < len(coder["W_dec"]):
                total = total + latents[i] @ coder["W_dec"][to - i]
        return total

    def _normed(self, layer: int | None, name: str, x: Tensor) -> Tensor:
        if not name:
            return x
        path = name if layer is None else f"layers.{layer}.{name}"
        weight = self.model.model.get_submodule(path).weight
        gain = weight + 1 if self.model.config.model_type.startswith("gemma") else weight
        return x / self.scales[path] * gain

    def value(
        self, stream: Tensor, latents: list[Tensor], errors: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Pre-activations of each layer, [p, F], and logits less their mean, [V], of any sources."""
        pre = []
        for i, layer in enumerate(self.model.model.layers):
            heads = layer.self_attn
            values = heads.v_proj(self._normed(i, self.before[0], stream))
            values = values.unflatten(-1, (-1, heads.head_dim)).transpose(0, 1)
            each = len(self.patterns[i]) // len(values)
            brought = self.patterns[i] @ values.repeat_interleave(each, 0)
            added = heads.o_proj(brought.transpose(0, 1).flatten(1))
            stream = stream + self._normed(i, self.after[0], added)
            read = self._normed(i, self.before[1], stream)
            coder = self.coders[i]
            pre.append(read @ coder["W_enc"] + coder["b_enc"])
            added = self._written(latents, i) + errors[i]
            stream = stream + self._normed(i, self.after[1], added)
        logits = self.model.lm_head(self._normed(None, "norm", stream)[-1])
        return pre, logits - logits.mean()

    def target(self, layer: int | None, position: int, number: int) -> tuple[float, float, Tensor]:
        """A pre-activation, or a logit where there is no layer: its value, what is left without all sources, and edges.

        Edges are of all latents, layer by layer, of errors, and of embeddings, [source].
        """
        sources = [self.stream, *self.latents, *self.errors]
        leaves = [source.clone().requires_grad_() for source in sources]

        def of(parts: list[Tensor]) -> Tensor:
            count = len(self.latents)
            pre, logits = self.value(parts[0], parts[1 : 1 + count], parts[1 + count :])
            return logits[number] if layer is None else pre[layer][position, number]

        found = of(leaves)
        gradients = torch.autograd.grad(found, leaves, allow_unused=True)
        products = [
            torch.zeros_like(source) if g is None else g * source
            for g, source in zip(gradients, sources, strict=True)
        ]
        count = len(self.latents)
        edges = [part.flatten() for part in products[1 : 1 + count]]
        edges += [part.sum(-1) for part in (*products[1 + count :], products[0])]
        nothing = of([torch.zeros_like(source) for source in sources])
        return float(found.detach()), float(nothing), torch.cat(edges).detach()


def _keeping(kept: dict[str, Tensor], name: str, side: str) -> Any:
    def keep(module: Any, args: Any, out: Tensor) -> None:
        kept[name] = (args[0] if side == "in" else out)[0].detach()

    return keep


def held_model(path: Path, coders: list[dict[str, Tensor]], ids: Tensor) -> HeldModel:
    """The model of a checkpoint, with the weights of each layer's transcoder."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    model.requires_grad_(False)
    return HeldModel(model, coders, ids)


def of_saelens(files: list[Path]) -> list[dict[str, Tensor]]:
    """Weights of transcoders of one layer each."""
    found = []
    for folder in files:
        read = load_file(folder / "sae_weights.safetensors")
        weights = {key: value.double() for key, value in read.items()}
        found.append(weights | {"W_dec": weights["W_dec"][None]})
    return found


def of_circuit_tracer(folder: Path, layers: int) -> list[dict[str, Tensor]]:
    """Weights of a cross-layer one, layer by layer."""
    found = []
    for i in range(layers):
        read = load_file(folder / f"W_enc_{i}.safetensors")
        read |= load_file(folder / f"W_dec_{i}.safetensors")
        weights = {key.removesuffix(f"_{i}"): value.double() for key, value in read.items()}
        by_target = weights["W_dec"].transpose(0, 1)
        found.append(weights | {"W_enc": weights["W_enc"].T, "W_dec": by_target})
    return found
