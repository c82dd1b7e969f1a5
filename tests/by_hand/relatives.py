"""Architectures that differ from Llama, Gemma 2 or Mixtral by a few lines."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import (
    Taps,
    expert_mlp,
    gated_mlp,
    linear,
)
from tests.by_hand.base import Stored
from tests.by_hand.llama import Gemma2, Llama, Mixtral


class Mistral(Llama):
    def window(self, i: int) -> int | None:
        return self.config.sliding_window


class Qwen3(Llama):
    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q = attn("q_normed", self.unseen_norm(module.q_norm, q))
        return q, attn("k_normed", self.unseen_norm(module.k_norm, k))


class Qwen3Moe(Qwen3):
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        if hasattr(module, "experts"):
            normalise = getattr(self.config, "norm_topk_prob", True)  # Qwen3-VL always does
            return expert_mlp(taps, module, h, normalise)
        return super().mlp(taps, module, h)

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        kind = Mixtral if hasattr(module, "experts") else Llama
        return kind.mlp_parameters(self, at, module)  # type: ignore[arg-type]


class Gemma3(Gemma2):
    normed = Qwen3.normed

    def rotary(self, i: int) -> dict[str, Any]:
        return self.config.rope_parameters[self.config.layer_types[i]]

    def cap(self) -> float | None:
        return None


class Olmo2(Llama):
    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, x.clone(), mask, positions)
        a = self.post_norm(taps, "attn", block.post_attention_layernorm, a)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        y = gated_mlp(taps, block.mlp, x.clone(), self.act)
        y = self.post_norm(taps, "mlp", block.post_feedforward_layernorm, y)
        return taps("resid_post", x + taps("mlp.contribution", y))

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = (
            self.unseen_norm(norm, heads.flatten(2)).view_as(heads)
            for norm, heads in ((module.q_norm, q), (module.k_norm, k))
        )
        return attn("q_normed", q), attn("k_normed", k)

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.post_norm", block.post_attention_layernorm),
            **self._norm(f"{at}.mlp.post_norm", block.post_feedforward_layernorm),
        }


class Phi3(Llama):
    def cuts(self) -> dict[str, slice]:
        """Rows of queries, keys and values."""
        q, k = (n * self.d for n in (self.config.num_attention_heads, 2))
        return {"q": slice(q), "k": slice(q, q + k), "v": slice(q + k, q + 2 * k)}

    def projected(self, module: Any, h: Tensor) -> tuple[Tensor, ...]:
        fused = linear(module.qkv_proj, h)
        return tuple(fused[..., rows] for rows in self.cuts().values())

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        mlp = taps.inside("mlp.")
        fused = linear(module.gate_up_proj, mlp("in", h))
        half = fused.shape[-1] // 2
        gate = mlp("pre_activation", fused[..., :half])
        up = mlp("pre_linear", fused[..., half:])
        y = mlp("out", linear(module.down_proj, mlp("post_activation", silu(gate) * up)))
        return mlp("contribution", y)

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = self._linear(f"{at}.o_proj", module.o_proj)
        for name, rows in self.cuts().items():
            found |= self._linear(f"{at}.{name}_proj", module.qkv_proj, rows)
        return found

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        half = self.config.intermediate_size
        return {
            **self._linear(f"{at}.gate_proj", module.gate_up_proj, slice(half)),
            **self._linear(f"{at}.up_proj", module.gate_up_proj, slice(half, None)),
            **self._linear(f"{at}.down_proj", module.down_proj),
        }
