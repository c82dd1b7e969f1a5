"""LFM2: short convolutions between two gates, and some layers that attend."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from tests.by_hand.arithmetic import Taps, gated_mlp, linear, rms_norm, routed
from tests.by_hand.base import Stored
from tests.by_hand.linear import Hybrid
from tests.by_hand.llama import Llama, Mixtral
from tests.by_hand.recurrences import convolved


class Lfm2(Hybrid):
    mixer = "conv"
    first_norm, second_norm = "operator_norm", "ffn_norm"
    mlp_module = "feed_forward"

    def final_norm(self) -> Any:
        return self.model.model.embedding_norm

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return rms_norm(taps, module, x, self.config.norm_eps)

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q = attn("q_normed", self.unseen_norm(module.q_layernorm, q))
        return q, attn("k_normed", self.unseen_norm(module.k_layernorm, k))

    def output_projection(self, module: Any) -> Any:
        return module.out_proj

    def mix(self, taps: Taps, module: Any, h: Tensor, mask: Tensor) -> Tensor:
        first, second, x = linear(module.in_proj, h).chunk(3, -1)
        first, second = taps("in_gate", first), taps("gate", second)
        out = convolved(taps, module.conv, first * x, act=lambda x: x)
        return taps("out", linear(module.out_proj, taps("gated", second * out)))

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return taps("mlp.contribution", gated_mlp(taps, _by_llama(module), h, self.act))

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = self._norm(f"{at}.q_norm", module.q_layernorm)
        found |= self._norm(f"{at}.k_norm", module.k_layernorm)
        for name in ("q_proj", "k_proj", "v_proj"):
            found |= self._linear(f"{at}.{name}", getattr(module, name))
        return found | self._linear(f"{at}.o_proj", module.out_proj)

    def mixer_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = self._convolution(at, module.conv) | self._linear(f"{at}.out_proj", module.out_proj)
        width = self.config.hidden_size
        for index, name in enumerate(("in_gate_proj", "gate_proj", "x_proj")):
            rows = slice(index * width, (index + 1) * width)
            found |= self._linear(f"{at}.{name}", module.in_proj, rows)
        return found

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return Llama.mlp_parameters(self, at, _by_llama(module))


def _by_llama(module: Any) -> Any:
    return SimpleNamespace(gate_proj=module.w1, up_proj=module.w3, down_proj=module.w2)


class Lfm2Moe(Lfm2):
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        if not hasattr(module, "experts"):
            return super().mlp(taps, module, h)
        gate = module.gate

        def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
            scores = 1 / (1 + (-logits).exp())
            indices = (scores + module.expert_bias).topk(gate.top_k, -1).indices
            weights = scores.gather(-1, indices)
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
            return weights * self.config.routed_scaling_factor, indices

        taps = taps.inside("mlp.")
        out = routed(taps, module.experts, taps("in", h), gate.weight, choose)
        return taps("contribution", taps("out", out))

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        if not hasattr(module, "experts"):
            return super().mlp_parameters(at, module)
        return Mixtral.mlp_parameters(self, at, module)  # type: ignore[arg-type]
