"""What the points of mixers are made of that do not attend: linear attention, state spaces, short convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.formulas import Compared, Formula, factor, scaled_by_token
from garcon_jupyter.certificate.values import Linear, Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor

TEXTS = 8
"""Texts whose states are kept at once."""

STEPS = 40
"""Of the search for the shortest step."""


def _width(n: PointValues, name: str) -> int:
    """Channels of a part of what the short convolution reads or puts out."""
    sizes = n.catalog.sizes
    if "R" not in sizes:
        raise Missing("how wide its parts are")
    return sizes["G"] * sizes["N"] if name in ("q", "k", "B", "C") else sizes["R"] * sizes["r"]


# -- what is projected and convolved -------------------------------------------------------------


def convolution_reads(*parts: str, numbers: bool = False) -> Formula:
    """Projections of what the mixer reads, side by side.

    Args:
        numbers: each times a number of its own.
    """

    def formula(n: PointValues) -> Compared:
        import torch

        read, given, made, start = n["mixer.conv_in"], [], [], 0
        for part in parts:
            out = n.projected(f"mixer.{part}_proj", n["mixer.in"])
            width = _width(n, part)
            given.append(out.of(read[..., start : start + width]))
            made.append(out.out * factor(given[-1], out.out) if numbers else out.out)
            start += width
        if start != read.shape[-1]:
            raise Missing("all that the convolution reads")
        return torch.cat(given, -1), torch.cat(made, -1)

    return formula


def convolution_reads_gated(n: PointValues) -> Compared:
    """The same of one projection, times a gate."""
    made = n.projected("mixer.x_proj", n["mixer.in"])
    return made.of(n["mixer.conv_in"]), made.out * made.of(n["mixer.in_gate"])


def convolved(activation: str) -> Formula:
    """Each channel's last few positions, weighted; then its activation."""

    def formula(n: PointValues) -> Compared:
        import torch

        x, weight = n["mixer.conv_in"], n.weight("mixer.conv.weight")
        out = torch.zeros_like(x) + n.optional("mixer.conv.bias")
        for back in range(min(weight.shape[1], x.shape[1])):
            earlier = torch.nn.functional.pad(x, (0, 0, back, 0))[:, : x.shape[1]]
            out = out + earlier * weight[:, -1 - back]
        return n["mixer.conv_out"], out * out.sigmoid() if activation else out

    return formula


def part_of_convolved(of: str, *before: str) -> Formula:
    """Some channels of what the short convolution puts out: those after some other parts."""

    def formula(n: PointValues) -> Compared:
        start, given = sum(_width(n, part) for part in before), n[f"mixer.{of}"]
        if n["mixer.conv_out"].shape[-1] == _width(n, "x") and of != "x":
            raise Missing("it puts out nothing else")
        out = n["mixer.conv_out"][..., start : start + _width(n, of)]
        return given, out.reshape(given.shape)

    return formula


def steps_through_a_middle(n: PointValues) -> Compared:
    """Steps of Mamba: of what the convolution puts out, through a narrow middle that may have a norm."""
    middle = n.projected("mixer.dt_down_proj", n["mixer.conv_out"])
    if not middle.whole:
        raise Missing("all of the middle")
    x = middle.out
    if "mixer.dt_norm.weight" in _own(n):
        return _steps_of_a_norm(n, x)
    made = n.projected("mixer.dt_proj", x)
    return made.of(n["mixer.dt"]), made.out


def _steps_of_a_norm(n: PointValues, middle: Tensor) -> Compared:
    """The same where the middle has a norm, whose denominator is one number for each token."""
    made = n.projected("mixer.dt_proj", middle * n.weight("mixer.dt_norm.weight"))
    given = made.of(n["mixer.dt"])
    squares = (made.out**2).sum(-1, keepdim=True).clamp(min=1e-300)
    inverse = (given * made.out).sum(-1, keepdim=True) / squares
    square = middle.pow(2).mean(-1, keepdim=True)
    added = (inverse.pow(-2) - square)[:1].median().clamp(0.0, 1e-3)
    return given, made.out / (square + added).sqrt()


def _own(n: PointValues) -> set[str]:
    """Names of the parameters of a layer, without its beginning."""
    names = n.catalog.parameters
    return {name.removeprefix(n.prefix) for name in names if name.startswith(n.prefix)}


def replaced(n: PointValues) -> Compared:
    """β: the sigmoid of a projection, times one number."""
    made = n.projected("mixer.beta_proj", n["mixer.in"])
    given, out = made.of(n["mixer.beta"]), made.out.sigmoid()
    return given, out * factor(given, out)


