"""Uniform samples: of all values of a unit, and of those in each interval of its activations.

The sample is drawn by lot, once for all: each token and unit has a number, the hash of seed, place and unit, and
the highest are kept. That is a uniform sample without replacement, the same however the data was dealt out
(bottom-k sketches: Cohen and Kaplan 2007).

*Equal-width* intervals cut the range of values into equal parts, most of which are nearly empty; *equal-count*
intervals cut at quantiles, so that each holds the same number of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder, check_counts
from garcon_jupyter.recorders.examples import (
    WORST,
    Examples,
    drawn,
    least_lot,
    lot_parts,
    lots,
    score_of,
)
from garcon_jupyter.recorders.observing import Seen

_LOTS = 1 << 16
"""Lots that are drawn at a time: 512 KB."""

_STRETCH = 32
"""Tokens of a stretch at least."""

_WAITING = 1 << 17
"""Values that may be kept, and are not yet compared with those that are."""


class Reservoir(Recorder[Examples]):
    """k values of every unit, drawn uniformly.

    Args:
        k: how many.
        seed: of the drawing.
        before: how many tokens before each to keep, with the unit's values there.
        after: the same after it.
        name: under which the state is saved.
    """

    name = "reservoir"
    SPARSE = True
    state = Examples

    def __init__(
        self, k: int = 20, seed: int = 0, before: int = 0, after: int = 0, name: str = ""
    ) -> None:
        check_counts(k=k, before=before, after=after)
        if k < 1 or before < 0 or after < 0:
            raise BadProbe(f"k={k}, before={before}, after={after} keep nothing.", "Give k ≥ 1.")
        self.k, self.seed = int(k), int(seed)
        self.before, self.after = int(before), int(after)
        self.name = name or type(self).name

    def groups_per_unit(self) -> int:
        """How many samples are drawn of each unit."""
        return 1

    def update(self, state: Examples | None, seen: Seen) -> Examples:
        """Keep the tokens with the k highest lots; a lot depends on document and offset alone, so any cut of the data draws the same."""
        n, units = seen.values.shape
        per_unit = self.groups_per_unit()
        if state is None:
            # Units of several groups: the first group of a unit is numbered unit·groups.
            state = Examples.empty(
                units * per_unit,
                self.k,
                seen.start * per_unit,
                self.before,
                self.after,
                seen.values.device,
            )
        state.tokens_seen += n
        self._draw(state, seen)
        return state

    def memory(self, units: int) -> int:
        """Bytes of value, document and offset of each slot, and of its window."""
        return Examples.memory(units * self.groups_per_unit(), self.k, self.before, self.after)

    def _draw(self, state: Examples, seen: Seen) -> None:
        """Take in the tokens whose lots are among the k highest of a unit, a stretch of tokens after the other.

        One look at the highest lot of a unit tells whether any of a stretch is: after the first batches few are.
        """
        n, units = seen.values.shape
        numbers = torch.arange(units, device=seen.values.device)
        of_tokens, of_units = lot_parts(self.seed, seen.places, numbers + seen.start)
        least = least_lot(state.worst)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        device = seen.values.device
        waiting, size = 0, max(_STRETCH, _at_a_time(device) // max(1, units))
        highest = _HighestLots(of_units)
        for first in range(0, n, size):
            tokens = of_tokens[first : first + size, None]
            some = (highest.of(tokens) >= least).nonzero().flatten()
            lots = drawn(tokens, of_units[some])
            token, which = (lots >= least[some]).nonzero(as_tuple=True)
            found.append((token + first, some[which], score_of(lots[token, which])))
            waiting += len(token)
            if waiting > _WAITING or first + size >= n:
                token, unit, score = (torch.cat(column) for column in zip(*found, strict=True))
                value = seen.at(token, unit)
                real = ~value.isnan()
                if not bool(real.all()):
                    token, unit, score, value = (x[real] for x in (token, unit, score, value))
                state.offer(unit, score, value, token, unit, seen)
                least = least_lot(state.worst)
                found, waiting = [], 0

    def add(self, one: Examples, other: Examples) -> Examples:
        """The k highest lots of both."""
        one.tokens_seen += other.tokens_seen
        one.take_all(other)
        return one


class _HighestLots:
    """The highest lot of each unit in a stretch of tokens, found in memory that stays in a core's cache.

    Args:
        of_units: what lots are drawn from, of each unit.
    """

    def __init__(self, of_units: Tensor) -> None:
        self._of_units, self._most = of_units, _at_a_time(of_units.device)
        self._room = of_units.new_empty(0)
        self._highest = torch.empty_like(of_units)

    def of(self, tokens: Tensor) -> Tensor:
        """int64 [units]; the next call writes into the same.

        Args:
            tokens: what lots are drawn from, of each token, [n, 1].
        """
        n, total = tokens.shape[0], self._of_units.shape[0]
        width = min(max(1, self._most // n), total)
        if self._room.shape[0] < n * width:
            self._room = self._of_units.new_empty(n * width)
        for first in range(0, total, width):
            units = min(width, total - first)
            room = self._room[: n * units].view(n, units)
            lots = drawn(tokens, self._of_units[first : first + units], room)
            torch.amax(lots, 0, out=self._highest[first : first + units])
        return self._highest


def _at_a_time(device: torch.device) -> int:
    """Lots that are drawn at a time: as many as a core's cache holds; more where there is an accelerator."""
    return _LOTS if device.type == "cpu" else 512 * _LOTS


