"""Correlations of units of different points, at a memory that does not grow with their number of pairs.

Every unit keeps `width` sums of its values, each under other signs: a hash of the token's place and of the number of
the sum decides each sign, so they are the same for all units of all points. The product of two such rows is an
unbiased estimate of the sum, over all tokens, of the products of the two units' values (Alon, Matias and Szegedy 1996;
Johnson and Lindenstrauss 1984). The standard error of a correlation is 1 / √width where there is none, and at most
√(2 / width), for any number of tokens, and also where a handful of tokens is all that a unit is large at. That is why
every token is in every sum: throwing each token into one of the sums would be faster, but two such units that met
in one of them would seem to fire together.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder
from garcon_jupyter.recorders.examples import lots
from garcon_jupyter.recorders.observing import Seen, pieces
from garcon_jupyter.recorders.states import State


def _empty() -> Tensor:
    return torch.empty(0)


@dataclass(repr=False)
class SketchState(State):
    """Signed sums of every unit's values.

    Attributes:
        sums: float32 [units, width].
        totals: float64 [units], the sum of all values.
        signs: int64 [width], the sum of the signs of all tokens in each sum.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("signs",)

    sums: Tensor = dataclasses.field(default_factory=_empty)
    totals: Tensor = dataclasses.field(default_factory=_empty)
    signs: Tensor = dataclasses.field(default_factory=_empty)

    @property
    def directions(self) -> Tensor:
        """The sketch of each unit's deviations from its mean, of length 1: float32 [units, width]. The product
        of two, of any points of one run, estimates their correlation; that of a unit without variance is 0."""
        mean = self.totals / max(1, self.tokens_seen)
        centred = self.sums - (mean[:, None] * self.signs[None]).float()
        return torch.nn.functional.normalize(centred.nan_to_num(0.0), dim=1)

    @property
    def error(self) -> float:
        """Standard error of the estimate of a correlation that is 0."""
        return float(self.sums.shape[1] ** -0.5)


class Sketch(Recorder[SketchState]):
    """What correlations with units of other points are estimated from. Memory: 4·width + 8 bytes for each unit.

    Args:
        width: sums; the standard error of a correlation is 1 / √width.
        seed: of the signs; the same for all points that are to be compared.
        name: under which the state is saved.
    """

    name = "sketch"
    state = SketchState
    SPARSE = True

    def __init__(self, width: int = 1024, seed: int = 0, name: str = "") -> None:
        if width < 1:
            raise BadProbe(f"width={width} keeps nothing.", "Give at least 1.")
        self.width, self.seed = int(width), int(seed)
        self.name = name or type(self).name

    def update(self, state: SketchState | None, seen: Seen) -> SketchState:
        """Add the values to the signed sums; the sign of a token in a sum depends on its document and offset alone."""
        units, device = seen.values.shape[1], seen.values.device
        if state is None:
            state = SketchState(
                seen.start,
                0,
                torch.zeros(units, self.width, device=device),
                torch.zeros(units, dtype=torch.float64, device=device),
                torch.zeros(self.width, dtype=torch.long, device=device),
            )
        n = len(seen.values)
        signs = torch.empty(n, self.width, device=device)
        numbers = torch.arange(self.width, device=device)
        for place, target in zip(pieces(seen.places), pieces(signs), strict=True):
            # The first bit of a hash, 0 or −1, as 1 or −1.
            target.copy_((lots(self.seed, place, numbers) >> 63).mul_(2).add_(1))
        if seen.sparse is None:
            for values in seen.pieces():
                state.totals += values.double().sum(0)
        else:
            state.totals += seen.sparse.sums(seen.sparse.value)
        state.signs += signs.sum(0, dtype=torch.float64).long()
        state.sums.addmm_(seen.values.float().T, signs)
        state.tokens_seen += n
        return state

    def memory(self, units: int) -> int:
        """4 bytes for each sum and 8 for each unit, and 8 for each sum that all units share."""
        return units * (4 * self.width + 8) + 8 * self.width

    def add(self, one: SketchState, other: SketchState) -> SketchState:
        """The sum of both: sketches are linear."""
        one.sums = one.sums + other.sums
        one.totals = one.totals + other.totals
        one.signs = one.signs + other.signs
        one.tokens_seen += other.tokens_seen
        return one
