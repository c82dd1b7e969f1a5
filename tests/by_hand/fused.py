"""Falcon, CodeGen, MPT and GPT-BigCode: queries, keys and values in one projection, each in an order of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from tests.by_hand.arithmetic import (
    Taps,
    clipping,
    layer_norm,
    linear,
    mixed,
    rotated,
    visible,
)
from tests.by_hand.base import Stored
from tests.by_hand.early import GPTJ, OPT, Early, GPTNeo


class Fused(Early):
    """The parts of a fused projection, as `parts` takes them out of its output or of its rows."""

    FUSED = "query_key_value"

    def parts(self, fused: Tensor) -> dict[str, Tensor]:
        """Queries, keys and values, flat, of what has all of them on its last axis."""
        raise NotImplementedError

    def projected(self, module: Any, h: Tensor) -> list[Tensor]:
        found = self.parts(linear(getattr(module, self.FUSED), h))
        return [found[name].unflatten(-1, (-1, self.d)) for name in "qkv"]

    def attention_parameters(self, at: str, module: Any, projection: Any) -> dict[str, Stored]:
        found, fused = self._linear(f"{at}.o_proj", projection), getattr(module, self.FUSED)
        for name in "qkv":
            for end, stored in (("", fused.weight), (".bias", fused.bias)):
                if stored is not None:
                    found[f"{at}.{name}_proj{end}"] = Stored(
                        stored,
                        lambda s, name=name: self.parts(s.movedim(0, -1))[name].movedim(-1, 0),
                    )
        return found


class Falcon(Fused):
    EMBED, UP, DOWN = "word_embeddings", "dense_h_to_4h", "dense_4h_to_h"
    act = staticmethod(gelu)

    @property
    def FIRST(self) -> str:  # type: ignore[override]
        return "ln_attn" if self.config.new_decoder_architecture else "input_layernorm"

    @property
    def SECOND(self) -> str:  # type: ignore[override]
        later = self.config.new_decoder_architecture
        return "ln_mlp" if later else "post_attention_layernorm"

    def modules(self, block: Any) -> tuple[Any, Any]:
        return block.self_attention, block.self_attention.dense

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        if not self.config.parallel_attn:
            return super().block(taps, block, i, x, mask, positions)
        x = taps("resid_pre", x)
        h = layer_norm(taps.inside("attn.norm."), getattr(block, self.FIRST), x)
        a = self.attention(taps, block, i, h.clone(), mask, positions)
        if hasattr(block, self.SECOND):
            h = layer_norm(taps.inside("mlp.norm."), getattr(block, self.SECOND), x)
        return taps("resid_post", x + a + self.mlp(taps, block, h.clone()))

    def parts(self, fused: Tensor) -> dict[str, Tensor]:
        c = self.config
        groups = (
            c.num_kv_heads if c.new_decoder_architecture else 1 if c.multi_query else self.heads
        )
        by_group = fused.unflatten(-1, (groups, -1, self.d))
        split = {
            "q": by_group[..., :-2, :],
            "k": by_group[..., -2:-1, :],
            "v": by_group[..., -1:, :],
        }
        return {name: part.flatten(-3) for name, part in split.items()}

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
        scale = self.d**-0.5
        if self.config.alibi:  # added before scores are scaled
            heads = torch.arange(1, self.heads + 1).double()
            bias = (
                2 ** (-8 * heads / self.heads)[:, None, None] * positions[:, None, None, :] * scale
            )
        else:
            theta = self.config.rope_parameters["rope_theta"]
            q, k = (rotated(x, positions, theta, self.d) for x in (q, k))
            return mixed(attn, q, k, v, visible(mask, None), scale)
        return attn("z", mixed(Taps(), q, k, v, visible(mask, None), scale, bias=bias))


class CodeGen(Fused, GPTJ):
    FUSED = "qkv_proj"

    def parts(self, fused: Tensor) -> dict[str, Tensor]:
        blocks = fused.unflatten(-1, (4, 3, -1)).unbind(-2)
        return {name: part.flatten(-2) for name, part in zip("qvk", blocks, strict=True)}


class MPT(Fused):
    FIRST, SECOND, UP, DOWN, FUSED = "norm_1", "norm_2", "up_proj", "down_proj", "Wqkv"
    act = staticmethod(gelu)

    @property
    def blocks(self) -> Any:
        return self.stem.blocks

    @property
    def final_norm(self) -> Any:
        return self.stem.norm_f

    def mlp_of(self, block: Any) -> Any:
        return block.ffn

    def parts(self, fused: Tensor) -> dict[str, Tensor]:
        return dict(zip("qkv", fused.chunk(3, -1), strict=True))

    def clipped(self, x: Tensor) -> Tensor:
        bound = self.config.attn_config.clip_qkv
        return x if bound is None else x.clamp(-bound, bound)

    def projected(self, module: Any, h: Tensor) -> list[Tensor]:
        return [self.clipped(x) for x in super().projected(module, h)]

    def attention(
        self, taps: Taps, block: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        inside = clipping(taps, "attn.", self.clipped)
        return super().attention(inside, block, i, h, mask, positions)

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
        heads = torch.arange(1, self.heads + 1).double()
        places = torch.arange(mask.shape[1]) - (mask.shape[1] - 1)  # counted from the last
        bias = 2 ** (-8 * heads / self.heads)[:, None, None] * places
        return mixed(attn, q, k, v, visible(mask, None), self.d**-0.5, bias=bias)


class GPTBigCode(Fused):
    FUSED = "c_attn"
    mixed, entering = OPT.mixed, GPTNeo.entering

    def modules(self, block: Any) -> tuple[Any, Any]:
        return block.attn, block.attn.c_proj

    def parts(self, fused: Tensor) -> dict[str, Tensor]:
        if self.config.multi_query:
            split = fused.split([self.heads * self.d, self.d, self.d], -1)
            return dict(zip("qkv", split, strict=True))
        by_head = fused.unflatten(-1, (self.heads, 3, self.d)).unbind(-2)
        return {name: part.flatten(-2) for name, part in zip("qkv", by_head, strict=True)}

    def parameters(self) -> dict[str, Stored]:
        return {**super().parameters(), "pos_embed.weight": Stored(self.stem.wpe.weight)}
