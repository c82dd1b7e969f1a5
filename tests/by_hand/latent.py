"""Latent attention: keys and values made of something compressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.by_hand.arithmetic import Taps, linear, mixed, rms_norm, rotated, visible, written
from tests.by_hand.base import Stored
from tests.by_hand.mixtures import Shared, by_sigmoid


def rotated_to_halves(x: Tensor, positions: Tensor, theta: float, dims: int) -> Tensor:
    """Rotary positions on neighbours, which come out as halves."""
    return rotated(torch.cat([x[..., 0::2], x[..., 1::2]], -1), positions, theta, dims)


class Latent(Shared):
    """Attention of DeepSeek's kind."""

    rotation: Callable[[Tensor, Tensor, float, int], Tensor] = staticmethod(rotated_to_halves)

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        c = self.config
        h = attn("in", h)
        q = attn("q", self.queries(attn, module, h).unflatten(-1, (c.num_attention_heads, -1)))
        compressed, shared = linear(module.kv_a_proj_with_mqa, h).split(
            [c.kv_lora_rank, c.qk_rope_head_dim], -1
        )
        kv = attn("kv_latent", self.latent_norm(module.kv_a_layernorm, compressed))
        shared = attn("k_rope", shared)
        expanded = linear(module.kv_b_proj, kv).unflatten(-1, (c.num_attention_heads, -1))
        own = attn("k_nope", expanded[..., : c.qk_nope_head_dim])
        v = attn("v", expanded[..., c.qk_nope_head_dim :])
        turned = self.turned_part(shared[:, :, None], positions).expand(-1, -1, own.shape[2], -1)
        first, last = q[..., : c.qk_nope_head_dim], q[..., c.qk_nope_head_dim :]
        q = attn("q_rot", torch.cat([first, self.turned_part(last, positions)], -1))
        k = attn("k_rot", torch.cat([own, turned], -1))
        seen = self.seen(module, i, h, mask, positions)
        z = mixed(attn, q, k, v, seen, q.shape[-1] ** -0.5)
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def queries(self, attn: Taps, module: Any, h: Tensor) -> Tensor:
        if module.q_a_proj is None:
            return linear(module.q_proj, h)
        latent = self.latent_norm(module.q_a_layernorm, linear(module.q_a_proj, h))
        return linear(module.q_b_proj, attn("q_latent", latent))

    def latent_norm(self, module: Any, x: Tensor) -> Tensor:
        return rms_norm(Taps(), module, x, module.variance_epsilon)

    def turned_part(self, x: Tensor, positions: Tensor) -> Tensor:
        theta = self.config.rope_parameters["rope_theta"]
        return self.rotation(x, positions, theta, x.shape[-1])

    def seen(self, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return visible(mask, None)

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        c = self.config
        found = self._linear(f"{at}.o_proj", module.o_proj)
        for name in ("q_proj", "q_a_proj", "q_b_proj"):
            if getattr(module, name, None) is not None:
                found |= self._linear(f"{at}.{name}", getattr(module, name))
        if module.q_a_proj is not None:
            found |= self._norm(f"{at}.q_a_norm", module.q_a_layernorm)
        found |= self._norm(f"{at}.kv_a_norm", module.kv_a_layernorm)
        first, rest = slice(c.kv_lora_rank), slice(c.kv_lora_rank, None)
        found |= self._linear(f"{at}.kv_a_proj", module.kv_a_proj_with_mqa, first)
        found |= self._linear(f"{at}.k_rope_proj", module.kv_a_proj_with_mqa, rest)
        both = torch.arange(module.kv_b_proj.weight.shape[0]).view(c.num_attention_heads, -1)
        own, value = both[:, : c.qk_nope_head_dim], both[:, c.qk_nope_head_dim :]
        found |= self._linear(f"{at}.k_b_proj", module.kv_b_proj, own.flatten())
        return found | self._linear(f"{at}.v_b_proj", module.kv_b_proj, value.flatten())


class DeepSeekV3(Latent):
    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        return by_sigmoid(self.config, router, logits)