class EqualWidthReservoir(Reservoir):
    """k values of every unit from each of several equal parts of a range, drawn uniformly in each.

    The state has one group for each unit and interval: ``state.values.unflatten(0, (-1, intervals))`` is
    [units, intervals, k]. Values outside of the range are in no interval.

    Args:
        low: where the range begins.
        high: where it ends; `high` itself belongs to the last interval.
        intervals: into how many equal parts it is cut.
        k: how many values of each interval.
        seed, before, after, name: as for :class:`Reservoir`.
    """

    name = "equal_width"
    SPARSE = True

    def __init__(
        self,
        low: float,
        high: float,
        intervals: int = 10,
        k: int = 5,
        seed: int = 0,
        before: int = 0,
        after: int = 0,
        name: str = "",
    ) -> None:
        super().__init__(k, seed, before, after, name)
        if not low < high or intervals < 1:
            raise BadProbe(
                f"[{low}, {high}] in {intervals} parts are no intervals.", "Give low < high."
            )
        self.low, self.high, self.intervals = float(low), float(high), int(intervals)

    @property
    def edges(self) -> Tensor:
        """Where the intervals begin and end, float32 [intervals + 1]."""
        return torch.linspace(self.low, self.high, self.intervals + 1)

    def groups_per_unit(self) -> int:
        """One sample for each interval."""
        return self.intervals

    def _draw(self, state: Examples, seen: Seen) -> None:
        # At first nearly everything would be kept: so the slots are filled piece by piece.
        filling = bool((state.worst == WORST).any())
        found: list[tuple[Tensor, ...]] = []
        first = 0
        for values in seen.pieces():
            found.append(self._drawn(state, seen, values, first))
            first += len(values)
            if filling or first == len(seen.values):
                group, score, token, unit = (
                    torch.cat(column) for column in zip(*found, strict=True)
                )
                state.offer(group, score, seen.at(token, unit), token, unit, seen)
                found.clear()

    def _drawn(self, state: Examples, seen: Seen, values: Tensor, first: int) -> tuple[Tensor, ...]:
        """(group, score, token, unit) of every value of a piece that may be kept.

        Args:
            first: which of the tokens seen the piece begins with.
        """
        units = torch.arange(values.shape[1], device=values.device)
        each = lots(self.seed, seen.places[first : first + len(values)], units + seen.start)
        group = self._groups(values, units)
        token, unit = (each >= least_lot(state.worst[group])).nonzero(as_tuple=True)
        group = group[token, unit]
        usable = (group >= 0) & ~values[token, unit].isnan()
        token, unit, group = token[usable], unit[usable], group[usable]
        return group, score_of(each[token, unit]), token + first, unit

    def _groups(self, values: Tensor, units: Tensor) -> Tensor:
        """The group of each value, [n, units]; −1 for none."""
        values = values.float()
        edges = self.edges.to(values.device)
        part = torch.bucketize(values.contiguous(), edges[1:-1], right=True)
        inside = (values >= edges[0]) & (values <= edges[-1])
        return torch.where(inside, units * self.intervals + part, -1)


class EqualCountReservoir(Reservoir):
    """A uniform sample of every unit, to be cut at its quantiles.

    Where the quantiles are is known at the end only. So `sample` values are drawn of each unit, and
    :func:`equal_count` cuts them into intervals of equal numbers of values.

    Args:
        intervals: how many intervals.
        k: how many values of each.
        seed, before, after, name: as for :class:`Reservoir`.
    """

    name = "equal_count"
    SPARSE = True

    def __init__(
        self,
        intervals: int = 10,
        k: int = 5,
        seed: int = 0,
        before: int = 0,
        after: int = 0,
        name: str = "",
    ) -> None:
        if intervals < 1:
            raise BadProbe(f"{intervals} intervals are none.", "Give intervals ≥ 1.")
        super().__init__(intervals * k, seed, before, after, name)
        self.intervals = int(intervals)


def equal_count(sample: Examples, intervals: int) -> Tensor:
    """Cut the sample of each unit into intervals of equally many values.

    Returns:
        int64 [units, intervals, k]: slots of the sample, the lowest interval first; −1 where the sample was
        too small.
    """
    order = sample.values.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)
    counts = sample.filled.sum(1)
    k = sample.k // intervals
    each = counts // intervals
    first = torch.arange(intervals, device=order.device)[None, :, None] * each[:, None, None]
    within = torch.arange(k, device=order.device)[None, None, :]
    index = (first + within).clamp(max=sample.k - 1)
    slots = order.gather(1, index.flatten(1)).view(index.shape)
    return torch.where(within < each[:, None, None].clamp(max=k), slots, -1)
