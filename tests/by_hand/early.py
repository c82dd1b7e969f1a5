"""GPT-J, GPT-Neo and BLOOM, with attention of their own; and OPT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu

from tests.by_hand.arithmetic import (
    Taps,
    gelu_tanh,
    layer_norm,
    linear,
    mixed,
    plain_mlp,
    rotated_in_pairs,
    visible,
    written,
)
from tests.by_hand.base import ByHand, Stored


class Early(ByHand):
    """A decoder under ``transformer``, with LayerNorms and an MLP of two projections."""

    EMBED, FIRST, SECOND = "wte", "ln_1", "ln_2"
    UP, DOWN = "c_fc", "c_proj"
    act = staticmethod(gelu_tanh)

    @property
    def stem(self) -> Any:
        return self.model.transformer

    @property
    def heads(self) -> int:
        return self.config.num_attention_heads

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        x = taps("embed.out", getattr(self.stem, self.EMBED).weight[ids])
        x = self.entering(taps, x, positions)
        for i, block in enumerate(self.blocks):
            x = self.block(taps.inside(f"layers.{i}."), block, i, x, mask, positions)
        return linear(
            self.model.lm_head, layer_norm(taps.inside("final_norm."), self.final_norm, x)
        )

    def entering(self, taps: Taps, x: Tensor, positions: Tensor) -> Tensor:
        return x

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = layer_norm(taps.inside("attn.norm."), getattr(block, self.FIRST), x)
        x = taps("resid_mid", x + self.attention(taps, block, i, h, mask, positions))
        h = layer_norm(taps.inside("mlp.norm."), getattr(block, self.SECOND), x)
        return taps("resid_post", x + self.mlp(taps, block, h))

    def mlp(self, taps: Taps, block: Any, h: Tensor) -> Tensor:
        up, down = getattr(self.mlp_of(block), self.UP), getattr(self.mlp_of(block), self.DOWN)
        return taps("mlp.contribution", plain_mlp(taps, up, down, h, self.act))

    @property
    def blocks(self) -> Any:
        return self.stem.h

    @property
    def final_norm(self) -> Any:
        return self.stem.ln_f

    def mlp_of(self, block: Any) -> Any:
        """The module with the projections of the MLP."""
        return block.mlp

    def attention(
        self, taps: Taps, block: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        attn, (module, projection) = taps.inside("attn."), self.modules(block)
        q, k, v = (
            attn(name, x)
            for name, x in zip("qkv", self.projected(module, attn("in", h)), strict=True)
        )
        z = self.mixed(attn, i, q, k, v, mask, positions)
        return attn("contribution", written(attn, z, projection.weight, projection.bias))

    def modules(self, block: Any) -> tuple[Any, Any]:
        """The module with the projections of queries, keys and values, and that of the output."""
        return block.attn, block.attn.out_proj

    def projected(self, module: Any, h: Tensor) -> list[Tensor]:
        """Queries, keys and values [b, p, H, d]."""
        projections = (module.q_proj, module.k_proj, module.v_proj)
        return [linear(m, h).unflatten(-1, (self.heads, -1)) for m in projections]

    def mixed(
        self,
        attn: Taps,
        i: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        raise NotImplementedError

    def parameters(self) -> dict[str, Stored]:
        embedding = getattr(self.stem, self.EMBED).weight
        found = {
            "embed.weight": Stored(embedding),
            **self._norm("final_norm", self.final_norm),
            **self._linear("unembed", self.model.lm_head),
        }
        found["unembed.weight"] = found.pop("unembed")
        for i, block in enumerate(self.blocks):
            at = f"layers.{i}"
            found |= self._norm(f"{at}.attn.norm", getattr(block, self.FIRST))
            if hasattr(block, self.SECOND):
                found |= self._norm(f"{at}.mlp.norm", getattr(block, self.SECOND))
            found |= self.attention_parameters(f"{at}.attn", *self.modules(block))
            found |= self._linear(f"{at}.mlp.up_proj", getattr(self.mlp_of(block), self.UP))
            found |= self._linear(f"{at}.mlp.down_proj", getattr(self.mlp_of(block), self.DOWN))
        return found

    def attention_parameters(self, at: str, module: Any, projection: Any) -> dict[str, Stored]:
        found = self._linear(f"{at}.o_proj", projection)
        for name in "qkv":
            found |= self._linear(f"{at}.{name}_proj", getattr(module, f"{name}_proj"))
        return found


class GPTJ(Early):
    UP, DOWN = "fc_in", "fc_out"

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = layer_norm(taps.inside("attn.norm."), block.ln_1, x)
        a = self.attention(taps, block, i, h.clone(), mask, positions)
        return taps("resid_post", x + a + self.mlp(taps, block, h.clone()))

    def mixed(
        self,
        attn: Taps,
        i: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        q, k = (rotated_in_pairs(x, positions, 10000.0, self.config.rotary_dim) for x in (q, k))
        return mixed(attn, q, k, v, visible(mask, None), q.shape[-1] ** -0.5)


class GPTNeo(Early):
    def entering(self, taps: Taps, x: Tensor, positions: Tensor) -> Tensor:
        return x + taps("pos_embed.out", self.stem.wpe.weight[positions])

    def modules(self, block: Any) -> tuple[Any, Any]:
        return block.attn.attention, block.attn.attention.out_proj

    def mixed(
        self,
        attn: Taps,
        i: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        window = self.config.window_size if i % 2 else None
        return mixed(attn, q, k, v, visible(mask, window), 1.0)

    def parameters(self) -> dict[str, Stored]:
        return {**super().parameters(), "pos_embed.weight": Stored(self.stem.wpe.weight)}


class Bloom(Early):
    EMBED, FIRST, SECOND = "word_embeddings", "input_layernorm", "post_attention_layernorm"
    UP, DOWN = "dense_h_to_4h", "dense_4h_to_h"

    def entering(self, taps: Taps, x: Tensor, positions: Tensor) -> Tensor:
        return layer_norm(Taps(), self.stem.word_embeddings_layernorm, x)

    def parameters(self) -> dict[str, Stored]:
        norm = self._norm("embed.norm", self.stem.word_embeddings_layernorm)
        return {**super().parameters(), **norm}

    def modules(self, block: Any) -> tuple[Any, Any]:
        return block.self_attention, block.self_attention.dense

    def projected(self, module: Any, h: Tensor) -> list[Tensor]:
        return list(linear(module.query_key_value, h).unflatten(-1, (self.heads, 3, -1)).unbind(-2))

    def mixed(
        self,
        attn: Taps,
        i: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """ALiBi (Press et al. 2022): a bias that grows with the key's position, steepest in the first head."""
        heads = torch.arange(1, self.heads + 1).double()
        bias = 2 ** (-8 * heads / self.heads)[:, None, None] * positions[:, None, None, :]
        return mixed(attn, q, k, v, visible(mask, None), q.shape[-1] ** -0.5, bias=bias)

    def attention_parameters(self, at: str, module: Any, projection: Any) -> dict[str, Stored]:
        found, fused = self._linear(f"{at}.o_proj", projection), module.query_key_value

        def part(stored: Tensor, n: int) -> Tensor:
            return stored.unflatten(0, (self.heads, 3, -1))[:, n].flatten(0, 1)

        for n, name in enumerate("qkv"):
            for bias, parameter in (("", fused.weight), (".bias", fused.bias)):
                found[f"{at}.{name}_proj{bias}"] = Stored(parameter, lambda s, n=n: part(s, n))
        return found


class OPT(Early):
    EMBED, FIRST, SECOND = "embed_tokens", "self_attn_layer_norm", "final_layer_norm"
    UP, DOWN = "fc1", "fc2"
    act = staticmethod(relu)

    @property
    def stem(self) -> Any:
        return self.model.model.decoder

    @property
    def blocks(self) -> Any:
        return self.stem.layers

    @property
    def final_norm(self) -> Any:
        return self.stem.final_layer_norm

    def mlp_of(self, block: Any) -> Any:
        return block

    def entering(self, taps: Taps, x: Tensor, positions: Tensor) -> Tensor:
        return x + taps("pos_embed.out", self.stem.embed_positions.weight[positions + 2])

    def modules(self, block: Any) -> tuple[Any, Any]:
        return block.self_attn, block.self_attn.out_proj

    def mixed(
        self,
        attn: Taps,
        i: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        return mixed(attn, q, k, v, visible(mask, None), q.shape[-1] ** -0.5)

    def parameters(self) -> dict[str, Stored]:
        places = self.stem.embed_positions.weight
        return {**super().parameters(), "pos_embed.weight": Stored(places, lambda s: s[2:])}
