"""Which units fire together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.observing import Seen
from garcon_jupyter.recorders.states import State

_EXACT = 1 << 23
"""Tokens at a time: float32 counts them exactly."""


@dataclass(repr=False)
class CoactivationState(State):
    """At how many tokens each pair of units fired together.

    Attributes:
        together: int64 [units, units]; on the diagonal, how often each fired.
    """

    together: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def jaccard(self) -> Tensor:
        """Of the tokens at which either fired, the fraction at which both did, float64 [units, units]."""
        alone = self.together.diagonal().double()
        return self.together / (alone[:, None] + alone[None] - self.together)


class Coactivation(Recorder[CoactivationState]):
    """Which units of a point fire together. Memory: 8 bytes for each pair of units.

    Args:
        threshold: a unit fires where its value is greater.
        name: under which the state is saved.
    """

    name = "coactivation"
    state = CoactivationState
    sharded = False

    def __init__(self, threshold: float = 0.0, name: str = "") -> None:
        self.threshold = float(threshold)
        self.name = name or type(self).name

    def update(self, state: CoactivationState | None, seen: Seen) -> CoactivationState:
        """Count, for each pair of units, the tokens at which both are above the threshold."""
        units = seen.values.shape[1]
        together = torch.zeros(units, units, dtype=torch.long, device=seen.values.device)
        for values in seen.values.split(_EXACT):
            fired = (values > self.threshold).float()
            together += (fired.T @ fired).long()
        fresh = CoactivationState(0, len(seen.values), together)
        return fresh if state is None else self.add(state, fresh)

    def memory(self, units: int) -> int:
        """8 bytes for each pair: it grows with the square of the units."""
        return 8 * units * units

    def add(self, one: CoactivationState, other: CoactivationState) -> CoactivationState:
        """The sum of the counts."""
        one.together = one.together + other.together
        one.tokens_seen += other.tokens_seen
        return one
