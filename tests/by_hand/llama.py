"""Llama, and the two architectures that add most to it: Gemma 2 and Mixtral."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import (
    Taps,
    expert_mlp,
    gated_mlp,
    gelu_tanh,
    linear,
    mixed,
    rms_norm,
    rotated,
    visible,
    written,
)
from tests.by_hand.base import ByHand, Stored


class Llama(ByHand):
    """Llama, and what the architectures that come from it do otherwise."""

    gain_offset = 0.0
    act: Callable[[Tensor], Tensor] = staticmethod(silu)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        stem = self.model.model
        x = taps("embed.out", self.embedded(ids))
        for i, block in enumerate(stem.layers):
            x = self.block(taps.inside(f"layers.{i}."), block, i, x, mask, positions)
        x = self.norm(taps.inside("final_norm."), self.final_norm(), x)
        return x @ self.model.lm_head.weight.T

    def final_norm(self) -> Any:
        return self.model.model.norm

    def embedded(self, ids: Tensor) -> Tensor:
        return self.model.model.embed_tokens.weight[ids]

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return rms_norm(taps, module, x, self.config.rms_norm_eps, self.gain_offset)

    def post_norm(self, taps: Taps, half: str, module: Any, x: Tensor) -> Tensor:
        """The norm after a half, of which the denominator alone is a point of its own."""
        inside = Taps(taps.edits, {}, f"{taps.prefix}{half}.post_norm.")
        y = self.norm(inside, module, x)
        scale = f"{inside.prefix}scale"
        taps.values[scale] = inside.values[scale]
        return y

    def unseen_norm(self, module: Any, x: Tensor) -> Tensor:
        """A norm that is no point."""
        return self.norm(Taps(), module, x)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        return taps("resid_post", x + self.mlp(taps, block.mlp, h))

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return taps("mlp.contribution", gated_mlp(taps, module, h, self.act))

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        h = attn("in", h)
        q, k, v = (
            attn(name, x.reshape(*h.shape[:2], -1, self.d))
            for name, x in zip("qkv", self.projected(module, h), strict=True)
        )
        q, k = self.turned(attn, module, i, q, k, positions)
        seen = visible(mask, self.window(i))
        z = mixed(attn, q, k, v, seen, self.scale(), self.cap(), getattr(module, "sinks", None))
        projection = self.output_projection(module)
        return written(attn, z, projection.weight, projection.bias)

    def turned(
        self, attn: Taps, module: Any, i: int, q: Tensor, k: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys as attention is given them: with norm, and with positions."""
        q, k = self.normed(attn, module, q, k)
        return (
            attn("q_rot", self.with_positions(i, q, positions)),
            attn("k_rot", self.with_positions(i, k, positions)),
        )

    def with_positions(self, i: int, x: Tensor, positions: Tensor) -> Tensor:
        rotary = self.rotary(i)
        dims = int(self.d * rotary.get("partial_rotary_factor", 1))
        return self.rotation(x, positions, rotary["rope_theta"], dims)

    rotation = staticmethod(rotated)

    def output_projection(self, module: Any) -> Any:
        return module.o_proj

    def projected(self, module: Any, h: Tensor) -> tuple[Tensor, ...]:
        return tuple(linear(m, h) for m in (module.q_proj, module.k_proj, module.v_proj))

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k

    def rotary(self, i: int) -> dict[str, Any]:
        return self.config.rope_parameters

    def window(self, i: int) -> int | None:
        return None

    def scale(self) -> float:
        return self.d**-0.5

    def cap(self) -> float | None:
        return None

    def parameters(self) -> dict[str, Stored]:
        stem = self.model.model
        found = {
            "embed.weight": Stored(stem.embed_tokens.weight),
            "unembed.weight": Stored(self.model.lm_head.weight),
            **self._norm("final_norm", self.final_norm(), self.gain_offset),
        }
        for i, block in enumerate(stem.layers):
            at = f"layers.{i}"
            found |= self.norms(at, block)
            found |= self.attention_parameters(f"{at}.attn", block.self_attn)
            found |= self.mlp_parameters(f"{at}.mlp", block.mlp)
        return found

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm),
            **self._norm(f"{at}.mlp.norm", block.post_attention_layernorm),
        }

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = {}
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found |= self._linear(f"{at}.{name}", getattr(module, name))
        for name in ("q_norm", "k_norm"):
            if hasattr(module, name):
                found |= self._norm(f"{at}.{name}", getattr(module, name), self.gain_offset)
        return found

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = {}
        for name in ("gate_proj", "up_proj", "down_proj"):
            found |= self._linear(f"{at}.{name}", getattr(module, name))
        return found


class Gemma2(Llama):
    gain_offset = 1.0
    act = staticmethod(gelu_tanh)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        logits = super().forward(taps, ids, mask, positions)
        cap = self.config.final_logit_softcapping
        return logits if cap is None else cap * (logits / cap).tanh()

    def embedded(self, ids: Tensor) -> Tensor:
        return super().embedded(ids) * math.sqrt(self.config.hidden_size)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        a = taps(
            "attn.contribution", self.post_norm(taps, "attn", block.post_attention_layernorm, a)
        )
        x = taps("resid_mid", x + a)
        h = self.norm(taps.inside("mlp.norm."), block.pre_feedforward_layernorm, x)
        y = gated_mlp(taps, block.mlp, h, self.act)
        y = taps(
            "mlp.contribution", self.post_norm(taps, "mlp", block.post_feedforward_layernorm, y)
        )
        return taps("resid_post", x + y)

    def window(self, i: int) -> int | None:
        sliding = self.config.layer_types[i] == "sliding_attention"
        return self.config.sliding_window if sliding else None

    def scale(self) -> float:
        return self.config.query_pre_attn_scalar**-0.5

    def cap(self) -> float | None:
        return self.config.attn_logit_softcapping

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm, 1),
            **self._norm(f"{at}.attn.post_norm", block.post_attention_layernorm, 1),
            **self._norm(f"{at}.mlp.norm", block.pre_feedforward_layernorm, 1),
            **self._norm(f"{at}.mlp.post_norm", block.post_feedforward_layernorm, 1),
        }


class Mixtral(Llama):
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return expert_mlp(taps, module, h, normalise=True)

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        gate_up, down = module.experts.gate_up_proj, module.experts.down_proj
        router = module.gate if hasattr(module, "gate") else module.router
        found = {f"{at}.router": Stored(router.weight)}
        half = gate_up.shape[1] // 2
        for e in range(len(gate_up)):
            name = f"{at}.experts.{e}"
            found[f"{name}.gate_proj"] = Stored(gate_up, lambda stored, e=e: stored[e, :half])
            found[f"{name}.up_proj"] = Stored(gate_up, lambda stored, e=e: stored[e, half:])
            found[f"{name}.down_proj"] = Stored(down, lambda stored, e=e: stored[e])
        return found
