"""The k largest entries of each datum's gradient over many matrices, exactly; of equal ones those with the lower index.

Entries are counted through all matrices in their order, row by row. Rows that cannot hold one of the largest are not
worked out: no entry of row r exceeds ‖b_r‖ · max over c of ‖a_c‖ (Cauchy and Schwarz), which matters for tables of a
vocabulary's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.training.gradients.sites import LookupSite, OuterSite, Site

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.training.gradients.per_datum import PerDatum

Array = np.ndarray[Any, Any]

PRUNED_FROM = 1 << 20
"""Matrices with as many entries are worked out row by row, where a row can matter."""

MARGIN = 1 + 1e-4
"""A bound is taken as this much higher: it is a sum of rounded numbers."""


@dataclass(frozen=True)
class Unit:
    """A matrix whose entries are looked at.

    Attributes:
        name: of the parameter, with the number of the expert behind it where that is a stack.
        parameter: its name.
        part: which of a stack of matrices; None for a matrix by itself.
        rows: size of its first dimension.
        columns: size of its second.
        first: number of its first entry.
    """

    name: str
    parameter: str
    part: int | None
    rows: int
    columns: int
    first: int

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self.rows * self.columns


def units_of(shapes: Mapping[str, Sequence[int]]) -> list[Unit]:
    """Units of some weights, one after the other; of a stack of experts' each is one."""
    found: list[Unit] = []
    first = 0
    for name, (*above, rows, columns) in shapes.items():
        for part in range(int(np.prod(above))):
            named = f"{name}[{part}]" if above else name
            found.append(Unit(named, name, part if above else None, rows, columns, first))
            first += rows * columns
    return found


def gradient_of(batch: PerDatum, unit: Unit) -> Tensor:
    """The gradient of a unit, [data, rows, columns]."""
    whole = batch.gradient(unit.parameter)
    return whole if unit.part is None else whole.flatten(1, -3)[:, unit.part]


@dataclass
class _Candidates:
    """Entries of one datum that may be among the largest."""

    places: list[Array]
    values: list[Array]

    def add(self, places: Array, values: Array) -> None:
        if len(places):
            self.places.append(places)
            self.values.append(values)

    def joined(self) -> tuple[Array, Array]:
        if not self.places:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        return np.concatenate(self.places), np.concatenate(self.values)

    def largest(self, k: int) -> tuple[Array, Array]:
        """The k largest of them, in order."""
        places, values = self.joined()
        sizes = np.abs(values)
        if len(places) > 4 * k:
            least = np.partition(sizes, len(sizes) - k)[len(sizes) - k]
            kept = sizes >= least
            places, values, sizes = places[kept], values[kept], sizes[kept]
        order = np.lexsort((places, -sizes))[:k]
        return places[order], values[order]


