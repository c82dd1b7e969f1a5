"""Architectures with Llama's module names that differ in norms, routers or what is clipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import (
    Taps,
    clipping,
    gated_mlp,
    gelu_tanh,
    linear,
    mixed,
    relu_squared,
    visible,
    written,
)
from tests.by_hand.base import Stored
from tests.by_hand.decoders import Arcee, Granite, Phi, StarCoder2
from tests.by_hand.llama import Gemma2, Llama
from tests.by_hand.relatives import Olmo2

# -- norms -----------------------------------------------------------------------------------


class Bare(Llama):
    """Norms without parameters."""

    def parameters(self) -> dict[str, Stored]:
        return {n: stored for n, stored in super().parameters().items() if "norm" not in n}

    def _norm(self, name: str, module: Any, offset: float = 0.0) -> dict[str, Stored]:
        assert not list(module.parameters())
        return {}


class Olmo(Bare):
    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = taps("scale", ((centred * centred).mean(-1, keepdim=True) + 1e-5) ** 0.5)
        return taps("out", taps("normalized", centred / scale))

    def projected(self, module: Any, h: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.clipped(x) for x in super().projected(module, h))

    def clipped(self, x: Tensor) -> Tensor:
        bound = self.config.clip_qkv
        return x if bound is None else x.clamp(-bound, bound)

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        inside = clipping(attn, "", self.clipped)
        return super().attention(inside, module, i, h, mask, positions)


class NanoChat(Bare, Arcee):
    act = staticmethod(relu_squared)
    UP, DOWN = "fc1", "fc2"

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        logits = super().forward(taps, ids, mask, positions)
        cap = self.config.final_logit_softcapping
        return cap * (logits / cap).tanh()

    def norm(self, taps: Taps, module: Any, x: Tensor) -> Tensor:
        squares = (x * x).sum(-1, keepdim=True) / x.shape[-1]
        scale = taps("scale", (squares + self.config.rms_norm_eps) ** 0.5)
        return taps("out", taps("normalized", x / scale))

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = x if i else self.unseen_norm(self.final_norm(), x)
        return super().block(taps, block, i, x, mask, positions)

    def turned(
        self, attn: Taps, module: Any, i: int, q: Tensor, k: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        q = attn("q_rot", self.with_positions(i, q, -positions))
        k = attn("k_rot", self.with_positions(i, k, -positions))
        q = attn("q_normed", self.unseen_norm(module.q_norm, q))
        return q, attn("k_normed", self.unseen_norm(module.k_norm, k))


class VaultGemma(Gemma2):
    act = staticmethod(gelu_tanh)

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        h = self.norm(taps.inside("mlp.norm."), block.pre_feedforward_layernorm, x)
        y = gated_mlp(taps, block.mlp, h, self.act)
        return taps("resid_post", x + taps("mlp.contribution", y))

    def norms(self, at: str, block: Any) -> dict[str, Stored]:
        return {
            **self._norm(f"{at}.attn.norm", block.input_layernorm, 1),
            **self._norm(f"{at}.mlp.norm", block.pre_feedforward_layernorm, 1),
        }


class BitNet(Llama):
    act = staticmethod(relu_squared)

    def attention(
        self, attn: Taps, module: Any, i: int, h: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        h = attn("in", h)
        q, k, v = (
            attn(name, x.unflatten(-1, (-1, self.d)))
            for name, x in zip("qkv", self.projected(module, h), strict=True)
        )
        q, k = self.turned(attn, module, i, q, k, positions)
        z = mixed(attn, q, k, v, visible(mask, None), self.scale())
        z = attn("z_normed", self.unseen_norm(module.attn_sub_norm, z.flatten(2)).view_as(z))
        return written(attn, z, module.o_proj.weight, module.o_proj.bias)

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        mlp = taps.inside("mlp.")
        h = mlp("in", h)
        gate = mlp("pre_activation", linear(module.gate_proj, h))
        up = mlp("pre_linear", linear(module.up_proj, h))
        neurons = mlp("post_activation", self.act(gate) * up)
        neurons = mlp("post_activation_normed", self.unseen_norm(module.ffn_sub_norm, neurons))
        return mlp("contribution", mlp("out", linear(module.down_proj, neurons)))

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = super().attention_parameters(at, module)
        return {**found, **self._norm(f"{at}.z_norm", module.attn_sub_norm)}

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = super().mlp_parameters(at, module)
        return {**found, **self._norm(f"{at}.neuron_norm", module.ffn_sub_norm)}


class Jais2(StarCoder2):
    act = staticmethod(relu_squared)
    UP, DOWN = "up_proj", "down_proj"


class Persimmon(Arcee):
    act = staticmethod(relu_squared)
    UP, DOWN = "dense_h_to_4h", "dense_4h_to_h"
    norm, normed = StarCoder2.norm, Phi.normed
    final_norm, output_projection = Phi.final_norm, Phi.output_projection

    def by_part(self, x: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Of each head its query, its key and its value, as the three side by side."""
        heads = x.unflatten(dim, (self.config.num_attention_heads, 3, self.d))
        at = dim % x.dim()
        return tuple(part.flatten(at, at + 1) for part in heads.unbind(at + 1))

    def projected(self, module: Any, h: Tensor) -> tuple[Tensor, ...]:
        return self.by_part(linear(module.query_key_value, h), -1)

    def attention_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found, fused = self._linear(f"{at}.o_proj", module.dense), module.query_key_value
        for n, name in enumerate("qkv"):
            for end, parameter in (("", fused.weight), (".bias", fused.bias)):
                found[f"{at}.{name}_proj{end}"] = Stored(
                    parameter, lambda stored, n=n: self.by_part(stored, 0)[n]
                )
        for name in ("q", "k"):
            found |= self._norm(f"{at}.{name}_norm", getattr(module, f"{name}_layernorm"))
        return found


