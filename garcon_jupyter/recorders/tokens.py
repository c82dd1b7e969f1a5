"""What every unit does at each token of the vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.observing import Seen
from garcon_jupyter.recorders.states import State


@dataclass(repr=False)
class TokenState(State):
    """Statistics by token, of the tokens that were seen.

    Attributes:
        ids: int64 [t], the tokens that were seen, ascending.
        counts: int64 [t], how often.
        totals: float64 [units, t], the sum of each unit's values there.
        largest: float32 [units, t], the largest of them.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("ids", "counts")

    ids: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    counts: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    totals: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    largest: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))

    @property
    def means(self) -> Tensor:
        """Mean value of each unit at each token, float64 [units, t]."""
        return self.totals / self.counts

    def best(self, unit: int, k: int = 10, at_least: int = 1) -> list[tuple[int, float]]:
        """The tokens at which a unit's mean is largest, with that mean.

        Args:
            at_least: leave out tokens that were seen less often.
        """
        means = self.means[unit].masked_fill(self.counts < at_least, -torch.inf)
        found = means.topk(min(k, int((self.counts >= at_least).sum())))
        return list(zip(self.ids[found.indices].tolist(), found.values.tolist(), strict=True))


class TokenStatistics(Recorder[TokenState]):
    """Count, mean and maximum of units at each token of the vocabulary.

    Memory: 12 bytes for each unit and each different token seen. All units of a layer over a large vocabulary
    are much; `units` chooses some.

    Args:
        units: numbers of the units to keep; None for all.
        name: under which the state is saved.
    """

    name = "tokens"
    state = TokenState

    def __init__(self, units: Sequence[int] | None = None, name: str = "") -> None:
        if units is not None and (not len(units) or min(units) < 0):
            raise BadProbe(f"units={units!r} are no units.", "Give numbers from 0, or None.")
        self.units = None if units is None else sorted({int(unit) for unit in units})
        # A choice of units is made from the whole value: a shard may hold none of them.
        self.sharded = units is None
        self.name = name or type(self).name

    def update(self, state: TokenState | None, seen: Seen) -> TokenState:
        """Add the values to the count, sum and maximum of the token at which they were."""
        values = seen.values
        if self.units is not None:
            if self.units[-1] >= values.shape[1]:
                raise BadProbe(
                    f"Unit {self.units[-1]} is out of range: there are {values.shape[1]}.",
                    "Units are numbered from 0.",
                )
            values = values[:, self.units]
        ids, which, counts = seen.tokens.unique(return_inverse=True, return_counts=True)
        t, units = len(ids), values.shape[1]
        totals = values.new_zeros((t, units), dtype=torch.float64)
        totals.index_add_(0, which, values.double())
        largest = torch.full((t, units), -torch.inf, device=values.device)
        largest.scatter_reduce_(0, which[:, None].expand(values.shape), values.float(), "amax")
        fresh = TokenState(seen.start, len(values), ids, counts, totals.T, largest.T)
        return fresh if state is None else self.add(state, fresh)

    def add(self, one: TokenState, other: TokenState) -> TokenState:
        """Counts and sums of both, and the larger maximum; tokens that only one has seen are taken over."""
        ids = torch.cat([one.ids, other.ids]).unique()
        at, also = torch.searchsorted(ids, one.ids), torch.searchsorted(ids, other.ids)
        counts = torch.zeros_like(ids)
        counts[at] += one.counts
        counts[also] += other.counts
        totals = one.totals.new_zeros((len(one.totals), len(ids)))
        totals[:, at] += one.totals
        totals[:, also] += other.totals
        largest = one.largest.new_full((len(one.largest), len(ids)), -torch.inf)
        largest[:, at] = one.largest
        largest[:, also] = torch.maximum(largest[:, also], other.largest)
        return TokenState(
            one.start, one.tokens_seen + other.tokens_seen, ids, counts, totals, largest
        )
