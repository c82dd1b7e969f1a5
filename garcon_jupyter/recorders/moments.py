"""Mean, variance, skewness and kurtosis of every unit, in one pass.

Sums of powers of the deviations from the mean, put together by the formulas of Chan et al. (1979) and Pébay (2008),
which do not cancel as sums of powers of the values do. float64 throughout.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.observing import Seen
from garcon_jupyter.recorders.sparse_values import SparseValues
from garcon_jupyter.recorders.states import State


def _empty() -> Tensor:
    return torch.empty(0)


@dataclass(repr=False)
class MomentsState(State):
    """Moments of every unit; all float64 [units].

    Attributes:
        mean: the mean.
        m2, m3, m4: sums of the second, third and fourth powers of the deviations from it.
        low, high: the smallest and the largest value.
    """

    mean: Tensor = dataclasses.field(default_factory=_empty)
    m2: Tensor = dataclasses.field(default_factory=_empty)
    m3: Tensor = dataclasses.field(default_factory=_empty)
    m4: Tensor = dataclasses.field(default_factory=_empty)
    low: Tensor = dataclasses.field(default_factory=_empty)
    high: Tensor = dataclasses.field(default_factory=_empty)

    @property
    def variance(self) -> Tensor:
        """Of the population: divided by n."""
        return self.m2 / self.tokens_seen

    @property
    def std(self) -> Tensor:
        """Square root of the variance."""
        return self.variance.sqrt()

    @property
    def skewness(self) -> Tensor:
        """Third standardised moment; NaN where the variance is zero."""
        return self.m3 / self.tokens_seen / self.variance**1.5

    @property
    def kurtosis(self) -> Tensor:
        """Fourth standardised moment, 3 for a normal distribution; NaN where the variance is zero."""
        return self.m4 / self.tokens_seen / self.variance**2


class Moments(Recorder[MomentsState]):
    """Mean, variance, skewness, kurtosis and range of every unit. Memory: 48 bytes for each unit."""

    name = "moments"
    state = MomentsState
    SPARSE = True

    def __init__(self, name: str = "") -> None:
        self.name = name or type(self).name

    def update(self, state: MomentsState | None, seen: Seen) -> MomentsState:
        """Add the moments of a batch, taken about its own mean: nothing cancels where values are far from zero."""
        few = seen.sparse
        fresh = _of_batch(seen) if few is None or not few.n else _of_sparse(seen.start, few)
        return fresh if state is None else self.add(state, fresh)

    def memory(self, units: int) -> int:
        """48 bytes for each unit."""
        return 48 * units

    def add(self, one: MomentsState, other: MomentsState) -> MomentsState:
        """The moments of both together, from those of each (Chan et al. 1979, Pébay 2008)."""
        if not other.tokens_seen or not one.tokens_seen:
            return other if not one.tokens_seen else one
        a, b = float(one.tokens_seen), float(other.tokens_seen)
        n = a + b
        d = other.mean - one.mean
        m2 = one.m2 + other.m2 + d**2 * a * b / n
        m3 = (
            one.m3
            + other.m3
            + d**3 * a * b * (a - b) / n**2
            + 3 * d * (a * other.m2 - b * one.m2) / n
        )
        m4 = (
            one.m4
            + other.m4
            + d**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * d**2 * (a * a * other.m2 + b * b * one.m2) / n**2
            + 4 * d * (a * other.m3 - b * one.m3) / n
        )
        return MomentsState(
            one.start,
            int(n),
            one.mean + d * b / n,
            m2,
            m3,
            m4,
            torch.minimum(one.low, other.low),
            torch.maximum(one.high, other.high),
        )


def _of_sparse(start: int, few: SparseValues) -> MomentsState:
    """Zeros are as many deviations of the same size."""
    mean = few.sums(few.value) / few.n
    deviation = few.value.double() - mean[few.unit]
    square = deviation * deviation
    zeros = few.n - few.counts
    return MomentsState(
        start,
        few.n,
        mean,
        few.sums(square) + zeros * mean**2,
        few.sums(square * deviation) - zeros * mean**3,
        few.sums(square * square) + zeros * mean**4,
        few.extreme("amin").double(),
        few.extreme("amax").double(),
    )


def _of_batch(seen: Seen) -> MomentsState:
    n, units = seen.values.shape
    zero = torch.zeros(units, dtype=torch.float64, device=seen.values.device)
    if not n:
        far = torch.full_like(zero, torch.inf)
        return MomentsState(seen.start, 0, zero, zero, zero, zero, far, -far)
    mean = zero.clone()
    for values in seen.pieces():
        mean += values.double().sum(0)
    mean /= n
    m2, m3, m4 = zero.clone(), zero.clone(), zero.clone()
    for values in seen.pieces():
        deviation = values.double().sub_(mean)
        square = deviation * deviation
        m2 += square.sum(0)
        m3 += deviation.mul_(square).sum(0)
        m4 += square.mul_(square).sum(0)
    low, high = seen.values.amin(0).double(), seen.values.amax(0).double()
    return MomentsState(seen.start, n, mean, m2, m3, m4, low, high)
