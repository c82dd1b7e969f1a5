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

    def offer(
        self,
        group: Tensor,
        score: Tensor,
        value: Tensor,
        token: Tensor,
        unit: Tensor,
        seen: Seen,
    ) -> None:
        """Take in what is better than what is kept.

        Args:
            group: int64 [c], the group of each candidate.
            score: int32 [c].
            value: [c], what it is.
            token: int64 [c], which of the tokens seen.
            unit: int64 [c], which of the units seen.
        """
        if not len(group):
            return
        fresh = {"values": value.float(), "places": seen.places[token], "scores": score}
        settled = self._settled(group, score, fresh["places"])
        fresh = {name: new[settled.fresh] for name, new in fresh.items()}
        if self.tokens is not None:
            fresh |= self._windows(token[settled.fresh], unit[settled.fresh], seen)
        self._put(settled, fresh)

    def take_all(self, other: Examples) -> None:
        """Take in what another state keeps of the same groups."""
        group = torch.arange(len(other.values), device=other.values.device)
        group = group[:, None].expand(other.values.shape)[other.filled]
        fresh = {name: tensor[other.filled] for name, tensor in other.tensors().items()}
        settled = self._settled(group, fresh["scores"], fresh["places"])
        self._put(settled, {name: new[settled.fresh] for name, new in fresh.items()})

    def _settled(self, group: Tensor, scores: Tensor, places: Tensor) -> _Settled:
        """Which candidates are kept, and where everything comes to stand.

        What is kept is in order already. So the candidates alone are sorted, and looked up among what is kept.
        """
        k = self.k
        key = _key(group, scores)
        order = _order(key, places)
        key, group, places = key[order], group[order], places[order]
        new_of = torch.bincount(group, minlength=len(self.values))
        touched = new_of.nonzero().flatten()
        within = ((new_of > 0).cumsum(0) - 1)[group]
        before = (new_of.cumsum(0) - new_of)[touched]  # candidates of the groups before
        kept = _key(touched[:, None], self.scores[touched]).flatten()
        better = _kept_before(key, places, kept, self.places[touched].flatten(), k)
        ranks = torch.arange(len(key), device=key.device) - before[within] + better - within * k
        passing = ranks < k
        ahead = torch.bincount(better, minlength=len(kept) + 1).cumsum(0)[:-1].view(len(touched), k)
        moves = ahead - before[:, None]  # candidates of the group that are better than each
        slots = torch.arange(k, device=key.device)
        moving = (moves > 0) & (slots + moves < k)
        own = touched[:, None] * k + slots
        return _Settled(
            order[passing],
            group[passing] * k + ranks[passing],
            own[moving],
            (own + moves)[moving],
        )

    def _put(self, settled: _Settled, fresh: dict[str, Tensor]) -> None:
        """Let what is kept make way for what is new."""
        for name, new in fresh.items():
            mine = getattr(self, name).contiguous()
            setattr(self, name, mine)
            slots = mine.view(-1, *mine.shape[2:])
            slots[settled.to] = slots.index_select(0, settled.moved)
            slots[settled.at] = new.to(mine.dtype)

    def _windows(self, token: Tensor, unit: Tensor, seen: Seen) -> dict[str, Tensor]:
        """The tokens around each candidate, in its row and document, and the unit's values there."""
        assert self.tokens is not None
        if seen.context is not None and seen.index is not None:
            token, seen = seen.index[token], seen.context
        width = self.tokens.shape[2]
        inside, tokens = seen.windows(self.before, width)
        values = seen.around(token, unit, self.before, width).float()
        return {
            "tokens": tokens.index_select(0, token),
            "around": torch.where(inside.index_select(0, token), values, torch.nan),
        }


@dataclass(frozen=True)
class _Settled:
    """What becomes of slots, numbered through all groups.

    Attributes:
        fresh: the candidates that are kept.
        at: the slot of each.
        moved: the slots whose example goes to another.
        to: which that is.
    """

    fresh: Tensor
    at: Tensor
    moved: Tensor
    to: Tensor


def _key(groups: Tensor, scores: Tensor) -> Tensor:
    """An integer that sorts by group, in it the highest score first."""
    return (groups << 32) | ((1 << 31) - 1 - scores.long())


def _order(key: Tensor, places: Tensor) -> Tensor:
    """By key; of equal ones the earliest place."""
    ordered, order = key.sort()
    if not bool((ordered[1:] == ordered[:-1]).any()):
        return order
    by_place = places.argsort()
    return by_place[key[by_place].argsort(stable=True)]


def _kept_before(key: Tensor, places: Tensor, kept: Tensor, kept_places: Tensor, k: int) -> Tensor:
    """How many of the kept, which are in order, stand before each candidate; of equal keys those of an earlier place do."""
    first = torch.searchsorted(kept, key)
    behind = torch.searchsorted(kept, key, right=True)
    tied = (first < behind).nonzero().flatten()
    if len(tied):
        among = first[tied, None] + torch.arange(k, device=key.device)
        equal = among < behind[tied, None]
        earlier = kept_places[among.clamp(max=len(kept) - 1)] <= places[tied, None]
        first[tied] += (equal & earlier).sum(1)
    return first


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


def drawn(of_tokens: Tensor, of_units: Tensor, out: Tensor | None = None) -> Tensor:
    """The lots of places and units, of their parts; in the memory of `out`, where that is given."""
    return torch.bitwise_xor(of_tokens, of_units, out=out).mul_(_MIX[1])


def score_of(lot: Tensor) -> Tensor:
    """A lot as a score: its upper 31 bits, int32, so that none is :data:`WORST`."""
    return (lot >> 33).int()


def least_lot(score: Tensor) -> Tensor:
    """The smallest lot of a score, int64; every lot is better than none."""
    return score.long().clamp(min=-(1 << 30)) << 33
