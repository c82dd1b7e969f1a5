"""Mixtures of experts beside one that all tokens share, and the routers that choose for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.by_hand.arithmetic import Taps, linear, rotated_in_pairs
from tests.by_hand.base import Stored
from tests.by_hand.decoders import Hunyuan
from tests.by_hand.llama import Llama
from tests.by_hand.relatives import Qwen3


class Shared(Llama):
    """A decoder whose layers have experts, some of them shared, or a dense MLP."""

    SHARED = "shared_experts"

    def mlp(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        if not hasattr(module, "experts"):
            return super().mlp(taps, module, h)
        taps = taps.inside("mlp.")
        h = taps("in", h)
        logits = taps("router.logits", h @ self.router(module).T.to(h.dtype))
        weights, indices = self.choice(module.gate, logits)
        weights = taps("router.weights", weights).flatten(0, 1)
        indices = taps("router.indices", indices).flatten(0, 1)
        tokens, out = h.flatten(0, 1), torch.zeros_like(h).flatten(0, 1)
        experts = module.experts
        for e, (gate_up, down) in enumerate(
            zip(experts.gate_up_proj, experts.down_proj, strict=True)
        ):
            chosen = indices == e
            token = chosen.any(-1).nonzero()[:, 0]
            gate, up = (tokens[token] @ gate_up.T).chunk(2, -1)
            neurons = taps(f"experts.{e}.post_activation", silu(gate) * up)
            weight = (weights * chosen).sum(-1)[token, None]
            out = out.index_add(0, token, (neurons @ down.T) * weight)
        return taps("contribution", taps("out", out.view_as(h) + self.shared(taps, module, h)))

    def shared(self, taps: Taps, module: Any, h: Tensor) -> Tensor:
        mlp = getattr(module, self.SHARED)
        neurons = silu(linear(mlp.gate_proj, h)) * linear(mlp.up_proj, h)
        written = linear(mlp.down_proj, taps("shared.post_activation", neurons))
        return taps("shared.out", self.gated(taps, module, h, written))

    def gated(self, taps: Taps, module: Any, h: Tensor, written: Tensor) -> Tensor:
        return written

    def router(self, module: Any) -> Tensor:
        return module.gate.weight

    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices of the chosen experts [b, p, k]."""
        raise NotImplementedError

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        if not hasattr(module, "experts"):
            return super().mlp_parameters(at, module)
        found = {f"{at}.router": Stored(self.router(module))}
        gate_up, down = module.experts.gate_up_proj, module.experts.down_proj
        half = gate_up.shape[1] // 2
        for e in range(len(gate_up)):
            name = f"{at}.experts.{e}"
            found[f"{name}.gate_proj"] = Stored(gate_up, lambda stored, e=e: stored[e, :half])
            found[f"{name}.up_proj"] = Stored(gate_up, lambda stored, e=e: stored[e, half:])
            found[f"{name}.down_proj"] = Stored(down, lambda stored, e=e: stored[e])
        shared = getattr(module, self.SHARED)
        for name in ("gate_proj", "up_proj", "down_proj"):
            found |= self._linear(f"{at}.shared.{name}", getattr(shared, name))
        return found


class Qwen2Moe(Shared):
    SHARED = "shared_expert"

    def gated(self, taps: Taps, module: Any, h: Tensor, written: Tensor) -> Tensor:
        return taps("shared.gate", linear(module.shared_expert_gate, h)).sigmoid() * written

    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.softmax(-1).topk(self.config.num_experts_per_tok, -1)
        return best.values, best.indices

    def mlp_parameters(self, at: str, module: Any) -> dict[str, Stored]:
        found = super().mlp_parameters(at, module)
        if hasattr(module, "experts"):
            found[f"{at}.shared.gate"] = Stored(module.shared_expert_gate.weight)
        return found


class Glm4Moe(Shared):
    normed = Qwen3.normed

    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        return by_sigmoid(self.config, router, logits)


class Dots1(Glm4Moe):
    def window(self, i: int) -> int | None:
        return self.config.sliding_window if i % 2 == 0 else None


class ErnieMoe(Shared):
    rotation = staticmethod(rotated_in_pairs)

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return super().forward(taps, ids, mask, positions) + self.model.lm_head.bias

    def parameters(self) -> dict[str, Stored]:
        return {**super().parameters(), "unembed.bias": Stored(self.model.lm_head.bias)}

    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits.softmax(-1)
        biased = scores + router.moe_statics.e_score_correction_bias[0]
        indices = biased.topk(self.config.num_experts_per_tok, -1).indices
        weights = scores.gather(-1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class HunyuanMoe(Shared, Hunyuan):
    SHARED = "shared_mlp"

    def router(self, module: Any) -> Tensor:
        return module.gate.wg.weight

    def choice(self, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.softmax(-1).topk(self.config.num_experts_per_tok, -1)
        return best.values / best.values.sum(-1, keepdim=True), best.indices


# -- routers ---------------------------------------------------------------------------------


def by_sigmoid(config: Any, router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    """DeepSeek V3: a bias decides who is chosen, within the best groups, and not with what weight."""
    scores = logits.sigmoid()
    biased = scores + router.e_score_correction_bias
    by_group = biased.unflatten(-1, (config.n_group, -1))
    worth = by_group.sort(-1, descending=True).values[..., :2].sum(-1)
    biased = allowed(by_group, worth, config.topk_group, -torch.inf)
    indices = biased.topk(config.num_experts_per_tok, -1, sorted=False).indices
    weights = scores.gather(-1, indices)
    if config.norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights * config.routed_scaling_factor, indices


def by_softmax(config: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    """DeepSeek V2: within the groups that have the best experts."""
    by_group = logits.softmax(-1).unflatten(-1, (config.n_group, -1))
    scores = allowed(by_group, by_group.amax(-1), config.topk_group, 0.0)
    best = scores.topk(config.num_experts_per_tok, -1, sorted=False)
    return best.values * config.routed_scaling_factor, best.indices


def allowed(by_group: Tensor, worth: Tensor, count: int, outside: float) -> Tensor:
    """[…, groups, each] as […, E], with another number outside the groups that are worth most."""
    least = worth.sort(-1, descending=True).values[..., count - 1 : count]
    inside = (worth >= least)[..., None]
    return torch.where(inside, by_group, outside).flatten(-2)
