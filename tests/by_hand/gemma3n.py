"""Gemma 3n: streams that predict and correct one another around each block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions.normal import Normal

from tests.by_hand.arithmetic import Taps, gelu_tanh, linear
from tests.by_hand.gemma4 import Gemma4


def size(x: Tensor) -> Tensor:
    return x.square().mean(-1, keepdim=True)


class Gemma3n(Gemma4):
    def head_width(self) -> int:
        return self.config.head_dim

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.model
        first = taps("embed.out", self.embedded(ids))
        self.own = self.of_each_layer(first)
        others = [linear(into, first) for into in stem.altup_projections]
        x = as_large_as(first, others)
        for i, block in enumerate(stem.layers):
            x = self.block(taps.inside(f"layers.{i}."), block, i, x, mask, positions)
        others = [
            linear(back, x[:, :, j + 1]) for j, back in enumerate(stem.altup_unembed_projections)
        ]
        x = as_large_as(x[:, :, 0], others).mean(2)
        x = self.norm(taps.inside("final_norm."), stem.norm, x)
        cap = self.config.final_logit_softcapping
        return cap * (x @ self.model.lm_head.weight.T / cap).tanh()

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        altup, x = block.altup, taps("altup.streams_pre", x)
        n = x.shape[2]
        mixing = linear(altup.prediction_coefs, self.routed(altup, x[:, :, 0]))
        predicted = x + torch.einsum("bpji,bpid->bpjd", mixing.unflatten(-1, (n, n)), x)
        active = taps("resid_pre", predicted[:, :, 0])
        predicted = torch.cat([active[:, :, None], predicted[:, :, 1:]], 2)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, active)
        low = linear(block.laurel.linear_right, linear(block.laurel.linear_left, h))
        low = taps("laurel.contribution", h + self.unseen_norm(block.laurel.post_laurel_norm, low))
        a = self.attention(taps.inside("attn."), block.self_attn, i, h.clone(), mask, positions)
        a = taps(
            "attn.contribution", self.post_norm(taps, "attn", block.post_attention_layernorm, a)
        )
        mid = taps("resid_mid", (active + a + low) / 2**0.5)
        h = self.norm(taps.inside("mlp.norm."), block.pre_feedforward_layernorm, mid)
        y = self.post_norm(
            taps, "mlp", block.post_feedforward_layernorm, self.sparse(taps, block.mlp, i, h)
        )
        done = mid + taps("mlp.contribution", y)
        much = linear(altup.correction_coefs, self.routed(altup, done)) + 1
        corrected = predicted + much[..., None] * (done - active)[:, :, None]
        read = corrected[:, :, 0] * altup.correct_output_scale
        gate = taps("per_layer.gate", linear(block.per_layer_input_gate, read))
        assert self.own is not None
        gated = taps("per_layer.gated", gelu_tanh(gate) * self.own[:, :, i])
        more = linear(block.per_layer_projection, gated)
        more = self.unseen_norm(block.post_per_layer_input_norm, more)
        more = taps("per_layer.contribution", more)[:, :, None]
        return taps(
            "altup.streams_post", torch.cat([corrected[:, :, :1], corrected[:, :, 1:] + more], 2)
        )

    def routed(self, altup: Any, x: Tensor) -> Tensor:
        read = self.unseen_norm(altup.router_norm, x) / x.shape[-1]
        return linear(altup.modality_router, read).tanh()

    def sparse(self, taps: Taps, module: Any, i: int, h: Tensor) -> Tensor:
        h = taps("mlp.in", h)
        gate = taps("mlp.pre_activation", linear(module.gate_proj, h))
        up = taps("mlp.pre_linear", linear(module.up_proj, h))
        share = self.config.activation_sparsity_pattern[i]
        if share > 0:
            above = Normal(0.0, 1.0).icdf(torch.tensor(share)).double()
            mean = gate.mean(-1, keepdim=True)
            gate = (gate - mean - size(gate - mean).sqrt() * above).clamp(min=0)
        neurons = taps("mlp.post_activation", gelu_tanh(gate) * up)
        return taps("mlp.out", linear(module.down_proj, neurons))


def as_large_as(first: Tensor, others: list[Tensor]) -> Tensor:
    """[b, p, A, D]: the first as it is, and the others scaled to its size."""
    scaled = [x * (size(first) / size(x).clamp(min=1e-5)).sqrt() for x in others]
    return torch.stack([first, *scaled], 2)
