"""Architectures that differ from Llama in positions, norms or multipliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.by_hand.arithmetic import (
    Taps,
    expert_mlp,
    gated_mlp,
    gelu_tanh,
    layer_norm,
    linear,
    plain_mlp,
    relu_squared,
    rotated,
    rotated_in_pairs,
)
from tests.by_hand.base import Stored
from tests.by_hand.llama import Llama, Mixtral
from tests.by_hand.relatives import Mistral, Olmo2, Qwen3

# -- positions -------------------------------------------------------------------------------


class SmolLM3(Llama):
    def with_positions(self, i: int, x: Tensor, positions: Tensor) -> Tensor:
        return x if i % 4 == 3 else super().with_positions(i, x, positions)


class Helium(Llama):
    rotation = staticmethod(rotated_in_pairs)


class Windows(Mistral):
    """Every other layer sees a window only."""

    def window(self, i: int) -> int | None:
        return self.config.sliding_window if i % 2 == 0 else None


class Ministral3(Llama):
    def turned(
        self, attn: Taps, module: Any, i: int, q: Tensor, k: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        rotary = self.config.rope_parameters
        steps = (positions / rotary["original_max_position_embeddings"]).floor()
        scale = 1 + rotary["llama_4_scaling_beta"] * (1 + steps.double()).log()
        q = self.with_positions(i, q, positions) * scale[:, :, None, None]
        return attn("q_rot", q), attn("k_rot", self.with_positions(i, k, positions))


class Olmo3(Olmo2):
    window = Windows.window

    def rotary(self, i: int) -> dict[str, Any]:
        return self.config.rope_parameters[self.config.layer_types[i]]


class Exaone4(Olmo3):
    normed = Qwen3.normed
    rotary = Llama.rotary

    def with_positions(self, i: int, x: Tensor, positions: Tensor) -> Tensor:
        return super().with_positions(i, x, positions) if i % 2 == 0 else x


class Hunyuan(Llama):
    def turned(
        self, attn: Taps, module: Any, i: int, q: Tensor, k: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        q = attn("q_rot", self.with_positions(i, q, positions))
        k = attn("k_rot", self.with_positions(i, k, positions))
        q = attn("q_normed", self.unseen_norm(module.query_layernorm, q))
        return q, attn("k_normed", self.unseen_norm(module.key_layernorm, k))

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return {
            **super().attention_parameters(at, module),
            **self._norm(f"{at}.q_norm", module.query_layernorm),
            **self._norm(f"{at}.k_norm", module.key_layernorm),
        }


# -- MLPs ------------------------------------------------------------------------------------


class Arcee(Llama):
    act: Callable[[Tensor], Tensor] = staticmethod(relu_squared)
    UP, DOWN = "up_proj", "down_proj"

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        up, down = getattr(module, self.UP), getattr(module, self.DOWN)
        return taps("mlp.contribution", plain_mlp(taps, up, down, h, self.activation(module)))

    def activation(self, module: Any) -> Callable[[Tensor], Tensor]:
        return self.act

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        return {
            **self._linear(f"{at}.up_proj", getattr(module, self.UP)),
            **self._linear(f"{at}.down_proj", getattr(module, self.DOWN)),
        }


class StarCoder2(Arcee):
    act = staticmethod(gelu_tanh)
    UP, DOWN = "c_fc", "c_proj"

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return layer_norm(taps, module, x)


class Nemotron(Arcee):
    gain_offset = 1.0

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return layer_norm(taps, module, x, 1.0)

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm, 1.0),
            **self._norm(f"{at}.mlp.norm", block.post_attention_layernorm, 1.0),
        }


class Apertus(Arcee):
    normed = Qwen3.normed

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.attention_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        h = self.norm(taps.inside("mlp.norm."), block.feedforward_layernorm, x)
        return taps("resid_post", x + self.mlp(taps, block.mlp, h))

    def activation(self, module: Any) -> Callable[[Tensor], Tensor]:
        """xIELU (Huang 2024): a parabola above zero, an exponential below."""
        act = module.act_fn
        above, below = softplus(act.alpha_p), act.beta + softplus(act.alpha_n)

        def xielu(x: Tensor) -> Tensor:
            negative = (torch.expm1(torch.minimum(x, act.eps)) - x) * below + act.beta * x
            return torch.where(x > 0, above * x * x + act.beta * x, negative)

        return xielu

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.attention_layernorm),
            **self._norm(f"{at}.mlp.norm", block.feedforward_layernorm),
        }


class Glm(Helium):
    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return taps("mlp.contribution", self.fused_mlp(taps, module, h))

    def fused_mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        gate, up = linear(module.gate_up_proj, taps("mlp.in", h)).chunk(2, -1)
        neurons = self.act(taps("mlp.pre_activation", gate)) * taps("mlp.pre_linear", up)
        return taps("mlp.out", linear(module.down_proj, taps("mlp.post_activation", neurons)))

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        half = self.config.intermediate_size
        return {
            **self._linear(f"{at}.gate_proj", module.gate_up_proj, slice(half)),
            **self._linear(f"{at}.up_proj", module.gate_up_proj, slice(half, None)),
            **self._linear(f"{at}.down_proj", module.down_proj),
        }


class Glm4(Glm):
    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        a = taps(
            "attn.contribution", self.post_norm(taps, "attn", block.post_self_attn_layernorm, a)
        )
        x = taps("resid_mid", x + a)
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        y = self.post_norm(
            taps, "mlp", block.post_mlp_layernorm, self.fused_mlp(taps, block.mlp, h)
        )
        return taps("resid_post", x + taps("mlp.contribution", y))

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **super().norms(at, block),
            **self._norm(f"{at}.attn.post_norm", block.post_self_attn_layernorm),
            **self._norm(f"{at}.mlp.post_norm", block.post_mlp_layernorm),
        }


# -- multipliers -----------------------------------------------------------------------------


class Granite(Llama):
    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return super().forward(taps, ids, mask, positions) / self.config.logits_scaling

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        factor = self.config.residual_multiplier
        x = taps("resid_pre", x if i else x * self.config.embedding_multiplier)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a * factor))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        y = gated_mlp(taps, block.mlp, h, self.act)
        return taps("resid_post", x + taps("mlp.contribution", y * factor))

    def scale(self) -> float:
        return self.config.attention_multiplier


# -- attention and MLP side by side ----------------------------------------------------------


class Cohere(Helium):
    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return super().forward(taps, ids, mask, positions) * self.config.logit_scale

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return layer_norm(taps, module, x)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h.clone(), mask, positions)
        a = taps("attn.contribution", a)
        return taps("resid_post", x + a + self.mlp(taps, block.mlp, h.clone()))

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return self._norm(f"{at}.attn.norm", block.input_layernorm)

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not getattr(self.config, "use_qk_norm", False):
            return q, k
        q = attn("q_normed", self.unseen_norm(module.q_norm, q))  # each head has gains of its own
        return q, attn("k_normed", self.unseen_norm(module.k_norm, k))

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = super().attention_parameters(at, module)
        return {name: stored for name, stored in found.items() if "_norm" not in name}


class Cohere2(Cohere):
    window = Windows.window

    def with_positions(self, i: int, x: Tensor, positions: Tensor) -> Tensor:
        return super().with_positions(i, x, positions) if i % 2 == 0 else x


class Phi(Cohere, Arcee):
    act = staticmethod(gelu_tanh)
    rotation = staticmethod(rotated)
    UP, DOWN = "fc1", "fc2"
    mlp, mlp_parameters = Arcee.mlp, Arcee.mlp_parameters

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return Llama.forward(self, taps, ids, mask, positions) + self.model.lm_head.bias

    def final_norm(self) -> Any:
        return self.model.model.final_layernorm

    def normed(self, attn: Taps, module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q = attn("q_normed", self.unseen_norm(module.q_layernorm, q))
        return q, attn("k_normed", self.unseen_norm(module.k_layernorm, k))

    def output_projection(self, module: Any) -> Any:
        return module.dense

    def parameters(self) -> dict[str, Stored]:
        return {**super().parameters(), "unembed.bias": Stored(self.model.lm_head.bias)}

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = self._linear(f"{at}.o_proj", module.dense)
        for name in ("q", "k", "v"):
            found |= self._linear(f"{at}.{name}_proj", getattr(module, f"{name}_proj"))
        for name in ("q", "k"):
            found |= self._norm(f"{at}.{name}_norm", getattr(module, f"{name}_layernorm"))
        return found


class StableLM(Llama):
    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        return layer_norm(taps, module, x)


# -- mixtures of experts ---------------------------------------------------------------------


class Olmoe(Mixtral):
    normed = Olmo2.normed

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return expert_mlp(taps, module, h, normalise=self.config.norm_topk_prob)


class GptOss(Llama):
    window = Windows.window

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        taps, router, experts = taps.inside("mlp."), module.router, module.experts
        h = taps("in", h)
        logits = taps("router.logits", linear(router, h))
        best = logits.topk(router.top_k, -1)
        weights = taps("router.weights", best.values.softmax(-1)).flatten(0, 1)
        indices = taps("router.indices", best.indices).flatten(0, 1)
        tokens, out = h.flatten(0, 1), torch.zeros_like(h).flatten(0, 1)
        for e in range(experts.num_experts):
            chosen = indices == e
            token = chosen.any(-1).nonzero()[:, 0]
            fused = tokens[token] @ experts.gate_up_proj[e] + experts.gate_up_proj_bias[e]
            gate = fused[:, 0::2].clamp(max=experts.limit)
            up = fused[:, 1::2].clamp(-experts.limit, experts.limit)
            neurons = (up + 1) * gate * (gate * experts.alpha).sigmoid()
            neurons = taps(f"experts.{e}.post_activation", neurons)
            written = neurons @ experts.down_proj[e] + experts.down_proj_bias[e]
            out = out.index_add(0, token, written * (weights * chosen).sum(-1)[token, None])
        return taps("contribution", taps("out", out.view_as(h)))

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found, experts = self._linear(f"{at}.router", module.router), module.experts
        for e in range(experts.num_experts):
            for start, name in enumerate(("gate_proj", "up_proj")):
                rows = slice(start, None, 2)
                found |= {
                    f"{at}.experts.{e}.{name}": Stored(
                        experts.gate_up_proj, lambda stored, e=e, rows=rows: stored[e].T[rows]
                    ),
                    f"{at}.experts.{e}.{name}.bias": Stored(
                        experts.gate_up_proj_bias, lambda stored, e=e, rows=rows: stored[e, rows]
                    ),
                }
            found |= {
                f"{at}.experts.{e}.down_proj": Stored(
                    experts.down_proj, lambda stored, e=e: stored[e].T
                ),
                f"{at}.experts.{e}.down_proj.bias": Stored(
                    experts.down_proj_bias, lambda stored, e=e: stored[e]
                ),
            }
        return found
