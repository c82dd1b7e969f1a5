"""Kimi Linear: Kimi Delta Attention, and latent attention that knows of no positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.by_hand.arithmetic import Taps, linear, mixed, rms_norm, visible, written
from tests.by_hand.base import Stored
from tests.by_hand.latent import DeepSeekV3
from tests.by_hand.linear import Hybrid
from tests.by_hand.recurrences import convolved, delta_rule


class KimiLinear(Hybrid, DeepSeekV3):
    mixer = "self_attn"

    def kind(self, block: Any) -> str:
        return "mixer" if hasattr(block.self_attn, "forget_gate") else "attn"

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        c = self.config
        h = attn("in", h)
        latent = self.query_latent(attn, module, h)
        q = linear(module.q_proj, h) if latent is None else linear(module.q_b_proj, latent)
        q = attn("q", q.unflatten(-1, (c.num_attention_heads, -1)))
        both = linear(module.kv_a_proj_with_mqa, h)
        kv = self.latent_norm(module.kv_a_layernorm, both[..., : c.kv_lora_rank])
        kv, shared = attn("kv_latent", kv), attn("k_rope", both[..., c.kv_lora_rank :])
        expanded = linear(module.kv_b_proj, kv).unflatten(-1, (c.num_attention_heads, -1))
        own = attn("k_nope", expanded[..., : c.qk_nope_head_dim])
        v = attn("v", expanded[..., c.qk_nope_head_dim :])
        of_all = shared[:, :, None].expand(-1, -1, own.shape[2], -1)
        k = attn("k", torch.cat([own, of_all], -1))
        z = mixed(attn, q, k, v, visible(mask, None), q.shape[-1] ** -0.5)
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def mix(self, taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
        heads, width = self.config.linear_num_heads, self.config.linear_head_dim
        read = torch.cat([linear(m, h) for m in (module.q_proj, module.k_proj, module.v_proj)], -1)
        q, k, v = convolved(taps, module.conv1d, read).unflatten(-1, (3, heads, width)).unbind(2)
        forget = module.forget_gate
        step = linear(forget.f_b_proj, linear(forget.f_a_proj, h)) + forget.dt_bias
        decay = -forget.A_log.exp() * softplus(step.unflatten(-1, (heads, width)))
        out = delta_rule(taps, q, k, v, linear(module.b_proj, h).sigmoid(), decay)
        gate = taps("gate", linear(module.g_b_proj, linear(module.g_a_proj, h)))
        normed = rms_norm(Taps(), module.o_norm, out, self.config.rms_norm_eps)
        gated = taps("gated", normed.flatten(2) * gate.sigmoid())
        return taps("out", linear(module.o_proj, gated))

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        forget = module.forget_gate
        projections = {
            **{"q": module.q_proj, "k": module.k_proj, "v": module.v_proj},
            **{"beta": module.b_proj, "out": module.o_proj},
            **{"decay_down": forget.f_a_proj, "decay_up": forget.f_b_proj},
            **{"gate_down": module.g_a_proj, "gate_up": module.g_b_proj},
        }
        return {
            **{f"{at}.{name}_proj": Stored(m.weight) for name, m in projections.items()},
            **self._convolution(at, module.conv1d),
            f"{at}.A_log": Stored(forget.A_log, lambda stored: stored[0, 0, :, 0]),
            f"{at}.dt_bias": Stored(forget.dt_bias),
            f"{at}.out_norm.weight": Stored(module.o_norm.weight),
        }
