"""Llama 4, whose experts read tokens scaled by the router's score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import (
    Taps,
    gated_mlp,
    linear,
    mixed,
    rotated_in_pairs,
    visible,
    written,
)
from tests.by_hand.base import Stored
from tests.by_hand.llama import Llama


class Llama4(Llama):
    rotation = staticmethod(rotated_in_pairs)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        if i % 2:
            y = self.experts(taps.inside("mlp."), block.feed_forward, h)
        else:
            y = gated_mlp(taps, block.feed_forward, h, silu)
        return taps("resid_post", x + taps("mlp.contribution", y))

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        h = attn("in", h)
        q, k, v = (
            attn(name, linear(projection, h).unflatten(-1, (-1, self.d)))
            for name, projection in zip(
                "qkv", (module.q_proj, module.k_proj, module.v_proj), strict=True
            )
        )
        seen = visible(mask, None)
        if i % 4 < 3:
            q, k = (normalised(self.with_positions(i, x, positions)) for x in (q, k))
            seen = seen & self.same_chunk(mask)
        else:
            column = torch.arange(h.shape[1]).double() + 1
            steps = (column / self.config.floor_scale).floor()
            q = q * (1 + self.config.attn_scale * steps.log1p())[None, :, None, None]
        z = mixed(attn, attn("q_rot", q), attn("k_rot", k), v, seen, self.scale())
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def same_chunk(self, mask: Tensor) -> Tensor:
        """[b, 1, p_q, p_k]: chunks begin where a row does."""
        padding = (mask.cumsum(1) == 0).sum(1, keepdim=True)
        size = self.config.attention_chunk_size
        chunk = (torch.arange(mask.shape[1])[None] - padding).div(size, rounding_mode="floor")
        return (chunk[:, :, None] == chunk[:, None, :])[:, None]

    def experts(self, mlp: Taps, module: Any, h: Tensor) -> Tensor:
        h = mlp("in", h)
        k, n = self.config.num_experts_per_tok, len(module.experts.down_proj)
        best = mlp("router.logits", h @ module.router.weight.T).topk(k, -1)
        weights = mlp("router.weights", 1 / (1 + (-best.values).exp())).flatten(0, 1)
        indices = mlp("router.indices", best.indices).flatten(0, 1)
        tokens, out = h.flatten(0, 1), torch.zeros_like(h).flatten(0, 1)
        for e in range(n):
            chosen = indices == e
            token = chosen.any(-1).nonzero()[:, 0]
            read = tokens[token] * (weights * chosen).sum(-1)[token, None]
            gate, up = (read @ module.experts.gate_up_proj[e]).chunk(2, -1)
            neurons = mlp(f"experts.{e}.post_activation", silu(gate) * up)
            out = out.index_add(0, token, neurons @ module.experts.down_proj[e])
        one = module.shared_expert
        neurons = silu(linear(one.gate_proj, h)) * linear(one.up_proj, h)
        shared = linear(one.down_proj, mlp("shared.post_activation", neurons))
        return mlp("out", out.view_as(h) + mlp("shared.out", shared))

    def parameters(self) -> dict[str, Stored]:
        for block in self.model.model.layers:
            block.mlp = block.feed_forward  # by the name that the others have
        try:
            return super().parameters()
        finally:
            for block in self.model.model.layers:
                del block.mlp

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        if not hasattr(module, "experts"):
            return super().mlp_parameters(at, module)
        gate_up, down = module.experts.gate_up_proj, module.experts.down_proj
        found = {f"{at}.router": Stored(module.router.weight)}
        for name in ("gate_proj", "up_proj", "down_proj"):
            found |= self._linear(f"{at}.shared.{name}", getattr(module.shared_expert, name))
        half = gate_up.shape[2] // 2
        for e in range(len(gate_up)):
            name = f"{at}.experts.{e}"
            found[f"{name}.gate_proj"] = Stored(gate_up, lambda s, e=e: s[e, :, :half].T)
            found[f"{name}.up_proj"] = Stored(gate_up, lambda s, e=e: s[e, :, half:].T)
            found[f"{name}.down_proj"] = Stored(down, lambda s, e=e: s[e].T)
        return found


def normalised(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