def decayed(n: PointValues) -> Compared:
    """−exp(A)·softplus(projection + bias): the logarithm of what a state keeps."""
    made = n.projected("mixer.decay_proj", n["mixer.in"])
    speed, bias = n.weight("mixer.A_log").exp()[made.which], n.weight("mixer.dt_bias")[made.which]
    return made.of(n["mixer.decay"]), -speed * _softplus(made.out + bias)


def channels_decayed(n: PointValues) -> Compared:
    """The same of each channel of the keys, projected through a narrow middle (Kimi Team 2025)."""
    made = _through_a_middle(n, "mixer.decay")
    bias, width = n.weight("mixer.dt_bias")[made.which], n.catalog.sizes["N"]
    speed = n.weight("mixer.A_log").exp()[made.which // width]
    return made.of(n["mixer.channel_decay"]), -speed * _softplus(made.out + bias)


def gate_through_a_middle(n: PointValues) -> Compared:
    """The gate, projected through a narrow middle."""
    made = _through_a_middle(n, "mixer.gate")
    return made.of(n["mixer.gate"]), made.out


def _through_a_middle(n: PointValues, name: str) -> Linear:
    middle = n.projected(f"{name}_down_proj", n["mixer.in"])
    if not middle.whole:
        raise Missing("all of the middle")
    return n.projected(f"{name}_up_proj", middle.out)


def activated(of: str) -> Formula:
    """Queries, keys or values where nothing is convolved: projected, and a SiLU of that (Qin et al. 2024)."""

    def formula(n: PointValues) -> Compared:
        if "mixer.conv_out" in n:
            raise Missing("they are channels of what is convolved")
        made = n.projected(f"mixer.{of}_proj", n["mixer.in"])
        return made.of(n[f"mixer.{of}"]), made.out * made.out.sigmoid()

    return formula


def _softplus(x: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.softplus(x)


# -- recurrences ---------------------------------------------------------------------------------


def _of_heads(groups: Tensor, heads: int) -> Tensor:
    """[b, p, G, N] as [b, p, R, N]."""
    return groups.repeat_interleave(heads // groups.shape[2], 2)


def _in_parts(run: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Something run on a few texts at a time."""
    import torch

    return torch.cat([run(*part) for part in zip(*(v.split(TEXTS) for v in values), strict=True)])


def delta_rule(n: PointValues) -> Compared:
    """A state of which each key's value is replaced by a new one, to a part (Yang et al. 2024)."""
    given = n["mixer.state_out"]
    heads = given.shape[2]
    q, k = (_of_heads(_unit(n[f"mixer.{x}"]), heads) for x in "qk")
    of_channels = "mixer.channel_decay" in n
    decay = n["mixer.channel_decay"] if of_channels else n["mixer.decay"][..., None]
    return given, _in_parts(
        _delta_rule, q * q.shape[-1] ** -0.5, k, n["mixer.v"], n["mixer.beta"], decay
    )


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def _delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    import torch

    state = torch.zeros(len(v), *v.shape[2:], k.shape[-1], dtype=v.dtype)
    read = []
    for p in range(v.shape[1]):
        state = state * decay[:, p, :, None].exp()
        known = torch.einsum("bhvn,bhn->bhv", state, k[:, p])
        news = (v[:, p] - known) * beta[:, p, :, None]
        state = state + torch.einsum("bhv,bhn->bhvn", news, k[:, p])
        read.append(torch.einsum("bhvn,bhn->bhv", state, q[:, p]))
    return torch.stack(read, 1)


def linear_attention(n: PointValues) -> Compared:
    """What queries read of the values of keys, less at each token by a number of each head: that nearest in the first text."""
    import torch

    given = n["mixer.state_out"]
    if "mixer.beta" in n:
        raise Missing("it replaces what keys read")
    q, k, v = (n[f"mixer.{x}"] for x in "qkv")
    scores = torch.einsum("bqhn,bkhn->bhqk", q, k)
    place = torch.arange(v.shape[1])
    ago = (place[:, None] - place[None]).double()

    def made(rate: Tensor, texts: slice = slice(None)) -> Tensor:
        """Rates [R] by the logarithm."""
        kept = (-rate.exp()[:, None, None] * ago.clamp(min=0)).exp() * (ago >= 0)
        return torch.einsum("bhqk,bkhd->bqhd", scores[texts] * kept, v[texts])

    low = torch.full((v.shape[2],), math.log(1e-9), dtype=torch.float64)
    high = torch.full_like(low, math.log(30.0))
    first, golden = slice(0, 1), (5**0.5 - 1) / 2
    for _ in range(2 * STEPS):
        one, other = high - golden * (high - low), low + golden * (high - low)
        off = [(made(x, first) - given[first]).square().sum((0, 1, 3)) for x in (one, other)]
        nearer = off[0] < off[1]
        low, high = torch.where(nearer, low, one), torch.where(nearer, other, high)
    return given, made((low + high) / 2)


def state_space(n: PointValues) -> Compared:
    """A state that decays as each head has it; what is written is x where B says, and read where C says (Dao and Gu 2024)."""
    return n["mixer.state_out"], _state_space(n, 0.0)


def state_space_of_long_steps(n: PointValues) -> Compared:
    """The same where no step is shorter than some length: that with which the first text comes nearest."""
    given, first = n["mixer.state_out"], _first_text(n)
    found = n["mixer.dt"] + n.optional("mixer.dt_bias")
    low, high = math.log(1e-6), float(_softplus(found).max().log())

    def off(length: float) -> float:
        return float((_state_space(first, math.exp(length)) - given[:1]).square().sum())

    golden = (5**0.5 - 1) / 2
    for _ in range(STEPS):
        one, other = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, other) if off(one) < off(other) else (one, high)
    return given, _state_space(n, math.exp((low + high) / 2))


def _first_text(n: PointValues) -> PointValues:
    from dataclasses import replace

    parts = {f"{n.prefix}mixer.{x}": n[f"mixer.{x}"][:1] for x in ("x", "dt", "B", "C")}
    return replace(n, points=parts)


def _state_space(n: PointValues, shortest: float) -> Tensor:
    x, heads = n["mixer.x"], n["mixer.x"].shape[2]
    step = _softplus(n["mixer.dt"] + n.optional("mixer.dt_bias")).clamp(min=shortest)
    speed = -n.weight("mixer.A_log").exp()
    speed = speed[:, None] if speed.dim() == 1 else speed
    write, read = (_of_heads(n[f"mixer.{part}"], heads) for part in "BC")

    def run(x: Tensor, step: Tensor, write: Tensor, read: Tensor) -> Tensor:
        return _scan(x, step, write, read, speed)

    return _in_parts(run, x, step, write, read) + x * n.weight("mixer.D")[:, None]


def _scan(x: Tensor, step: Tensor, write: Tensor, read: Tensor, speed: Tensor) -> Tensor:
    import torch

    state = torch.zeros(len(x), *x.shape[2:], write.shape[-1], dtype=x.dtype)
    out = []
    for p in range(x.shape[1]):
        kept = (step[:, p, :, None] * speed).exp()[:, :, None]
        state = state * kept + torch.einsum("bh,bhx,bhn->bhxn", step[:, p], x[:, p], write[:, p])
        out.append(torch.einsum("bhxn,bhn->bhx", state, read[:, p]))
    return torch.stack(out, 1)


# -- what is put out -----------------------------------------------------------------------------


def _open(n: PointValues, activation: str = "SiLU") -> Tensor:
    """The gate after its activation, [b, p, I]."""
    gate = n["mixer.gate"].flatten(2)
    return gate * gate.sigmoid() if activation == "SiLU" else gate.sigmoid()


def gated(n: PointValues) -> Compared:
    """What is read from the state, times the gate."""
    return n["mixer.gated"], n["mixer.state_out"].flatten(2) * _open(n)


def gates_the_convolution(n: PointValues) -> Compared:
    """What the short convolution puts out, times the gate as it is."""
    return n["mixer.gated"], n["mixer.conv_out"] * n["mixer.gate"]


def _groups(n: PointValues, which: str) -> int:
    return {"head": n.catalog.sizes["R"], "group": n.catalog.sizes["G"], "all": 1}[which]


def normed_and_gated(of: str, first: str, activation: str = "SiLU") -> Formula:
    """What is read from the state after a norm of each head, each group or all of it, and the gate.

    Args:
        first: "norm" or "gate".
        activation: of the gate, "SiLU" or "sigmoid".
    """

    def formula(n: PointValues) -> Compared:
        given, x = n["mixer.gated"], n["mixer.state_out"].flatten(2)
        weight, gate, count = (
            n.weight("mixer.out_norm.weight"),
            _open(n, activation),
            _groups(n, of),
        )
        if weight.numel() < given.shape[-1]:
            weight = weight.repeat(given.shape[-1] // weight.numel())
        if first == "gate":
            x, gain = x * gate, weight.expand_as(x)
        else:
            gain = weight * gate
        x, gain, target = (v.unflatten(-1, (count, -1)) for v in (x, gain, given))
        return target, scaled_by_token(target, x, gain, True)

    return formula


def gated_forms() -> Iterator[tuple[str, Formula]]:
    """All of these by name."""
    yield "", gated
    for of in ("head", "group", "all"):
        yield f"norm of each {of}, gate".replace("each all", "all"), normed_and_gated(of, "norm")
        yield f"gate, norm of each {of}".replace("each all", "all"), normed_and_gated(of, "gate")
        words = f"norm of each {of}, sigmoid of the gate".replace("each all", "all")
        yield words, normed_and_gated(of, "norm", "sigmoid")
    yield "of the convolution", gates_the_convolution
