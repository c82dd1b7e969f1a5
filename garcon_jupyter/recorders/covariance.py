"""Covariance of units: of one point with itself, or of two points with each other.

Batches are put together by the formula of Chan et al. (1979). float64 throughout; the units are needed all at once, so
these recorders run on the whole value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.observing import Seen, pieces, seen
from garcon_jupyter.recorders.states import State


def _empty() -> Tensor:
    return torch.empty(0, dtype=torch.float64)


@dataclass(repr=False)
class CovarianceState(State):
    """Covariance of every pair of units.

    Attributes:
        mean: float64 [units].
        mean_of_others: float64 [others]: `mean` itself, or that of the second point.
        products: float64 [units, others], sums of the products of the deviations.
        squares: float64 [units], sums of the squared deviations.
        squares_of_others: float64 [others].
    """

    mean: Tensor = dataclasses.field(default_factory=_empty)
    mean_of_others: Tensor = dataclasses.field(default_factory=_empty)
    products: Tensor = dataclasses.field(default_factory=_empty)
    squares: Tensor = dataclasses.field(default_factory=_empty)
    squares_of_others: Tensor = dataclasses.field(default_factory=_empty)

    @property
    def covariance(self) -> Tensor:
        """Of the population: divided by n. float64 [units, others]."""
        return self.products / self.tokens_seen

    @property
    def correlation(self) -> Tensor:
        """Pearson's, float64 [units, others]; NaN where a unit does not vary."""
        return self.products / (self.squares[:, None] * self.squares_of_others[None]).sqrt()

    def strongest(self, k: int = 10) -> tuple[Tensor, Tensor]:
        """The k other units of the same point that are most correlated with each, of either sign.

        Returns:
            (units, correlations), int64 and float32 [units, k], the strongest first; −1 and NaN where there
            are fewer.
        """
        values = self.correlation.float().nan_to_num_(0.0).fill_diagonal_(0.0)
        return strongest(values, k)


def strongest(correlations: Tensor, k: int, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """Of each row the k columns of largest magnitude, and their values; −1 and NaN where there are fewer that
    are larger than `least`."""
    found = min(k, correlations.shape[1])
    order = correlations.abs().topk(found, 1).indices
    values = correlations.gather(1, order)
    none = values.abs() <= least
    fill = (0, k - found)
    return (
        torch.nn.functional.pad(order.masked_fill(none, -1), fill, value=-1),
        torch.nn.functional.pad(values.masked_fill(none, torch.nan), fill, value=torch.nan),
    )


class Covariance(Recorder[CovarianceState]):
    """Covariance of all units of a point.

    Memory: 8 bytes for each pair of units, and as much again while a batch is taken in.

    Args:
        double: products of the deviations in float64; else in float32, of each batch from its own mean, and
            only their sums in float64: within 1e-6 of the standard deviations, at a third of the time or less.
        name: under which the state is saved.
    """

    name = "covariance"
    state = CovarianceState
    sharded = False

    def __init__(self, double: bool = True, name: str = "") -> None:
        self.double = bool(double)
        self.name = name or type(self).name

    def update(self, state: CovarianceState | None, seen: Seen) -> CovarianceState:
        """Take in a batch: products about its own mean, so that nothing cancels far from zero."""
        return self._with(state, seen.values, seen.values)

    def memory(self, units: int, others: int | None = None) -> int:
        """Of the pairs of the units, or of the units with others."""
        others = units if others is None else others
        return 8 * units * others + 16 * (units + others)

    def _with(
        self, state: CovarianceState | None, values: Tensor, others: Tensor
    ) -> CovarianceState:
        if not len(values):
            zero, other = (
                values.new_zeros(x.shape[1], dtype=torch.float64) for x in (values, others)
            )
            fresh = CovarianceState(0, 0, zero, other, zero[:, None] * other, zero, other)
            return fresh if state is None else state
        mean, deviations, squares = self._deviations(values)
        theirs = (mean, deviations, squares) if others is values else self._deviations(others)
        products = (deviations.T @ theirs[1]).double()
        fresh = CovarianceState(0, len(values), mean, theirs[0], products, squares, theirs[2])
        return fresh if state is None else self.add(state, fresh)

    def _deviations(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(mean [units], deviations from it [n, units], sums of their squares [units])."""
        mean = values.new_zeros(values.shape[1], dtype=torch.float64)
        for piece in pieces(values):
            mean += piece.double().sum(0)
        mean /= len(values)
        squares = torch.zeros_like(mean)
        dtype = torch.float64 if self.double else torch.float32
        deviations = torch.empty(values.shape, dtype=dtype, device=values.device)
        for piece, target in zip(pieces(values), pieces(deviations), strict=True):
            deviation = piece.double().sub_(mean)
            target.copy_(deviation)
            squares += deviation.square_().sum(0)
        return mean, deviations, squares

    def add(self, one: CovarianceState, other: CovarianceState) -> CovarianceState:
        """Products about the common mean, from those about each."""
        if not one.tokens_seen or not other.tokens_seen:
            return one if one.tokens_seen else other
        n = one.tokens_seen + other.tokens_seen
        weight = one.tokens_seen * other.tokens_seen / n
        share = other.tokens_seen / n
        d, e = other.mean - one.mean, other.mean_of_others - one.mean_of_others
        one.products += other.products
        return CovarianceState(
            one.start,
            n,
            one.mean + d * share,
            one.mean_of_others + e * share,
            one.products.addr_(weight * d, e),
            one.squares + other.squares + weight * d * d,
            one.squares_of_others + other.squares_of_others + weight * e * e,
        )


class CrossCovariance(Covariance):
    """Covariance of the units of two points, both of which it is put on.

    The first of the two that a pass reaches is kept until the second is there, so both must be on one stage
    of a pipeline. Memory: 8 bytes for each pair of a unit of the one and a unit of the other, and as much again while
    a batch is taken in. The state is saved at the second: ``recordings()[second].cross_covariance``, with the units of
    the first as rows.

    Args:
        first, second: names of the points, in the order in which a pass reaches them.
        name: under which the state is saved.
    """

    name = "cross_covariance"

    def __init__(self, first: str, second: str, name: str = "") -> None:
        if first == second:
            raise BadProbe(f"Both points are {first}.", "Covariance() is for one point.")
        super().__init__(name=name)
        self.first, self.second = first, second
        self._held: Tensor | None = None

    def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
        point = save_ctx.here.point
        observed = seen(tensor, save_ctx.here).without(*self.left_out)
        if point == self.first:
            self._held = observed.values.double()
            return
        if point != self.second or self._held is None:
            raise BadProbe(
                f"CrossCovariance({self.first!r}, {self.second!r}) has not seen {self.first}.",
                "Put it on both points, first the one that a pass reaches first, on one stage.",
            )
        if len(observed.tokens) or not self.left_out:
            state = getattr(save_ctx, self.name, None)
            setattr(save_ctx, self.name, self._with(state, self._held, observed.values))
        self._held = None

    def needs(self, point: str, units: Callable[[str], int], kept: Collection[str]) -> int:
        """Bytes at the second point, where the products of the units of both are kept; 0 at the first."""
        if point != self.second or self.name in kept:
            return 0
        return self.memory(units(self.first), units(self.second))

    def check(self, dims: Sequence[str], point: str) -> None:
        """As of every recorder; and it may only be put on its two points."""
        super().check(dims, point)
        if point not in (self.first, self.second):
            raise BadProbe(
                f"{point} is neither {self.first} nor {self.second}.", "Put it on those two points."
            )