# -- mixtures of experts ---------------------------------------------------------------------


class Routed(Llama):
    """A mixture of experts whose router chooses in a way of its own."""

    def chosen(self, module: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices of the experts of each token."""
        raise NotImplementedError

    def router(self, module: Any) -> Any:
        return module.router

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        return taps("mlp.contribution", self.mixed_experts(taps, module, h))

    def mixed_experts(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        taps = taps.inside("mlp.")
        h = taps("in", h)
        logits = taps("router.logits", h @ self.router(module).weight.T)
        weights, indices = self.chosen(module, logits)
        weights = taps("router.weights", weights).flatten(0, 1)
        indices = taps("router.indices", indices).flatten(0, 1)
        tokens, out = h.flatten(0, 1), torch.zeros_like(h).flatten(0, 1)
        for e in range(len(module.experts.down_proj)):
            gate, up = module.experts.gate_up_proj[e].chunk(2)
            token = (indices == e).any(-1).nonzero()[:, 0]
            neurons = silu(tokens[token] @ gate.T) * (tokens[token] @ up.T)
            neurons = taps(f"experts.{e}.post_activation", neurons)
            weight = (weights * (indices == e)).sum(-1)[token, None]
            out = out.index_add(0, token, weight * (neurons @ module.experts.down_proj[e].T))
        return taps("out", out.view_as(h))

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        stored, half = module.experts.gate_up_proj, module.experts.gate_up_proj.shape[1] // 2
        found = {f"{at}.router": Stored(self.router(module).weight)}
        for e in range(len(stored)):
            name = f"{at}.experts.{e}"
            found[f"{name}.gate_proj"] = Stored(stored, lambda all_of, e=e: all_of[e, :half])
            found[f"{name}.up_proj"] = Stored(stored, lambda all_of, e=e: all_of[e, half:])
            found[f"{name}.down_proj"] = Stored(module.experts.down_proj, lambda s, e=e: s[e])
        return found


class FlexOlmo(Routed, Olmo2):
    def router(self, module: Any) -> Any:
        return module.gate

    def chosen(self, module: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.softmax(-1).topk(self.config.num_experts_per_tok, -1)
        total = best.values.sum(-1, keepdim=True) if self.config.norm_topk_prob else 1
        return best.values / total, best.indices

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        x = taps("resid_pre", x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, x.clone(), mask, positions)
        a = self.post_norm(taps, "attn", block.post_attention_layernorm, a)
        x = taps("resid_mid", x + taps("attn.contribution", a))
        y = self.mixed_experts(taps, block.mlp, x.clone())
        y = self.post_norm(taps, "mlp", block.post_feedforward_layernorm, y)
        return taps("resid_post", x + taps("mlp.contribution", y))

    norms = Olmo2.norms


class GraniteMoe(Granite, Routed):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for block in self.model.model.layers:
            block.mlp = block.block_sparse_moe

    def chosen(self, module: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.topk(self.config.num_experts_per_tok, -1)
        return best.values.softmax(-1), best.indices

    def block(
        self, taps: Taps, block: Any, i: int, x: Tensor, mask: Tensor, positions: Tensor
    ) -> Tensor:
        factor = self.config.residual_multiplier
        x = taps("resid_pre", x if i else x * self.config.embedding_multiplier)
        h = self.norm(taps.inside("attn.norm."), block.input_layernorm, x)
        a = self.attention(taps.inside("attn."), block.self_attn, i, h, mask, positions)
        x = taps("resid_mid", x + taps("attn.contribution", a * factor))
        h = self.norm(taps.inside("mlp.norm."), block.post_attention_layernorm, x)
        y = self.mixed_experts(taps, block.mlp, h)
        return taps("resid_post", x + taps("mlp.contribution", y * factor))


class MiniMaxM2(Routed):
    normed = Olmo2.normed
    router = FlexOlmo.router

    def chosen(self, module: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        scores = 1 / (1 + (-logits).exp())
        k = self.config.num_experts_per_tok
        indices = (scores + module.e_score_correction_bias).topk(k, -1, sorted=False).indices
        weights = scores.gather(-1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class PhiMoe(Routed):
    norm = StarCoder2.norm

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return super().forward(taps, ids, mask, positions) + self.model.lm_head.bias

    def parameters(self) -> dict[str, Stored]:
        return {**super().parameters(), "unembed.bias": Stored(self.model.lm_head.bias)}

    def chosen(self, module: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        """SparseMixer (Liu et al. 2024): a softmax over the experts that are near the best, and again without it."""
        first, one = self.nearest(logits, logits)
        second, two = self.nearest(
            logits, logits.masked_fill(one == self.every(logits), -torch.inf)
        )
        return torch.cat([first, second], -1), torch.cat([one, two], -1)

    def every(self, logits: Tensor) -> Tensor:
        return torch.arange(logits.shape[-1])

    def nearest(self, logits: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        best, index = left.max(-1, keepdim=True)
        apart = (best - logits) / torch.maximum(logits.abs(), best)
        far = apart > 2 * self.config.router_jitter_noise
        raised = (left - best.detach()).exp() * ~far
        return (raised / raised.sum(-1, keepdim=True)).gather(-1, index), index
