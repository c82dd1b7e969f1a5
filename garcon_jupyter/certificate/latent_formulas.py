"""What the points of latent attention are made of (DeepSeek-AI 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.certificate.attention_formulas import HIDDEN, turned_from
from garcon_jupyter.certificate.formulas import Compared, Formula, scaled_by_token
from garcon_jupyter.certificate.values import PointValues

if TYPE_CHECKING:
    from torch import Tensor


def compressed(of: str, source: str, by: str, norm: str) -> Formula:
    """Another point through a projection, and the norm of what it puts out, times a gain.

    Of a projection some rows of which are read, the denominator is the number that fits each token best.
    """

    def formula(n: PointValues) -> Compared:
        made = n.projected(by, n[source])
        gain, bias = n.optional(f"{norm}.weight"), n.optional(f"{norm}.bias")
        gain = 1.0 if isinstance(gain, float) else gain[made.which]
        bias = bias if isinstance(bias, float) else bias[made.which]
        given = made.of(n[of]) - bias
        return given, scaled_by_token(given, made.out, gain, made.whole)

    return formula


def two_parts(n: PointValues) -> Compared:
    """Keys: each head's own part, and beside it the part of all heads, turned by rotary positions."""
    import torch

    own, shared = n["attn.k_nope"], n["attn.k_rope"]
    beside = n["attn.k_rot"][..., own.shape[-1] :]
    given, made, *_ = turned_from(beside, shared[:, :, None].expand_as(beside))
    first = beside[:, :, :1].expand_as(beside)
    parts = (n["attn.k_rot"][..., : own.shape[-1]], beside), (own, first)
    value, of = (torch.cat([x.flatten(2) for x in pair], -1) for pair in parts)
    return _under(value, given), _under(of, made)


def two_parts_unturned(n: PointValues) -> Compared:
    """The same where attention knows of no positions (Kimi Team 2025)."""
    import torch

    own, shared = n["attn.k_nope"], n["attn.k_rope"]
    of_all = shared[:, :, None].expand(*own.shape[:3], -1)
    return n["attn.k"], torch.cat([own, of_all], -1)


def _under(value: Tensor, other: Tensor) -> Tensor:
    """Two values [b, p, …] one after the other along p, filled up with zeros."""
    import torch

    wide = max(value.shape[-1], other.shape[-1])
    parts = [torch.nn.functional.pad(x, (0, wide - x.shape[-1])) for x in (value, other)]
    return torch.cat(parts, 1)


def keys_chosen(n: PointValues) -> Compared:
    """Which keys are not hidden: those that the query names, of those that are not in the future: [b, p_q, p_k]."""
    import torch

    indices, scores = n["attn.indices"].long(), n["attn.scores"]
    length = scores.shape[-1]
    named = torch.zeros(*indices.shape[:2], max(length, int(indices.max()) + 1))
    named = named.scatter(-1, indices.clamp(min=0), 1.0)[..., :length]
    past = torch.ones(length, length).tril()
    seen = (scores > HIDDEN).any(1)
    return seen.double() * past, (named * past).double()
