"""What the points of MLPs and of experts are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import norms
from garcon_jupyter.certificate.formulas import Compared, Formula
from garcon_jupyter.certificate.values import MOST_NUMBERS, Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor

TURNS, GOLDEN = 60, (5**0.5 - 1) / 2
"""Steps of a search by the golden section, and by how much each narrows it."""

FIRST = slice(0, 1)
"""The first text, which no edit changes."""

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


def activated_above(name: str) -> Formula:
    """The neurons of a gate of which only what is some deviations above the mean is left (Gemma Team 2025, Gemma 3n)."""

    def formula(n: PointValues) -> Compared:
        gate, up, given = n["mlp.pre_activation"], n["mlp.pre_linear"], n["mlp.post_activation"]
        mean, deviation = gate.mean(-1, keepdim=True), gate.std(-1, keepdim=True, correction=0)

        def made(many: float, texts: slice = slice(None)) -> Tensor:
            above = gate[texts] - mean[texts] - many * deviation[texts]
            return GATED[name](_relu(above), up[texts])

        low, high = -4.0, 4.0
        for _ in range(TURNS):
            one, other = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            off = [float((made(x, FIRST) - given[FIRST]).square().sum()) for x in (one, other)]
            low, high = (low, other) if off[0] < off[1] else (one, high)
        return given, made((low + high) / 2)

    return formula


def neurons_of_shared_experts(activation: str) -> Formula:
    """The neurons of the experts that all tokens go through."""

    def formula(n: PointValues) -> Compared:
        gate, up = (n.projected(f"mlp.shared.{x}_proj", n["mlp.in"]) for x in ("gate", "up"))
        return gate.of(n["mlp.shared.post_activation"]), GATED[activation](gate.out, up.out)

    return formula


def neurons_of_shared_experts_without_gate(activation: str) -> Formula:
    """The same where they have no gate."""

    def formula(n: PointValues) -> Compared:
        if f"{n.prefix}mlp.shared.gate_proj" in n.parameters:
            raise Missing("they have a gate")
        up = n.projected("mlp.shared.up_proj", n["mlp.in"])
        return up.of(n["mlp.shared.post_activation"]), ACTIVATIONS[activation](up.out)

    return formula


def gates_of_shared_experts(n: PointValues) -> Compared:
    """What gates these: one number for each token, which may be small where all that is added up is not."""
    read, made = n["mlp.in"], n.projected("mlp.shared.gate", n["mlp.in"])
    return n["mlp.shared.gate"], made.out, norms(read) * n.weight("mlp.shared.gate").norm()


def written_by_shared_experts(n: PointValues) -> Compared:
    """What these write, times the sigmoid of their gate where there is one."""
    made = n.projected("mlp.shared.down_proj", n["mlp.shared.post_activation"])
    gate = n["mlp.shared.gate"].sigmoid() if "mlp.shared.gate" in n else 1.0
    return made.of(n["mlp.shared.out"]), made.out * gate


def beside_an_mlp(n: PointValues) -> bool:
    """Whether an MLP of all tokens stands beside the experts: these then read the stream through norms that have no name."""
    return "mlp.post_activation" in n and bool(n.experts("mlp.experts.{e}.post_activation"))


def neurons_of_experts(activation: str, gate: bool = True, weighed: bool = False) -> Formula:
    """The neurons of each expert, from what the MLP reads: [b, p, expert·M], where the token is routed to it.

    Args:
        gate: experts have one.
        weighed: what an expert reads is multiplied with the token's weight for it (Meta 2025, Llama 4).
    """

    def formula(n: PointValues) -> Compared:
        read = n["mlp.in"]
        experts = n.experts("mlp.experts.{e}.post_activation")
        if not experts or beside_an_mlp(n):
            raise Missing("mlp.experts")
        if gate != (f"{n.prefix}mlp.experts.0.gate_proj" in n.parameters):
            raise Missing("a gate")
        given, made = [], []
        for expert, (neurons, token) in experts.items():
            x, most = read.flatten(0, 1)[token][None], MOST_NUMBERS // len(experts)
            x = x * _weight(n, expert, token) if weighed else x
            up = n.projected(f"mlp.experts.{expert}.up_proj", x, most=most)
            out = ACTIVATIONS[activation](up.out) if not gate else None
            if out is None:
                before = n.projected(f"mlp.experts.{expert}.gate_proj", x, most=most)
                out = GATED[activation](before.out, up.out)
            given.append(_spread(up.of(neurons[None])[0], token, read))
            made.append(_spread(out[0], token, read))
        return _side_by_side(given), _side_by_side(made)

    return formula


def _weight(n: PointValues, expert: int, token: Tensor) -> Tensor:
    """By how much some tokens weigh an expert, [n, 1]."""
    indices, weights = (n[f"mlp.router.{part}"].flatten(0, 1) for part in ("indices", "weights"))
    found: Tensor = (weights * (indices == expert)).sum(-1)[token, None]
    return found


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
    """What the down projection makes of the neurons, after their norm where there is one."""
    neurons = n.first("mlp.post_activation_normed", "mlp.post_activation")
    made = n.projected("mlp.down_proj", neurons)
    return made.of(n["mlp.out"]), made.out


def written_by_experts(weighed: bool = True) -> Formula:
    """What the experts of each token write, by their weights; and what those write that all tokens go through.

    Args:
        weighed: what they write is; else what they read was.
    """

    def formula(n: PointValues) -> Compared:
        import torch

        given = n["mlp.out"]
        experts = n.experts("mlp.experts.{e}.post_activation")
        if not experts:
            raise Missing("mlp.experts")
        out = which = None
        for expert, (neurons, token) in experts.items():
            most = MOST_NUMBERS // len(experts)
            made = n.projected(f"mlp.experts.{expert}.down_proj", neurons[None], most=most)
            if out is None:
                which = made.which
                out = torch.zeros(given[..., 0].numel(), len(which), dtype=given.dtype)
            weight = _weight(n, expert, token) if weighed else 1.0
            out.index_add_(0, token, weight * made.out[0])
        assert out is not None and which is not None
        of_all = n["mlp.shared.out"][..., which] if "mlp.shared.out" in n else 0.0
        return given[..., which], out.unflatten(0, given.shape[:2]) + of_all

    return formula


def adds_what_it_puts_out(formula: Formula) -> Formula:
    """What an MLP adds, unless it is of experts beside it as well, which go through norms that have no name."""

    def unless(n: PointValues) -> Compared:
        if beside_an_mlp(n):
            raise Missing("norms between")
        return formula(n)

    return unless
