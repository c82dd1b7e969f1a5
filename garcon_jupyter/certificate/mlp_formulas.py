"""What the points of MLPs and of experts are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.formulas import Compared, Formula, factor
from garcon_jupyter.certificate.values import MOST_NUMBERS, Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor

Activation = Callable[["Tensor"], "Tensor"]


def _relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def _silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def _gelu(x: Tensor) -> Tensor:
    made: Tensor = x * (1 + (x / 2**0.5).erf()) / 2
    return made


def _gelu_tanh(x: Tensor) -> Tensor:
    made: Tensor = x * (1 + ((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)).tanh()) / 2
    return made


ACTIVATIONS: dict[str, Activation] = {
    "SiLU": _silu,
    "GELU": _gelu,
    "GELU by tanh": _gelu_tanh,
    "GELU by sigmoid": lambda x: x * (1.702 * x).sigmoid(),
    "ReLU": _relu,
    "ReLU squared": lambda x: _relu(x).square(),
}
"""Non-linearities that models have, by name."""


def _times_up(activation: Activation) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda gate, up: activation(gate) * up


def _clamped_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """gpt-oss's, whose gate and up projection are kept within 7 (OpenAI 2025)."""
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return (up + 1) * gate * (1.702 * gate).sigmoid()


GATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{name: _times_up(act) for name, act in ACTIVATIONS.items()},
    "SwiGLU, clamped": _clamped_swiglu,
}
"""What gated MLPs make of the gate's and the up projection."""


def activated(name: str) -> Formula:
    """The neurons by a named non-linearity, times the up projection where the MLP is gated."""

    def formula(n: PointValues) -> Compared:
        gate = n["mlp.pre_activation"]
        if "mlp.pre_linear" in n:
            return n["mlp.post_activation"], GATED[name](gate, n["mlp.pre_linear"])
        if name not in ACTIVATIONS:
            raise Missing("mlp.pre_linear")
        return n["mlp.post_activation"], ACTIVATIONS[name](gate)

    return formula


def activated_smoothly(n: PointValues) -> Compared:
    """The neurons as a function of their pre-activation alone that does not jump: one with parameters of its own.

    The neurons of a text are put in the order of their pre-activations, and each is compared with the line between its
    neighbours, less what a function of slope 4 may have in between.
    """
    import torch

    gate, given = n["mlp.pre_activation"], n["mlp.post_activation"]
    up = n["mlp.pre_linear"] if "mlp.pre_linear" in n else torch.ones_like(gate)
    off = [_off_the_line(*of_text) for of_text in zip(gate, given, up, strict=True)]
    return given, given + torch.stack(off) * up


def _off_the_line(gate: Tensor, given: Tensor, up: Tensor) -> Tensor:
    """How far the neurons of a text [p, M], by the up projection, are off the lines between their neighbours."""
    import torch

    large = up.flatten().abs() > 0.1 * up.abs().median()
    x, value = gate.flatten()[large], (given / up).flatten()[large]
    order = x.argsort()
    x, value = x[order], value[order]
    left, right = x[:-2], x[2:]
    share = (x[1:-1] - left) / (right - left).clamp(min=1e-300)
    off = value[:-2] + share * (value[2:] - value[:-2]) - value[1:-1]
    slack = 4 * (right - left) * x[1:-1].abs().clamp(min=1.0)
    found = torch.zeros_like(given).flatten()
    found[large.nonzero().flatten()[order[1:-1]]] = off.sign() * (off.abs() - slack).clamp(min=0)
    return found.view_as(given)


def routed(share: str, renormalised: bool) -> Formula:
    """Weights of the chosen experts: softmax or sigmoid of their logits, perhaps made to add up, times one number."""

    def formula(n: PointValues) -> Compared:
        logits, given = n["mlp.router.logits"], n["mlp.router.weights"]
        all_of_them = logits.softmax(-1) if share == "softmax" else logits.sigmoid()
        made = all_of_them.gather(-1, n["mlp.router.indices"].long())
        made = made / made.sum(-1, keepdim=True) if renormalised else made
        return given, made * factor(given, made)

    return formula


def chosen(n: PointValues) -> Compared:
    """The experts of the largest logits."""
    given = n["mlp.router.indices"]
    best = n["mlp.router.logits"].topk(given.shape[-1], -1).indices.double()
    return given.sort(-1).values, best.sort(-1).values


def neurons_of_experts(activation: str) -> Formula:
    """The neurons of each expert, from what the MLP reads: [b, p, expert·M], where the token is routed to it."""

    def formula(n: PointValues) -> Compared:
        read = n["mlp.in"]
        experts = n.experts("mlp.experts.{e}.post_activation")
        if not experts:
            raise Missing("mlp.experts")
        given, made = [], []
        for expert, (neurons, token) in experts.items():
            x, most = read.flatten(0, 1)[token][None], MOST_NUMBERS // len(experts)
            gate = n.projected(f"mlp.experts.{expert}.gate_proj", x, most=most)
            up = n.projected(f"mlp.experts.{expert}.up_proj", x, most=most)
            given.append(_spread(gate.of(neurons[None])[0], token, read))
            made.append(_spread(GATED[activation](gate.out, up.out)[0], token, read))
        return _side_by_side(given), _side_by_side(made)

    return formula


def _spread(rows: Tensor, token: Tensor, like: Tensor) -> Tensor:
    """Rows [n, M] of some tokens as [b, p, M], zero at the others."""
    import torch

    whole = torch.zeros(like.shape[0] * like.shape[1], rows.shape[-1], dtype=rows.dtype)
    whole[token] = rows
    spread: Tensor = whole.unflatten(0, like.shape[:2])
    return spread


def _side_by_side(values: list[Tensor]) -> Tensor:
    import torch

    return torch.cat(values, -1)


def written_by_neurons(n: PointValues) -> Compared:
    """What the down projection makes of the neurons."""
    made = n.projected("mlp.down_proj", n["mlp.post_activation"])
    return made.of(n["mlp.out"]), made.out


def written_by_experts(n: PointValues) -> Compared:
    """What the experts of each token write, by their weights."""
    import torch

    given = n["mlp.out"]
    indices, weights = (n[f"mlp.router.{part}"].flatten(0, 1) for part in ("indices", "weights"))
    experts = n.experts("mlp.experts.{e}.post_activation")
    if not experts:
        raise Missing("mlp.experts")
    out = which = None
    for expert, (neurons, token) in experts.items():
        most = MOST_NUMBERS // len(experts)
        made = n.projected(f"mlp.experts.{expert}.down_proj", neurons[None], most=most)
        if out is None:
            which = made.which
            out = torch.zeros(len(indices), len(which), dtype=given.dtype)
        weight = (weights * (indices == expert)).sum(-1)[token, None]
        out.index_add_(0, token, weight * made.out[0])
    assert out is not None and which is not None
    return given[..., which], out.unflatten(0, given.shape[:2])
