"""What the points of attention are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import norms
from garcon_jupyter.certificate.formulas import Compared, Formula, factor, scaled_by_token
from garcon_jupyter.certificate.values import Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = -1e4
"""A score below is one of a key that the query does not see."""

TURNS = 60
"""Steps of the search for a soft cap, by the golden section."""

GOLDEN = (5**0.5 - 1) / 2


def turned(of: str, *sources: str, unit: bool = False) -> Formula:
    """Queries or keys after rotary positions: see :func:`turned_from`.

    Args:
        unit: a norm without gains comes after, which makes the mean square of each head one.
    """

    def formula(n: PointValues) -> Compared:
        after, before = n[of], n.first(*sources)
        if after.shape != before.shape:
            return after, before
        if unit:
            before = before / before.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-300)
        return turned_from(after, before)

    return formula


def turned_from(after: Tensor, before: Tensor) -> Compared:
    """Rotary positions turn pairs of dimensions: so the norm of a head stays.

    Up to one number for each token, since some models scale queries by their position. Token 0 is not turned, in whatever
    order its dimensions are put.
    """
    kept, had = after.norm(dim=-1), before.norm(dim=-1)
    squares = (had * had).sum(-1, keepdim=True).clamp(min=1e-300)
    had = had * ((kept * had).sum(-1, keepdim=True) / squares)
    first, was = (value[:, :1].sort(-1).values for value in (after, before))
    return _stacked(kept, first), _stacked(had, was * factor(first, was))


def _stacked(kept: Tensor, first: Tensor) -> Tensor:
    """Norms [b, p, heads] and a token [b, 1, heads, d] as one value [b, p + 1, heads·d]."""
    import torch

    wide = torch.zeros(*kept.shape[:2], first[0, 0].numel(), dtype=kept.dtype)
    wide[..., : kept.shape[-1]] = kept
    return torch.cat([wide, first.flatten(2)], 1)


def products(n: PointValues, query: str, key: str) -> Tensor:
    """q·k of each head: [b, p_q, H, p_k]."""
    import torch

    return torch.einsum("bqhd,bkhd->bqhk", n[query], repeated(n[key], n[query].shape[2]))


def repeated(heads: Tensor, count: int) -> Tensor:
    """[b, p, K, d] as [b, p, H, d].

    Raises:
        Missing: H is no multiple of K.
    """
    if count % heads.shape[2]:
        raise Missing(f"{heads.shape[2]} heads do not go into {count}")
    return heads.repeat_interleave(count // heads.shape[2], 2)


def by_query(value: Tensor) -> Tensor:
    """[b, H, p_q, p_k] as [b, p_q, H, p_k]."""
    return value.transpose(1, 2)


def scored(query: str, key: str, capped: bool = False) -> Formula:
    """Scores of the keys that a query sees: q·k times one number, perhaps soft-capped."""

    def formula(n: PointValues) -> Compared:
        scores, made = by_query(n["attn.scores"]), products(n, query, key)
        if scores.shape != made.shape:
            return scores, made
        seen = scores > HIDDEN
        made = made * seen
        scores = scores * seen
        return scores, soft_capped(scores, made) if capped else made * factor(scores, made)

    return formula


def scored_before_positions(n: PointValues) -> Compared:
    """Scores where queries and keys cannot be seen after their positions, at the keys that are the query's own token.

    Rotary positions turn both alike there, and a bias by distance (Press et al. 2022) is none, up to a number of the query.
    """
    if "attn.q_rot" in n or "attn.k_rot" in n:
        raise Missing("queries and keys after their positions are read instead")
    scores, made = by_query(n["attn.scores"]), products(n, "attn.q", "attn.k")
    own, of_own = (x.diagonal(0, 1, 3).transpose(1, 2) for x in (scores, made))  # [b, p, H]
    return own, of_own * factor(own, of_own)


def scored_by_distance(n: PointValues) -> Compared:
    """Scores where each head adds a number times the distance of the key (Press et al. 2022): ALiBi.

    What is added to all keys of a query alike is left out, as a softmax does not see it.
    """
    import torch

    if "attn.q_rot" in n or "attn.k_rot" in n:
        raise Missing("its positions are rotary")
    scores, made = by_query(n["attn.scores"]), products(n, "attn.q", "attn.k")
    length = scores.shape[-1]
    place = torch.arange(length)
    seen = (place[None] < place[:, None])[None, :, None] & (scores > HIDDEN)
    distance = (place[None] - place[:, None]).double()[None, :, None].expand_as(scores)
    given, x = (v - v.diagonal(0, 1, 3).transpose(1, 2)[..., None] for v in (scores, made))
    given, x, distance = (v.masked_fill(~seen, 0.0) for v in (given, x, distance))
    size = distance[:1].square().sum((1, 3), keepdim=True).clamp(min=1e-300)

    def rest(value: Tensor) -> tuple[Tensor, Tensor]:
        slope = (value[:1] * distance[:1]).sum((1, 3), keepdim=True) / size
        return value - slope * distance, slope

    (beside, slope), (x_beside, x_slope) = rest(given), rest(x)
    number = factor(beside, x_beside)
    return given, number * x + (slope - number * x_slope) * distance


def soft_capped(given: Tensor, x: Tensor) -> Tensor:
    """cap·tanh(s·x/cap) for the two numbers with which it is nearest to `given` in the first text (Gemma Team 2024)."""
    import torch

    first, of_first = given[:1], x[:1]
    most = first.abs().max().clamp(min=1e-300)

    def numbers(log_cap: float) -> tuple[Tensor, Tensor]:
        cap = most * torch.tensor(log_cap, dtype=torch.float64).exp()
        near = first.abs() < 0.9 * cap
        made, source = torch.atanh(first[near] / cap) * cap, of_first[near]
        return cap, (made * source).sum() / (source * source).sum().clamp(min=1e-300)

    def off(log_cap: float) -> float:
        cap, slope = numbers(log_cap)
        return float((cap * torch.tanh(slope * of_first / cap) - first).square().sum())

    low, high = 1e-6, 6.0
    for _ in range(TURNS):
        one, other = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, other) if off(one) < off(other) else (one, high)
    cap, slope = numbers((low + high) / 2)
    return cap * torch.tanh(slope * x / cap)


def pattern(n: PointValues) -> Compared:
    """The softmax of scores over the keys that are not in the future."""
    scores = _causal(by_query(n["attn.scores"]))
    return by_query(n["attn.pattern"]), scores.softmax(-1)


def pattern_beside_a_sink(n: PointValues) -> Compared:
    """The same with one more score in each head that has no value: a sink (Xiao et al. 2023)."""
    import torch

    scores, given = _causal(by_query(n["attn.scores"])), by_query(n["attn.pattern"])
    most = scores.amax(-1, keepdim=True)
    powers = (scores - most).exp()
    beside = powers.sum(-1, keepdim=True) * (
        1 / given.sum(-1, keepdim=True) - 1
    )  # exp(sink − most)
    sinks = (beside.clamp(min=1e-300).log() + most)[:1].median(1, keepdim=True).values
    return given, powers / (powers.sum(-1, keepdim=True) + torch.exp(sinks - most))


def _causal(scores: Tensor) -> Tensor:
    """Scores [b, p_q, H, p_k] with −∞ in the future and where the model hides a key."""
    import torch

    length = scores.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)[None, :, None]
    return scores.masked_fill(future | (scores <= HIDDEN), float("-inf"))


def mixed(n: PointValues) -> Compared:
    """The values, weighted by the pattern."""
    import torch

    given = n["attn.z"]
    values = repeated(n["attn.v"], given.shape[2])
    return given, torch.einsum("bhqk,bkhd->bqhd", n["attn.pattern"], values)


def written_by_head(n: PointValues) -> Compared:
    """What each head's mix becomes in the output projection."""
    import torch

    z = _read_by_projection(n)
    rows = n.parameters.rows(f"{n.prefix}attn.o_proj")
    by_head = rows.value.unflatten(1, z.shape[2:])
    given = n["attn.head_out"]
    given = given if rows.whole else given[..., rows.which]
    return given, torch.einsum("bphd,ohd->bpho", z, by_head)


def _read_by_projection(n: PointValues) -> Tensor:
    """What the output projection reads of the heads: their mixes, after a gate or a norm where there is one."""
    if "attn.z_normed" in n:
        return n["attn.z_normed"]
    return n["attn.z"] * n["attn.gate"].sigmoid() if "attn.gate" in n else n["attn.z"]


def heads_added_up(n: PointValues) -> Compared:
    """What all heads write, and the bias of the output projection."""
    heads = n["attn.head_out"]
    bias = n.optional("attn.o_proj.bias")
    return n["attn.out"], heads.sum(2) + bias, norms(n["attn.out"], heads)


def written(n: PointValues) -> Compared:
    """What the output projection makes of the heads' mixes, laid side by side."""
    made = n.projected("attn.o_proj", _read_by_projection(n).flatten(2))
    return made.of(n["attn.out"]), made.out


def normed_values(by: str) -> Formula:
    """Values of a projection after a norm without gains, over each head."""

    def formula(n: PointValues) -> Compared:
        given, made = n["attn.v"], n.projected(by, n["attn.in"])
        if not made.whole:
            raise Missing(f"all rows of {by}")
        return given, scaled_by_token(given, made.out.view_as(given), 1.0, True)

    return formula
