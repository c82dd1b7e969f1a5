"""Whole vectors of tokens that are drawn by lot, each with the tokens around it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from garcon_jupyter.recorders import Recorder, Seen, State
from garcon_jupyter.recorders.examples import lots

BEFORE, AFTER = 8, 4
"""Tokens that are kept around each."""


@dataclass(repr=False)
class SampledState(State):
    """Tokens drawn by lot.

    Attributes:
        vectors: float32 [units, k].
        lots: int64 [k], by which they were drawn; the highest are kept.
        places: int64 [k], document and offset.
        windows: int64 [k, before + 1 + after], the tokens around each; −1 where there are none.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("lots", "places", "windows")

    vectors: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, 0))
    lots: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    places: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    windows: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, 0).long())

    def kept(self, k: int) -> SampledState:
        """Those with the k highest lots, in the order of their places."""
        best = self.lots.topk(min(k, len(self.lots))).indices
        best = best[self.places[best].argsort()]
        parts = self.vectors[:, best], self.lots[best], self.places[best], self.windows[best]
        return SampledState(self.start, self.tokens_seen, *parts)


class Sampled(Recorder[SampledState]):
    """k tokens drawn uniformly, with all their units.

    A token's lot is a hash of seed and place, so the same are drawn however the data was dealt out.

    Args:
        k: how many.
        seed: of the drawing.
    """

    name = "sampled"
    state = SampledState
    sharded = False

    def __init__(self, k: int, seed: int) -> None:
        self.k, self.seed = k, seed

    def memory(self, units: int) -> int:
        """Of k vectors and windows."""
        return self.k * (4 * units + 8 * (3 + BEFORE + AFTER))

    def update(self, state: SampledState | None, seen: Seen) -> SampledState:
        """Draw among the tokens of a batch and those that were drawn before."""
        device = seen.values.device
        drawn = lots(self.seed, seen.places, torch.zeros(1, dtype=torch.long, device=device))[:, 0]
        best = drawn.topk(min(self.k, len(drawn))).indices
        around = best[:, None] + torch.arange(-BEFORE, AFTER + 1, device=device)
        there = (around >= 0) & (around < len(seen.tokens))
        around = around.clamp(0, len(seen.tokens) - 1)
        there &= seen.rows[around] == seen.rows[best][:, None]
        there &= seen.documents[around] == seen.documents[best][:, None]
        windows = torch.where(there, seen.tokens[around], -1)
        fresh = SampledState(
            seen.start,
            len(seen.tokens),
            seen.values[best].float().T.contiguous(),
            drawn[best],
            seen.places[best],
            windows,
        )
        return fresh.kept(self.k) if state is None else self.add(state, fresh)

    def add(self, one: SampledState, other: SampledState) -> SampledState:
        """The k highest lots of both."""
        return SampledState(
            one.start,
            one.tokens_seen + other.tokens_seen,
            torch.cat([one.vectors, other.vectors], 1),
            torch.cat([one.lots, other.lots]),
            torch.cat([one.places, other.places]),
            torch.cat([one.windows, other.windows]),
        ).kept(self.k)
