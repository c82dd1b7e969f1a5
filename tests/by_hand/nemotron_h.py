"""Nemotron-H: layers that are one thing alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.by_hand.arithmetic import Taps, linear, relu_squared, rms_norm
from tests.by_hand.base import Stored
from tests.by_hand.linear import Hybrid
from tests.by_hand.mamba import Jamba, mamba2_mix, mamba2_parameters


class NemotronH(Hybrid):
    """A layer is one thing alone; all are called `mixer`."""

    def kind(self, block: Any) -> str:
        return {"full_attention": "attn", "linear_attention": "mixer"}.get(block.block_type, "mlp")

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem, eps = self.model.model, self.config.layer_norm_epsilon
        x = taps("embed.out", stem.embeddings.weight[ids])
        for i, block in enumerate(stem.layers):
            inside = taps.inside(f"layers.{i}.")
            x = inside("resid_pre", x)
            kind = self.kind(block)
            h = rms_norm(inside.inside(f"{kind}.norm."), block.norm, x, eps)
            if kind == "mlp":
                y = self.neurons(inside.inside("mlp."), block.mixer, h)
            elif kind == "attn":
                y = self.attention(inside.inside("attn."), block.mixer, i, h, mask, positions)
            else:
                mixer = inside.inside("mixer.")
                y = mamba2_mix(mixer, block.mixer, mixer("in", h) * mask[:, :, None], mask)
            x = inside("resid_post", x + inside(f"{kind}.contribution", y))
        x = rms_norm(taps.inside("final_norm."), stem.norm_f, x, eps)
        return x @ self.model.lm_head.weight.T

    turned = Jamba.turned

    def neurons(self, mlp: Taps, module: Any, h: Tensor) -> Tensor:
        h = mlp("in", h)
        if not hasattr(module, "experts"):
            neurons = mlp(
                "post_activation", relu_squared(mlp("pre_activation", linear(module.up_proj, h)))
            )
            return mlp("out", linear(module.down_proj, neurons))
        tokens, gate = h.flatten(0, 1), module.gate
        # Of transformers 5.24 it stays in float32 where all else is of another dtype.
        logits = mlp("router.logits", h @ gate.weight.to(h.dtype).T)
        scores = 1 / (1 + (-logits).exp())
        by_group = (scores + gate.e_score_correction_bias).unflatten(-1, (gate.num_group, -1))
        sums = by_group.topk(2, -1).values.sum(-1, keepdim=True)
        among = by_group.masked_fill(sums < sums.amax(-2, keepdim=True), -1e9).flatten(-2)
        chosen = among.topk(gate.top_k, -1, sorted=False).indices
        weights = scores.gather(-1, chosen)
        weights = weights / weights.sum(-1, keepdim=True) * self.config.routed_scaling_factor
        weights = mlp("router.weights", weights).flatten(0, 1)
        indices = mlp("router.indices", chosen).flatten(0, 1)
        out = torch.zeros_like(tokens)
        for expert in range(len(module.experts.up_proj)):
            mine = indices == expert
            token = mine.any(-1).nonzero()[:, 0]
            neurons = relu_squared(tokens[token] @ module.experts.up_proj[expert].T)
            neurons = mlp(f"experts.{expert}.post_activation", neurons)
            weight = (weights * mine).sum(-1)[token, None]
            out = out.index_add(0, token, (neurons @ module.experts.down_proj[expert].T) * weight)
        shared = module.shared_experts
        neurons = mlp("shared.post_activation", relu_squared(linear(shared.up_proj, h)))
        return mlp("out", out.view_as(h) + mlp("shared.out", linear(shared.down_proj, neurons)))

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.model
        found = {
            "embed.weight": Stored(stem.embeddings.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", stem.norm_f),
        }
        for i, block in enumerate(stem.layers):
            kind, module = self.kind(block), block.mixer
            at = f"layers.{i}.{kind}"
            found |= self._norm(f"{at}.norm", block.norm)
            if kind == "mixer":
                found |= mamba2_parameters(at, module)
            elif kind == "attn":
                found |= self.attention_parameters(at, module)
            else:
                found |= self.of_neurons(at, module)
        return found

    def of_neurons(self, at: str, module: Any) -> dict[str, Stored]:
        names = ("up_proj", "down_proj")
        if not hasattr(module, "experts"):
            return {f"{at}.{name}": Stored(getattr(module, name).weight) for name in names}
        found = {f"{at}.router": Stored(module.gate.weight)}
        for name in names:
            found[f"{at}.shared.{name}"] = Stored(getattr(module.shared_experts, name).weight)
            stored = getattr(module.experts, name)
            for e in range(len(stored)):
                found[f"{at}.experts.{e}.{name}"] = Stored(stored, lambda whole, e=e: whole[e])
        return found
