"""The strongest connections of units, as more and more partners are looked at.

Between two units with one direction each a connection is a product; where a side has several directions, as a head has, it is the length
of all products. Of each unit the k strongest are kept, and the sum of squares of all, so that what the k are of all of them is
known exactly. Two such are merged: so parts of the work, by ranks or by layers, give together what one would have given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 2**24
"""Products at a time: 64 MiB of float32."""


@dataclass(eq=False)
class Strongest:
    """Of n units the k strongest connections so far.

    Attributes:
        values: float32 [n, k], the strongest by size first; NaN where there are fewer.
        partners: int32 [n, k], the number of each partner; −1 where there is none.
        squares: float64 [n], the sum of squares over all that were looked at.
    """

    values: Tensor
    partners: Tensor
    squares: Tensor

    @classmethod
    def none(cls, units: int, k: int, like: Tensor | None = None) -> Strongest:
        """Of units that have no connection yet, on the device of `like`."""
        import torch

        device = None if like is None else like.device
        return cls(
            torch.full((units, k), math.nan, device=device),
            torch.full((units, k), -1, dtype=torch.int32, device=device),
            torch.zeros(units, dtype=torch.float64, device=device),
        )

    def add(self, units: slice, found: Tensor, first: int = 0) -> None:
        """Look at the connections [units, partner] of some units.

        Args:
            units: which of them.
            found: with partners that are numbered in a row.
            first: the number of the first.
        """
        import torch

        k = min(self.values.shape[1], found.shape[1])
        best = found.abs().topk(k, 1).indices
        values, partners = found.gather(1, best), (best + first).int()
        squares = torch.linalg.vector_norm(found, dim=1).double().square()
        self._merge(units, values, partners, squares)

    def merge(self, other: Strongest, units: slice = slice(None)) -> None:
        """Take in what was found of (some of) the units with other partners."""
        self._merge(units, other.values, other.partners, other.squares)

    def _merge(self, units: slice, values: Tensor, partners: Tensor, squares: Tensor) -> None:
        import torch

        both = torch.cat([self.values[units], values], 1)
        best = both.abs().nan_to_num(nan=-1.0).topk(self.values.shape[1], 1).indices
        self.values[units] = both.gather(1, best)
        self.partners[units] = torch.cat([self.partners[units], partners], 1).gather(1, best)
        self.squares[units] += squares

    @property
    def share(self) -> Tensor:
        """float64 [n]: the sum of squares of the k over that of all; NaN where all are 0."""
        return self.values.double().nan_to_num().square().sum(1) / self.squares

    def cpu(self) -> Strongest:
        """In memory that can travel."""
        return Strongest(self.values.cpu(), self.partners.cpu(), self.squares.cpu())


def products(own: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Connections [rows, partner] of some units at a time, and which they are.

    Args:
        own: the directions of units, [n, width, D].
        others: those of partners.
    """
    flat = others.flatten(0, 1)
    step = max(1, _AT_ONCE // (len(flat) * own.shape[1]))
    for first in range(0, len(own), step):
        part = slice(first, min(first + step, len(own)))
        rows = own[part]
        found = rows.flatten(0, 1) @ flat.T
        if own.shape[1] == others.shape[1] == 1:
            yield part, found
            continue
        found = found.view(len(rows), own.shape[1], len(others), others.shape[1])
        yield part, found.square().sum((1, 3)).sqrt()


def share_of(rank: int, world: int, units: int) -> slice:
    """The units that are a rank's among all ranks: as many as the others', in a row."""
    each = -(-units // world)
    return slice(min(rank * each, units), min((rank + 1) * each, units))
