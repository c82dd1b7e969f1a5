"""Latent attention: keys and values made of something compressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.by_hand.arithmetic import (
    Taps,
    gated_mlp,
    layer_norm,
    linear,
    mixed,
    rms_norm,
    rotated,
    rotated_in_pairs,
    visible,
    written,
)
from tests.by_hand.base import Stored
from tests.by_hand.mixtures import Shared, by_sigmoid, by_softmax


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
        q_latent = self.query_latent(attn, module, h)
        q = linear(module.q_proj, h) if q_latent is None else linear(module.q_b_proj, q_latent)
        q = attn("q", q.unflatten(-1, (c.num_attention_heads, -1)))
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
        seen = self.seen(attn, module, h, q_latent, mask, positions)
        z = mixed(attn, q, k, v, seen, q.shape[-1] ** -0.5)
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def query_latent(self, attn: Taps, module: Any, h: Tensor) -> Tensor | None:
        if module.q_a_proj is None:
            return None
        compressed = linear(module.q_a_proj, h)
        return attn("q_latent", self.latent_norm(module.q_a_layernorm, compressed))

    def latent_norm(self, module: Any, x: Tensor) -> Tensor:
        return rms_norm(Taps(), module, x, module.variance_epsilon)

    def turned_part(self, x: Tensor, positions: Tensor) -> Tensor:
        theta = self.config.rope_parameters["rope_theta"]
        return self.rotation(x, positions, theta, x.shape[-1])

    def seen(
        self,
        attn: Taps,
        module: Any,
        h: Tensor,
        q_latent: Tensor | None,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
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


class DeepSeekV2(Latent):
    rotation = staticmethod(rotated_in_pairs)

    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        return by_softmax(self.config, logits)


class DeepSeekV32(DeepSeekV3):
    """Each query reads the few keys of which an index says most."""

    index_rotation: Callable[[Tensor, Tensor, float, int], Tensor] = staticmethod(rotated)

    def seen(
        self,
        attn: Taps,
        module: Any,
        h: Tensor,
        q_latent: Tensor | None,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        causal = visible(mask, None)
        if module.indexer is not None:
            assert q_latent is not None
            with torch.no_grad():
                worth = self.worth(module.indexer, h, q_latent, positions)
            worth = worth + (~causal[:, 0]) * torch.finfo(torch.float32).min
            best = worth.topk(self.config.index_topk, -1).indices
            self.indices = attn("indices", best)
        chosen = torch.zeros_like(causal.expand(len(h), -1, -1, -1)[:, 0])
        return causal & chosen.scatter(-1, self.indices, True)[:, None]

    def worth(self, index: Any, h: Tensor, q_latent: Tensor, positions: Tensor) -> Tensor:
        """What the index says of each key for each query, [b, p_q, p_k]."""
        heads, turned = self.config.index_n_heads, self.config.qk_rope_head_dim
        theta = self.config.rope_parameters["rope_theta"]
        q = linear(index.wq_b, q_latent).unflatten(-1, (heads, -1))
        k = layer_norm(Taps(), index.k_norm, linear(index.wk, h))[:, :, None]
        q, k = (
            torch.cat(
                [self.index_rotation(x[..., :turned], positions, theta, turned), x[..., turned:]],
                -1,
            )
            for x in (q, k)
        )
        each = torch.einsum("bqhd,bkd->bqhk", q, k[:, :, 0]) * q.shape[-1] ** -0.5
        weights = linear(index.weights_proj, h) * heads**-0.5
        return torch.einsum("bqh,bqhk->bqk", weights, each * (each > 0))


class Glm5(DeepSeekV32):
    index_rotation = staticmethod(rotated_to_halves)


class MiniCPM3(Latent):
    rotation = staticmethod(rotated)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        divided = self.config.hidden_size / self.config.dim_model_base
        return super().forward(taps, ids, mask, positions) / divided

    def embedded(self, ids: Tensor) -> Tensor:
        return super().embedded(ids) * self.config.scale_emb

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        factor = self.config.scale_depth / self.config.num_hidden_layers**0.5
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a * factor))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        y = gated_mlp(taps, block.mlp, h, self.act)
        return taps("resid_post", x + taps("mlp.contribution", y * factor))
