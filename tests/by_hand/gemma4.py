"""Gemma 4: heads of two widths, keys that are values, keys of earlier layers, experts beside the MLP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.by_hand.arithmetic import (
    Taps,
    gated_mlp,
    gelu_tanh,
    linear,
    mixed,
    rotated,
    visible,
    written,
)
from tests.by_hand.base import Stored
from tests.by_hand.llama import Gemma2


class Gemma4(Gemma2):
    gain_offset = 0.0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}  # keys and values, by kind of layer
        self.own: Tensor | None = None  # embeddings of the tokens for each layer

    def head_width(self) -> int:
        return 0  # it is that of the layer

    def embedded(self, ids: Tensor) -> Tensor:
        self.ids = ids
        return super().embedded(ids)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        if i == 0 and self.config.hidden_size_per_layer_input:
            self.own = self.of_each_layer(x)
        x = taps("resid_pre", x.clone())  # the layer's input, not the embedding that others read
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        a = taps(
            "attn.contribution", self.post_norm(taps, "attn", block.post_attention_layernorm, a)
        )
        x = taps("resid_mid", x + a)
        h = self.norm(taps.inside("mlp.norm."), block.pre_feedforward_layernorm, x)
        y = gated_mlp(taps, block.mlp, h, gelu_tanh)
        if self.config.enable_moe_block:
            y = self.unseen_norm(block.post_feedforward_layernorm_1, y)
            e = self.experts(taps.inside("mlp."), block, x)
            y = y + self.unseen_norm(block.post_feedforward_layernorm_2, e)
        y = self.post_norm(taps, "mlp", block.post_feedforward_layernorm, y)
        x = x + taps("mlp.contribution", y)
        if self.own is not None:
            gate = taps("per_layer.gate", linear(block.per_layer_input_gate, x))
            gated = taps("per_layer.gated", gelu_tanh(gate) * self.own[:, :, i])
            back = linear(block.per_layer_projection, gated)
            more = self.unseen_norm(block.post_per_layer_input_norm, back)
            x = x + taps("per_layer.contribution", more)
        return taps("resid_post", x * block.layer_scalar)

    def of_each_layer(self, x: Tensor) -> Tensor:
        """[b, p, layers, e]: what the token has, and what its embedding says."""
        stem, e = self.model.model, self.config.hidden_size_per_layer_input
        said = linear(stem.per_layer_model_projection, x) / x.shape[-1] ** 0.5
        said = self.unseen_norm(stem.per_layer_projection_norm, said.unflatten(-1, (-1, e)))
        has = stem.embed_tokens_per_layer.weight[self.ids] * e**0.5
        return (said + has.unflatten(-1, (-1, e))) * 0.5**0.5

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        h, kind = attn("in", h), self.config.layer_types[i]
        heads = self.config.num_attention_heads
        q = attn("q", linear(module.q_proj, h).unflatten(-1, (heads, -1)))
        q = attn("q_normed", self.unseen_norm(module.q_norm, q))
        q = attn("q_rot", self.turned_by(kind, q, positions))
        if i < self.config.num_hidden_layers - self.config.num_kv_shared_layers:
            k = linear(module.k_proj, h).unflatten(-1, (-1, q.shape[-1]))
            v = k if module.v_proj is None else linear(module.v_proj, h).view_as(k)
            v = attn("v", v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt())
            k = attn("k_normed", self.unseen_norm(module.k_norm, attn("k", k.clone())))
            self.kept[kind] = attn("k_rot", self.turned_by(kind, k, positions)), v
        k, v = self.kept[kind]
        z = mixed(attn, q, k, v, visible(mask, self.window(i)), 1.0)
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def turned_by(self, kind: str, x: Tensor, positions: Tensor) -> Tensor:
        """All dimensions where a layer sees a window; elsewhere the first pairs, at the speed that they have of all."""
        rotary, d = self.config.rope_parameters[kind], x.shape[-1]
        turning = int(rotary.get("partial_rotary_factor", 1.0) * d // 2)
        if turning == d // 2:
            return rotated(x, positions, rotary["rope_theta"], d)
        frequency = rotary["rope_theta"] ** (-torch.arange(0, d, 2).double() / d)
        frequency[turning:] = 0
        angle = positions.double()[:, :, None, None] * frequency
        a, b = x.chunk(2, -1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def experts(self, mlp: Taps, block: Any, x: Tensor) -> Tensor:
        router, experts = block.router, block.experts
        plain = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        read = plain * router.scale / x.shape[-1] ** 0.5
        logits = mlp("router.logits", linear(router.proj, read))
        best = logits.softmax(-1).topk(self.config.top_k_experts, -1)
        weights = best.values / best.values.sum(-1, keepdim=True)
        weights = mlp("router.weights", weights * router.per_expert_scale[best.indices])
        indices = mlp("router.indices", best.indices).flatten(0, 1)
        tokens = self.unseen_norm(block.pre_feedforward_layernorm_2, x).flatten(0, 1)
        out = torch.zeros_like(tokens)
        for e in range(self.config.num_experts):
            chosen = indices == e
            token = chosen.any(-1).nonzero()[:, 0]
            gate, up = (tokens[token] @ experts.gate_up_proj[e].T).chunk(2, -1)
            neurons = mlp(f"experts.{e}.post_activation", gelu_tanh(gate) * up)
            weight = (weights.flatten(0, 1) * chosen).sum(-1)[token, None]
            out = out.index_add(0, token, neurons @ experts.down_proj[e].T * weight)
        return out.view_as(x)

    def parameters(self) -> dict[str, Stored]:
        found = super().parameters()
        for i, block in enumerate(self.model.model.layers):
            at = f"layers.{i}"
            if self.config.hidden_size_per_layer_input:
                gate, out = block.per_layer_input_gate, block.per_layer_projection
                found |= self._linear(f"{at}.per_layer.gate_proj", gate)
                found |= self._linear(f"{at}.per_layer.out_proj", out)
                norm = block.post_per_layer_input_norm
                found |= self._norm(f"{at}.per_layer.post_norm", norm)
            if getattr(self.config, "enable_moe_block", False):
                found |= self._linear(f"{at}.mlp.router", block.router.proj)
                found |= self.of_experts(f"{at}.mlp.experts", block.experts)
        return found

    def of_experts(self, at: str, experts: Any) -> dict[str, Stored]:
        found, half = {}, experts.gate_up_proj.shape[1] // 2
        for e in range(len(experts.gate_up_proj)):
            for name, rows in (("gate", slice(half)), ("up", slice(half, None))):
                found[f"{at}.{e}.{name}_proj"] = Stored(
                    experts.gate_up_proj, lambda s, e=e, rows=rows: s[e, rows]
                )
            found[f"{at}.{e}.down_proj"] = Stored(experts.down_proj, lambda s, e=e: s[e])
        return found

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = {}
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            if getattr(module, name, None) is not None:
                found |= self._linear(f"{at}.{name}", getattr(module, name))
        for name in ("q_norm", "k_norm"):
            if hasattr(module, name):
                found |= self._norm(f"{at}.{name}", getattr(module, name))
        return found

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm),
            **self._norm(f"{at}.attn.post_norm", block.post_attention_layernorm),
            **self._norm(f"{at}.mlp.norm", block.pre_feedforward_layernorm),
            **self._norm(f"{at}.mlp.post_norm", block.post_feedforward_layernorm),
        }