class Outliers:
    """Finds them, batch by batch.

    Args:
        units: the weights.
        k: how many of each datum.
        prune: whether rows that cannot matter are left out; the result is the same.
    """

    def __init__(self, units: Sequence[Unit], k: int, prune: bool = True) -> None:
        self.units, self.k, self.prune = list(units), min(k, sum(u.size for u in units)), prune
        self._ratio = 0.0  # of the k-th largest to the largest entry, in the batch before

    def of(self, batch: PerDatum) -> list[tuple[Array, Array]]:
        """(places int64 [k], values [k]) of each datum, the largest first.

        Numbers that are not finite are left out, and a datum may then have fewer than k.
        """
        units = [u for u in self.units if u.parameter in batch.sites]
        dense = [u for u in units if not (self.prune and u.size >= PRUNED_FROM and u.part is None)]
        large = [u for u in units if u not in dense]
        found = [_Candidates([], []) for _ in batch.data]
        if self.k == 0:
            return [each.joined() for each in found]
        least = self._dense(dense, batch, found)
        for unit in large:
            least = self._pruned(unit, batch, found, least)
        results = []
        for number, each in enumerate(found):
            places, values = each.largest(self.k)
            if len(places) < self.k:
                places, values = self._with_zeros(batch, number, places, values)
            results.append((places, values))
        full = [abs(v[-1]) / abs(v[0]) for _, v in results if len(v) == self.k and v[0] != 0]
        self._ratio = 0.7 * float(min(full, default=0.0))
        return results

    def _dense(self, units: Sequence[Unit], batch: PerDatum, found: list[_Candidates]) -> Array:
        """Look at small matrices, and return for each datum a number that its k-th largest is not below."""
        import torch

        least = np.zeros(len(batch.data))
        if not units:
            return least
        gradients = [gradient_of(batch, unit).flatten(1) for unit in units]
        sizes = [each.abs() for each in gradients]
        guess = torch.stack([each.amax(1) for each in sizes]).amax(0) * self._ratio
        todo = list(range(len(found)))
        if self._ratio:
            for unit, values, size in zip(units, gradients, sizes, strict=True):
                where = (size >= guess[:, None]).nonzero()
                _add(found, unit, where, values)
            counts = [sum(map(len, each.places)) for each in found]
            todo = [n for n, count in enumerate(counts) if count < self.k or guess[n] == 0]
        for number in todo:
            found[number].places.clear()
            found[number].values.clear()
            flat = torch.cat([each[number] for each in sizes]).nan_to_num(nan=0.0)
            k = min(self.k, len(flat))
            kth = np.partition(flat.numpy(), len(flat) - k)[len(flat) - k]
            for unit, values, size in zip(units, gradients, sizes, strict=True):
                places = ((size[number] >= kth) & (size[number] > 0)).nonzero()[:, 0]
                found[number].add(places.numpy() + unit.first, values[number][places].numpy())
        for number, each in enumerate(found):
            known = np.abs(each.joined()[1])
            if len(known) >= self.k:
                least[number] = np.partition(known, len(known) - self.k)[len(known) - self.k]
        return least

    def _pruned(self, unit: Unit, batch: PerDatum, found: list[_Candidates], least: Array) -> Array:
        """Look at those rows of a large matrix that may matter."""
        import torch

        sites = batch.sites[unit.parameter]
        bounds = _bounds(sites, unit) * MARGIN
        for number, each in enumerate(found):
            bound = bounds[number]
            if least[number] == 0:  # from the rows that are promising, a first number
                ahead = min(unit.rows, -(-4 * self.k // unit.columns))
                rows = bound.topk(ahead).indices.sort().values
                values = torch.cat([_rows(site, number, rows) for site in sites[:1]])
                for site in sites[1:]:
                    values = values + _rows(site, number, rows)
                flat = values.abs().flatten().nan_to_num(nan=0.0).numpy()
                if len(flat) >= self.k:
                    least[number] = np.partition(flat, len(flat) - self.k)[len(flat) - self.k]
            rows = (bound >= least[number]).nonzero()[:, 0]
            if not len(rows):
                continue
            values = _rows(sites[0], number, rows)
            for site in sites[1:]:
                values = values + _rows(site, number, rows)
            size = values.abs()
            where = ((size >= least[number]) & (size > 0)).nonzero()
            places = rows[where[:, 0]] * unit.columns + where[:, 1] + unit.first
            each.add(places.numpy(), values[where[:, 0], where[:, 1]].numpy())
            sizes = np.abs(each.joined()[1])
            if len(sizes) >= self.k:
                kth = np.partition(sizes, len(sizes) - self.k)[len(sizes) - self.k]
                least[number] = max(least[number], kth)
        return least

    def _with_zeros(
        self, batch: PerDatum, number: int, places: Array, values: Array
    ) -> tuple[Array, Array]:
        """Entries that are zero, by their index, where fewer than k are not."""
        zeros: list[Array] = []
        lacking = self.k - len(places)
        for unit in self.units:
            if lacking <= 0:
                break
            if unit.parameter not in batch.sites:
                continue
            flat = gradient_of(batch, unit)[number].flatten()
            at = (flat == 0).nonzero()[:lacking, 0].numpy() + unit.first
            zeros.append(at)
            lacking -= len(at)
        more = np.concatenate([np.empty(0, np.int64), *zeros])
        return np.concatenate([places, more]), np.concatenate(
            [values, np.zeros(len(more), values.dtype)]
        )


def _add(found: list[_Candidates], unit: Unit, where: Tensor, values: Tensor) -> None:
    """Entries by datum; `where` is sorted by datum."""
    import torch

    picked = values[where[:, 0], where[:, 1]].numpy()
    counts = torch.bincount(where[:, 0], minlength=len(found)).tolist()
    places = where[:, 1].numpy() + unit.first
    start = 0
    for each, count in zip(found, counts, strict=True):
        each.add(places[start : start + count], picked[start : start + count])
        start += count


def _bounds(sites: Sequence[Site], unit: Unit) -> Tensor:
    """[data, rows]: no entry of a row is larger."""
    import torch

    found: Tensor | None = None
    for each in _each_bound(sites, unit):
        found = each if found is None else found + each
    assert found is not None
    return torch.nan_to_num(found, nan=float("inf"))


def _each_bound(sites: Sequence[Site], unit: Unit) -> Iterator[Tensor]:
    for site in sites:
        if isinstance(site, OuterSite):
            yield site.rows.norm(dim=1) * site.columns.norm(dim=1).amax(1, keepdim=True)
        elif isinstance(site, LookupSite):
            largest = site.outputs.abs().amax(2)
            found = largest.new_zeros(len(site.tokens), unit.rows)
            yield found.scatter_add_(1, site.tokens, largest)
        else:
            yield site.gradient().reshape(-1, unit.rows, unit.columns).abs().amax(2)


def _rows(site: Site, number: int, rows: Tensor) -> Tensor:
    """Some rows of the gradient of one datum."""
    if isinstance(site, OuterSite):
        return site.rows[number][:, rows].T @ site.columns[number]
    if isinstance(site, LookupSite):
        found = site.outputs.new_zeros(len(rows), site.outputs.shape[2])
        place = site.tokens.new_full((site.count,), -1)
        place[rows] = rows.new_tensor(range(len(rows)))
        at = place[site.tokens[number]]
        return found.index_add_(0, at[at >= 0], site.outputs[number][at >= 0])
    flat = site.gradient_of(number)
    return flat.reshape(-1, flat.shape[-1])[rows]
