"""What the points of routers are made of: which experts a token goes through, and with which weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.certificate.formulas import Compared, Formula, factor
from garcon_jupyter.certificate.mlp_formulas import FIRST, beside_an_mlp
from garcon_jupyter.certificate.values import Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 1e-6
"""By how much choices may contradict one another: rounding of scores."""


def routes(n: PointValues) -> Compared:
    """The logits of the router, by what the MLP reads."""
    if beside_an_mlp(n):
        raise Missing("what the router reads")
    made = n.projected("mlp.router", n["mlp.in"])
    return made.of(n["mlp.router.logits"]), made.out


def routed(share: str, renormalised: bool) -> Formula:
    """Weights of the chosen experts: softmax or sigmoid of their logits, perhaps made to add up, times one number."""

    def formula(n: PointValues) -> Compared:
        logits, given = n["mlp.router.logits"], n["mlp.router.weights"]
        all_of_them = logits.softmax(-1) if share == "softmax" else logits.sigmoid()
        made = all_of_them.gather(-1, n["mlp.router.indices"].long())
        made = made / made.sum(-1, keepdim=True) if renormalised else made
        return given, made * factor(given, made)

    return formula


def routed_by_a_number_each(n: PointValues) -> Compared:
    """The same, made to add up, and then each expert's times a number of its own."""
    import torch

    indices, given = n["mlp.router.indices"].long(), n["mlp.router.weights"]
    made = n["mlp.router.logits"].softmax(-1).gather(-1, indices)
    made = made / made.sum(-1, keepdim=True)
    top = torch.zeros(int(indices.max()) + 1, dtype=made.dtype)
    below = top.clone()
    top.index_add_(0, indices[:1].flatten(), (given * made)[:1].flatten())
    below.index_add_(0, indices[:1].flatten(), (made * made)[:1].flatten())
    return given, made * (top / below.clamp(min=1e-300))[indices]


def routed_one_after_the_other(n: PointValues) -> Compared:
    """SparseMixer's (Liu et al. 2023): each time a softmax over the logits that are near the largest one that is left."""
    import torch

    logits, indices, given = (n[f"mlp.router.{x}"] for x in ("logits", "indices", "weights"))
    indices = indices.long()
    left, far = [], []
    for chosen in range(indices.shape[-1]):
        rest = logits.scatter(-1, indices[..., :chosen], float("-inf"))
        best = logits.gather(-1, indices[..., chosen : chosen + 1])
        left.append((rest, best))
        far.append((best - logits) / logits.abs().maximum(best))

    def made(near: Tensor) -> Tensor:
        parts = [
            best.exp() / (rest.exp() * (distance <= near)).sum(-1, keepdim=True)
            for (rest, best), distance in zip(left, far, strict=True)
        ]
        return torch.cat(parts, -1)

    def nearest(ratios: Tensor, texts: slice) -> tuple[Tensor, Tensor]:
        """The ratios that stand beside the limit with which most texts are right."""
        between = [*((ratios[:-1] + ratios[1:]) / 2), ratios[-1] + 1]
        off = [(made(limit) - given)[texts].flatten(1).abs().amax(1) for limit in between]
        wrong = [int((errors > SLACK).sum()) for errors in off]
        best = wrong.index(min(wrong))
        return ratios[best], ratios[min(best + 1, len(ratios) - 1)]

    every = torch.cat([distance.flatten(1) for distance in far], 1)
    low, high = nearest(every[:1].unique(), FIRST)
    inside = every[(every >= low) & (every <= high)].unique()
    low, high = nearest(inside, slice(None))
    return given, made((low + high) / 2)


def chosen(n: PointValues) -> Compared:
    """The experts of the largest logits."""
    given = n["mlp.router.indices"]
    best = n["mlp.router.logits"].topk(given.shape[-1], -1).indices.double()
    return given.sort(-1).values, best.sort(-1).values


def chosen_with_a_bias(groups: int = 1) -> Formula:
    """The experts of the largest scores, to each of which a number of the expert is added (Wang et al. 2024).

    There are such numbers where none of what the choices say of their differences contradicts the rest: the shortest paths
    between experts have no circle below zero.

    Args:
        groups: in how many the experts are; those of groups of which none is chosen are not compared.
    """

    def formula(n: PointValues) -> Compared:
        import torch

        logits, indices = n["mlp.router.logits"], n["mlp.router.indices"].long()
        if logits.shape[-1] % groups:
            raise Missing(f"{groups} groups")
        taken = torch.zeros_like(logits).scatter(-1, indices, 1.0).bool()
        if int(taken.sum(-1).min()) < indices.shape[-1]:
            return taken.double(), torch.zeros_like(logits)  # one expert twice
        open_ones = taken.unflatten(-1, (groups, -1)).any(-1, keepdim=True)
        compared = open_ones.expand(*taken.shape[:2], groups, taken.shape[-1] // groups).flatten(2)
        off = torch.stack(
            [
                _contradiction(share, taken, compared & ~taken)
                for share in (logits.sigmoid(), logits.softmax(-1))
            ]
        ).amin(0)
        one = torch.ones(*taken.shape[:2], 1, dtype=logits.dtype)
        return one, one + off[:, None, None]

    return formula


def _contradiction(scores: Tensor, taken: Tensor, left: Tensor) -> Tensor:
    """By how much the choices of each text [b, p, E] contradict those of the first, or themselves: [b]."""
    # bias[e'] - bias[e] <= scores[e] - scores[e'] for each e that is taken, and each e' that is left.
    most = scores[..., :, None] - scores[..., None, :]
    most = most.masked_fill(~(taken[..., :, None] & left[..., None, :]), float("inf")).amin(1)
    shortest = most[0].clone()
    for middle in range(len(shortest)):
        shortest = shortest.minimum(shortest[:, middle, None] + shortest[None, middle])
    circles = (most + shortest.T).flatten(1).amin(1).clamp(max=0.0)
    found: Tensor = -circles.where(circles < -SLACK, 0 * circles)
    return found
