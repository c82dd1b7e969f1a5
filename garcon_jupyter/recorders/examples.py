"""The best examples of each group of values, kept while others stream past.

A *group* is a unit, or an interval of a unit's activations. An example has a score; the k of highest score are kept,
and of equal scores those of the earliest place. So what is kept depends on what was seen, and not on how it was
dealt out: the order, the batches, the shards.

Scores are 32-bit integers that sort as what they stand for (:func:`sortable`), so that one sort of
``group << 32 | score`` puts everything in order.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.recorders.observing import OFFSET_BITS, Seen, offsets_of
from garcon_jupyter.recorders.states import State

WORST = -(1 << 31)
"""The score of a slot that nothing has filled."""

NOWHERE = (1 << 63) - 1
"""The place of a slot that nothing has filled."""


@dataclass(repr=False)
class Examples(State):
    """Kept examples. Slots that the data could not fill have NaN as value and −1 as document.

    Attributes:
        values: float32 [groups, k], best first.
        places: int64 [groups, k]; see `documents` and `offsets`.
        scores: int32 [groups, k], what they were ranked by.
        tokens: int32 [groups, k, w], the token and those around it, −1 where there are none; None where no
            window was asked for.
        around: float32 [groups, k, w], the unit's value at those tokens, NaN where there are none.
        before: how many tokens of the window stand before the example's own.
    """

    values: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    places: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    scores: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.int32))
    tokens: Tensor | None = None
    around: Tensor | None = None
    before: int = 0

    @classmethod
    def empty(
        cls, groups: int, k: int, start: int, before: int, after: int, device: torch.device
    ) -> Examples:
        """Room for k examples of each group."""
        width = before + 1 + after
        windows = width > 1
        shape = (groups, k)
        return cls(
            start,
            0,
            torch.full(shape, torch.nan, device=device),
            torch.full(shape, NOWHERE, device=device),
            torch.full(shape, WORST, dtype=torch.int32, device=device),
            torch.full((*shape, width), -1, dtype=torch.int32, device=device) if windows else None,
            torch.full((*shape, width), torch.nan, device=device) if windows else None,
            before,
        )

    @staticmethod
    def memory(groups: int, k: int, before: int = 0, after: int = 0) -> int:
        """Bytes of :meth:`empty`: value, place and score of each slot, token and value of each of its window."""
        width = before + 1 + after
        return groups * k * (16 + (8 * width if width > 1 else 0))

    @property
    def k(self) -> int:
        """Slots of each group."""
        return self.values.shape[1]

    @property
    def filled(self) -> Tensor:
        """Which slots hold an example, bool [groups, k]."""
        return self.places != NOWHERE

    @property
    def documents(self) -> Tensor:
        """The document of each example, int64 [groups, k]."""
        return torch.where(self.filled, self.places >> OFFSET_BITS, -1)

    @property
    def offsets(self) -> Tensor:
        """The place of each example in its document, int64 [groups, k]."""
        return torch.where(self.filled, offsets_of(self.places), -1)

    @property
    def worst(self) -> Tensor:
        """The score that an example must beat, int32 [groups]."""
        return self.scores[:, -1]

    # -- taking in -------------------------------------------------------------------------------

    def offer(self, group: Tensor, score: Tensor, token: Tensor, unit: Tensor, seen: Seen) -> None:
        """Take in what is better than what is kept.

        Args:
            group: int64 [c], the group of each candidate.
            score: int32 [c].
            token: int64 [c], which of the tokens seen.
            unit: int64 [c], which of the units seen.
        """
        if not len(group):
            return
        fresh: dict[str, Tensor] = {
            "values": seen.at(token, unit).float(),
            "places": seen.places[token],
            "scores": score,
        }
        if self.tokens is not None:
            fresh |= self._windows(token, unit, seen)
        self._take(group, fresh)

    def take_all(self, other: Examples) -> None:
        """Take in what another state keeps of the same groups."""
        group = torch.arange(len(other.values), device=other.values.device)
        group = group[:, None].expand(other.values.shape)[other.filled]
        self._take(group, {n: t[other.filled] for n, t in other.tensors().items()})

    def _take(self, group: Tensor, fresh: dict[str, Tensor]) -> None:
        new_of = torch.bincount(group, minlength=len(self.values))
        touched = new_of.nonzero().flatten()
        within = ((new_of > 0).cumsum(0) - 1)[group]
        kept = torch.arange(len(touched), device=group.device).repeat_interleave(self.k)
        groups = torch.cat([kept, within])
        places = torch.cat([self.places[touched].flatten(), fresh["places"]])
        scores = torch.cat([self.scores[touched].flatten(), fresh["scores"]])
        order = _order(groups, scores, places)
        counts = new_of[touched] + self.k
        first = counts.cumsum(0) - counts
        best = order[first[:, None] + torch.arange(self.k, device=group.device)]
        for name, new in fresh.items():
            mine = getattr(self, name)
            both = torch.cat([mine[touched].flatten(0, 1), new.to(mine.dtype)])
            mine[touched] = both[best]

    def _windows(self, token: Tensor, unit: Tensor, seen: Seen) -> dict[str, Tensor]:
        """The tokens around each candidate, in its row and document, and the unit's values there."""
        assert self.tokens is not None
        if seen.context is not None and seen.index is not None:
            token, seen = seen.index[token], seen.context
        width = self.tokens.shape[2]
        near = token[:, None] + torch.arange(width, device=token.device) - self.before
        inside = (near >= 0) & (near < len(seen.tokens))
        near = near.clamp(0, len(seen.tokens) - 1)
        own = token[:, None]
        inside &= seen.rows[near] == seen.rows[own]
        inside &= seen.documents[near] == seen.documents[own]
        values = seen.at(near, unit[:, None]).float()
        return {
            "tokens": torch.where(inside, seen.tokens[near], -1).int(),
            "around": torch.where(inside, values, torch.nan),
        }


