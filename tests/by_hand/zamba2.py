"""Zamba2: Mamba-2 in every layer, and attention and an MLP that some layers share, which write for the mixer alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.by_hand.arithmetic import Taps, linear, mixed, rotated, visible, written
from tests.by_hand.base import Stored
from tests.by_hand.llama import Llama
from tests.by_hand.mamba import mamba2_mix, mamba2_parameters


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


class Zamba2(Llama):
    def final_norm(self) -> Any:
        return self.model.model.final_layernorm

    def turn(self, i: int) -> int:
        """How many layers that share come before this one."""
        return self.config.layer_types[:i].count("hybrid")

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        embedded = taps.values["embed.out"]
        x = taps("resid_pre", x.clone())
        read, holder = x, block
        if hasattr(block, "shared_transformer"):
            shared, holder = block.shared_transformer, block.mamba_decoder
            joint = self.joined(taps.inside("attn."), shared.input_layernorm, x, embedded)
            attn = taps.inside("attn.")
            a = self.attention(attn, shared.self_attn, i, joint, mask, positions)
            h = self.norm(taps.inside("mlp.norm."), shared.pre_ff_layernorm, a)
            y = self.shared_mlp(taps.inside("mlp."), shared.feed_forward, i, h)
            read = x + taps("mixer.aside", linear(block.linear, y))
        mixer = taps.inside("mixer.")
        h = self.norm(mixer.inside("norm."), holder.input_layernorm, read)
        h = mixer("in", h) * mask[:, :, None]
        written_to_stream = mixer("contribution", mamba2_mix(mixer, holder.mamba, h, mask))
        return taps("resid_post", x + written_to_stream)

    def joined(self, attn: Taps, module: Any, x: Tensor, embedded: Tensor) -> Tensor:
        both = torch.cat([x, embedded], -1)
        mean = (both * both).mean(-1, keepdim=True)
        scale = attn("norm.scale", (mean + self.config.rms_norm_eps) ** 0.5)
        return attn("joint", both / scale * module.weight)

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        c, turns = self.config, self.config.use_mem_rope
        q, k, v = (self.projected_by(attn, module, name, i, h) for name in "qkv")
        if turns:
            theta = c.rope_parameters["rope_theta"]
            q = attn("q_rot", rotated(q, positions, theta, self.d))
            k = attn("k_rot", rotated(k, positions, theta, self.d))
        z = mixed(attn, q, k, v, visible(mask, None), (self.d / 2) ** -0.5)
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def projected_by(self, attn: Taps, module: Any, name: str, i: int, h: Tensor) -> Tensor:
        projected = linear(getattr(module, f"{name}_proj"), h)
        if self.config.use_shared_attention_adapter:
            down, up = getattr(module, f"linear_{name}_adapter_list")[self.turn(i)]
            projected = projected + linear(up, linear(down, h))
        return attn(name, projected.unflatten(-1, (-1, self.d)))

    def shared_mlp(self, mlp: Taps, module: Any, i: int, h: Tensor) -> Tensor:
        h = mlp("in", h)
        down, up = module.gate_up_proj_adapter_list[self.turn(i)]
        both = linear(module.gate_up_proj, h) + linear(up, linear(down, h))
        gate, up = both.split(both.shape[-1] // 2, -1)
        gate, up = mlp("pre_activation", gate), mlp("pre_linear", up)
        return mlp("out", linear(module.down_proj, mlp("post_activation", gelu(gate) * up)))

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.model
        found = {
            "embed.weight": Stored(stem.embed_tokens.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", self.final_norm()),
        }
        for i, block in enumerate(stem.layers):
            at, holder = f"layers.{i}", block
            if hasattr(block, "shared_transformer"):
                holder = block.mamba_decoder
                found |= self.of_shared(at, block.shared_transformer, i)
                found[f"{at}.mixer.aside_proj"] = Stored(block.linear.weight)
            found |= self._norm(f"{at}.mixer.norm", holder.input_layernorm)
            found |= mamba2_parameters(f"{at}.mixer", holder.mamba)
        return found

    def of_shared(self, at: str, shared: Any, i: int) -> dict[str, Stored]:
        attn, mlp = shared.self_attn, shared.feed_forward
        found = {f"{at}.attn.joint_norm.weight": Stored(shared.input_layernorm.weight)}
        found |= self._norm(f"{at}.mlp.norm", shared.pre_ff_layernorm)
        for name in "qkvo":
            found |= self._linear(f"{at}.attn.{name}_proj", getattr(attn, f"{name}_proj"))
        if self.config.use_shared_attention_adapter:
            for name in "qkv":
                down, up = getattr(attn, f"linear_{name}_adapter_list")[self.turn(i)]
                found[f"{at}.attn.{name}_own_down_proj"] = Stored(down.weight)
                found[f"{at}.attn.{name}_own_up_proj"] = Stored(up.weight)
        half = self.config.intermediate_size
        down, up = mlp.gate_up_proj_adapter_list[self.turn(i)]
        found[f"{at}.mlp.own_down_proj"] = Stored(down.weight)
        for name, cut in (("gate", slice(half)), ("up", slice(half, None))):
            found |= self._linear(f"{at}.mlp.{name}_proj", mlp.gate_up_proj, cut)
            found[f"{at}.mlp.{name}_own_up_proj"] = Stored(up.weight, lambda s, cut=cut: s[cut])
        return found | self._linear(f"{at}.mlp.down_proj", mlp.down_proj)
