"""How often every unit fires."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.observing import Seen
from garcon_jupyter.recorders.sparse_values import SparseValues
from garcon_jupyter.recorders.states import State


@dataclass(repr=False)
class FiringState(State):
    """Counts of every unit.

    Attributes:
        fired: int64 [units], at how many tokens the value was above the threshold.
        total: float64 [units], the sum of those values.
    """

    fired: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    total: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    @property
    def rate(self) -> Tensor:
        """The fraction of tokens at which each unit fired, float64 [units]."""
        return self.fired.double() / self.tokens_seen

    @property
    def log_density(self) -> Tensor:
        """log10 of the rate, the *activation density* of feature dashboards; −inf for a dead unit."""
        return self.rate.log10()

    @property
    def mean_when_fired(self) -> Tensor:
        """Mean of the values above the threshold, float64 [units]; NaN for a dead unit."""
        return self.total / self.fired


class Firing(Recorder[FiringState]):
    """At how many tokens every unit is above a threshold. Memory: 16 bytes for each unit.

    Args:
        threshold: a unit fires where its value is greater.
        name: under which the state is saved.
    """

    name = "firing"
    state = FiringState
    SPARSE = True

    def __init__(self, threshold: float = 0.0, name: str = "") -> None:
        self.threshold = float(threshold)
        self.name = name or type(self).name

    def update(self, state: FiringState | None, seen: Seen) -> FiringState:
        """Count the tokens above the threshold, and sum their values."""
        if seen.sparse is not None:
            fresh = self._of_sparse(seen, seen.sparse)
            return fresh if state is None else self.add(state, fresh)
        units, device = seen.values.shape[1], seen.values.device
        fired = torch.zeros(units, dtype=torch.long, device=device)
        total = torch.zeros(units, dtype=torch.float64, device=device)
        for values in seen.pieces():
            above = values > self.threshold
            fired += above.float().sum(0).long()  # exact: a piece has fewer than 2**24 tokens
            total += torch.where(above, values, 0).double().sum(0)
        fresh = FiringState(seen.start, len(seen.values), fired, total)
        return fresh if state is None else self.add(state, fresh)

    def _of_sparse(self, seen: Seen, few: SparseValues) -> FiringState:
        above = few.value > self.threshold
        fired = torch.zeros_like(few.counts).index_add_(0, few.unit, above.long())
        if self.threshold < 0:  # zeros fire as well, and add nothing
            fired += few.n - few.counts
        total = few.sums(torch.where(above, few.value, 0))
        return FiringState(seen.start, few.n, fired, total)

    def memory(self, units: int) -> int:
        """16 bytes for each unit: a count and a sum."""
        return 16 * units

    def add(self, one: FiringState, other: FiringState) -> FiringState:
        """Counts and sums of both."""
        one.fired = one.fired + other.fired
        one.total = one.total + other.total
        one.tokens_seen += other.tokens_seen
        return one