def _order(groups: Tensor, scores: Tensor, places: Tensor) -> Tensor:
    """By group; in it the highest score first; of equal scores the earliest place."""
    key = (groups << 32) | ((1 << 31) - 1 - scores.long())
    ordered, order = key.sort()
    if not bool((ordered[1:] == ordered[:-1]).any()):
        return order
    by_place = places.argsort()
    return by_place[key[by_place].argsort(stable=True)]


def sortable(values: Tensor) -> Tensor:
    """float32 as int32 that sorts alike; zero has one sign."""
    bits = (values.float() + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64))
"""Odd multipliers of splitmix64 (Steele et al. 2014), as signed integers."""


def _mixed(words: Tensor) -> Tensor:
    words = (words ^ ((words >> 30) & 0x3FFFFFFFF)) * _MIX[1]
    return words ^ ((words >> 27) & 0x1FFFFFFFFF)


def lots(seed: int, places: Tensor, units: Tensor) -> Tensor:
    """A number drawn for each token and unit: a hash of the seed, the token's place and the unit.

    The same in every batch, shard and run: whoever keeps the highest draws a uniform sample.

    Returns:
        int64 [n, units].
    """
    return lot(seed, places[:, None], units[None])


def lot(seed: int, places: Tensor, units: Tensor) -> Tensor:
    """The number drawn for each place and unit beside each other, int64, of the shape that both make together."""
    of_tokens, of_units = lot_parts(seed, places, units)
    return drawn(of_tokens, of_units)


def lot_parts(seed: int, places: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """What a lot is drawn from: a number of each place, and one of each unit."""
    of_tokens = _mixed(_mixed(places * _MIX[0] + seed))
    return of_tokens, _mixed(_mixed(units * _MIX[0] + (seed ^ 0x5DEECE66D)))


def drawn(of_tokens: Tensor, of_units: Tensor) -> Tensor:
    """The lots of places and units, of their parts."""
    return (of_tokens ^ of_units).mul_(_MIX[1])


def score_of(lot: Tensor) -> Tensor:
    """A lot as a score: its upper 31 bits, int32, so that none is :data:`WORST`."""
    return (lot >> 33).int()


def least_lot(score: Tensor) -> Tensor:
    """The smallest lot of a score, int64; every lot is better than none."""
    return score.long().clamp(min=-(1 << 30)) << 33
