"""A Llama that is held, written out in float64: an affine function of embeddings, latents and errors, whose slopes are edges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM


@dataclass
class HeldLlama:
    """The run of a prompt, and the function that is left when patterns and denominators are those of that run.

    Attributes:
        stream: embeddings, [p, D].
        latents: of each layer's transcoder, [p, F].
        errors: what these lack, [p, D].
    """

    model: Any
    coders: list[dict[str, Tensor]]
    ids: Tensor

    def __post_init__(self) -> None:
        model = self.model.model
        kept: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_hook(
                lambda _, args, out, name=name: kept.__setitem__(name, args[0][0].detach())
            )
            for name, module in model.named_modules()
            if name.endswith("layernorm") or name == "norm"
        ]
        hooks += [
            layer.mlp.register_forward_hook(
                lambda _, args, out, i=i: kept.__setitem__(f"mlp {i}", out[0].detach())
            )
            for i, layer in enumerate(model.layers)
        ]
        with torch.no_grad():
            answer = self.model(self.ids, output_attentions=True)
        for hook in hooks:
            hook.remove()
        self.logits = answer.logits[0, -1].double()
        self.patterns = [pattern[0].double() for pattern in answer.attentions]
        self.scales = {
            name: (x.pow(2).mean(-1, keepdim=True) + model.norm.variance_epsilon).sqrt()
            for name, x in kept.items()
            if not name.startswith("mlp ")
        }
        self.stream = model.embed_tokens(self.ids)[0].detach()
        self.latents, self.errors = [], []
        for layer, coder in enumerate(self.coders):
            name = f"layers.{layer}.post_attention_layernorm"
            read = kept[name] / self.scales[name] * model.get_submodule(name).weight
            self.latents.append((read @ coder["W_enc"] + coder["b_enc"]).relu().detach())
            rebuilt = self.latents[-1] @ coder["W_dec"] + coder["b_dec"]
            self.errors.append((kept[f"mlp {layer}"] - rebuilt).detach())

    def _normed(self, name: str, x: Tensor) -> Tensor:
        return x / self.scales[name] * self.model.model.get_submodule(name).weight

    def value(
        self, stream: Tensor, latents: list[Tensor], errors: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Pre-activations of each layer, [p, F], and logits less their mean, [V], of any sources."""
        pre = []
        for i, layer in enumerate(self.model.model.layers):
            heads = layer.self_attn
            values = heads.v_proj(self._normed(f"layers.{i}.input_layernorm", stream))
            values = values.unflatten(-1, (-1, heads.head_dim)).transpose(0, 1)
            each = len(self.patterns[i]) // len(values)
            brought = self.patterns[i] @ values.repeat_interleave(each, 0)
            stream = stream + heads.o_proj(brought.transpose(0, 1).flatten(1))
            read = self._normed(f"layers.{i}.post_attention_layernorm", stream)
            coder = self.coders[i]
            pre.append(read @ coder["W_enc"] + coder["b_enc"])
            stream = stream + latents[i] @ coder["W_dec"] + coder["b_dec"] + errors[i]
        logits = self.model.lm_head(self._normed("norm", stream)[-1])
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


def held_llama(path: Path, coders: list[Path], ids: Tensor) -> HeldLlama:
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    model.requires_grad_(False)
    files = [load_file(folder / "sae_weights.safetensors") for folder in coders]
    return HeldLlama(model, [{k: v.double() for k, v in file.items()} for file in files], ids)
