"""GPT-2 and GPT-NeoX: LayerNorm, ungated MLPs, and q, k and v in one projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from tests.by_hand.arithmetic import (
    Taps,
    gelu_tanh,
    layer_norm,
    linear,
    mixed,
    rotated,
    visible,
    written,
)
from tests.by_hand.base import ByHand, Stored


class GPT2(ByHand):
    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.transformer
        x = taps("embed.out", stem.wte.weight[ids])
        x = x + taps("pos_embed.out", stem.wpe.weight[positions])
        for i, block in enumerate(stem.h):
            x = self.block(taps.inside(f"layers.{i}."), block, x, visible(mask, None))
        return layer_norm(taps.inside("final_norm."), stem.ln_f, x) @ stem.wte.weight.T

    def block(self, taps: Taps, block: Any, x: Tensor, seen: Tensor) -> Tensor:
        x = taps("resid_pre", x)
        attn = taps.inside("attn.")
        h = attn("in", layer_norm(attn.inside("norm."), block.ln_1, x))
        c_attn, c_proj = block.attn.c_attn, block.attn.c_proj
        fused = h @ c_attn.weight + c_attn.bias
        q, k, v = (
            attn(name, part.reshape(*part.shape[:2], -1, self.d))
            for name, part in zip("qkv", fused.split(x.shape[-1], -1), strict=True)
        )
        z = mixed(attn, q, k, v, seen, self.d**-0.5)
        x = x + attn("contribution", written(attn, z, c_proj.weight.T, c_proj.bias))
        x = taps("resid_mid", x)
        mlp = taps.inside("mlp.")
        h = mlp("in", layer_norm(mlp.inside("norm."), block.ln_2, x))
        up, down = block.mlp.c_fc, block.mlp.c_proj
        neurons = gelu_tanh(mlp("pre_activation", h @ up.weight + up.bias))
        y = mlp("out", mlp("post_activation", neurons) @ down.weight + down.bias)
        return taps("resid_post", x + mlp("contribution", y))

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.transformer
        width = self.config.n_embd
        found = {
            "embed.weight": Stored(stem.wte.weight),
            "unembed.weight": Stored(stem.wte.weight),
            "pos_embed.weight": Stored(stem.wpe.weight),
            **self._norm("final_norm", stem.ln_f),
        }
        for i, block in enumerate(stem.h):
            at = f"layers.{i}"
            fused = block.attn.c_attn
            found |= self._norm(f"{at}.attn.norm", block.ln_1)
            found |= self._norm(f"{at}.mlp.norm", block.ln_2)
            for part, name in enumerate("qkv"):
                cut = slice(part * width, (part + 1) * width)
                found |= self._conv(f"{at}.attn.{name}_proj", fused, cut)
            found |= self._conv(f"{at}.attn.o_proj", block.attn.c_proj)
            found |= self._conv(f"{at}.mlp.up_proj", block.mlp.c_fc)
            found |= self._conv(f"{at}.mlp.down_proj", block.mlp.c_proj)
        return found

    def _conv(self, name: str, module: Any, cut: slice = slice(None)) -> dict[str, Stored]:
        return {
            name: Stored(module.weight, lambda stored: stored[:, cut].T),
            f"{name}.bias": Stored(module.bias, lambda stored: stored[cut]),
        }


class GPTNeoX(ByHand):
    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.gpt_neox
        x = taps("embed.out", stem.embed_in.weight[ids])
        for i, block in enumerate(stem.layers):
            x = self.block(taps.inside(f"layers.{i}."), block, x, positions, visible(mask, None))
        x = layer_norm(taps.inside("final_norm."), stem.final_layer_norm, x)
        return x @ self.model.lm_head.weight.T

    def block(self, taps: Taps, block: Any, x: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        x = taps("resid_pre", x)
        a = self.attention(taps.inside("attn."), block, x, positions, seen)
        parallel = self.config.use_parallel_residual
        middle = x if parallel else taps("resid_mid", x + a)
        mlp = taps.inside("mlp.")
        h = mlp("in", layer_norm(mlp.inside("norm."), block.post_attention_layernorm, middle))
        neurons = gelu(mlp("pre_activation", linear(block.mlp.dense_h_to_4h, h)))
        y = mlp("out", linear(block.mlp.dense_4h_to_h, mlp("post_activation", neurons)))
        y = mlp("contribution", y)
        return taps("resid_post", x + a + y if parallel else middle + y)

    def attention(
        self, attn: Taps, block: Any, x: Tensor, positions: Tensor, seen: Tensor
    ) -> Tensor:
        h = attn("in", layer_norm(attn.inside("norm."), block.input_layernorm, x))
        module, rotary = block.attention, self.config.rope_parameters
        fused = linear(module.query_key_value, h).reshape(*h.shape[:2], -1, 3, self.d)
        q, k, v = (attn(name, fused[:, :, :, part]) for part, name in enumerate("qkv"))
        dims = int(self.d * rotary["partial_rotary_factor"])
        q = attn("q_rot", rotated(q, positions, rotary["rope_theta"], dims))
        k = attn("k_rot", rotated(k, positions, rotary["rope_theta"], dims))
        z = mixed(attn, q, k, v, seen, self.d**-0.5)
        return attn("contribution", written(attn, z, module.dense.weight, module.dense.bias))

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.gpt_neox
        found = {
            "embed.weight": Stored(stem.embed_in.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", stem.final_layer_norm),
        }
        every = torch.arange(3 * self.config.hidden_size)
        for i, block in enumerate(stem.layers):
            at = f"layers.{i}"
            found |= self._norm(f"{at}.attn.norm", block.input_layernorm)
            found |= self._norm(f"{at}.mlp.norm", block.post_attention_layernorm)
            for part, name in enumerate("qkv"):
                rows = every[every // self.d % 3 == part]
                found |= self._linear(
                    f"{at}.attn.{name}_proj", block.attention.query_key_value, rows
                )
            found |= self._linear(f"{at}.attn.o_proj", block.attention.dense)
            found |= self._linear(f"{at}.mlp.up_proj", block.mlp.dense_h_to_4h)
            found |= self._linear(f"{at}.mlp.down_proj", block.mlp.dense_4h_to_h)
        return found
