"""Two-sided random projections of the data's gradients, and a directory of them that bergson reads.

Of a matrix G each datum keeps P G Qᵀ, k × k numbers, for random P and Q with entries of mean 0 and variance 1 / k. A dot product of two is an estimate of that
of the gradients, without bias. Both are drawn from a seed and the weight's name, so that a query is projected alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from garcon_jupyter.training.gradients.outliers import Unit, gradient_of

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.training.gradients.per_datum import PerDatum


class Projections:
    """Projects the gradients of batches.

    Args:
        units: the weights.
        k: numbers on a side; 0 for none.
        seed: of the random matrices.
    """

    def __init__(self, units: Sequence[Unit], k: int, seed: int) -> None:
        self.units, self.k, self.seed = list(units), k, seed
        self._made: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def size(self) -> int:
        """How many numbers a datum has, of all weights."""
        return self.k * self.k * len(self.units)

    def matrices(self, unit: Unit) -> tuple[Tensor, Tensor]:
        """P [k, rows] and Q [k, columns] of a weight, float32."""
        if unit.name not in self._made:
            self._made[unit.name] = (
                _drawn(f"{self.seed}/{unit.name}/left", self.k, unit.rows),
                _drawn(f"{self.seed}/{unit.name}/right", self.k, unit.columns),
            )
        return self._made[unit.name]

    def of(self, batch: PerDatum) -> Tensor:
        """[data, units · k · k]; NaN for a weight that could not be covered."""
        import torch

        found = []
        for unit in self.units:
            left, right = self.matrices(unit)
            if unit.parameter not in batch.sites:
                projected = torch.full((len(batch.data), self.k, self.k), float("nan"))
            elif unit.part is None:
                projected = batch.projection(unit.parameter, left, right)
            else:
                whole = gradient_of(batch, unit)
                projected = left.to(whole) @ whole @ right.to(whole).T
            found.append(projected.flatten(1))
        return torch.cat(found, 1)


def _drawn(name: str, rows: int, columns: int) -> Tensor:
    """A matrix [rows, columns] of normal numbers of variance 1 / rows, which its name decides."""
    import torch

    made = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    drawn = torch.randn(rows, columns, generator=made)
    scaled: Tensor = drawn / float(rows) ** 0.5
    return scaled
