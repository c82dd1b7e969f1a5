"""What mixes tokens without attending, a token at a time: short convolutions, the delta rule, state spaces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from tests.by_hand.arithmetic import Taps


def convolved(
    taps: Taps, module: object, x: Tensor, act: Callable[[Tensor], Tensor] = silu
) -> Tensor:
    """[b, p, C]: each channel sums its own last few positions, weighted; the last weight is of its own one."""
    weight: Tensor = module.weight[:, 0]  # type: ignore[attr-defined]
    bias: Tensor | None = module.bias  # type: ignore[attr-defined]
    x = taps("conv_in", x)
    total = torch.zeros_like(x)
    for back in range(weight.shape[1]):
        earlier = torch.roll(x, back, 1) * (torch.arange(x.shape[1]) >= back)[:, None]
        total = total + earlier * weight[:, -1 - back]
    return taps("conv_out", act(total if bias is None else total + bias))


def delta_rule(taps: Taps, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    """[b, p, R, r] from queries and keys [b, p, G, N], values [b, p, R, r], β and logarithms of decay [b, p, R].

    Decay may be of each channel of the keys, [b, p, R, N].
    """
    q, k, v = taps("q", q), taps("k", k), taps("v", v)
    beta, decay = taps("beta", beta), taps("decay" if decay.dim() == 3 else "channel_decay", decay)
    decay = decay[..., None] if decay.dim() == 3 else decay
    of_head = torch.arange(v.shape[2]) // (v.shape[2] // q.shape[2])
    q, k = (x / ((x * x).sum(-1, keepdim=True) + 1e-6) ** 0.5 for x in (q, k))
    q, k = q[:, :, of_head] * q.shape[-1] ** -0.5, k[:, :, of_head]
    state = torch.zeros(*v.shape[:1], *v.shape[2:], k.shape[-1], dtype=v.dtype)
    read = []
    for p in range(v.shape[1]):
        state = state * decay[:, p].exp()[:, :, None]
        known = torch.einsum("bhvn,bhn->bhv", state, k[:, p])
        news = (v[:, p] - known) * beta[:, p, :, None]
        state = state + torch.einsum("bhv,bhn->bhvn", news, k[:, p])
        read.append(torch.einsum("bhvn,bhn->bhv", state, q[:, p]))
    return taps("state_out", torch.stack(read, 1))


def state_space(
    taps: Taps,
    x: Tensor,
    dt: Tensor,
    write: Tensor,
    read: Tensor,
    speed: Tensor,
    bias: Tensor | None,
    beside: Tensor,
    shortest: float = 0.0,
) -> Tensor:
    """[b, p, R, r] from x [b, p, R, r], steps [b, p, R], B and C [b, p, G, N].

    Args:
        speed: A, [R] or [R, N], negative.
        bias: of the steps, [R].
        beside: D, [R].
        shortest: what no step is shorter than.
    """
    x, dt, write, read = taps("x", x), taps("dt", dt), taps("B", write), taps("C", read)
    step = softplus(dt if bias is None else dt + bias).clamp(min=shortest)
    of_head = torch.arange(x.shape[2]) // (x.shape[2] // write.shape[2])
    write, read = write[:, :, of_head], read[:, :, of_head]
    speed = speed[:, None] if speed.dim() == 1 else speed
    state = torch.zeros(*x.shape[:1], *x.shape[2:], write.shape[-1], dtype=x.dtype)
    out = []
    for p in range(x.shape[1]):
        kept = (step[:, p, :, None] * speed).exp()[:, :, None]
        news = torch.einsum("bh,bhx,bhn->bhxn", step[:, p], x[:, p], write[:, p])
        state = state * kept + news
        out.append(torch.einsum("bhxn,bhn->bhx", state, read[:, p]))
    return taps("state_out", torch.stack(out, 1) + x * beside[:, None])
