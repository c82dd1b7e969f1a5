"""Taps, and the sums that all architectures are made of, a tap at every point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

Edit = Callable[[Tensor], Tensor]


@dataclass
class Taps:
    """All values of one forward by the names of their points."""

    edits: dict[str, Edit] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    prefix: str = ""

    def __call__(self, name: str, value: Tensor) -> Tensor:
        name = self.prefix + name
        if name in self.edits:
            value = self.edits[name](value)
        if value.is_floating_point() and torch.is_grad_enabled():
            value.retain_grad()
        self.values[name] = value
        return value

    def inside(self, prefix: str) -> Taps:
        return Taps(self.edits, self.values, self.prefix + prefix)


def clipping(taps: Taps, at: str, clipped: Edit) -> Taps:
    """The same taps, where an edit of queries, keys or values is clipped as they are."""
    edits = dict(taps.edits)
    for name in (f"{taps.prefix}{at}{x}" for x in "qkv"):
        if name in edits:
            edits[name] = lambda value, edit=edits[name]: clipped(edit(value))
    return Taps(edits, taps.values, taps.prefix)


def linear(module: Any, x: Tensor) -> Tensor:
    return x @ module.weight.T + (0 if module.bias is None else module.bias)


def rms_norm(taps: Taps, module: Any, x: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    scale = taps("scale", ((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps) ** 0.5)
    return taps("out", taps("normalized", x / scale) * (module.weight + offset))


def layer_norm(taps: Taps, module: Any, x: Tensor, offset: float = 0.0) -> Tensor:
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    bias = getattr(module, "bias", None)
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    variance = (centred * centred).sum(-1, keepdim=True) / x.shape[-1]
    normalized = taps("normalized", centred / taps("scale", (variance + eps) ** 0.5))
    out = normalized * (module.weight + offset)
    return taps("out", out if bias is None else out + bias)


def rotated(x: Tensor, positions: Tensor, theta: float, dims: int) -> Tensor:
    """Rotary positions (Su et al. 2021) on the first `dims` of [b, p, heads, d], halves paired."""
    frequency = theta ** (-torch.arange(0, dims, 2).double() / dims)
    angle = positions.double()[:, :, None, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x.split([dims // 2, dims // 2, x.shape[-1] - dims], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def rotated_in_pairs(x: Tensor, positions: Tensor, theta: float, dims: int) -> Tensor:
    """The same with neighbours paired: dimensions 0 and 1, 2 and 3, where they lie."""
    halves = torch.cat([x[..., :dims:2], x[..., 1:dims:2], x[..., dims:]], -1)
    turned = rotated(halves, positions, theta, dims)
    a, b, rest = turned.split([dims // 2, dims // 2, x.shape[-1] - dims], -1)
    return torch.cat([torch.stack([a, b], -1).flatten(-2), rest], -1)


def visible(mask: Tensor, window: int | None) -> Tensor:
    """Which key each query may see: [b, 1, p_q, p_k]."""
    places = torch.arange(mask.shape[1])
    distance = places[:, None] - places[None, :]
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return (seen & mask[:, None, :].bool())[:, None]


def mixed(
    taps: Taps,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    scale: float,
    cap: float | None = None,
    sinks: Tensor | None = None,
    bias: Tensor | float = 0.0,
) -> Tensor:
    """z [b, p, H, d] from queries [b, p, H, d], keys and values [b, p, K, d]; sinks [H] have no value."""
    group = q.shape[2] // k.shape[2]
    of_head = torch.arange(q.shape[2]) // group  # the key head that each query head reads
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k[:, :, of_head]) * scale
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    scores = scores + bias + (~seen) * torch.finfo(torch.float32).min
    scores = taps("scores", scores)
    highest = scores.amax(-1, keepdim=True).detach()
    raised = (scores - highest).exp()
    beside = 0 if sinks is None else (sinks[:, None, None] - highest).exp()
    pattern = taps("pattern", raised / (raised.sum(-1, keepdim=True) + beside))
    return taps("z", torch.einsum("bhqk,bkhd->bqhd", pattern, v[:, :, of_head]))


def written(taps: Taps, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What attention puts out: the sum of what its heads write; weight [D, H·d]."""
    by_head = weight.reshape(weight.shape[0], z.shape[2], z.shape[3])
    out = taps("head_out", torch.einsum("bphd,ohd->bpho", z, by_head)).sum(2)
    return taps("out", out if bias is None else out + bias)


def expert_mlp(taps: Taps, module: Any, x: Tensor, normalise: bool, router: Any = None) -> Tensor:
    """A mixture of experts: softmax over all, the best k of it; their weights may add up to one."""
    router = module.gate if router is None else router

    def chosen(logits: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.exp().div(logits.exp().sum(-1, keepdim=True)).topk(router.top_k, -1)
        total = best.values.sum(-1, keepdim=True) if normalise else 1
        return best.values / total, best.indices

    taps = taps.inside("mlp.")
    out = routed(taps, module.experts, taps("in", x), router.weight, chosen)
    return taps("contribution", taps("out", out))


def routed(
    taps: Taps,
    experts: Any,
    x: Tensor,
    router: Tensor,
    choose: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """What experts put out for x [b, p, D]; `choose` gives weights and indices [b, p, k] of the router's logits."""
    tokens = x.flatten(0, 1)
    chosen_weights, chosen_indices = choose(taps("router.logits", x @ router.T))
    weights = taps("router.weights", chosen_weights).flatten(0, 1)
    indices = taps("router.indices", chosen_indices).flatten(0, 1)
    out = torch.zeros_like(tokens)
    for expert, (gate_up, down) in enumerate(
        zip(experts.gate_up_proj, experts.down_proj, strict=True)
    ):
        gate, up = gate_up.chunk(2)
        chosen = indices == expert
        token = chosen.any(-1).nonzero()[:, 0]
        neurons = silu(tokens[token] @ gate.T) * (tokens[token] @ up.T)
        neurons = taps(f"experts.{expert}.post_activation", neurons)
        weight = (weights * chosen).sum(-1)[token, None]
        out = out.index_add(0, token, (neurons @ down.T) * weight)
    return out.view_as(x)


def gated_mlp(taps: Taps, module: Any, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    x = taps("mlp.in", x)
    gate = taps("mlp.pre_activation", linear(module.gate_proj, x))
    up = taps("mlp.pre_linear", linear(module.up_proj, x))
    return taps("mlp.out", linear(module.down_proj, taps("mlp.post_activation", act(gate) * up)))


def plain_mlp(taps: Taps, up: Any, down: Any, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    before = taps("mlp.pre_activation", linear(up, taps("mlp.in", x)))
    return taps("mlp.out", linear(down, taps("mlp.post_activation", act(before))))


def relu_squared(x: Tensor) -> Tensor:
    return (x * (x > 0)) ** 2


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
