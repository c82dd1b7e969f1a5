"""MiniMax 01: lightning attention, a token at a time, and a block that adds to the norm of the stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import Taps, linear, rms_norm, routed
from tests.by_hand.base import Stored
from tests.by_hand.linear import Hybrid
from tests.by_hand.llama import Mixtral


class MiniMax(Hybrid):
    mixer = "self_attn"

    def kind(self, block: Any) -> str:
        return "mixer" if hasattr(block.self_attn, "qkv_proj") else "attn"

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        kind, config = self.kind(block), self.config
        said = "full" if kind == "attn" else "linear"
        kept = getattr(config, f"{said}_attn_alpha_factor")
        added = getattr(config, f"{said}_attn_beta_factor")
        h = self.norm(taps.inside(f"{kind}.norm."), block.input_layernorm, taps("resid_pre", x))
        a = self.first_half(taps, block, i, h.clone(), mask, positions)  # h goes on beside it
        x = taps("resid_mid", kept * h + taps(f"{kind}.contribution", added * a))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        written = config.mlp_beta_factor * self.mlp(taps, block.mlp, h)
        written = taps("mlp.contribution", written)
        return taps("resid_post", config.mlp_alpha_factor * h + written)

    def first_half(
        self, taps: Taps, block: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        if self.kind(block) == "attn":
            return super().first_half(taps, block, i, h, mask, positions)
        taps = taps.inside("mixer.")
        return self.lightning(taps, block.self_attn, i, taps("in", h), mask)

    def lightning(self, taps: Taps, module: Any, i: int, h: Tensor, mask: Tensor) -> Tensor:
        heads = self.config.num_attention_heads
        fused = silu(linear(module.qkv_proj, h)) * mask[:, :, None]
        q, k, v = fused.unflatten(-1, (heads, 3, self.d)).unbind(-2)
        q, k, v = taps("q", q), taps("k", k), taps("v", v)
        state = torch.zeros(len(h), heads, self.d, self.d, dtype=h.dtype)
        read = []
        for p in range(h.shape[1]):
            state = state * self.kept(i)[:, None, None]
            state = state + torch.einsum("bhn,bhv->bhnv", k[:, p], v[:, p])
            read.append(torch.einsum("bhn,bhnv->bhv", q[:, p], state))
        out = taps("state_out", torch.stack(read, 1))
        normed = rms_norm(Taps(), module.norm, out.flatten(2), 1e-6)
        gate = taps("gate", linear(module.output_gate, h))
        return taps("out", linear(module.out_proj, taps("gated", gate.sigmoid() * normed)))

    def kept(self, i: int) -> Tensor:
        """What each head of a layer keeps of its state at a token: those of later layers keep more."""
        heads, last = self.config.num_attention_heads, self.config.num_hidden_layers - 1
        slopes = 2.0 ** (-8 / heads * torch.arange(1, heads + 1).double())
        return (-slopes * (1 - i / (last + 1e-5) + 1e-5)).exp()

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        def chosen(logits: Tensor) -> tuple[Tensor, Tensor]:
            best = logits.topk(module.gate.top_k, -1)
            raised = best.values.exp()
            return raised / raised.sum(-1, keepdim=True), best.indices

        taps = taps.inside("mlp.")
        h = taps("in", h.clone())
        return taps("out", routed(taps, module.experts, h, module.gate.weight, chosen))

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return Mixtral.mlp_parameters(self, at, module)  # type: ignore[arg-type]

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        fused = module.qkv_proj.weight
        found = {
            f"{at}.gate_proj": Stored(module.output_gate.weight),
            f"{at}.out_norm.weight": Stored(module.norm.weight),
            f"{at}.out_proj": Stored(module.out_proj.weight),
        }
        for third, name in enumerate("qkv"):
            found[f"{at}.{name}_proj"] = Stored(
                fused,
                lambda stored, third=third: stored.view(-1, 3, self.d, stored.shape[-1])[
                    :, third
                ].flatten(0, 1),
            )
        return found
