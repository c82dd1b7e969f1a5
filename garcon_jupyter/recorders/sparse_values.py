"""Values most of which are 0, as latents of a dictionary are: only those that are not are held.

A dictionary of 16,384 latents of which 32 are on has 512 zeros for each other value. Recorders that say so (``SPARSE``) are shown
the others, with where they are, and count the zeros by what is missing. What they keep is what they would of all values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseValues:
    """The values [n, units] that are not 0, by token, then by unit.

    Attributes:
        token: int64 [m], the token of each.
        unit: int64 [m], its unit.
        value: [m].
        n: how many tokens there are.
        units: how many units.
    """

    token: Tensor
    unit: Tensor
    value: Tensor
    n: int
    units: int

    @classmethod
    def of(cls, tensor: Tensor) -> SparseValues:
        """Of a coalesced sparse tensor [b, p, units]; positions of all rows are counted as one."""
        row, position, unit = tensor.indices()
        b, p, units = tensor.shape
        return cls(row * p + position, unit, tensor.values(), b * p, units)

    @property
    def tensor(self) -> Tensor:
        """As a sparse tensor [n, units]."""
        where = torch.stack([self.token, self.unit])
        return torch.sparse_coo_tensor(
            where, self.value, (self.n, self.units), is_coalesced=True, check_invariants=False
        )

    @cached_property
    def _keys(self) -> Tensor:
        return self.token * self.units + self.unit

    @cached_property
    def counts(self) -> Tensor:
        """How many values of each unit are not 0, int64 [units]."""
        return torch.bincount(self.unit, minlength=self.units)

    def at(self, token: Tensor, unit: Tensor) -> Tensor:
        """The values of tokens and units beside each other, of the shape that both make together."""
        keys = token * self.units + unit
        if not len(self.value):
            return self.value.new_zeros(keys.shape)
        found = torch.searchsorted(self._keys, keys).clamp_(max=len(self._keys) - 1)
        return self.value[found].masked_fill_(self._keys[found] != keys, 0)

    @cached_property
    def _by_unit(self) -> tuple[Tensor, Tensor]:
        """By unit, then by token: ``unit · n + token``, and the values."""
        keys, order = (self.unit * self.n + self.token).sort()
        return keys, self.value[order]

    def around(self, token: Tensor, unit: Tensor, before: int, width: int) -> Tensor:
        """The values of units at the tokens around others, [c, width], of which so many stand before; 0 beyond the ends.

        In the order by unit the values of a window stand side by side, so each window is looked up once.
        """
        keys, values = self._by_unit
        start, first = token - before, unit * self.n
        low = torch.searchsorted(keys, first + start.clamp(min=0))
        high = torch.searchsorted(keys, first + (start + width).clamp(max=self.n))
        counts = high - low
        which = torch.arange(len(token), device=token.device).repeat_interleave(counts)
        behind = counts.cumsum(0) - counts
        slot = torch.arange(len(which), device=token.device) + (low - behind)[which]
        found = values.new_zeros(len(token), width)
        found[which, keys[slot] - (first + start)[which]] = values[slot]
        return found

    def of_tokens(self, index: Tensor) -> SparseValues:
        """Those of some tokens, int64 ascending, which are counted anew."""
        number = torch.full((self.n,), -1, device=index.device)
        number[index] = torch.arange(len(index), device=index.device)
        token = number[self.token]
        kept = token >= 0
        return SparseValues(token[kept], self.unit[kept], self.value[kept], len(index), self.units)

    def pieces(self, size: int) -> Iterator[Tensor]:
        """All values, zeros as well, of so many tokens at a time, [size, units]."""
        firsts = torch.arange(0, self.n + size, size, device=self.token.device)
        bounds = torch.searchsorted(self.token, firsts).tolist()
        for number, first in enumerate(range(0, self.n, size)):
            part = slice(bounds[number], bounds[number + 1])
            piece = self.value.new_zeros(min(size, self.n - first), self.units)
            piece[self.token[part] - first, self.unit[part]] = self.value[part]
            yield piece

    def sums(self, values: Tensor) -> Tensor:
        """Sums by unit of numbers beside the values, float64 [units]."""
        zero = torch.zeros(self.units, dtype=torch.float64, device=values.device)
        return zero.index_add_(0, self.unit, values.double())

    def extreme(self, which: str) -> Tensor:
        """The smallest (`amin`) or largest (`amax`) value of each unit, zeros counted, [units]."""
        start = self.value.new_zeros(self.units)
        everywhere = self.counts == self.n  # no zero among them
        found = start.scatter_reduce(0, self.unit, self.value, which, include_self=True)
        alone = start.scatter_reduce(0, self.unit, self.value, which, include_self=False)
        return torch.where(everywhere, alone, found)

    def first_zeros(self, units: Tensor, k: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """(token, unit) of the k zeros of earliest place of each of these units; fewer where there are fewer.

        Args:
            units: int64 [u].
            places: int64 [n], of the tokens.
        """
        order = places.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.n, device=order.device)
        keys = (self.unit * self.n + rank[self.token]).sort().values
        unit, ranks = keys // max(1, self.n), keys % max(1, self.n)
        firsts = torch.searchsorted(unit, torch.arange(self.units, device=unit.device))
        number = torch.arange(len(unit), device=unit.device) - firsts[unit]
        # Before the i-th of a unit's other values stand `rank - i` zeros: so the j-th zero stands behind those of which
        # that is at most j.
        zeros_before = unit * (self.n + 1) + (ranks - number)
        j = torch.arange(k, device=unit.device)
        asked = units[:, None] * (self.n + 1) + j.clamp(max=self.n)
        behind = torch.searchsorted(zeros_before, asked, right=True) - firsts[units][:, None]
        found = j + behind
        which, slot = (found < self.n).nonzero(as_tuple=True)
        return order[found[which, slot]], units[which]
